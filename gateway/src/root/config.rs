//! Where the root key is, as an operator says it.
//!
//! Owns the shape and its defaults. Must never hold a credential: those are in files of their own.

use std::net::{IpAddr, SocketAddr};
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
    /// `aws_session_token`), read anew for every request; absent where `credentials_from` says where they are.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
    /// Where they are asked for: at the instance, or at the container this runs in.
    #[serde(default)]
    pub credentials_from: Option<CredentialsFrom>,
    /// Another address of that service, as `http://…` of this host or its link; what AWS set up when absent.
    #[serde(default)]
    pub metadata: Option<String>,
    /// File of the token that a container's service wants to see; what AWS set up when absent.
    #[serde(default)]
    pub metadata_token_file: Option<PathBuf>,
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

/// Where credentials are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialsFrom {
    /// The metadata service of an EC2 instance, in its second version alone.
    Instance,
    /// What ECS and EKS (Pod Identity) give a container.
    Container,
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
            Self::AwsKms(aws) => {
                let files = aws.credentials_file.iter_mut().chain(&mut aws.metadata_token_file);
                aws.ca.iter_mut().chain(files).collect()
            }
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
            Self::AwsKms(aws) if aws.credentials_file.is_some() == aws.credentials_from.is_some() => {
                Some(("`credentials_file` or `credentials_from`, one of them", "say where the credentials are"))
            }
            Self::AwsKms(aws) if aws.metadata.as_ref().is_some_and(|url| near(url).is_none()) => Some((
                "`metadata` is no `http://` address of this host or its link",
                "credentials are not asked for, without TLS, any further away",
            )),
            Self::Vault(_) | Self::AwsKms(_) => None,
        }
    }
}

/// Address and path of a service on this host or its link. Names are not looked up: whoever answers for them could be
/// anywhere.
pub(super) fn near(url: &str) -> Option<(SocketAddr, String)> {
    let uri: http::Uri = url.parse().ok()?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = host.parse().ok()?;
    let here = match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        // `fd00:ec2::/32` is where AWS has its services for IPv6.
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.segments().starts_with(&[0xfd00, 0xec2]),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let plain = uri.scheme_str() == Some("http") && here;
    plain.then(|| (SocketAddr::new(address, authority.port_u16().unwrap_or(80)), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_asked_for_on_this_host_and_its_link_alone() {
        for url in ["http://127.0.0.1:1338/x", "http://169.254.169.254", "http://169.254.170.23/v1/credentials"] {
            assert!(near(url).is_some(), "{url}");
        }
        assert_eq!(near("http://[fd00:ec2::254]/a?b").unwrap(), ("[fd00:ec2::254]:80".parse().unwrap(), "/a?b".into()));
        for url in [
            "https://127.0.0.1/",
            "http://localhost/",
            "http://10.0.0.1/",
            "http://192.0.2.1/",
            "http://a@127.0.0.1/",
            "http://[2001:db8::1]/",
            "http://[fd00:ec3::254]/",
            "http://169.254.170.2.example/",
            "169.254.169.254",
            "",
        ] {
            assert_eq!(near(url), None, "{url}");
        }
        let flaw = |more: &str| {
            let text = format!("[aws-kms]\nkey_id = \"k\"\nregion = \"eu-central-1\"\n{more}");
            toml_edit::de::from_str::<Provider>(&text).unwrap().flaw().is_some()
        };
        assert!(!flaw("credentials_from = \"instance\"") && !flaw("credentials_file = \"/a\""));
        assert!(flaw("") && flaw("credentials_from = \"container\"\ncredentials_file = \"/a\""));
        assert!(flaw("credentials_from = \"instance\"\nmetadata = \"http://192.0.2.1\""));
    }
}
