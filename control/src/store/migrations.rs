//! The steps that bring an SQLite file from any earlier version to this release's.
//!
//! Owns the schema. A step that has been released is never edited; a change is a new step at the end. Must never
//! lose data and never run on a file written by a newer release.

use std::cmp::Ordering;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::ControlError;

/// Step n brings `user_version` from n to n + 1. What was used names functions that may be gone, so it refers to none.
const STEPS: &[&str] = &[
    "
    CREATE TABLE counters (
        name TEXT PRIMARY KEY, value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO counters (name, value) VALUES ('generation', 0);

    CREATE TABLE tenants (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, active INTEGER NOT NULL, created INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE tenant_keys (
        tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        version INTEGER NOT NULL, sealed BLOB NOT NULL,
        PRIMARY KEY (tenant, version)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE members (
        tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        subject TEXT NOT NULL, roles TEXT NOT NULL,
        PRIMARY KEY (tenant, subject)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE functions (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        name TEXT NOT NULL, settings TEXT NOT NULL, generation INTEGER NOT NULL,
        current TEXT REFERENCES versions (id) DEFERRABLE INITIALLY DEFERRED,
        UNIQUE (tenant, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE versions (
        id TEXT PRIMARY KEY,
        function TEXT NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
        component TEXT NOT NULL, component_bytes INTEGER NOT NULL, settings TEXT NOT NULL,
        published INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX versions_of_function ON versions (function, published);

    CREATE TABLE routes (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        app TEXT NOT NULL, host TEXT NOT NULL, spec TEXT NOT NULL,
        function TEXT NOT NULL REFERENCES functions (id) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX routes_of_tenant ON routes (tenant, app);
    CREATE INDEX routes_on_host ON routes (host);
    CREATE INDEX routes_to_function ON routes (function);

    CREATE TABLE policies (
        tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        name TEXT NOT NULL, text TEXT NOT NULL,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE secrets (
        function TEXT NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
        name TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL, updated INTEGER NOT NULL,
        PRIMARY KEY (function, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        account TEXT NOT NULL, roles TEXT NOT NULL, mac BLOB NOT NULL,
        created INTEGER NOT NULL, expires INTEGER NOT NULL, revoked INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX api_keys_of_tenant ON api_keys (tenant);
",
    "
    CREATE TABLE function_names (
        id TEXT PRIMARY KEY, name TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO function_names (id, name) SELECT id, name FROM functions;

    CREATE TABLE usage (
        tenant TEXT NOT NULL, hour INTEGER NOT NULL, function TEXT NOT NULL,
        calls INTEGER NOT NULL, answered INTEGER NOT NULL, failed INTEGER NOT NULL, refused INTEGER NOT NULL,
        cpu_us INTEGER NOT NULL, wall_us INTEGER NOT NULL,
        memory_bytes INTEGER NOT NULL, memory_kib_ms INTEGER NOT NULL,
        bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, log_bytes INTEGER NOT NULL,
        egress_calls INTEGER NOT NULL, egress_bytes_out INTEGER NOT NULL, egress_bytes_in INTEGER NOT NULL,
        PRIMARY KEY (tenant, hour, function)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE usage_open_calls (
        request TEXT PRIMARY KEY, record INTEGER NOT NULL, function TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE usage_mark (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        origin TEXT NOT NULL, next INTEGER NOT NULL, leaf BLOB NOT NULL
    ) STRICT;

    CREATE INDEX versions_by_component ON versions (component);
",
    "
    ALTER TABLE tenants ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
",
    "
    ALTER TABLE secrets ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;

    CREATE TABLE secret_history (
        function TEXT NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
        name TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL, updated INTEGER NOT NULL,
        PRIMARY KEY (function, name, version)
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE api_keys ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE api_keys ADD COLUMN sealed BLOB;

    CREATE TABLE client_cas (
        tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        name TEXT NOT NULL, ca TEXT NOT NULL, updated INTEGER NOT NULL,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE organisations (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE tenants ADD COLUMN organisation TEXT REFERENCES organisations (id);

    CREATE TABLE ceilings (
        tier TEXT NOT NULL, owner TEXT NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL,
        PRIMARY KEY (tier, owner, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE policy_sets (
        tier TEXT NOT NULL, owner TEXT NOT NULL, version INTEGER NOT NULL, rules TEXT,
        PRIMARY KEY (tier, owner)
    ) STRICT, WITHOUT ROWID;

    ALTER TABLE api_keys ADD COLUMN scopes TEXT NOT NULL DEFAULT '[]';
",
    // An empty issuer stands for any: what a subject had before has it still, whoever vouches for it.
    "
    CREATE TABLE members_by_issuer (
        tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        issuer TEXT NOT NULL, subject TEXT NOT NULL, roles TEXT NOT NULL,
        PRIMARY KEY (tenant, issuer, subject)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO members_by_issuer (tenant, issuer, subject, roles) SELECT tenant, '', subject, roles FROM members;
    DROP TABLE members;
    ALTER TABLE members_by_issuer RENAME TO members;

    CREATE TABLE revocations (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        target TEXT NOT NULL, reason TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX revocations_of_tenant ON revocations (tenant);
    CREATE INDEX revocations_by_end ON revocations (expires);
",
    "
    CREATE TABLE users (
        tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        name TEXT NOT NULL, roles TEXT NOT NULL, passphrase TEXT NOT NULL,
        created INTEGER NOT NULL, changed INTEGER NOT NULL,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE issuer_keys (
        kid TEXT PRIMARY KEY, public BLOB NOT NULL, created INTEGER NOT NULL, retired INTEGER
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE api_keys ADD COLUMN used INTEGER;
",
    "
    CREATE TABLE holds (
        name TEXT PRIMARY KEY, tenant TEXT, begins INTEGER, ends INTEGER,
        reason TEXT NOT NULL, created INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE subject_keys (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        subject BLOB, sealed BLOB, created INTEGER NOT NULL, destroyed INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX subject_keys_by_subject ON subject_keys (tenant, subject) WHERE destroyed IS NULL;
",
];

/// Runs the steps that are missing, all or none.
pub(super) fn run(connection: &mut Connection) -> Result<(), ControlError> {
    let failed = |error: rusqlite::Error| ControlError::Store(error.into());
    // Immediate: a second process that starts at the same time waits here and then finds nothing left to do.
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let found: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    if found > known || found < 0 {
        return Err(ControlError::StoreTooNew { found, known });
    }
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    for step in STEPS.iter().skip(done) {
        tx.execute_batch(step).map_err(failed)?;
    }
    tx.pragma_update(None, "user_version", known).map_err(failed)?;
    tx.commit().map_err(failed)
}

/// Whether a file is of this very release.
pub(super) fn check(connection: &Connection) -> Result<(), ControlError> {
    let failed = |error: rusqlite::Error| ControlError::Store(error.into());
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    match found.cmp(&known) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(ControlError::StoreTooNew { found, known }),
        Ordering::Less => Err(ControlError::StoreTooOld { found, known }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_run_once_and_refuse_a_newer_file() {
        let mut connection = Connection::open_in_memory().unwrap();
        run(&mut connection).unwrap();
        run(&mut connection).unwrap();
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, STEPS.len() as i64);
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(run(&mut connection), Err(ControlError::StoreTooNew { found: 99, .. })));
    }
}
