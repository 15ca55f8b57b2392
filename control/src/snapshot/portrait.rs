//! All of a snapshot as text, for tests that compare two.
//!
//! Owns the list of what is told: everything but the generation. Must never be built outside of tests.

use std::fmt::Write;

use super::{Snapshot, TenantEntry};

impl Snapshot {
    /// Everything that exists, line by line, in an order that does not depend on how it came to be.
    pub(crate) fn portrait(&self) -> String {
        let mut out = format!("issuer {:?}\n", self.own_issuer);
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_unstable();
        writeln!(out, "names {names:?}").unwrap();
        for organisation in self.organisations.values() {
            let ceiling = organisation.ceiling.as_ref().map(|ceiling| ceiling.facts());
            let (id, name, created) = (&organisation.id, &organisation.name, organisation.created);
            writeln!(out, "organisation {id} {name} {created:?} {ceiling:?} {:?}", organisation.sources).unwrap();
        }
        self.tenants.values().for_each(|tenant| tenant.portray(self, &mut out));
        out
    }
}

impl TenantEntry {
    fn portray(&self, snapshot: &Snapshot, out: &mut String) {
        let Self { id, name, active, created, limits, organisation, egress, .. } = self;
        writeln!(out, "tenant {id} {name} {active} {created:?} {limits:?} {organisation:?} {egress:?}").unwrap();
        writeln!(out, "  members {:?}", self.members).unwrap();
        for function in self.functions.values() {
            let same = self.by_id.get(&function.id).is_some_and(|other| std::sync::Arc::ptr_eq(other, function));
            let (id, name, generation, given) = (&function.id, &function.name, function.generation, &function.given);
            writeln!(out, "  function {id} {name} {same} {generation} {given:?} {:?}", function.current).unwrap();
            writeln!(out, "    {:?} {:?} {:?}", function.settings, function.limits, function.secrets).unwrap();
        }
        writeln!(out, "  functions {}", self.by_id.len()).unwrap();
        self.routes.iter().for_each(|route| writeln!(out, "  route {route:?}").unwrap());
        let policies = snapshot.policies(id).unwrap();
        let (grants, boundary) = (policies.grants().facts(), policies.boundary().map(|tier| tier.facts()));
        writeln!(out, "  policies {:?} {grants:?} {boundary:?}", policies.sets()).unwrap();
        writeln!(out, "  texts {:?} {:?}", self.sources, self.boundary).unwrap();
        for key in self.api_keys.values() {
            let record = &key.record;
            let told = (&record.id, &record.account, &record.roles, &record.scopes, record.expires, record.revoked);
            writeln!(out, "  key {:?} {told:?} {:?}", key.row, record.settings).unwrap();
        }
        writeln!(out, "  machines {:?} {}", self.client_cas, self.authorities.is_some()).unwrap();
        writeln!(out, "  revoked {:?}", self.revocations.rows().collect::<Vec<_>>()).unwrap();
        for user in self.users.values() {
            writeln!(out, "  user {:?} {:?}", user.row, user.record.roles).unwrap();
        }
        writeln!(out, "  keys {:?}", self.key_names()).unwrap();
    }
}
