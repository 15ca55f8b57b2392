//! Which addresses may be reached.
//!
//! Owns the judgement of a single address: public, opened by the ceiling, or not to be reached. Must never judge a
//! name, and never take an address that holds another one for public.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use super::error::EgressSetupError;

/// The system's errors where it, or this process, has no descriptor left (`ENFILE`, `EMFILE`).
const NO_DESCRIPTORS: [i32; 2] = [23, 24];

/// A network, by its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    base: IpAddr,
    prefix: u8,
}

impl FromStr for Network {
    type Err = EgressSetupError;

    fn from_str(text: &str) -> Result<Self, EgressSetupError> {
        let bad = || EgressSetupError::Network(text.chars().take(64).collect());
        let (base, prefix) = text.split_once('/').ok_or_else(bad)?;
        let plain = prefix.bytes().all(|byte| byte.is_ascii_digit()) && (prefix == "0" || !prefix.starts_with('0'));
        let base: IpAddr = base.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let network = Self { base, prefix };
        let (bits, width) = bits(base);
        // Bits behind the prefix would be read as a host by some and as nothing by others.
        if !plain || prefix > width || bits != kept(bits, width, prefix) {
            return Err(bad());
        }
        Ok(network)
    }
}

impl Network {
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        let ((base, width), (bits, other)) = (bits(self.base), bits(address));
        width == other && base == kept(bits, width, self.prefix)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

/// The bits before the prefix's end, the others zero.
fn kept(bits: u128, width: u8, prefix: u8) -> u128 {
    let behind = u32::from(width.saturating_sub(prefix));
    u128::MAX.checked_shl(behind).unwrap_or(0) & bits
}

/// What an address is, if it is not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Never to be reached.
    Never(&'static str),
    /// To be reached where the ceiling names its network.
    Inner(&'static str),
}

use Kind::{Inner, Never};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8, kind: Kind) -> (u32, u8, Kind) {
    (u32::from_be_bytes([a, b, c, d]), prefix, kind)
}

/// What of IPv4 is not public, the first that fits counts. After IANA's registry of special purposes, and what
/// providers of clouds have put besides.
const V4: &[(u32, u8, Kind)] = &[
    v4(168, 63, 129, 16, 32, Never("the wire server of Azure")),
    v4(100, 100, 100, 200, 32, Never("the metadata service of Alibaba Cloud")),
    v4(192, 0, 0, 192, 32, Never("the metadata service of Oracle Cloud")),
    v4(0, 0, 0, 0, 8, Never("`this network`, which leads to this machine")),
    v4(169, 254, 0, 0, 16, Never("link-local, where metadata services are")),
    v4(224, 0, 0, 0, 4, Never("multicast")),
    v4(255, 255, 255, 255, 32, Never("broadcast")),
    v4(10, 0, 0, 0, 8, Inner("private")),
    v4(100, 64, 0, 0, 10, Inner("shared by a carrier (CGNAT)")),
    v4(127, 0, 0, 0, 8, Inner("loopback")),
    v4(172, 16, 0, 0, 12, Inner("private")),
    v4(192, 0, 0, 0, 24, Inner("of protocol assignments")),
    v4(192, 0, 2, 0, 24, Inner("of documentation")),
    v4(192, 88, 99, 0, 24, Inner("of relays into 6to4")),
    v4(192, 168, 0, 0, 16, Inner("private")),
    v4(198, 18, 0, 0, 15, Inner("of benchmarks")),
    v4(198, 51, 100, 0, 24, Inner("of documentation")),
    v4(203, 0, 113, 0, 24, Inner("of documentation")),
    v4(240, 0, 0, 0, 4, Inner("reserved")),
];

const fn v6(segments: [u16; 4], prefix: u8, kind: Kind) -> (u128, u8, Kind) {
    let [a, b, c, d] = segments;
    (Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_bits(), prefix, kind)
}

/// What of IPv6 is named, the first that fits counts. What is not named and not of `2000::/3` is not public either.
const V6: &[(u128, u8, Kind)] = &[
    (0, 128, Never("unspecified, which leads to this machine")),
    (1, 128, Inner("loopback")),
    (0, 96, Never("an IPv4 address in another form (compatible)")),
    (0xffff_0000_0000, 96, Never("an IPv4 address in another form (mapped)")),
    (0xffff_0000_0000_0000, 96, Never("an IPv4 address in another form (translated)")),
    v6([0x64, 0xff9b, 0, 0], 96, Never("an IPv4 address in another form (NAT64)")),
    v6([0x64, 0xff9b, 1, 0], 48, Never("an IPv4 address in another form (NAT64)")),
    v6([0x2002, 0, 0, 0], 16, Never("an IPv4 address in another form (6to4)")),
    v6([0x2001, 0, 0, 0], 32, Never("an IPv4 address in another form (Teredo)")),
    v6([0xfd00, 0x0ec2, 0, 0], 32, Never("the metadata services of AWS")),
    v6([0xfd20, 0x00ce, 0, 0], 32, Never("the metadata service of Google Cloud")),
    v6([0xfd00, 0x0042, 0, 0], 32, Never("the metadata service of Scaleway")),
    v6([0xfe80, 0, 0, 0], 10, Never("link-local, where metadata services are")),
    v6([0xff00, 0, 0, 0], 8, Never("multicast")),
    v6([0x100, 0, 0, 0], 64, Inner("discarded")),
    v6([0x2001, 0, 0, 0], 23, Inner("of protocol assignments")),
    v6([0x2001, 0x0db8, 0, 0], 32, Inner("of documentation")),
    v6([0x3fff, 0, 0, 0], 20, Inner("of documentation")),
    v6([0x5f00, 0, 0, 0], 16, Inner("of segment routing")),
    v6([0xfc00, 0, 0, 0], 7, Inner("private (unique local)")),
    v6([0xfec0, 0, 0, 0], 10, Inner("private (site-local)")),
    v6([0x2000, 0, 0, 0], 3, Inner("")),
];

/// What an address is; none for a public one.
fn kind(address: IpAddr) -> Option<Kind> {
    match address {
        IpAddr::V4(address) => {
            let bits = u128::from(u32::from(address));
            let fits = |(base, prefix, _): &&(u32, u8, Kind)| u128::from(*base) == kept(bits, 32, *prefix);
            V4.iter().find(fits).map(|(_, _, kind)| *kind)
        }
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            // ISATAP: an interface identifier that holds an IPv4 address, in whatever network.
            if matches!(address.segments(), [_, _, _, _, 0 | 0x200, 0x5efe, _, _]) {
                return Some(Never("an IPv4 address in another form (ISATAP)"));
            }
            let found = V6.iter().find(|(base, prefix, _)| *base == kept(bits, 128, *prefix)).map(|(_, _, kind)| *kind);
            match found {
                Some(Inner("")) => None,
                Some(kind) => Some(kind),
                None => Some(Inner("of no public network")),
            }
        }
    }
}

