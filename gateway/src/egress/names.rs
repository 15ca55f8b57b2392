//! Names to addresses.
//!
//! Owns the one way a name is resolved for a function. Must never answer from a search list or the system's hosts file:
//! a name means the same whoever's machine this is. What comes out is not yet checked.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::config::MOST_ADDRESSES;
use super::error::EgressSetupError;

/// Answers that are remembered, each for as long as it says, but no longer than [`LONGEST`].
const REMEMBERED: u64 = 4096;
const LONGEST: Duration = Duration::from_secs(300);
/// For one server to answer in.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a name has no addresses, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoAddress(pub(super) String);

/// What a lookup gives in the end.
pub(super) type Looked<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, NoAddress>> + Send + 'a>>;

/// What knows the addresses of names.
pub(super) trait Names: Send + Sync {
    /// Every address of a name, of both families. Never an empty list.
    fn lookup<'a>(&'a self, name: &'a str) -> Looked<'a>;
}

/// Names by DNS, and before that by the node's settings.
pub(super) struct Dns {
    hosts: BTreeMap<String, Vec<IpAddr>>,
    /// None where the machine has no resolver; every other name then fails.
    resolver: Option<TokioResolver>,
}

impl Dns {
    /// Asks these servers; those of the system when there are none.
    pub(super) fn new(servers: &[SocketAddr], hosts: BTreeMap<String, Vec<IpAddr>>) -> Result<Self, EgressSetupError> {
        let config = if servers.is_empty() {
            match hickory_resolver::system_conf::read_system_conf() {
                // No search list: it would make names of the operator's own network out of a guest's.
                Ok((config, _)) => Some(ResolverConfig::from_parts(None, Vec::new(), config.name_servers().to_vec())),
                Err(error) => {
                    tracing::warn!(%error, "the system names no resolver, so functions can reach no host by name");
                    None
                }
            }
        } else {
            Some(ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect()))
        };
        let build = |config| TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = config.map(|config| build(config).with_options(options()).build()).transpose();
        let failed = |error: NetError| {
            EgressSetupError::setting("resolvers", format!("cannot be used: {error}"), "correct them")
        };
        Ok(Self { hosts, resolver: resolver.map_err(failed)? })
    }
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let connection = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let both = vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, both)
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.use_hosts_file = ResolveHosts::Never;
    // Both families, as every address of a name has to be fit.
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    options.cache_size = REMEMBERED;
    options.positive_max_ttl = Some(LONGEST);
    options.negative_max_ttl = Some(LONGEST);
    options.timeout = PATIENCE;
    options.attempts = 1;
    options.try_tcp_on_error = true;
    options
}

impl Names for Dns {
    fn lookup<'a>(&'a self, name: &'a str) -> Looked<'a> {
        Box::pin(async move {
            if let Some(addresses) = self.hosts.get(name) {
                return Ok(addresses.clone());
            }
            let resolver = self.resolver.as_ref().ok_or_else(|| NoAddress("this node has no resolver".into()))?;
            // The dot at the end says that the name is whole.
            let found = resolver.lookup_ip(format!("{name}.")).await.map_err(|error| NoAddress(error.to_string()))?;
            let addresses: Vec<IpAddr> = found.iter().take(MOST_ADDRESSES + 1).collect();
            match addresses.len() {
                0 => Err(NoAddress("the name has no address".into())),
                count if count > MOST_ADDRESSES => {
                    Err(NoAddress(format!("the name has more than {MOST_ADDRESSES} addresses")))
                }
                _ => Ok(addresses),
            }
        })
    }
}
