//! The statements about keys and authorities of machines.
//!
//! Owns their columns. Must never see a key's text or secret: what is here is a MAC, or sealed.

use cofferdam_model::{KeyId, TenantId, UnixNanos};
use rusqlite::{Row, params};

use super::{SqliteTransaction, from_json, get, id, json, number, signed, unsigned};
use crate::error::ControlError;
use crate::store::{ApiKeyRow, ClientCaRow};
use crate::vault;

pub(super) const KEYS: &str = "
    SELECT id, account, roles, mac, created, expires, revoked, settings, sealed, scopes
    FROM api_keys WHERE tenant = ?1 ORDER BY id";

pub(super) const CAS: &str = "SELECT name, ca, updated FROM client_cas WHERE tenant = ?1 ORDER BY name";

pub(super) fn insert_key(tx: &SqliteTransaction<'_>, key: &ApiKeyRow) -> Result<(), ControlError> {
    tx.execute(
        "INSERT INTO api_keys (id, tenant, account, roles, mac, created, expires, revoked, settings, sealed,
             scopes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            key.id.as_str(),
            key.id.tenant().as_str(),
            key.account,
            json(&key.roles)?,
            key.mac,
            signed(key.created.0)?,
            signed(key.expires.0)?,
            key.revoked.map(|at| signed(at.0)).transpose()?,
            json(&key.settings)?,
            key.sealed.as_ref().map(vault::encode),
            json(&key.scopes)?,
        ],
    )?;
    Ok(())
}

pub(super) fn key_row(row: &Row<'_>) -> Result<ApiKeyRow, ControlError> {
    Ok(ApiKeyRow {
        id: id(row, 0, KeyId::parse)?,
        account: get(row, 1)?,
        roles: from_json(row, 2)?,
        mac: get(row, 3)?,
        created: UnixNanos(number(row, 4)?),
        expires: UnixNanos(number(row, 5)?),
        revoked: get::<Option<i64>>(row, 6)?.map(unsigned).transpose()?.map(UnixNanos),
        settings: from_json(row, 7)?,
        sealed: get::<Option<Vec<u8>>>(row, 8)?.map(|bytes| vault::decode(&bytes)).transpose()?,
        scopes: from_json(row, 9)?,
    })
}

pub(super) fn put_ca(tx: &SqliteTransaction<'_>, tenant: &TenantId, row: &ClientCaRow) -> Result<(), ControlError> {
    tx.execute(
        "INSERT INTO client_cas (tenant, name, ca, updated) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (tenant, name) DO UPDATE SET ca = excluded.ca, updated = excluded.updated",
        params![tenant.as_str(), row.name, json(&row.ca)?, signed(row.updated.0)?],
    )?;
    Ok(())
}

pub(super) fn ca_row(row: &Row<'_>) -> Result<ClientCaRow, ControlError> {
    Ok(ClientCaRow { name: get(row, 0)?, ca: from_json(row, 1)?, updated: UnixNanos(number(row, 2)?) })
}
