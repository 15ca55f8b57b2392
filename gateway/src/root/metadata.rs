//! Credentials of AWS that are lent for a time: from the instance's metadata service, or the container's.
//!
//! Owns how they are asked for and how long they are used. Must never ask anybody further away than this host's link,
//! speak the first version of the instance's service (which needs no token and so can be had by proxy), or ask twice
//! at once.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_control::vault::RootError;
use cofferdam_model::{Clock, UnixNanos};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::config::{AwsKms, CredentialsFrom, near};
use super::courier::Courier;
use super::credential;
use crate::aws::Keys;
use crate::client::Answer;
use crate::error::GatewayError;

/// Where an instance has its service.
const INSTANCE: &str = "http://169.254.169.254";
/// Where ECS has its own.
const ECS: &str = "http://169.254.170.2";
const TOKEN: &str = "/latest/api/token";
const ROLE: &str = "/latest/meta-data/iam/security-credentials/";
/// Seconds a token of an instance's service is asked for.
const TOKEN_SECONDS: u64 = 21_600;
/// They are renewed this long before they end.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// Who could not have them does not ask again for so long, and nobody who waited behind does.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest an answer of this link may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// Lent credentials.
struct Lent {
    keys: Keys,
    until: UnixNanos,
}

#[derive(Default)]
struct State {
    lent: Option<Lent>,
    /// The instance's service wants to see this; good until then.
    token: Option<(Zeroizing<String>, Duration)>,
    /// Why they could not be had, and when that was.
    failed: Option<(RootError, Duration)>,
}

/// A service that lends credentials.
pub(super) struct Metadata {
    from: CredentialsFrom,
    path: String,
    token_file: Option<PathBuf>,
    courier: Courier,
    clock: Arc<dyn Clock>,
    /// Held while they are asked for: whoever comes meanwhile waits for the answer instead of asking too.
    state: Mutex<State>,
}

/// What both kinds of service answer. Others of its members are not looked at.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    #[serde(default)]
    code: Option<String>,
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

