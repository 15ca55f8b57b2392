//! Hosts at which machines show certificates.
//!
//! Owns which host is whose door, and what a call must have come by to be let in there. Must never have one tenant's
//! authorities asked at another's host, nor a session of one be resumed at another's or under other authorities.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use cofferdam_authz::{ClientAuthorities, PeerCertificate};
use cofferdam_control::{Snapshot, TenantEntry};
use cofferdam_model::{Circumstances, TenantId};
use rustls::ServerConfig;

use crate::pipeline::is_reserved;
use crate::refusal::Refusal;

/// The door of one tenant's hosts, for as long as its authorities stay the same.
#[derive(Debug)]
pub struct Door {
    pub(crate) tenant: TenantId,
    pub(crate) authorities: Arc<ClientAuthorities>,
    /// What handshakes at it are made with. Its memory of sessions goes with it.
    pub(crate) config: OnceLock<Arc<ServerConfig>>,
}

/// Doors by host.
#[derive(Debug, Default)]
pub(crate) struct Doors(HashMap<Arc<str>, Host>);

/// A host that somebody has a route at.
#[derive(Debug, Clone)]
struct Host {
    /// Whose routes are there.
    owners: Arc<BTreeSet<TenantId>>,
    /// Where it is one tenant's alone, and that has authorities.
    door: Option<Arc<Door>>,
}

/// What of a tenant counts here, at one moment. One that is shut has no doors.
#[derive(Debug, Clone)]
pub(crate) struct Standing<'a> {
    tenant: &'a TenantId,
    hosts: Vec<&'a str>,
    authorities: Option<&'a Arc<ClientAuthorities>>,
}

impl<'a> Standing<'a> {
    pub(crate) fn of(tenant: &'a TenantEntry) -> Option<Self> {
        let hosts = tenant.routes().map(|route| route.spec.host.as_str()).collect();
        tenant.active.then(|| Self { tenant: &tenant.id, hosts, authorities: tenant.authorities() })
    }
}

/// A tenant as it was and as it is; absent where there was none, or it is shut.
pub(crate) type Turn<'a> = (Option<Standing<'a>>, Option<Standing<'a>>);

/// What a connection came by.
#[derive(Debug, Clone)]
pub struct CameBy {
    /// The door its handshake named.
    pub(crate) tenant: TenantId,
    /// What was shown there, if anything was.
    pub(crate) certificate: Option<Arc<PeerCertificate>>,
}

