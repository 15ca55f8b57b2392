//! From what a call shows to who is calling.
//!
//! Owns which of a call's parts are credentials, and that a call shows one of them at most. Must never leave one in
//! the call for a function to see, and never try a second where the first is no good.

use std::time::Duration;

use bytes::Bytes;
use cofferdam_authz::{Credential, IdentityError, Payload as Signed, Principal, Refusal as Reason, sigv4};
use http::{HeaderValue, header};

use crate::body::Inbound;
use crate::call::Received;
use crate::live::Picture;
use crate::node::Node;
use crate::perform;
use crate::refusal::Refusal;
use crate::signed::{AsSent, Payload};

/// Bytes of a body whose digest must be known before its signature can be checked. Longer ones name theirs.
const SIGNED_BODY_BYTES: u64 = 1024 * 1024;

/// Why it cannot be told who calls.
pub(crate) enum Unknown {
    /// The call itself is at fault, or there is no room for it.
    Refused(Refusal),
    /// What it shows is.
    Identity(IdentityError),
}

impl From<Refusal> for Unknown {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<IdentityError> for Unknown {
    fn from(error: IdentityError) -> Self {
        Self::Identity(error)
    }
}

/// Whether a call shows nothing outside of its body.
pub(crate) fn is_bare(call: &Received) -> bool {
    let certificate = call.came.as_ref().and_then(|came| came.certificate.as_ref());
    !call.headers.contains_key(header::AUTHORIZATION) && call.sent.is_none() && certificate.is_none()
}

/// Takes the credential out of the call, so that no function ever sees it, and finds out whose it is.
pub(crate) async fn identify(node: &Node, picture: &Picture, call: &mut Received) -> Result<Principal, Unknown> {
    let shown: Vec<HeaderValue> = match call.headers.entry(header::AUTHORIZATION) {
        header::Entry::Occupied(fields) => fields.remove_entry_mult().1.collect(),
        header::Entry::Vacant(_) => Vec::new(),
    };
    let certificate = call.came.as_ref().and_then(|came| came.certificate.clone());
    match (call.sent.take(), certificate) {
        (None, None) => {
            let credential = credential(&shown, node.limits.credential_bytes).map_err(IdentityError::from)?;
            let source = Some(call.circumstances.source);
            node.identities.identify_from(source, credential, &*picture.snapshot).await.map_err(Unknown::Identity)
        }
        (None, Some(certificate)) if shown.is_empty() => {
            node.identities.identify_machine(&certificate, &*picture.snapshot).map_err(Unknown::Identity)
        }
        (Some(sent), None) => signer(node, picture, call, &sent).await?.map_err(Unknown::Identity),
        // Two credentials: whichever is taken, the other was meant.
        (_, Some(_)) => Err(IdentityError::Refused(Reason::TwoCredentials).into()),
    }
}

/// Who signed a call. A body that the signature names is checked while it comes; one that it does not name is read
/// first, if it is short.
async fn signer(
    node: &Node,
    picture: &Picture,
    call: &mut Received,
    sent: &AsSent,
) -> Result<Result<Principal, IdentityError>, Refusal> {
    call.query = call.query.take().and_then(|query| sigv4::without_credential(&query));
    let (source, snapshot) = (call.circumstances.source, &*picture.snapshot);
    let claim = match sent.read(|request| node.identities.examine(request, source, snapshot)) {
        Ok(claim) => claim,
        Err(error) => return Ok(Err(error)),
    };
    let body = std::mem::replace(&mut call.body, Payload::whole(Bytes::new()));
    let mut digest = None;
    call.body = match claim.payload() {
        Signed::Digest(expected) => body.checked(expected),
        Signed::Unsigned => body,
        Signed::Unknown => {
            let busy = |_| Refusal::Overloaded { retry_after: Duration::from_secs(1) };
            let _place = node.uploads.1.try_acquire().map_err(busy)?;
            let idle = Duration::from_millis(node.limits.body_idle_ms);
            let whole = Inbound::new(body, SIGNED_BODY_BYTES, idle)?.collect_within(idle).await?;
            digest = Some(perform::digest(&whole).0);
            Payload::whole(whole)
        }
    };
    Ok(node.identities.prove(claim, digest, snapshot).await)
}

fn credential(shown: &[HeaderValue], most: usize) -> Result<Credential<'_>, Reason> {
    let [value] = shown else {
        return if shown.is_empty() { Ok(Credential::None) } else { Err(Reason::TwoCredentials) };
    };
    let text = value.to_str().map_err(|_| Reason::Malformed)?;
    if text.len() > most {
        return Err(Reason::TooLong);
    }
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Credential::Bearer(token)),
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("apikey") => Ok(Credential::ApiKey(key)),
        _ => Err(Reason::Malformed),
    }
}
