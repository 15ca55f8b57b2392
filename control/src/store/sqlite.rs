//! The store on SQLite: one file, write-ahead log, every commit synced to disk.
//!
//! Owns the statements. Must never build one from text it was given: values are bound, always.

mod functions;
mod identity;
mod keep;
mod keys;
mod look;
mod machine;
mod tiers;
mod usage;

use std::path::Path;
use std::time::Duration;

use cofferdam_model::{
    Digest, FunctionId, KeyId, OrganisationId, PolicyTier, RevocationId, TenantId, TenantSettings, UnixNanos,
    UsageRange, VersionId,
};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Params, Row, TransactionBehavior, named_params, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::functions::{function_row, route_row, version_row};
use super::tiers::Tiers;
use super::{
    ApiKeyRow, ClientCaRow, FunctionRow, IssuerKeyRow, MemberRow, OpenCall, PolicyRow, RevocationRow, RouteRow,
    SealedRow, SecretRow, Store, TenantRow, TenantState, Transaction, UsageMark, UsageRow, UsageStep, UserRow,
    VersionRow, Work, migrations,
};
use crate::error::ControlError;
use crate::vault::WrappedKey;

/// How long a statement waits for another process to let go of the file.
const BUSY: Duration = Duration::from_secs(5);

/// The store on one SQLite file.
pub struct SqliteStore {
    connection: Connection,
    begin: TransactionBehavior,
}

impl SqliteStore {
    /// Opens the file, which must be there, and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::over(Connection::open_with_flags(path, flags).map_err(failed)?)
    }

    fn over(mut connection: Connection) -> Result<Self, ControlError> {
        connection.busy_timeout(BUSY).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        // Text in the file may not make SQLite call functions with side effects.
        connection.pragma_update(None, "trusted_schema", false).map_err(failed)?;
        // What is deleted, sealed secrets among it, is overwritten in the file.
        connection.pragma_update(None, "secure_delete", true).map_err(failed)?;
        migrations::run(&mut connection)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { connection, begin: TransactionBehavior::Immediate })
    }
}

impl Store for SqliteStore {
    fn transact(&mut self, work: &mut Work<'_>) -> Result<(), ControlError> {
        let tx = self.connection.transaction_with_behavior(self.begin).map_err(failed)?;
        work(&mut SqliteTransaction { tx: &tx })?;
        tx.commit().map_err(failed)
    }

    fn scrub(&mut self) -> Result<(), ControlError> {
        // Pages as they were before stand in the write-ahead log until it is begun anew.
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)
    }
}

struct SqliteTransaction<'a> {
    tx: &'a rusqlite::Transaction<'a>,
}

impl SqliteTransaction<'_> {
    fn execute(&self, sql: &str, values: impl Params) -> Result<usize, ControlError> {
        self.tx.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(failed)
    }

    fn rows<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl Fn(&Row<'_>) -> Result<T, ControlError>,
    ) -> Result<Vec<T>, ControlError> {
        let mut statement = self.tx.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(values).map_err(failed)?;
        let mut out = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            out.push(read(row)?);
        }
        Ok(out)
    }
}