impl Doors {
    /// Every host that belongs to one tenant alone, if that has authorities.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let turned: Vec<_> = snapshot.tenants().map(|tenant| (None, Standing::of(tenant))).collect();
        Self::default().then(&turned, |tenant| Standing::of(snapshot.tenant(tenant)?))
    }

    /// The doors after these tenants changed. Hosts that none of them has or had a route at stay as they are, and so
    /// does the door of a tenant whose authorities are the same. `now` tells how any tenant stands.
    pub(crate) fn then<'a>(&self, turned: &[Turn<'_>], now: impl Fn(&TenantId) -> Option<Standing<'a>>) -> Self {
        let mut hosts = self.0.clone();
        let mut touched: BTreeMap<&str, BTreeSet<TenantId>> = BTreeMap::new();
        for (standing, stays) in turned.iter().flat_map(|(before, after)| [(before, false), (after, true)]) {
            let Some(standing) = standing else { continue };
            for host in &standing.hosts {
                let known = || hosts.get(*host).map(|host| (*host.owners).clone()).unwrap_or_default();
                let owners = touched.entry(*host).or_insert_with(known);
                if stays {
                    owners.insert(standing.tenant.clone());
                } else {
                    owners.remove(standing.tenant);
                }
            }
        }
        let mut made: HashMap<TenantId, Arc<Door>> = HashMap::new();
        for (host, owners) in touched {
            if owners.is_empty() {
                hosts.remove(host);
                continue;
            }
            // Two tenants on one host have no authority in common, and any host is nobody's.
            let alone = owners.first().filter(|_| owners.len() == 1 && host != "*");
            let door = alone.and_then(&now).and_then(|owner| self.door_of(&owner, &mut made));
            hosts.insert(host.into(), Host { owners: Arc::new(owners), door });
        }
        Self(hosts)
    }

    /// The one door of a tenant, if it has authorities: that which it had, as long as they are the same.
    fn door_of(&self, owner: &Standing<'_>, made: &mut HashMap<TenantId, Arc<Door>>) -> Option<Arc<Door>> {
        let authorities = owner.authorities?;
        let same = |door: &&Arc<Door>| door.tenant == *owner.tenant && Arc::ptr_eq(&door.authorities, authorities);
        let kept = || owner.hosts.iter().find_map(|host| self.at(host).filter(same)).cloned();
        let new = || {
            let (tenant, authorities) = (owner.tenant.clone(), authorities.clone());
            Arc::new(Door { tenant, authorities, config: OnceLock::new() })
        };
        Some(made.entry(owner.tenant.clone()).or_insert_with(|| kept().unwrap_or_else(new)).clone())
    }

    /// Everybody who has a route at one of these hosts.
    pub(crate) fn owners(&self, hosts: &HashSet<&str>) -> BTreeSet<&TenantId> {
        hosts.iter().filter_map(|host| self.0.get(*host)).flat_map(|host| host.owners.iter()).collect()
    }

    /// The door of a host, in lower case and without port.
    pub(crate) fn at(&self, host: &str) -> Option<&Arc<Door>> {
        self.0.get(host)?.door.as_ref()
    }

    /// Refuses a call on a connection that did not come by the door of its host, where that matters: where it shows a
    /// certificate, which is one tenant's, and where the host wants one. The platform's own paths want none.
    pub(crate) fn check(&self, at: &Circumstances, came: Option<&CameBy>) -> Result<(), Refusal> {
        let certificate = came.and_then(|came| came.certificate.as_ref());
        let Some(door) = self.at(&at.host) else {
            return if certificate.is_none() { Ok(()) } else { Err(Refusal::Misdirected) };
        };
        let through = came.is_some_and(|came| came.tenant == door.tenant);
        match (through, certificate.is_some(), door.authorities.required() && !is_reserved(&at.path)) {
            (true, true, _) | (_, false, false) => Ok(()),
            // Asked for one, and showed none.
            (true, false, true) => Err(Refusal::Unauthenticated),
            (false, true, _) | (false, false, true) => Err(Refusal::Misdirected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::Random;
    use cofferdam_model::random::SeededRandom;

    /// A tenant as a test has it.
    #[derive(Clone)]
    struct Tenant {
        id: TenantId,
        hosts: BTreeSet<&'static str>,
        authorities: Option<Arc<ClientAuthorities>>,
        active: bool,
    }

    impl Tenant {
        fn standing(&self) -> Option<Standing<'_>> {
            let hosts = self.hosts.iter().copied().collect();
            self.active.then_some(Standing { tenant: &self.id, hosts, authorities: self.authorities.as_ref() })
        }
    }

    fn find<'a>(tenants: &'a [Tenant], id: &TenantId) -> Option<Standing<'a>> {
        tenants.iter().find(|tenant| tenant.id == *id)?.standing()
    }

    /// Whose each host is, and which authorities are asked there.
    /// Whose a door is, and whose authorities are asked there: which, and not only what they say.
    type Told = (BTreeSet<TenantId>, Option<(TenantId, *const ClientAuthorities)>);

    fn told(doors: &Doors) -> BTreeMap<Arc<str>, Told> {
        let door = |door: &Arc<Door>| (door.tenant.clone(), Arc::as_ptr(&door.authorities));
        doors.0.iter().map(|(host, at)| (host.clone(), ((*at.owners).clone(), at.door.as_ref().map(door)))).collect()
    }

    const HOSTS: [&str; 5] = ["a.example", "b.example", "c.example", "d.example", "*"];

    #[test]
    fn doors_after_any_changes_are_those_of_a_fresh_look_and_stay_while_their_authorities_do() {
        for seed in 0..200 {
            let random = SeededRandom::new(seed);
            let roll = |sides: usize| {
                let mut byte = [0];
                random.fill(&mut byte);
                usize::from(byte[0]) % sides
            };
            let fresh =
                |_| Tenant { id: TenantId::mint(&random), hosts: BTreeSet::new(), authorities: None, active: true };
            let mut tenants: Vec<Tenant> = (0..4).map(fresh).collect();
            let mut doors = Doors::default();
            for _ in 0..40 {
                let before = tenants.clone();
                for _ in 0..=roll(2) {
                    let tenant = &mut tenants[roll(4)];
                    match roll(4) {
                        0 => tenant.active = !tenant.active,
                        1 => tenant.authorities = (roll(3) > 0).then(|| Arc::new(ClientAuthorities::none())),
                        _ => {
                            let host = HOSTS[roll(HOSTS.len())];
                            if !tenant.hosts.remove(host) {
                                tenant.hosts.insert(host);
                            }
                        }
                    }
                }
                let turned: Vec<Turn<'_>> =
                    before.iter().zip(&tenants).map(|(then, now)| (then.standing(), now.standing())).collect();
                let next = doors.then(&turned, |id| find(&tenants, id));
                let all: Vec<Turn<'_>> = tenants.iter().map(|tenant| (None, tenant.standing())).collect();
                assert_eq!(told(&next), told(&Doors::default().then(&all, |id| find(&tenants, id))), "seed {seed}");
                for (host, at) in &next.0 {
                    let then = doors.at(host);
                    let (Some(then), Some(now)) = (then, &at.door) else { continue };
                    let same = then.tenant == now.tenant && Arc::ptr_eq(&then.authorities, &now.authorities);
                    assert_eq!(same, Arc::ptr_eq(then, now), "seed {seed}: sessions outlive neither more nor less");
                }
                doors = next;
            }
        }
    }
}
