//! Counting the refusals of strangers, so that nobody can fill the disk from outside.
//!
//! Owns the counts of the current window, by code, failed check, status and source
//! network. Must never grow past its bound, and
//! never lose a refusal: what does not fit is counted as `other`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cofferdam_model::UnixNanos;

use crate::record::Tally;

/// Kinds of refusal counted apart in one window.
const KINDS: usize = 1_024;
const OTHER: &str = "other";

/// The counts of a window.
pub(crate) struct Rollup {
    from: UnixNanos,
    counts: BTreeMap<(String, Option<String>, u16, IpAddr), u64>,
    other: u64,
}

/// One count of a window that is over.
pub(crate) struct Counted {
    code: String,
    check: Option<String>,
    status: u16,
    network: String,
    count: u64,
    from: UnixNanos,
}

impl Counted {
    pub(crate) fn as_tally(&self) -> Tally<'_> {
        Tally {
            check: self.check.as_deref(),
            code: &self.code,
            status: self.status,
            network: &self.network,
            count: self.count,
            from: self.from,
        }
    }
}

impl Rollup {
    pub(crate) fn new(from: UnixNanos) -> Self {
        Self { from, counts: BTreeMap::new(), other: 0 }
    }

    pub(crate) fn add(&mut self, (code, check): (&str, Option<&str>), status: u16, source: IpAddr) {
        let short = |text: &str| text.chars().take(64).collect::<String>();
        let key = (short(code), check.map(short), status, network_of(source));
        if let Some(count) = self.counts.get_mut(&key) {
            *count = count.saturating_add(1);
        } else if self.counts.len() < KINDS {
            self.counts.insert(key, 1);
        } else {
            self.other = self.other.saturating_add(1);
        }
    }

    /// Ends the window and begins the next.
    pub(crate) fn take(&mut self, now: UnixNanos) -> Vec<Counted> {
        let from = std::mem::replace(&mut self.from, now);
        let counts = std::mem::take(&mut self.counts).into_iter();
        let mut counted: Vec<Counted> = counts
            .map(|((code, check, status, network), count)| Counted {
                code,
                check,
                status,
                network: shown(network),
                count,
                from,
            })
            .collect();
        let other = std::mem::take(&mut self.other);
        if other > 0 {
            let (code, network) = (OTHER.into(), OTHER.into());
            counted.push(Counted { code, check: None, status: 0, network, count: other, from });
        }
        counted
    }
}

/// The /24 or /48 an address is in. An IPv4 address in IPv6 clothes is one all the same.
fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !((1 << 80) - 1)).into(),
    }
}

fn shown(network: IpAddr) -> String {
    let bits = if network.is_ipv4() { 24 } else { 48 };
    format!("{network}/{bits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rollup: &mut Rollup) -> Vec<(String, u16, String, u64)> {
        rollup.take(UnixNanos(2)).into_iter().map(|c| (c.code, c.status, c.network, c.count)).collect()
    }

    #[test]
    fn refusals_are_counted_by_code_status_and_network() {
        let mut rollup = Rollup::new(UnixNanos(1));
        for source in
            ["192.0.2.1", "192.0.2.200", "::ffff:192.0.2.3", "192.0.3.1", "2001:db8:1:2::1", "2001:db8:1:3::1"]
        {
            rollup.add(("unauthenticated", None), 401, source.parse().unwrap());
        }
        let row = |network: &str, count| ("unauthenticated".to_owned(), 401, network.to_owned(), count);
        assert_eq!(rows(&mut rollup), [row("192.0.2.0/24", 3), row("192.0.3.0/24", 1), row("2001:db8:1::/48", 2)]);
        assert_eq!(rows(&mut rollup), []);
    }

    #[test]
    fn refusals_by_different_checks_are_counted_apart() {
        let mut rollup = Rollup::new(UnixNanos(1));
        for check in [Some("expired"), None, Some("signature"), Some("expired")] {
            rollup.add(("unauthenticated", check), 401, Ipv4Addr::LOCALHOST.into());
        }
        let told: Vec<_> = rollup.take(UnixNanos(2)).into_iter().map(|c| (c.check, c.count)).collect();
        assert_eq!(told, [(None, 1), (Some("expired".into()), 2), (Some("signature".into()), 1)]);
    }

    #[test]
    fn a_flood_from_everywhere_stays_bounded_and_counted() {
        let mut rollup = Rollup::new(UnixNanos(1));
        for n in 0..5_000u32 {
            rollup.add(("malformed", None), 400, Ipv4Addr::from_bits(n << 8).into());
        }
        let rows = rows(&mut rollup);
        assert_eq!(rows.len(), KINDS + 1);
        assert_eq!(rows.iter().map(|row| row.3).sum::<u64>(), 5_000);
        assert_eq!(rows.last().unwrap(), &("other".to_owned(), 0, "other".to_owned(), 5_000 - KINDS as u64));
    }
}
