//! Connections to addresses that have been checked.
//!
//! Owns the only place where a function's request opens a socket. Must never be given a name.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::address;

/// A stream of bytes both ways.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What dialling gives in the end.
pub(super) type Dialled<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// What connects to addresses.
pub(super) trait Dial: Send + Sync {
    /// Connects.
    fn dial(&self, to: SocketAddr) -> Dialled<'_>;

    /// Whether an address is one of the machine this runs on.
    fn is_here(&self, address: IpAddr) -> bool;
}

/// TCP, straight: no proxy, whatever the environment says.
pub(super) struct Tcp;

impl Dial for Tcp {
    fn dial(&self, to: SocketAddr) -> Dialled<'_> {
        Box::pin(async move {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }

    fn is_here(&self, address: IpAddr) -> bool {
        address::is_of_this_machine(address)
    }
}

/// The order in which addresses are tried: the two families in turn, each in the order of the answer.
pub(super) fn order(addresses: &[IpAddr], most: usize) -> Vec<IpAddr> {
    let (six, four): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|address| address.is_ipv6());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut ordered = Vec::with_capacity(most.min(addresses.len()));
    while ordered.len() < most {
        let before = ordered.len();
        ordered.extend(six.next());
        ordered.extend(four.next());
        if ordered.len() == before {
            break;
        }
    }
    ordered.truncate(most);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|address| address.parse().unwrap()).collect() };
        let mixed = parse(&["1.1.1.1", "1.1.1.2", "1.1.1.3", "2606::1", "2606::2"]);
        assert_eq!(order(&mixed, 9), parse(&["2606::1", "1.1.1.1", "2606::2", "1.1.1.2", "1.1.1.3"]));
        assert_eq!(order(&mixed, 3), parse(&["2606::1", "1.1.1.1", "2606::2"]));
        assert!(order(&[], 3).is_empty());
    }
}
