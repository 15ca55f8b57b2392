//! What is checked of each kind of credential.
//!
//! Owns the list, in the order of the checks, each by the refusal that its failure is. Whoever is believed has passed
//! all of them; whoever is refused failed one. Must never name a check that is not made.

use cofferdam_model::CredentialKind;

use crate::error::Refusal;

/// The checks a credential of this kind has to pass. Some only apply where its issuer, key or account asks for them.
pub fn checks(kind: CredentialKind) -> &'static [Refusal] {
    use Refusal as R;
    match kind {
        CredentialKind::Jwt => &[
            R::TwoCredentials,
            R::TooLong,
            R::Malformed,
            R::DuplicateName,
            R::UnknownIssuer,
            R::Header,
            R::Algorithm,
            R::Type,
            R::UnknownKey,
            R::Signature,
            R::Claims,
            R::Audience,
            R::Expired,
            R::NotYetValid,
            R::Lifetime,
            R::ProofMissing,
            R::Tenant,
            R::Revoked,
        ],
        CredentialKind::ApiKey => {
            &[R::TwoCredentials, R::TooLong, R::Malformed, R::ApiKey, R::Expired, R::Network, R::Revoked]
        }
        CredentialKind::Sigv4 => &[
            R::TwoCredentials,
            R::Malformed,
            R::Scope,
            R::NotYetValid,
            R::Lifetime,
            R::Unsigned,
            R::ApiKey,
            R::Expired,
            R::Network,
            R::Signature,
            R::Replay,
            R::Revoked,
        ],
        CredentialKind::Certificate => &[R::TwoCredentials, R::Certificate, R::UnknownMachine, R::Expired, R::Revoked],
        CredentialKind::Passphrase => &[R::TooLong, R::Passphrase, R::Revoked],
        CredentialKind::None => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_to_refuse_a_credential_is_a_check_of_some_kind() {
        let listed = |reason: &Refusal| CredentialKind::ALL.iter().any(|kind| checks(*kind).contains(reason));
        let missing: Vec<_> = Refusal::ALL.iter().filter(|reason| !listed(reason)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        for kind in CredentialKind::ALL {
            let all = checks(*kind);
            assert!(all.iter().enumerate().all(|(place, check)| !all[..place].contains(check)), "{kind:?}");
        }
    }
}
