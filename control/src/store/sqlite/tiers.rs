//! Organisations, ceilings, policies of tenants and the states of sets, in SQLite.
//!
//! Owns these statements. Must never build one from text it was given.

use cofferdam_model::{OrganisationId, PolicyTier, TenantId, UnixNanos};
use rusqlite::{OptionalExtension, params};

use super::{SqliteTransaction, failed, get, id, number, policy_row, signed};
use crate::error::ControlError;
use crate::store::PolicyRow;
use crate::store::tiers::{OrganisationRow, OrganisationState, SetRow, Tiers};

impl SqliteTransaction<'_> {
    /// Counts a change of a set, which nothing has found good since.
    pub(super) fn changed(&self, tier: PolicyTier, owner: &str) -> Result<(), ControlError> {
        let sql = "INSERT INTO policy_sets (tier, owner, version, rules) VALUES (?1, ?2, 1, NULL)
                   ON CONFLICT (tier, owner) DO UPDATE SET version = version + 1, rules = NULL";
        self.execute(sql, params![tier.as_str(), owner]).map(|_| ())
    }
}

impl Tiers for SqliteTransaction<'_> {
    fn organisations(&mut self) -> Result<Vec<OrganisationState>, ControlError> {
        let sql = "SELECT id, name, created FROM organisations ORDER BY name";
        let rows = self.rows(sql, [], |row| {
            let created = UnixNanos(number(row, 2)?);
            Ok(OrganisationRow { id: id(row, 0, OrganisationId::parse)?, name: get(row, 1)?, created })
        })?;
        let state = |organisation: OrganisationRow| {
            let (tier, owner) = (PolicyTier::Organisation, organisation.id.as_str());
            let (ceiling, set) = (self.ceiling(tier, owner)?, self.policy_set(tier, owner)?);
            Ok(OrganisationState { organisation, ceiling, set })
        };
        rows.into_iter().map(state).collect()
    }

    fn insert_organisation(&mut self, organisation: &OrganisationRow) -> Result<(), ControlError> {
        let OrganisationRow { id, name, created } = organisation;
        let known = "SELECT name FROM organisations WHERE id = ?1 OR name = ?2";
        let taken: Option<String> =
            self.tx.query_row(known, params![id.as_str(), name], |row| row.get(0)).optional().map_err(failed)?;
        if let Some(name) = taken {
            return Err(ControlError::Exists { what: "organisation", name });
        }
        let sql = "INSERT INTO organisations (id, name, created) VALUES (?1, ?2, ?3)";
        self.execute(sql, params![id.as_str(), name, signed(created.0)?]).map(|_| ())
    }

    fn assign_tenant(&mut self, tenant: &TenantId, to: Option<&OrganisationId>) -> Result<(), ControlError> {
        let sql = "UPDATE tenants SET organisation = ?2 WHERE id = ?1";
        self.execute(sql, params![tenant.as_str(), to.map(OrganisationId::as_str)]).map(|_| ())
    }

    fn ceiling(&mut self, tier: PolicyTier, owner: &str) -> Result<Vec<PolicyRow>, ControlError> {
        let sql = "SELECT name, text FROM ceilings WHERE tier = ?1 AND owner = ?2 ORDER BY name";
        self.rows(sql, params![tier.as_str(), owner], policy_row)
    }

    fn put_ceiling(&mut self, tier: PolicyTier, owner: &str, policy: &PolicyRow) -> Result<(), ControlError> {
        self.execute(
            "INSERT INTO ceilings (tier, owner, name, text) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (tier, owner, name) DO UPDATE SET text = excluded.text",
            params![tier.as_str(), owner, policy.name, policy.text],
        )?;
        self.changed(tier, owner)
    }

    fn remove_ceiling(&mut self, tier: PolicyTier, owner: &str, name: &str) -> Result<bool, ControlError> {
        let sql = "DELETE FROM ceilings WHERE tier = ?1 AND owner = ?2 AND name = ?3";
        let removed = self.execute(sql, params![tier.as_str(), owner, name])? > 0;
        if removed {
            self.changed(tier, owner)?;
        }
        Ok(removed)
    }

    fn policy_set(&mut self, tier: PolicyTier, owner: &str) -> Result<SetRow, ControlError> {
        let sql = "SELECT version, rules FROM policy_sets WHERE tier = ?1 AND owner = ?2";
        let read = |row: &rusqlite::Row<'_>| Ok(SetRow { version: number(row, 0)?, rules: get(row, 1)? });
        Ok(self.rows(sql, params![tier.as_str(), owner], read)?.pop().unwrap_or_default())
    }

    fn found_good(&mut self, tier: PolicyTier, owner: &str, rules: &str) -> Result<(), ControlError> {
        let sql = "INSERT INTO policy_sets (tier, owner, version, rules) VALUES (?1, ?2, 0, ?3)
                   ON CONFLICT (tier, owner) DO UPDATE SET rules = excluded.rules";
        self.execute(sql, params![tier.as_str(), owner, rules]).map(|_| ())
    }
}

pub(super) fn put_policy(
    on: &SqliteTransaction<'_>,
    tenant: &TenantId,
    policy: &PolicyRow,
) -> Result<(), ControlError> {
    on.execute(
        "INSERT INTO policies (tenant, name, text) VALUES (?1, ?2, ?3)
         ON CONFLICT (tenant, name) DO UPDATE SET text = excluded.text",
        params![tenant.as_str(), policy.name, policy.text],
    )?;
    on.changed(PolicyTier::Tenant, tenant.as_str())
}

pub(super) fn remove_policy(on: &SqliteTransaction<'_>, tenant: &TenantId, name: &str) -> Result<bool, ControlError> {
    let sql = "DELETE FROM policies WHERE tenant = ?1 AND name = ?2";
    let removed = on.execute(sql, params![tenant.as_str(), name])? > 0;
    if removed {
        on.changed(PolicyTier::Tenant, tenant.as_str())?;
    }
    Ok(removed)
}
