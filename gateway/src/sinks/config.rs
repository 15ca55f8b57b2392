//! Where the log is streamed to, as an operator says it.
//!
//! Owns the shape, its defaults and its bounds. Must never hold a credential: those are in files of their own.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use cofferdam_audit::KINDS;
use cofferdam_model::TenantId;
use serde::Deserialize;

use crate::client::Target;

/// Sinks there may be: each holds a batch in memory.
const SINKS: usize = 16;
/// Characters of a name, which is a file's and a label's as well.
const NAME: RangeInclusive<usize> = 1..=40;

/// One of the places.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// What it is called: in its cursor's file, in metrics and in records.
    pub name: String,
    /// Which record is the first, where there is no cursor yet.
    #[serde(default)]
    pub from: Begin,
    /// Only records of what happened in these tenants, by id; all where there is none.
    #[serde(default)]
    pub tenants: Vec<String>,
    /// Only records of these kinds; all where there is none.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// How a record is written.
    #[serde(default)]
    pub format: Format,
    /// Records sent at once, at most.
    #[serde(default)]
    pub batch_records: Option<usize>,
    /// Bytes of records sent at once, beyond which none is added.
    #[serde(default)]
    pub batch_bytes: Option<usize>,
    /// The time over which records are gathered.
    #[serde(default)]
    pub batch_ms: Option<u64>,
    /// The longest one sending takes.
    #[serde(default = "deadline_ms")]
    pub deadline_ms: u64,
    /// Records it may be behind.
    #[serde(default = "max_lag_records")]
    pub max_lag_records: u64,
    /// Seconds it may be behind.
    #[serde(default = "max_lag_seconds")]
    pub max_lag_seconds: u64,
    /// What happens beyond that.
    #[serde(default)]
    pub on_lag: OnLag,
    /// Where it is.
    pub to: Destination,
}

fn deadline_ms() -> u64 {
    30_000
}

fn max_lag_records() -> u64 {
    1_000_000
}

fn max_lag_seconds() -> u64 {
    3_600
}

/// Which record is the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Begin {
    /// That of index 0.
    #[default]
    Start,
    /// The next one to come.
    Now,
}

/// How a record is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line like those of `audit export`.
    #[default]
    Jsonl,
}

/// What happens once a sink is too far behind: each step includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLag {
    /// It is told.
    #[default]
    Warn,
    /// Calls of routes whose records are `relaxed` are refused.
    Shed,
    /// All calls of functions are refused.
    Stop,
}

/// Where a sink is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Destination {
    /// In a file of this host.
    File(FileConfig),
    /// Behind an HTTPS endpoint.
    Webhook(WebhookConfig),
    /// A receiver of syslog over TLS.
    Syslog(SyslogConfig),
    /// A receiver of OpenTelemetry's logs.
    Otlp(OtlpConfig),
    /// A bucket of S3, or of another with its interface.
    S3(S3Config),
}

/// Whom to believe, and what to show.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkTls {
    /// PEM file of the authorities to believe; the public ones when absent.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// PEM file of the chain to show, our own certificate first.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// A file of lines.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Which.
    pub path: PathBuf,
    /// Bytes after which it gets the number of its last record behind its name, and a new one is begun.
    #[serde(default = "rotate_bytes")]
    pub rotate_bytes: u64,
}

fn rotate_bytes() -> u64 {
    256 * 1024 * 1024
}

/// An HTTPS endpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where it is, as `https://…`.
    pub url: String,
    /// File of the secrets bodies are signed with, one a line; not signed when absent.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// File of the whole value of `authorization`.
    #[serde(default)]
    pub authorization_file: Option<PathBuf>,
    /// What records are wrapped in.
    #[serde(default)]
    pub envelope: Envelope,
    /// Whom to believe, and what to show.
    #[serde(default)]
    pub tls: SinkTls,
}

/// What records are wrapped in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Envelope {
    /// Nothing: one line each.
    #[default]
    None,
    /// CloudEvents 1.0, a JSON batch of them.
    Cloudevents,
}

/// A receiver of syslog over TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    /// Host and port.
    pub address: String,
    /// Facility, by number; 13 is that of audit logs.
    #[serde(default = "facility")]
    pub facility: u8,
    /// Whom to believe, and what to show.
    #[serde(default)]
    pub tls: SinkTls,
}

fn facility() -> u8 {
    13
}