impl Metadata {
    pub(super) fn new(from: CredentialsFrom, config: &AwsKms, clock: Arc<dyn Clock>) -> Result<Self, GatewayError> {
        let (at, path) = match (&config.metadata, from) {
            (Some(url), _) => near(url),
            (None, CredentialsFrom::Instance) => near(INSTANCE),
            (None, CredentialsFrom::Container) => near(&container()?),
        }
        .ok_or(GatewayError::NoMetadata { what: "its address is not of this host or its link" })?;
        let given = || std::env::var_os("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from);
        let token_file = match from {
            CredentialsFrom::Instance => None,
            CredentialsFrom::Container => config.metadata_token_file.clone().or_else(given),
        };
        let courier = Courier::nearby(at, DEADLINE)?;
        Ok(Self { from, path, token_file, courier, clock, state: Mutex::default() })
    }

    /// Credentials that are good now.
    pub(super) fn keys(&self) -> Result<Keys, RootError> {
        let mut state = self.state();
        let now = self.clock.now();
        let good = |lent: &&Lent, early: Duration| now.plus(early) < lent.until;
        if let Some(lent) = state.lent.as_ref().filter(|lent| good(lent, EARLY)) {
            return Ok(lent.keys.clone());
        }
        let recent = |at: Duration| self.clock.monotonic().saturating_sub(at) < PAUSE;
        let failed = state.failed.clone().filter(|(_, at)| recent(*at));
        let asked = match failed {
            Some((error, _)) => Err(error),
            None => self.ask(&mut state).inspect_err(|error| {
                tracing::warn!(%error, "credentials of AWS could not be renewed");
            }),
        };
        match asked {
            Ok(lent) => {
                let keys = lent.keys.clone();
                (state.lent, state.failed) = (Some(lent), None);
                Ok(keys)
            }
            Err(error) => {
                if !state.failed.as_ref().is_some_and(|(_, at)| recent(*at)) {
                    state.failed = Some((error.clone(), self.clock.monotonic()));
                }
                // Those of before are good until their very end.
                let left = state.lent.as_ref().filter(|lent| good(lent, Duration::ZERO));
                left.map(|lent| lent.keys.clone()).ok_or(error)
            }
        }
    }

    /// Has them asked for anew: they were refused.
    pub(super) fn doubt(&self) {
        self.state().lent = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, state: &mut State) -> Result<Lent, RootError> {
        let answer = match self.from {
            CredentialsFrom::Container => self.get(self.path.clone(), self.authorization()?)?,
            CredentialsFrom::Instance => match self.of_instance(state) {
                // A token can be forgotten by the service before its time; another one is asked for, once.
                Err(Refused::Token) => {
                    state.token = None;
                    self.of_instance(state)
                }
                told => told,
            }
            .map_err(Refused::into_error)?,
        };
        let answer = understood(answer).map_err(Refused::into_error)?;
        let told: Told = serde_json::from_slice(&answer.body)
            .map_err(|error| nonsense(&format!("credentials that are none, at column {}", error.column())))?;
        if told.code.is_some_and(|code| code != "Success") {
            return Err(RootError::Refused("the metadata service lends no credentials to this role".into()));
        }
        let until = UnixNanos::parse(&told.expiration).ok_or_else(|| nonsense("an end that is no moment"))?;
        if until <= self.clock.now() {
            return Err(RootError::Unavailable("the metadata service gave credentials that have ended".into()));
        }
        let keys = Keys {
            access: told.access_key_id,
            secret: Zeroizing::new(told.secret_access_key),
            session: Some(Zeroizing::new(told.token)),
        };
        Ok(Lent { keys, until })
    }

    /// What the container's service wants to see. The file is read anew each time, as whoever made it replaces it.
    fn authorization(&self) -> Result<HeaderMap, RootError> {
        let text = match &self.token_file {
            Some(file) => Some(credential(file)?),
            None => std::env::var("AWS_CONTAINER_AUTHORIZATION_TOKEN").ok().map(Zeroizing::new),
        };
        let mut headers = HeaderMap::new();
        if let Some(text) = text {
            headers.insert(http::header::AUTHORIZATION, sensitive(text.trim())?);
        }
        Ok(headers)
    }

    fn of_instance(&self, state: &mut State) -> Result<Answer, Refused> {
        let token = self.token(state)?;
        let mut headers = HeaderMap::new();
        headers.insert("x-aws-ec2-metadata-token", sensitive(&token)?);
        let base = self.path.trim_end_matches('/');
        let role = understood(self.get(format!("{base}{ROLE}"), headers.clone())?)?;
        let role = std::str::from_utf8(&role.body).unwrap_or_default().lines().next().unwrap_or_default().trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@-_".contains(&byte);
        if role.is_empty() || role.len() > 128 || !role.bytes().all(plain) {
            return Err(RootError::Refused("the instance has no role: attach one that may use the key".into()).into());
        }
        understood(self.get(format!("{base}{ROLE}{role}"), headers)?)
    }

    fn token(&self, state: &mut State) -> Result<Zeroizing<String>, Refused> {
        let now = self.clock.monotonic();
        if let Some((token, until)) = &state.token
            && now < *until
        {
            return Ok(token.clone());
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-aws-ec2-metadata-token-ttl-seconds", HeaderValue::from(TOKEN_SECONDS));
        let path = format!("{}{TOKEN}", self.path.trim_end_matches('/'));
        let answer = understood(self.courier.ask(Method::PUT, path, headers, Bytes::new())?)?;
        let text = std::str::from_utf8(&answer.body).map_err(|_| nonsense("a token that is no text"))?;
        let token = Zeroizing::new(text.trim().to_owned());
        state.token = Some((token.clone(), now.saturating_add(Duration::from_secs(TOKEN_SECONDS / 2))));
        Ok(token)
    }

    fn get(&self, path: String, headers: HeaderMap) -> Result<Answer, RootError> {
        self.courier.ask(Method::GET, path, headers, Bytes::new())
    }
}

/// Where a container is told to ask.
fn container() -> Result<String, GatewayError> {
    let set = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let relative = set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{ECS}{path}"));
    let what = "neither `AWS_CONTAINER_CREDENTIALS_FULL_URI` nor `.._RELATIVE_URI` is set: is this a container of \
                ECS or EKS?";
    relative.or_else(|| set("AWS_CONTAINER_CREDENTIALS_FULL_URI")).ok_or(GatewayError::NoMetadata { what })
}

/// Why a service gave nothing.
enum Refused {
    /// It does not know the token any more.
    Token,
    Because(RootError),
}

impl Refused {
    fn into_error(self) -> RootError {
        match self {
            Self::Token => RootError::Refused("the metadata service does not take its own token".into()),
            Self::Because(error) => error,
        }
    }
}

impl From<RootError> for Refused {
    fn from(error: RootError) -> Self {
        Self::Because(error)
    }
}

fn nonsense(what: &str) -> RootError {
    RootError::Nonsense(format!("the metadata service gave {what}"))
}

/// What an answer means. Its words are not passed on: they may hold what was asked for.
fn understood(answer: Answer) -> Result<Answer, Refused> {
    let said = format!("the metadata service answered with status {}", answer.status.as_u16());
    match answer.status {
        status if status.is_success() => Ok(answer),
        StatusCode::UNAUTHORIZED => Err(Refused::Token),
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => Err(RootError::Refused(said).into()),
        _ => Err(RootError::Unavailable(said).into()),
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, RootError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| nonsense("a token that is no header"))?;
    value.set_sensitive(true);
    Ok(value)
}