/// Judges addresses for one tenant.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    opened: Vec<Network>,
    own: Vec<SocketAddr>,
}

impl Judge {
    /// Everything public, and these networks.
    pub(super) fn new(networks: &[String], own: &[SocketAddr]) -> Result<Self, EgressSetupError> {
        let opened = networks.iter().map(|network| network.parse()).collect::<Result<_, _>>()?;
        Ok(Self { opened, own: own.to_vec() })
    }

    /// Why an address must not be reached, if so.
    pub(super) fn objection(&self, address: IpAddr, port: u16) -> Option<&'static str> {
        if self.own.contains(&SocketAddr::new(address, port)) {
            return Some("this node itself");
        }
        match kind(address)? {
            Never(what) => Some(what),
            Inner(_) if self.opens(address) => None,
            Inner(what) => Some(what),
        }
    }

    /// Whether the ceiling names the network of an address.
    pub(super) fn opens(&self, address: IpAddr) -> bool {
        self.opened.iter().any(|network| network.holds(address))
    }

    /// Whether the node listens at this port on all addresses of its machine, whichever these are.
    pub(super) fn own_anywhere(&self, port: u16) -> bool {
        self.own.iter().any(|own| own.port() == port && own.ip().is_unspecified())
    }
}

/// Whether an address is one of this machine: then the system lets one send from it, or would send from it to it. No
/// packet is sent. Where nothing can be found out for want of descriptors, it is.
pub(super) fn is_of_this_machine(address: IpAddr) -> bool {
    if address.is_loopback() {
        return true;
    }
    let (any, strange): (IpAddr, IpAddr) = match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    };
    let binds = |address: IpAddr| UdpSocket::bind((address, 0)).map(|_| ());
    match binds(address) {
        // Balancers are often set to bind any address there is. Then this says nothing.
        Ok(()) if binds(strange).is_err() => return true,
        Err(error) if error.raw_os_error().is_some_and(|code| NO_DESCRIPTORS.contains(&code)) => return true,
        _ => {}
    }
    let local = UdpSocket::bind((any, 0)).and_then(|socket| {
        // Port 9 is as good as any other: nothing goes out.
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    local.is_ok_and(|local| local.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(judge: &Judge, address: &str) -> Option<&'static str> {
        judge.objection(address.parse().unwrap(), 443)
    }

    fn opened(networks: &[&str]) -> Judge {
        Judge::new(&networks.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>(), &[]).unwrap()
    }

    #[test]
    fn public_addresses_are_reached_and_their_neighbours_are_not() {
        let judge = opened(&[]);
        let public = "\
            1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
            168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 \
            192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 2001:200::1 \
            2001:4860:4860::8888 2606:4700:4700::1111 2a00::1 2003::1 2001:db7:ffff::1 2001:db9::1 3ffe::1";
        for address in public.split_whitespace() {
            assert_eq!(objection(&judge, address), None, "{address}");
        }
        let not = "\
            0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 \
            127.255.255.255 168.63.129.16 169.254.0.0 169.254.255.255 172.16.0.0 172.31.255.255 192.0.0.0 \
            192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 \
            198.51.100.1 203.0.113.1 224.0.0.0 239.255.255.255 240.0.0.0 255.255.255.254 255.255.255.255 :: \
            ::1 ::2 ::7f00:1 ::ffff:8.8.8.8 ::ffff:0:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b:1::8.8.8.8 \
            2002:808:808::1 2001::1 2001:1::1 2001:10::1 2001:20::1 2001:1ff:ffff::1 2001:db8::1 3fff::1 \
            3fff:fff::1 5f00::1 100::1 200::1 400::1 1fff::1 4000::1 fc00::1 fd00:ec2::254 fdff::1 fe80::1 \
            febf::1 fec0::1 ff02::1 2600::200:5efe:a00:1 2600::5efe:a00:1";
        for address in not.split_whitespace() {
            assert!(objection(&judge, address).is_some(), "{address}");
        }
    }

    #[test]
    fn a_ceiling_opens_its_networks_but_never_metadata_or_disguises() {
        let judge = opened(&["127.0.0.0/8", "10.1.0.0/16", "::1/128", "fd00:1::/32"]);
        for address in ["127.0.0.1", "10.1.2.3", "::1", "fd00:1::5"] {
            assert_eq!(objection(&judge, address), None, "{address}");
        }
        for address in ["10.2.0.1", "192.168.0.1", "fd00:2::1"] {
            assert!(objection(&judge, address).is_some(), "{address}");
        }
        let all = opened(&["0.0.0.0/0", "::/0"]);
        for address in ["10.2.0.1", "192.0.2.1", "fd12::1", "::1"] {
            assert_eq!(objection(&all, address), None, "{address}");
        }
        let never = "\
            169.254.169.254 169.254.170.2 100.100.100.200 192.0.0.192 168.63.129.16 0.0.0.0 255.255.255.255 \
            224.0.0.1 fd00:ec2::254 fd20:ce::254 fe80::a9fe:a9fe ::ffff:10.1.2.3 ::10.1.2.3 \
            64:ff9b::a01:203 2002:a01:203::1 2001:0:a01:203::1 :: ff02::1";
        for address in never.split_whitespace() {
            assert!(objection(&all, address).is_some(), "{address}");
        }
    }

    #[test]
    fn the_node_itself_is_not_reached_from_inside() {
        let own = ["203.0.113.1:443", "1.2.3.4:8443", "0.0.0.0:80"].map(|own| own.parse().unwrap());
        let judge = Judge::new(&["203.0.113.0/24".to_owned()], &own).unwrap();
        let objection = |address: &str, port| judge.objection(address.parse().unwrap(), port);
        assert!(objection("203.0.113.1", 443).is_some() && objection("1.2.3.4", 8443).is_some());
        assert!(objection("203.0.113.1", 444).is_none() && objection("1.2.3.4", 443).is_none());
        assert!(judge.own_anywhere(80) && !judge.own_anywhere(443));
        assert!(judge.opens("203.0.113.9".parse().unwrap()) && !judge.opens("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn every_address_of_this_machine_is_known_as_one() {
        for address in ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1"] {
            assert!(is_of_this_machine(address.parse().unwrap()), "{address}");
        }
        for address in ["192.0.2.1", "192.0.2.7", "2001:db8::1", "2001:db8::7"] {
            assert!(!is_of_this_machine(address.parse().unwrap()), "{address}");
        }
        // The address that this machine would send from, where it has a way out.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        if socket.connect("192.0.2.7:9").is_ok() {
            assert!(is_of_this_machine(socket.local_addr().unwrap().ip()));
        }
    }

    #[test]
    fn a_network_is_written_in_one_way() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10/8",
            "fd00::/129",
            "fd00::1/64",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        for text in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.7/32", "::/0", "fd00::/8", "::1/128"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }
}
