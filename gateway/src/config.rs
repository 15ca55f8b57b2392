//! The node's configuration file.
//!
//! Owns its shape, its defaults, and errors that say where and what to do. Must never hold a secret (those live in
//! files of their own), and never accept a setting it does not know.

mod audit;

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};

use cofferdam_authz::{IssuerConfig, Sigv4Config};
use cofferdam_control::OwnIssuerConfig;
use cofferdam_model::{FunctionLimits, Isolation, Limits};
use serde::Deserialize;

use crate::egress::{EgressConfig, EgressSetupError};
use crate::error::GatewayError;
use crate::root::{Provider, RootKeyConfig};

pub use self::audit::AuditConfig;

/// Bytes of a configuration file.
const MOST_BYTES: u64 = 1024 * 1024;

/// Everything an operator sets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Name of this node's log, as its checkpoints give it: `cofferdam.example/node-1`.
    pub origin: String,
    /// Directory of everything the node keeps. Relative paths in the file are below the file's own directory.
    #[serde(default = "data")]
    pub data: PathBuf,
    /// Threads of the runtime; as many as there are processors when absent.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Where to listen.
    #[serde(default)]
    pub listen: Listen,
    /// Certificate to serve; the self-signed one of `init` when absent.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// How well cells have to be jailed.
    #[serde(default)]
    pub isolation: IsolationConfig,
    /// Limits of the node.
    #[serde(default)]
    pub limits: Limits,
    /// The most a function may ask for.
    #[serde(default = "FunctionLimits::ceiling")]
    pub ceilings: FunctionLimits,
    /// Where the root key is.
    #[serde(default)]
    pub root_key: RootKeyConfig,
    /// How usage is counted.
    #[serde(default)]
    pub usage: UsageConfig,
    /// What of a call is recorded, how long records are kept, what the log gives to whom, and what the node does as
    /// the log's disk runs out of room.
    #[serde(default)]
    pub audit: AuditConfig,
    /// What functions may ask of the outside, and how that is done.
    #[serde(default)]
    pub egress: EgressConfig,
    /// Which signatures of requests are taken.
    #[serde(default)]
    pub sigv4: Sigv4Config,
    /// Issuers whose tokens are believed.
    #[serde(default)]
    pub issuers: Vec<IssuerConfig>,
    /// PEM file of the authorities that issuers' servers are trusted by, instead of the system's.
    #[serde(default)]
    pub issuers_ca: Option<PathBuf>,
    /// The node's own issuer, for people with passphrases; none when absent.
    #[serde(default)]
    pub users: Option<OwnIssuerConfig>,
}

/// Where to listen.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Addresses with ports.
    pub addresses: Vec<SocketAddr>,
}

impl Default for Listen {
    fn default() -> Self {
        Self { addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8443))] }
    }
}

/// A certificate chain and its key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM file of the chain, the server's own first.
    pub certificate: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

/// How well cells have to be jailed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IsolationConfig {
    /// The node refuses to run below it.
    #[serde(default = "required")]
    pub required: Isolation,
    /// Directory of the control groups below which each cell gets its own; the node's own when absent.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
}

fn required() -> Isolation {
    Isolation::Reduced
}

impl Default for IsolationConfig {
    fn default() -> Self {
        Self { required: required(), cgroup: None }
    }
}

/// How usage is counted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageConfig {
    /// Time between two countings of what came into the log.
    pub every_ms: u64,
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self { every_ms: 10_000 }
    }
}

fn data() -> PathBuf {
    PathBuf::from("data")
}

impl ServerConfig {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, GatewayError> {
        let failed = |source| GatewayError::File { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > MOST_BYTES {
            return Err(at(path, "", None, "the file is larger than 1 MiB".into(), "shorten it"));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(failed)?, path)
    }

    /// Reads the text of the file at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, GatewayError> {
        let mut config: Self = toml_edit::de::from_str(text).map_err(|error| {
            let message = error.message().trim().replace('\n', " ");
            let remedy = remedy(&message);
            at(path, text, error.span(), message, remedy)
        })?;
        config.check(text, path)?;
        config.egress.own.extend(config.listen.addresses.iter().filter(|address| address.port() != 0));
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        for file in config.paths_mut() {
            if file.is_relative() {
                *file = base.join(&file);
            }
        }
        Ok(config)
    }

    fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let tls = self.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]);
        let issuers = self.issuers.iter_mut().flat_map(|issuer| [&mut issuer.jwks_file, &mut issuer.hs256_secret_file]);
        let roots = std::iter::once(&mut self.root_key.provider).chain(&mut self.root_key.before);
        let roots = roots.flat_map(Provider::paths_mut);
        std::iter::once(&mut self.data).chain(&mut self.issuers_ca).chain(tls).chain(issuers.flatten()).chain(roots)
    }

    /// What serde cannot say: values that would stop the node from working, or from meaning what they say.
    fn check(&self, text: &str, path: &Path) -> Result<(), GatewayError> {
        let wrong = |keys: &[&str], message: &str, remedy: &'static str| {
            Err(at(path, text, span_of(text, keys), message.to_owned(), remedy))
        };
        let origin_good = (1..=200).contains(&self.origin.len())
            && self.origin.bytes().all(|b| b.is_ascii_graphic() && b != b'+')
            && self.origin.contains('/');
        if !origin_good {
            return wrong(
                &["origin"],
                "`origin` does not name a log",
                "write a host and a name, as in `cofferdam.example/node-1`",
            );
        }
        if self.listen.addresses.is_empty() {
            return wrong(&["listen", "addresses"], "no address to listen on", "name one, as in `127.0.0.1:8443`");
        }
        if self.threads.is_some_and(|threads| !(1..=1024).contains(&threads)) {
            return wrong(&["threads"], "`threads` must be from 1 to 1024", "leave it out to use every processor");
        }
        if !(100..=3_600_000).contains(&self.usage.every_ms) {
            let message = "`usage.every_ms` must be from 100 to 3,600,000";
            return wrong(&["usage", "every_ms"], message, "leave it out for ten seconds");
        }
        if !(100..=3_600_000).contains(&self.audit.tenant_roots_ms) {
            let message = "`audit.tenant_roots_ms` must be from 100 to 3,600,000";
            return wrong(&["audit", "tenant_roots_ms"], message, "leave it out for ten seconds");
        }
        if !(1..=86_400).contains(&self.root_key.keep_seconds) {
            let message = "`root_key.keep_seconds` must be from 1 to 86,400";
            return wrong(&["root_key", "keep_seconds"], message, "leave it out for five minutes");
        }
        for (key, provider) in self.root_key.all() {
            if let Some((message, remedy)) = provider.flaw() {
                return wrong(&["root_key", key], message, remedy);
            }
        }
        if let Some((setting, remedy)) = self.sigv4.problem() {
            return wrong(&["sigv4", setting], &format!("`sigv4.{setting}` is not usable"), remedy);
        }
        if let Some((key, message, remedy)) = self.audit.flaw() {
            return wrong(&["audit", key], &message, remedy);
        }
        if let Err(error) = self.egress.check() {
            return Err(in_egress(text, path, &error));
        }
        if let Some(Err((key, problem))) = self.users.as_ref().map(OwnIssuerConfig::check) {
            let span = span_of(text, &["users", key]);
            return Err(at(path, text, span, format!("`users.{key}` {problem}"), "correct it"));
        }
        for (name, value, least) in self.least() {
            if value < least {
                let message = format!("`limits.{name}` is {value}, which is below {least}");
                return wrong(&["limits", name], &message, "raise it, or leave it out for the default");
            }
        }
        Ok(())
    }

    /// Limits that have a floor below which nothing works.
    fn least(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let limits = &self.limits;
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        [
            ("connections", wide(limits.connections), 1),
            ("connections_per_source", wide(limits.connections_per_source), 1),
            ("handshakes", wide(limits.handshakes), 1),
            ("handshake_ms", limits.handshake_ms, 100),
            ("head_ms", limits.head_ms, 100),
            ("body_idle_ms", limits.body_idle_ms, 100),
            ("write_idle_ms", limits.write_idle_ms, 100),
            ("idle_ms", limits.idle_ms, 100),
            ("header_bytes", wide(limits.header_bytes), 1024),
            ("header_count", wide(limits.header_count), 8),
            ("uri_bytes", wide(limits.uri_bytes), 256),
            ("h2_streams", u64::from(limits.h2_streams), 1),
            ("requests_per_connection", limits.requests_per_connection, 1),
            ("calls", wide(limits.calls), 1),
            ("limiter_keys", wide(limits.limiter_keys), 64),
            ("per_source", u64::from(limits.per_source.per_second.min(limits.per_source.burst)), 1),
            ("per_principal", u64::from(limits.per_principal.per_second.min(limits.per_principal.burst)), 1),
            ("per_tenant", u64::from(limits.per_tenant.per_second.min(limits.per_tenant.burst)), 1),
            ("cells", wide(limits.cells), 1),
            ("compiles", wide(limits.compiles), 1),
        ]
        .into_iter()
    }
}

