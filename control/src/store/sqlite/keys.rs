//! Keys of tenants and what is sealed with them.
//!
//! Owns the statements. Must never see a key or a value but sealed.

use cofferdam_model::{FunctionId, KeyId, TenantId, UnixNanos};
use rusqlite::{Row, params};

use super::{ControlError, SealedRow, SecretRow, SqliteTransaction, WrappedKey, get, id, number, signed};
use crate::vault::{self, Place};

pub(super) fn of(tx: &SqliteTransaction<'_>, tenant: &TenantId) -> Result<Vec<WrappedKey>, ControlError> {
    let sql = "SELECT version, sealed FROM tenant_keys WHERE tenant = ?1 ORDER BY version";
    tx.rows(sql, [tenant.as_str()], |row| Ok(vault::decode_key(get(row, 0)?, &get::<Vec<u8>>(row, 1)?)?))
}

pub(super) fn put(tx: &SqliteTransaction<'_>, tenant: &TenantId, key: &WrappedKey) -> Result<(), ControlError> {
    tx.execute(
        "INSERT INTO tenant_keys (tenant, version, sealed) VALUES (?1, ?2, ?3)
         ON CONFLICT (tenant, version) DO UPDATE SET sealed = excluded.sealed",
        params![tenant.as_str(), key.version, vault::encode_key(key)],
    )?;
    Ok(())
}

pub(super) fn put_secret(tx: &SqliteTransaction<'_>, secret: &SecretRow) -> Result<(), ControlError> {
    tx.execute(
        "INSERT INTO secrets (function, name, version, sealed, updated, epoch) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (function, name) DO UPDATE SET version = excluded.version, sealed = excluded.sealed,
             updated = excluded.updated, epoch = excluded.epoch",
        params![
            secret.function.as_str(),
            secret.name,
            signed(secret.version)?,
            vault::encode(&secret.sealed),
            signed(secret.updated.0)?,
            signed(secret.epoch)?,
        ],
    )?;
    Ok(())
}

pub(super) fn keep(tx: &SqliteTransaction<'_>, secret: &SecretRow) -> Result<(), ControlError> {
    tx.execute(
        "INSERT INTO secret_history (function, name, version, sealed, updated) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            secret.function.as_str(),
            secret.name,
            signed(secret.version)?,
            vault::encode(&secret.sealed),
            signed(secret.updated.0)?,
        ],
    )?;
    Ok(())
}

pub(super) fn history(
    tx: &SqliteTransaction<'_>,
    function: &FunctionId,
    name: &str,
) -> Result<Vec<SecretRow>, ControlError> {
    let sql = "SELECT h.function, h.name, h.version, h.sealed, h.updated, s.epoch FROM secret_history h
               JOIN secrets s ON s.function = h.function AND s.name = h.name
               WHERE h.function = ?1 AND h.name = ?2 ORDER BY h.version DESC";
    tx.rows(sql, params![function.as_str(), name], secret_row)
}

pub(super) fn secret_row(row: &Row<'_>) -> Result<SecretRow, ControlError> {
    Ok(SecretRow {
        function: id(row, 0, FunctionId::parse)?,
        name: get(row, 1)?,
        version: number(row, 2)?,
        sealed: vault::decode(&get::<Vec<u8>>(row, 3)?)?,
        updated: UnixNanos(number(row, 4)?),
        epoch: number(row, 5)?,
    })
}

/// Both formats have the number of the tenant's key in bytes 2 to 5; the first format is always otherwise.
pub(super) fn sealed_otherwise(
    tx: &SqliteTransaction<'_>,
    tenant: &TenantId,
    key: u32,
    most: usize,
) -> Result<Vec<SealedRow>, ControlError> {
    let sql = "SELECT s.function, s.name, s.version, s.sealed FROM (
                   SELECT function, name, version, sealed FROM secrets
                   UNION ALL SELECT function, name, version, sealed FROM secret_history
               ) s JOIN functions f ON f.id = s.function
               WHERE f.tenant = ?1 AND (substr(s.sealed, 2, 4) <> ?2 OR substr(s.sealed, 1, 1) = x'01') LIMIT ?3";
    let limit = |left: usize| i64::try_from(left).unwrap_or(i64::MAX);
    let mut found = tx.rows(sql, params![tenant.as_str(), key.to_be_bytes(), limit(most)], |row| {
        Ok(SealedRow {
            kind: Place::SECRET,
            owner: get(row, 0)?,
            name: get(row, 1)?,
            version: number(row, 2)?,
            sealed: vault::decode(&get::<Vec<u8>>(row, 3)?)?,
        })
    })?;
    let sql = "SELECT id, sealed FROM api_keys WHERE tenant = ?1 AND sealed IS NOT NULL
               AND (substr(sealed, 2, 4) <> ?2 OR substr(sealed, 1, 1) = x'01') LIMIT ?3";
    let left = most.saturating_sub(found.len());
    found.extend(tx.rows(sql, params![tenant.as_str(), key.to_be_bytes(), limit(left)], |row| {
        let owner: KeyId = id(row, 0, KeyId::parse)?;
        let Place { kind, name, version, .. } = Place::access_key(tenant, &owner);
        let sealed = vault::decode(&get::<Vec<u8>>(row, 1)?)?;
        Ok(SealedRow { kind, owner: owner.to_string(), name: name.to_owned(), version, sealed })
    })?);
    let sql = "SELECT id, sealed FROM subject_keys WHERE tenant = ?1 AND sealed IS NOT NULL
               AND (substr(sealed, 2, 4) <> ?2 OR substr(sealed, 1, 1) = x'01') LIMIT ?3";
    let left = most.saturating_sub(found.len());
    found.extend(tx.rows(sql, params![tenant.as_str(), key.to_be_bytes(), limit(left)], |row| {
        let owner: String = get(row, 0)?;
        let Place { kind, name, version, .. } = Place::subject_key(tenant, &owner);
        let sealed = vault::decode(&get::<Vec<u8>>(row, 1)?)?;
        Ok(SealedRow { kind, name: name.to_owned(), version, sealed, owner })
    })?);
    Ok(found)
}

/// A version of a secret is the current one or an earlier one, never both.
pub(super) fn put_sealed(tx: &SqliteTransaction<'_>, row: &SealedRow) -> Result<(), ControlError> {
    let sealed = vault::encode(&row.sealed);
    if row.kind == Place::SUBJECT_KEY {
        tx.execute("UPDATE subject_keys SET sealed = ?2 WHERE id = ?1", params![row.owner, sealed])?;
        return Ok(());
    }
    if row.kind == Place::ACCESS_KEY {
        tx.execute("UPDATE api_keys SET sealed = ?2 WHERE id = ?1", params![row.owner, sealed])?;
        return Ok(());
    }
    for sql in [
        "UPDATE secrets SET sealed = ?4 WHERE function = ?1 AND name = ?2 AND version = ?3",
        "UPDATE secret_history SET sealed = ?4 WHERE function = ?1 AND name = ?2 AND version = ?3",
    ] {
        tx.execute(sql, params![row.owner, row.name, signed(row.version)?, sealed])?;
    }
    Ok(())
}
