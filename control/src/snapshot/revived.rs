//! What comes back when a revocation is undone.
//!
//! Owns whose roles those are, as far as the node knows. Must never say less than what comes back: where a token could
//! tell more roles than are known here, it is anybody's.

use std::collections::BTreeSet;

use cofferdam_model::{Revived, RevocationId, RevocationTarget};

use super::{Snapshot, TenantEntry};

impl Snapshot {
    /// What undoing a revocation gives back; none where there is no such revocation.
    pub fn revived(&self, id: &RevocationId) -> Option<Revived> {
        let tenant = self.tenants.get(&id.tenant())?;
        let row = tenant.revocations.rows().find(|row| row.id == *id)?;
        Some(match &row.target {
            RevocationTarget::Account { account } => tenant.revived_account(account),
            RevocationTarget::Subject { issuer: Some(issuer), subject }
            | RevocationTarget::Sessions { issuer: Some(issuer), subject: Some(subject), .. }
                if self.own_issuer.as_deref() == Some(issuer) =>
            {
                tenant.revived_user(subject)
            }
            // Issuers elsewhere may give roles in their tokens, and a token's id or key says nothing of whose it is.
            _ => Revived::Anybody,
        })
    }
}

impl TenantEntry {
    /// With the roles of every key and certificate of that name, be they still good or not.
    fn revived_account(&self, account: &str) -> Revived {
        let keys = self.api_keys.values().filter(|key| key.row.account == account).flat_map(|key| &key.row.roles);
        let machines = self.client_cas.iter().flat_map(|ca| &ca.ca.accounts);
        let machines = machines.filter(|machine| machine.account == account).flat_map(|machine| &machine.roles);
        let roles: BTreeSet<&String> = keys.chain(machines).collect();
        Revived::Account { name: account.to_owned(), roles: roles.into_iter().cloned().collect() }
    }

    /// A user of the node's own issuer has the roles it was given, and its tokens no others.
    fn revived_user(&self, name: &str) -> Revived {
        let roles = self.users.get(name).map(|user| user.row.roles.clone()).unwrap_or_default();
        Revived::User { name: name.to_owned(), roles }
    }
}
