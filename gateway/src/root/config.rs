//! Where the root key is, as an operator says it.
//!
//! Owns the shape and its defaults. Must never hold a credential: those are in files of their own.

use std::path::PathBuf;

use serde::Deserialize;

/// Where the root key is, and where it was.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootKeyConfig {
    /// Seconds a tenant's key is kept in memory once it was unwrapped.
    #[serde(default = "keep_seconds")]
    pub keep_seconds: u64,
    /// Where it is.
    #[serde(default)]
    pub provider: Provider,
    /// Where it was before: opened with, never wrapped with. `cofferdam vault rotate-root` brings everything under the
    /// one above.
    #[serde(default)]
    pub before: Vec<Provider>,
}

fn keep_seconds() -> u64 {
    300
}

impl Default for RootKeyConfig {
    fn default() -> Self {
        Self { keep_seconds: keep_seconds(), provider: Provider::default(), before: Vec::new() }
    }
}

impl RootKeyConfig {
    /// Every provider, with the key it stands under.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, &Provider)> {
        std::iter::once(("provider", &self.provider)).chain(self.before.iter().map(|before| ("before", before)))
    }
}

/// Where a root key is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Provider {
    /// In a file of this host.
    File(FileRoot),
    /// Handed over by systemd.
    Systemd(SystemdRoot),
    /// In HashiCorp Vault's transit engine, or another's of the same interface.
    Vault(Transit),
    /// In AWS KMS.
    AwsKms(AwsKms),
}

impl Default for Provider {
    fn default() -> Self {
        Self::File(FileRoot::default())
    }
}

/// A file of 32 bytes that its owner alone may read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRoot {
    /// Which; `root.key` in the data directory when absent.
    #[serde(default)]
    pub path: Option<PathBuf>,
}

/// Credentials of the service (`LoadCredential=`, `LoadCredentialEncrypted=`), of 32 bytes each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemdRoot {
    /// Name of the one in use.
    #[serde(default = "credential")]
    pub credential: String,
    /// Names of those before it.
    #[serde(default)]
    pub before: Vec<String>,
    /// Where they are; `$CREDENTIALS_DIRECTORY` when absent.
    #[serde(default)]
    pub directory: Option<PathBuf>,
}

fn credential() -> String {
    "cofferdam-root-key".to_owned()
}

/// A key of a transit engine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transit {
    /// `https://` address of the server.
    pub address: String,
    /// Where the engine is mounted.
    #[serde(default = "transit")]
    pub mount: String,
    /// Name of the key.
    #[serde(default = "cofferdam")]
    pub key: String,
    /// Namespace, where there are such.
    #[serde(default)]
    pub namespace: Option<String>,
    /// File of the token, read anew for every request.
    pub token_file: PathBuf,
    /// PEM file of the authorities to believe; the system's when absent.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The longest a request takes.
    #[serde(default = "deadline_ms")]
    pub deadline_ms: u64,
}

fn transit() -> String {
    "transit".to_owned()
}

fn cofferdam() -> String {
    "cofferdam".to_owned()
}

fn deadline_ms() -> u64 {
    5_000
}

/// A key of AWS KMS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsKms {
    /// ARN, id or alias of a symmetric key.
    pub key_id: String,
    /// Its region.
    pub region: String,
    /// Another endpoint than the region's own, as `https://…`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// File of the credentials, in the form of AWS's own (`aws_access_key_id`, `aws_secret_access_key`,
    /// `aws_session_token`), read anew for every request.
    pub credentials_file: PathBuf,
    /// Which section of it.
    #[serde(default = "profile")]
    pub profile: String,
    /// PEM file of the authorities to believe; the system's when absent.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The longest a request takes.
    #[serde(default = "deadline_ms")]
    pub deadline_ms: u64,
}

fn profile() -> String {
    "default".to_owned()
}

impl Provider {
    /// Every path in it, to be made absolute.
    pub(crate) fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::File(file) => file.path.iter_mut().collect(),
            Self::Systemd(given) => given.directory.iter_mut().collect(),
            Self::Vault(transit) => transit.ca.iter_mut().chain([&mut transit.token_file]).collect(),
            Self::AwsKms(aws) => aws.ca.iter_mut().chain([&mut aws.credentials_file]).collect(),
        }
    }

    /// What is wrong with it, and what to do.
    pub(crate) fn flaw(&self) -> Option<(&'static str, &'static str)> {
        let https = |url: &str| url.starts_with("https://");
        let plain = |text: &str| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
            !text.is_empty() && text.len() <= 128 && text.bytes().all(good) && !text.contains("..")
        };
        match self {
            Self::File(_) => None,
            Self::Systemd(given) => {
                let names = std::iter::once(&given.credential).chain(&given.before);
                let good = names.into_iter().all(|name| plain(name) && !name.contains('/'));
                (!good).then_some(("a credential's name is none", "name it as in `LoadCredential=`"))
            }
            Self::Vault(transit) if !https(&transit.address) => {
                Some(("`address` of the vault is not `https://…`", "keys are asked for over TLS only"))
            }
            Self::Vault(transit) if ![&transit.mount, &transit.key].into_iter().all(|text| plain(text)) => {
                Some(("`mount` or `key` is no path of a vault", "use letters, digits and `-_./`"))
            }
            Self::AwsKms(aws) if aws.endpoint.as_ref().is_some_and(|url| !https(url)) => {
                Some(("`endpoint` is not `https://…`", "keys are asked for over TLS only"))
            }
            Self::AwsKms(aws) if !plain(&aws.region) || aws.region.contains('/') => {
                Some(("`region` is none", "write it as in `eu-central-1`"))
            }
            Self::AwsKms(aws) if aws.key_id.is_empty() || aws.key_id.len() > 400 => {
                Some(("`key_id` is none", "give the key's ARN"))
            }
            Self::Vault(_) | Self::AwsKms(_) => None,
        }
    }
}