/// A receiver of OpenTelemetry's logs, by OTLP over HTTP with JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Where it is, path included, as in `https://collector:4318/v1/logs`.
    pub url: String,
    /// File of the whole value of `authorization`.
    #[serde(default)]
    pub authorization_file: Option<PathBuf>,
    /// Whom to believe, and what to show.
    #[serde(default)]
    pub tls: SinkTls,
}

/// A bucket.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// Its name.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Another endpoint than the region's own, as `https://…`: the bucket is the first segment of paths there.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// What names of objects begin with.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// File of the credentials, in the form of AWS's own, read anew for every object.
    pub credentials_file: PathBuf,
    /// Which section of it.
    #[serde(default = "profile")]
    pub profile: String,
    /// Whether objects are only made, never replaced (`If-None-Match: *`). Where the store knows no such condition, say
    /// `false`.
    #[serde(default = "yes")]
    pub conditional: bool,
    /// Whom to believe, and what to show.
    #[serde(default)]
    pub tls: SinkTls,
}

fn prefix() -> String {
    "audit/".to_owned()
}

fn profile() -> String {
    "default".to_owned()
}

fn yes() -> bool {
    true
}

/// A setting of a sink that cannot be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Which sink, from 0.
    pub(crate) at: usize,
    /// Under which key.
    pub(crate) key: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) remedy: &'static str,
}

/// What serde cannot say of all of them.
pub(crate) fn check(sinks: &[SinkConfig]) -> Result<(), Wrong> {
    for (at, sink) in sinks.iter().enumerate() {
        let twice = sinks.iter().take(at).any(|other| other.name == sink.name);
        let flaw = if at >= SINKS {
            Some(("name", format!("there are more than {SINKS} sinks"), "take some out"))
        } else if twice {
            Some(("name", "another sink has the same name".to_owned(), "give it another: its cursor is under it"))
        } else {
            sink.flaw()
        };
        if let Some((key, message, remedy)) = flaw {
            let message = format!("sink `{}`: {message}", sink.name.chars().take(60).collect::<String>());
            return Err(Wrong { at, key, message, remedy });
        }
    }
    Ok(())
}

/// The files they name.
pub(crate) fn paths_mut(sinks: &mut [SinkConfig]) -> impl Iterator<Item = &mut PathBuf> {
    sinks.iter_mut().flat_map(|sink| sink.to.paths_mut())
}

type Flaw = (&'static str, String, &'static str);

fn flaw(key: &'static str, message: impl Into<String>, remedy: &'static str) -> Option<Flaw> {
    Some((key, message.into(), remedy))
}

impl SinkConfig {
    fn flaw(&self) -> Option<Flaw> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !NAME.contains(&self.name.len()) || !self.name.bytes().all(plain) {
            return flaw("name", "its name is not one", "use 1 to 40 of a-z, 0-9 and `-`");
        }
        if let Some(bad) = self.tenants.iter().find(|id| TenantId::parse(id).is_err()) {
            let message = format!("`{}` is no id of a tenant", bad.chars().take(60).collect::<String>());
            return flaw("tenants", message, "`cofferdam tenant list` shows them");
        }
        if let Some(bad) = self.kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            let message = format!("`{}` is no kind of record", bad.chars().take(60).collect::<String>());
            return flaw("kinds", message, "docs/formats/audit-log.md lists them");
        }
        let wide = |value: Option<usize>| value.map(|value| u64::try_from(value).unwrap_or(u64::MAX));
        let bounded = [
            ("batch_records", wide(self.batch_records), 1..=10_000),
            ("batch_bytes", wide(self.batch_bytes), 65_536..=33_554_432),
            ("batch_ms", self.batch_ms, 10..=3_600_000),
            ("deadline_ms", Some(self.deadline_ms), 100..=600_000),
            ("max_lag_records", Some(self.max_lag_records), 1..=u64::MAX),
            ("max_lag_seconds", Some(self.max_lag_seconds), 1..=u64::MAX),
        ];
        for (key, value, bounds) in bounded {
            if value.is_some_and(|value| !bounds.contains(&value)) {
                let message = format!("`{key}` must be from {} to {}", bounds.start(), bounds.end());
                return flaw(key, message, "leave it out for the default");
            }
        }
        self.to.flaw()
    }

    /// Records sent at once.
    pub(crate) fn records(&self) -> usize {
        self.batch_records.unwrap_or(if matches!(self.to, Destination::S3(_)) { 10_000 } else { 500 })
    }

    /// Bytes of records sent at once.
    pub(crate) fn bytes(&self) -> usize {
        self.batch_bytes.unwrap_or(if matches!(self.to, Destination::S3(_)) { 8 << 20 } else { 1 << 20 })
    }

    /// The time over which records are gathered.
    pub(crate) fn every(&self) -> Duration {
        Duration::from_millis(self.batch_ms.unwrap_or(match self.to {
            Destination::S3(_) => 60_000,
            Destination::File(_) => 200,
            _ => 1_000,
        }))
    }
}