/// What is wrong in `[egress]`, at the place it names.
fn in_egress(text: &str, path: &Path, error: &EgressSetupError) -> GatewayError {
    match error {
        EgressSetupError::Setting { key, message, remedy } => {
            let span = span_of(text, &["egress", key]);
            at(path, text, span, format!("`egress.{key}` {message}"), remedy)
        }
        other => {
            let span = span_of(text, &["egress", "default_ceiling", "networks"]);
            at(path, text, span, other.to_string(), "correct it, or take it out")
        }
    }
}

fn remedy(message: &str) -> &'static str {
    if message.starts_with("unknown field") {
        "correct its spelling or remove it"
    } else if message.starts_with("missing field") {
        "add it"
    } else if message.starts_with("invalid type") || message.starts_with("unknown variant") {
        "write a value of the kind expected"
    } else {
        "correct it"
    }
}

/// An error at a place of the text; at its start where the place is not known.
fn at(path: &Path, text: &str, span: Option<Range<usize>>, message: String, remedy: &str) -> GatewayError {
    let before = text.get(..span.map_or(0, |span| span.start)).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    GatewayError::Config { path: path.to_owned(), line, column, message, remedy: remedy.to_owned() }
}

/// Where the value under these keys stands.
fn span_of(text: &str, keys: &[&str]) -> Option<Range<usize>> {
    let document = toml_edit::Document::parse(text).ok()?;
    let mut item = document.as_item();
    for key in keys {
        item = item.get(key)?;
    }
    item.span()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ServerConfig, GatewayError> {
        ServerConfig::parse(text, Path::new("/etc/cofferdam/node.toml"))
    }

    fn error(text: &str) -> String {
        parse(text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn an_origin_is_all_it_takes() {
        let config = parse("origin = \"cofferdam.example/one\"").unwrap();
        assert_eq!(config.listen.addresses, ["127.0.0.1:8443".parse().unwrap()]);
        assert_eq!(config.data, Path::new("/etc/cofferdam/data"));
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.isolation.required, Isolation::Reduced);
        assert_eq!(config.ceilings, FunctionLimits::ceiling());
        assert!(config.tls.is_none() && config.issuers.is_empty());
    }

    #[test]
    fn everything_can_be_set() {
        let config = parse(
            r#"
            origin = "cofferdam.example/one"
            data = "/var/lib/cofferdam"
            threads = 2
            [listen]
            addresses = ["0.0.0.0:443", "[::]:443"]
            [tls]
            certificate = "tls/chain.pem"
            key = "/keys/key.pem"
            [isolation]
            required = "full"
            cgroup = "/sys/fs/cgroup/cofferdam"
            [audit]
            warn = { free_mib = 4096, sync_ms = 500 }
            heartbeat_ms = 5000
            [limits]
            calls = 10
            per_source = { per_second = 5, burst = 10 }
            [ceilings]
            cpu_ms = 100
            [egress]
            resolvers = ["192.0.2.53:53"]
            connect_ms = 2000
            own = ["198.51.100.7:443"]
            [egress.hosts]
            "db.internal" = ["10.0.0.5"]
            [egress.default_ceiling]
            networks = ["10.0.0.0/24"]
            [[egress.default_ceiling.rules]]
            host = "*.example.com"
            [[issuers]]
            issuer = "https://id.example"
            audience = "cofferdam"
            algorithms = ["EdDSA"]
            jwks_file = "id.json"
            tenant = "acme"
            "#,
        )
        .unwrap();
        assert_eq!(config.listen.addresses.len(), 2);
        let tls = config.tls.unwrap();
        assert_eq!(tls.certificate, Path::new("/etc/cofferdam/tls/chain.pem"));
        assert_eq!(tls.key, Path::new("/keys/key.pem"));
        assert_eq!(config.issuers[0].jwks_file.as_deref(), Some(Path::new("/etc/cofferdam/id.json")));
        assert_eq!((config.limits.calls, config.limits.per_source.burst), (10, 10));
        assert_eq!(config.ceilings.cpu_ms, 100);
        assert_eq!((config.audit.warn.free_mib, config.audit.heartbeat_ms, config.audit.reserve_mib), (4096, 5000, 16));
        assert_eq!(config.isolation.cgroup.as_deref(), Some(Path::new("/sys/fs/cgroup/cofferdam")));
        assert_eq!((config.egress.connect_ms, config.egress.hosts.len()), (2000, 1));
        assert!(config.egress.default_ceiling.allows("api.example.com", 443, "GET", true));
        // Whatever it listens on is its own.
        let own = ["198.51.100.7:443", "0.0.0.0:443", "[::]:443"].map(|own| own.parse().unwrap());
        assert_eq!(config.egress.own, own);
    }

    #[test]
    fn errors_say_where_and_what_to_do() {
        let unknown = error("origin = \"a/b\"\n[limits]\n  cals = 3\n");
        assert!(unknown.starts_with("/etc/cofferdam/node.toml:3:3: unknown field `cals`"), "{unknown}");
        assert!(unknown.ends_with("; correct its spelling or remove it"), "{unknown}");
        let low = error("origin = \"a/b\"\n[limits]\ncalls = 0\n");
        assert!(low.starts_with("/etc/cofferdam/node.toml:3:9: `limits.calls` is 0, which is below 1"), "{low}");
        let kind = error("origin = \"a/b\"\nthreads = \"two\"\n");
        assert!(kind.starts_with("/etc/cofferdam/node.toml:2:11: invalid type"), "{kind}");
        assert!(error("").contains(":1:1: missing field `origin`; add it"));
        assert!(error("origin = \"nohost\"").contains(":1:10: `origin` does not name a log"));
        assert!(error("origin = \"a/b\"\norigin = \"a/b\"").contains(":2:1: "));
        assert!(error("origin = \"a/b\"\nlisten = {addresses = []}").contains("no address to listen on"));
        assert!(error("origin = \"a/b\"\n[nonsense]").contains("unknown field `nonsense`"));
        let short = error("origin = \"a/b\"\n[egress]\nconnect_ms = 1\n");
        assert!(short.starts_with("/etc/cofferdam/node.toml:3:14: `egress.connect_ms` is 1, which is not"), "{short}");
        let beat = error("origin = \"a/b\"\n[audit]\nheartbeat_ms = 1\n");
        assert!(beat.contains(":3:16: `audit.heartbeat_ms` must be from 1,000"), "{beat}");
        let network = error("origin = \"a/b\"\n[egress.default_ceiling]\nnetworks = [\"10.0.0.1/8\"]\n");
        assert!(network.contains(":3:12: `10.0.0.1/8` is no network"), "{network}");
        let host = error("origin = \"a/b\"\n[[egress.default_ceiling.rules]]\nhost = \"127.1\"\n");
        assert!(host.contains(":3:8: `127.1` is no host pattern"), "{host}");
        let weeks = error("origin = \"a/b\"\n[sigv4]\npresigned_seconds = 604801\n");
        assert!(weeks.contains(":3:21: `sigv4.presigned_seconds` is not usable; write 1 to 604800"), "{weeks}");
        assert!(error("origin = \"a/b\"\n[sigv4]\nregions = []\n").contains(":3:11: `sigv4.regions`"));
        assert!(error("origin = \"a/b\"\n[tls]\ncertificate = \"c\"").contains("missing field `key`"));
    }
}