impl Transaction for SqliteTransaction<'_> {
    fn next_generation(&mut self) -> Result<u64, ControlError> {
        let sql = "UPDATE counters SET value = value + 1 WHERE name = 'generation' RETURNING value";
        self.tx.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed).and_then(unsigned)
    }

    fn tenants(&mut self) -> Result<Vec<TenantRow>, ControlError> {
        self.rows("SELECT id, name, active, settings, created, organisation FROM tenants ORDER BY name", [], tenant_row)
    }

    fn tenant(&mut self, id: &TenantId) -> Result<Option<TenantState>, ControlError> {
        let sql = "SELECT id, name, active, settings, created, organisation FROM tenants WHERE id = ?1";
        let Some(tenant) = self.rows(sql, [id.as_str()], tenant_row)?.pop() else { return Ok(None) };
        let own = [id.as_str()];
        Ok(Some(TenantState {
            tenant,
            keys: keys::of(self, id)?,
            members: self.rows(
                "SELECT issuer, subject, roles FROM members WHERE tenant = ?1 ORDER BY subject, issuer",
                own,
                identity::member_row,
            )?,
            functions: self.rows(
                "SELECT f.id, f.name, f.settings, f.generation, f.current,
                        v.id, v.function, v.component, v.component_bytes, v.settings, v.published
                 FROM functions f LEFT JOIN versions v ON v.id = f.current WHERE f.tenant = ?1 ORDER BY f.name",
                own,
                function_row,
            )?,
            routes: self.rows(
                "SELECT id, app, spec, function FROM routes WHERE tenant = ?1 ORDER BY app, id",
                own,
                route_row,
            )?,
            policies: self.rows("SELECT name, text FROM policies WHERE tenant = ?1 ORDER BY name", own, policy_row)?,
            policies_set: self.policy_set(PolicyTier::Tenant, id.as_str())?,
            boundary: self.ceiling(PolicyTier::Boundary, id.as_str())?,
            boundary_set: self.policy_set(PolicyTier::Boundary, id.as_str())?,
            secrets: self.rows(
                "SELECT s.function, s.name, s.version, s.sealed, s.updated, s.epoch
                 FROM secrets s JOIN functions f ON f.id = s.function WHERE f.tenant = ?1 ORDER BY s.function, s.name",
                own,
                keys::secret_row,
            )?,
            api_keys: self.rows(machine::KEYS, own, machine::key_row)?,
            client_cas: self.rows(machine::CAS, own, machine::ca_row)?,
            revocations: identity::revocations(self, id)?,
            users: identity::users(self, id)?,
        }))
    }

    fn insert_tenant(&mut self, tenant: &TenantRow, key: &WrappedKey) -> Result<(), ControlError> {
        let known = "SELECT name FROM tenants WHERE id = ?1 OR name = ?2";
        let taken: Option<String> = self
            .tx
            .query_row(known, params![tenant.id.as_str(), tenant.name], |row| row.get(0))
            .optional()
            .map_err(failed)?;
        if let Some(name) = taken {
            return Err(ControlError::Exists { what: "tenant", name });
        }
        self.execute(
            "INSERT INTO tenants (id, name, active, settings, created, organisation) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                tenant.id.as_str(),
                tenant.name,
                tenant.active,
                json(&tenant.settings)?,
                signed(tenant.created.0)?,
                tenant.organisation.as_ref().map(OrganisationId::as_str),
            ],
        )?;
        keys::put(self, &tenant.id, key)
    }

    fn set_tenant_active(&mut self, tenant: &TenantId, active: bool) -> Result<(), ControlError> {
        self.execute("UPDATE tenants SET active = ?2 WHERE id = ?1", params![tenant.as_str(), active]).map(|_| ())
    }

    fn put_tenant_key(&mut self, tenant: &TenantId, key: &WrappedKey) -> Result<(), ControlError> {
        keys::put(self, tenant, key)
    }

    fn tenant_keys(&mut self, tenant: &TenantId) -> Result<Vec<WrappedKey>, ControlError> {
        keys::of(self, tenant)
    }

    fn remove_tenant_key(&mut self, tenant: &TenantId, version: u32) -> Result<bool, ControlError> {
        let sql = "DELETE FROM tenant_keys WHERE tenant = ?1 AND version = ?2";
        Ok(self.execute(sql, params![tenant.as_str(), version])? > 0)
    }

    fn sealed_otherwise(&mut self, tenant: &TenantId, key: u32, most: usize) -> Result<Vec<SealedRow>, ControlError> {
        keys::sealed_otherwise(self, tenant, key, most)
    }

    fn put_sealed(&mut self, row: &SealedRow) -> Result<(), ControlError> {
        keys::put_sealed(self, row)
    }

    fn put_member(&mut self, tenant: &TenantId, member: &MemberRow) -> Result<(), ControlError> {
        identity::put_member(self, tenant, member)
    }

    fn remove_member(&mut self, tenant: &TenantId, issuer: Option<&str>, subject: &str) -> Result<bool, ControlError> {
        let sql = "DELETE FROM members WHERE tenant = ?1 AND issuer = ?2 AND subject = ?3";
        Ok(self.execute(sql, params![tenant.as_str(), issuer.unwrap_or_default(), subject])? > 0)
    }

    fn put_tenant_settings(&mut self, tenant: &TenantId, settings: &TenantSettings) -> Result<(), ControlError> {
        self.execute("UPDATE tenants SET settings = ?2 WHERE id = ?1", params![tenant.as_str(), json(settings)?])?;
        Ok(())
    }

    fn put_function(&mut self, function: &FunctionRow) -> Result<(), ControlError> {
        self.execute(
            "INSERT INTO functions (id, tenant, name, settings, generation, current)
             VALUES (:id, :tenant, :name, :settings, :generation, :current)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, settings = excluded.settings,
                 generation = excluded.generation, current = excluded.current",
            named_params! {
                ":id": function.id.as_str(),
                ":tenant": function.id.tenant().as_str(),
                ":name": function.name,
                ":settings": json(&function.settings)?,
                ":generation": signed(function.generation)?,
                ":current": function.current.as_ref().map(VersionId::as_str),
            },
        )?;
        self.execute(
            "INSERT INTO function_names (id, name) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            params![function.id.as_str(), function.name],
        )?;
        Ok(())
    }

    fn remove_function(&mut self, id: &FunctionId) -> Result<bool, ControlError> {
        Ok(self.execute("DELETE FROM functions WHERE id = ?1", [id.as_str()])? > 0)
    }

    fn versions(&mut self, function: &FunctionId) -> Result<Vec<VersionRow>, ControlError> {
        self.rows(
            "SELECT id, function, component, component_bytes, settings, published
             FROM versions WHERE function = ?1 ORDER BY published DESC, id",
            [function.as_str()],
            |row| version_row(row, 0),
        )
    }

    fn insert_version(&mut self, version: &VersionRow) -> Result<(), ControlError> {
        self.execute(
            "INSERT INTO versions (id, function, component, component_bytes, settings, published)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                version.id.as_str(),
                version.function.as_str(),
                version.component.to_string(),
                signed(version.component_bytes)?,
                json(&version.settings)?,
                signed(version.published.0)?,
            ],
        )?;
        Ok(())
    }

    fn remove_version(&mut self, id: &VersionId) -> Result<bool, ControlError> {
        let sql = "DELETE FROM versions WHERE id = ?1 AND id NOT IN (SELECT current FROM functions WHERE current = ?1)";
        Ok(self.execute(sql, [id.as_str()])? > 0)
    }

    fn routes_on(&mut self, host: &str) -> Result<Vec<RouteRow>, ControlError> {
        self.rows("SELECT id, app, spec, function FROM routes WHERE host = ?1 ORDER BY id", [host], route_row)
    }

    fn replace_routes(&mut self, tenant: &TenantId, app: &str, routes: &[RouteRow]) -> Result<(), ControlError> {
        self.execute("DELETE FROM routes WHERE tenant = ?1 AND app = ?2", params![tenant.as_str(), app])?;
        for route in routes {
            self.execute(
                "INSERT INTO routes (id, tenant, app, host, spec, function) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    route.id.as_str(),
                    tenant.as_str(),
                    app,
                    route.spec.host,
                    json(&route.spec)?,
                    route.function.as_str()
                ],
            )?;
        }
        Ok(())
    }

    fn put_policy(&mut self, tenant: &TenantId, policy: &PolicyRow) -> Result<(), ControlError> {
        tiers::put_policy(self, tenant, policy)
    }

    fn remove_policy(&mut self, tenant: &TenantId, name: &str) -> Result<bool, ControlError> {
        tiers::remove_policy(self, tenant, name)
    }

    fn put_secret(&mut self, secret: &SecretRow) -> Result<(), ControlError> {
        keys::put_secret(self, secret)
    }

    fn secret_history(&mut self, function: &FunctionId, name: &str) -> Result<Vec<SecretRow>, ControlError> {
        keys::history(self, function, name)
    }

    fn keep_secret(&mut self, secret: &SecretRow) -> Result<(), ControlError> {
        keys::keep(self, secret)
    }

    fn forget_secrets(&mut self, function: &FunctionId, name: &str, before: u64) -> Result<usize, ControlError> {
        let sql = "DELETE FROM secret_history WHERE function = ?1 AND name = ?2 AND version < ?3";
        self.execute(sql, params![function.as_str(), name, signed(before)?])
    }

    fn forget_secret(&mut self, function: &FunctionId, name: &str, version: u64) -> Result<bool, ControlError> {
        let sql = "DELETE FROM secret_history WHERE function = ?1 AND name = ?2 AND version = ?3";
        Ok(self.execute(sql, params![function.as_str(), name, signed(version)?])? > 0)
    }

    fn remove_secret(&mut self, function: &FunctionId, name: &str) -> Result<bool, ControlError> {
        let own = params![function.as_str(), name];
        self.execute("DELETE FROM secret_history WHERE function = ?1 AND name = ?2", own)?;
        Ok(self.execute("DELETE FROM secrets WHERE function = ?1 AND name = ?2", own)? > 0)
    }

    fn insert_api_key(&mut self, key: &ApiKeyRow) -> Result<(), ControlError> {
        machine::insert_key(self, key)
    }

    fn revoke_api_key(&mut self, id: &KeyId, at: UnixNanos) -> Result<bool, ControlError> {
        let sql = "UPDATE api_keys SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL";
        Ok(self.execute(sql, params![id.as_str(), signed(at.0)?])? > 0)
    }

    fn remove_api_key(&mut self, id: &KeyId) -> Result<bool, ControlError> {
        Ok(self.execute("DELETE FROM api_keys WHERE id = ?1", [id.as_str()])? > 0)
    }

    fn put_client_ca(&mut self, tenant: &TenantId, ca: &ClientCaRow) -> Result<(), ControlError> {
        machine::put_ca(self, tenant, ca)
    }

    fn remove_client_ca(&mut self, tenant: &TenantId, name: &str) -> Result<bool, ControlError> {
        let sql = "DELETE FROM client_cas WHERE tenant = ?1 AND name = ?2";
        Ok(self.execute(sql, params![tenant.as_str(), name])? > 0)
    }

    fn insert_revocation(&mut self, revocation: &RevocationRow) -> Result<(), ControlError> {
        identity::insert_revocation(self, revocation)
    }

    fn remove_revocation(&mut self, id: &RevocationId) -> Result<bool, ControlError> {
        Ok(self.execute("DELETE FROM revocations WHERE id = ?1", [id.as_str()])? > 0)
    }

    fn forget_revocations(&mut self, now: UnixNanos) -> Result<(), ControlError> {
        self.execute("DELETE FROM revocations WHERE expires <= ?1", [signed(now.0)?])?;
        Ok(())
    }

    fn put_user(&mut self, tenant: &TenantId, user: &UserRow) -> Result<(), ControlError> {
        identity::put_user(self, tenant, user)
    }

    fn remove_user(&mut self, tenant: &TenantId, name: &str) -> Result<bool, ControlError> {
        let sql = "DELETE FROM users WHERE tenant = ?1 AND name = ?2";
        Ok(self.execute(sql, params![tenant.as_str(), name])? > 0)
    }

    fn issuer_keys(&mut self) -> Result<Vec<IssuerKeyRow>, ControlError> {
        identity::issuer_keys(self)
    }

    fn insert_issuer_key(&mut self, key: &IssuerKeyRow) -> Result<(), ControlError> {
        identity::insert_issuer_key(self, key)
    }

    fn retire_issuer_keys(&mut self, at: UnixNanos) -> Result<(), ControlError> {
        self.execute("UPDATE issuer_keys SET retired = ?1 WHERE retired IS NULL", [signed(at.0)?])?;
        Ok(())
    }

    fn forget_issuer_keys(&mut self, retired: UnixNanos) -> Result<(), ControlError> {
        self.execute("DELETE FROM issuer_keys WHERE retired <= ?1", [signed(retired.0)?])?;
        Ok(())
    }

    fn components(&mut self, tenant: Option<&TenantId>) -> Result<Vec<(Digest, u64)>, ControlError> {
        self.rows(
            "SELECT v.component, MAX(v.component_bytes) FROM versions v JOIN functions f ON f.id = v.function
             WHERE ?1 IS NULL OR f.tenant = ?1 GROUP BY v.component ORDER BY v.component",
            [tenant.map(TenantId::as_str)],
            |row| Ok((Digest::try_from(get::<String>(row, 0)?).map_err(damaged)?, number(row, 1)?)),
        )
    }

    fn usage_mark(&mut self) -> Result<Option<(UsageMark, Vec<OpenCall>)>, ControlError> {
        usage::mark(self)
    }

    fn add_usage(&mut self, step: &UsageStep) -> Result<(), ControlError> {
        usage::add(self, step)
    }

    fn key_uses(&mut self, tenant: &TenantId) -> Result<Vec<(KeyId, u64)>, ControlError> {
        usage::of_keys(self, tenant)
    }

    fn count_anew(&mut self, sums: bool) -> Result<(), ControlError> {
        self.execute("DELETE FROM usage_open_calls", [])?;
        if sums { self.execute("DELETE FROM usage", []).map(|_| ()) } else { Ok(()) }
    }

    fn forget_usage(&mut self, before: u64) -> Result<(), ControlError> {
        usage::forget(self, before)
    }

    fn usage(
        &mut self,
        tenant: &TenantId,
        range: &UsageRange,
        most: usize,
    ) -> Result<Vec<(UsageRow, String)>, ControlError> {
        usage::rows(self, tenant, range, most)
    }
}