impl Destination {
    /// What kind of place it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Webhook(_) => "webhook",
            Self::Syslog(_) => "syslog",
            Self::Otlp(_) => "otlp",
            Self::S3(_) => "s3",
        }
    }

    fn tls(&self) -> Option<&SinkTls> {
        match self {
            Self::File(_) => None,
            Self::Webhook(WebhookConfig { tls, .. })
            | Self::Syslog(SyslogConfig { tls, .. })
            | Self::Otlp(OtlpConfig { tls, .. })
            | Self::S3(S3Config { tls, .. }) => Some(tls),
        }
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        let (own, tls) = match self {
            Self::File(file) => return vec![&mut file.path],
            Self::Webhook(WebhookConfig { secret_file, authorization_file, tls, .. }) => {
                (vec![secret_file.as_mut(), authorization_file.as_mut()], tls)
            }
            Self::Otlp(OtlpConfig { authorization_file, tls, .. }) => (vec![authorization_file.as_mut()], tls),
            Self::S3(S3Config { credentials_file, tls, .. }) => (vec![Some(credentials_file)], tls),
            Self::Syslog(SyslogConfig { tls, .. }) => (Vec::new(), tls),
        };
        let tls = [&mut tls.ca, &mut tls.certificate, &mut tls.key].into_iter().map(Option::as_mut);
        own.into_iter().chain(tls).flatten().collect()
    }

    fn flaw(&self) -> Option<Flaw> {
        if self.tls().is_some_and(|tls| tls.certificate.is_some() != tls.key.is_some()) {
            return flaw("to", "a certificate to show needs its key, and the other way round", "give both, or neither");
        }
        let url = |url: &str| match Target::parse(url) {
            Ok(_) => None,
            Err(error) => flaw("to", error.to_string(), "write it as in `https://logs.example.com/in`"),
        };
        match self {
            Self::File(file) if file.rotate_bytes < 4096 => {
                flaw("to", "`rotate_bytes` must be at least 4,096", "leave it out for the default")
            }
            Self::File(_) => None,
            Self::Webhook(webhook) => url(&webhook.url),
            Self::Otlp(otlp) => url(&otlp.url),
            Self::Syslog(syslog) if syslog.facility > 23 => {
                flaw("to", "`facility` must be from 0 to 23", "leave it out for that of audit logs")
            }
            Self::Syslog(syslog) => {
                let port = syslog.address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                let target = Target::parse(&format!("https://{}/", syslog.address));
                let good = port.is_some_and(|port| port > 0) && target.is_ok_and(|target| target.path == "/");
                if good { None } else { flaw("to", "`address` is none", "write it as in `siem.example.com:6514`") }
            }
            Self::S3(s3) => s3.flaw(),
        }
    }
}

impl S3Config {
    fn flaw(&self) -> Option<Flaw> {
        let of = |text: &str, more: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
        if !(3..=63).contains(&self.bucket.len()) || !of(&self.bucket, b"-.") || self.bucket.contains("..") {
            return flaw("to", "`bucket` does not name one", "use its name alone, without a scheme");
        }
        if !(1..=40).contains(&self.region.len()) || !of(&self.region, b"-") {
            return flaw("to", "`region` does not name one", "write it as in `eu-central-1`");
        }
        let walks = self.prefix.split('/').any(|part| [".", ".."].contains(&part));
        if self.prefix.len() > 200 || !of(&self.prefix, b"-._/") || self.prefix.starts_with('/') || walks {
            return flaw("to", "`prefix` cannot begin the name of an object", "use letters, digits and `-._/`");
        }
        let endpoint = self.endpoint.as_deref().map(Target::parse);
        match endpoint {
            Some(Ok(target)) if target.path != "/" => {
                flaw("to", "`endpoint` has a path", "give scheme, host and port alone")
            }
            Some(Err(error)) => flaw("to", error.to_string(), "write it as in `https://s3.example.com`"),
            Some(Ok(_)) | None => None,
        }
    }
}