// === reading rows ===

fn tenant_row(row: &Row<'_>) -> Result<TenantRow, ControlError> {
    Ok(TenantRow {
        id: id(row, 0, TenantId::parse)?,
        name: get(row, 1)?,
        active: get(row, 2)?,
        settings: from_json(row, 3)?,
        created: UnixNanos(number(row, 4)?),
        organisation: get::<Option<String>>(row, 5)?
            .map(|id| OrganisationId::parse(&id))
            .transpose()
            .map_err(damaged)?,
    })
}

fn policy_row(row: &Row<'_>) -> Result<PolicyRow, ControlError> {
    Ok(PolicyRow { name: get(row, 0)?, text: get(row, 1)? })
}

fn failed(error: rusqlite::Error) -> ControlError {
    ControlError::Store(error.into())
}

fn damaged(error: impl std::fmt::Display) -> ControlError {
    ControlError::Damaged { what: error.to_string() }
}

fn get<T: rusqlite::types::FromSql>(row: &Row<'_>, column: usize) -> Result<T, ControlError> {
    row.get(column).map_err(failed)
}

fn id<T, E: std::fmt::Display>(
    row: &Row<'_>,
    column: usize,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, ControlError> {
    parse(&get::<String>(row, column)?).map_err(damaged)
}

fn number(row: &Row<'_>, column: usize) -> Result<u64, ControlError> {
    get::<i64>(row, column).and_then(unsigned)
}

fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, ControlError> {
    serde_json::from_str(&get::<String>(row, column)?).map_err(damaged)
}

fn json(value: &impl Serialize) -> Result<String, ControlError> {
    serde_json::to_string(value).map_err(|error| ControlError::Store(error.into()))
}

fn signed(number: u64) -> Result<i64, ControlError> {
    i64::try_from(number).map_err(damaged)
}

fn unsigned(number: i64) -> Result<u64, ControlError> {
    u64::try_from(number).map_err(damaged)
}
