//! Statements about who is known: members, users, what is revoked, and keys of the node's own issuer.
//!
//! Owns their rows. Must never see a passphrase, a token or a private key: hashes, ids and public halves are kept.

use cofferdam_model::{RevocationId, TenantId, UnixNanos};
use rusqlite::{Row, params};

use super::{SqliteTransaction, failed, from_json, get, id, json, number, signed, unsigned};
use crate::error::ControlError;
use crate::store::{IssuerKeyRow, MemberRow, RevocationRow, UserRow};

/// Any issuer, in a column that is part of a key.
const ANY: &str = "";

pub(super) fn member_row(row: &Row<'_>) -> Result<MemberRow, ControlError> {
    let issuer: String = get(row, 0)?;
    let issuer = (issuer != ANY).then_some(issuer);
    Ok(MemberRow { issuer, subject: get(row, 1)?, roles: from_json(row, 2)? })
}

pub(super) fn put_member(
    tx: &SqliteTransaction<'_>,
    tenant: &TenantId,
    member: &MemberRow,
) -> Result<(), ControlError> {
    let issuer = member.issuer.as_deref().unwrap_or(ANY);
    tx.execute(
        "INSERT INTO members (tenant, issuer, subject, roles) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (tenant, issuer, subject) DO UPDATE SET roles = excluded.roles",
        params![tenant.as_str(), issuer, member.subject, json(&member.roles)?],
    )?;
    Ok(())
}

pub(super) fn revocations(tx: &SqliteTransaction<'_>, tenant: &TenantId) -> Result<Vec<RevocationRow>, ControlError> {
    let sql = "SELECT id, target, reason, created, expires FROM revocations WHERE tenant = ?1 ORDER BY created, id";
    tx.rows(sql, [tenant.as_str()], |row| {
        Ok(RevocationRow {
            id: id(row, 0, RevocationId::parse)?,
            target: from_json(row, 1)?,
            reason: get(row, 2)?,
            created: UnixNanos(number(row, 3)?),
            expires: moment(row, 4)?,
        })
    })
}

pub(super) fn insert_revocation(tx: &SqliteTransaction<'_>, row: &RevocationRow) -> Result<(), ControlError> {
    tx.execute(
        "INSERT INTO revocations (id, tenant, target, reason, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            row.id.as_str(),
            row.id.tenant().as_str(),
            json(&row.target)?,
            row.reason,
            signed(row.created.0)?,
            row.expires.map(|at| signed(at.0)).transpose()?,
        ],
    )?;
    Ok(())
}

pub(super) fn users(tx: &SqliteTransaction<'_>, tenant: &TenantId) -> Result<Vec<UserRow>, ControlError> {
    let sql = "SELECT name, roles, passphrase, created, changed FROM users WHERE tenant = ?1 ORDER BY name";
    tx.rows(sql, [tenant.as_str()], |row| {
        Ok(UserRow {
            name: get(row, 0)?,
            roles: from_json(row, 1)?,
            passphrase: get(row, 2)?,
            created: UnixNanos(number(row, 3)?),
            changed: UnixNanos(number(row, 4)?),
        })
    })
}

pub(super) fn put_user(tx: &SqliteTransaction<'_>, tenant: &TenantId, user: &UserRow) -> Result<(), ControlError> {
    tx.execute(
        "INSERT INTO users (tenant, name, roles, passphrase, created, changed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (tenant, name) DO UPDATE SET
             roles = excluded.roles, passphrase = excluded.passphrase, changed = excluded.changed",
        params![
            tenant.as_str(),
            user.name,
            json(&user.roles)?,
            user.passphrase,
            signed(user.created.0)?,
            signed(user.changed.0)?,
        ],
    )?;
    Ok(())
}

pub(super) fn issuer_keys(tx: &SqliteTransaction<'_>) -> Result<Vec<IssuerKeyRow>, ControlError> {
    let sql = "SELECT kid, public, created, retired FROM issuer_keys ORDER BY created DESC, kid";
    tx.rows(sql, [], |row| {
        Ok(IssuerKeyRow {
            kid: get(row, 0)?,
            public: get(row, 1)?,
            created: UnixNanos(number(row, 2)?),
            retired: moment(row, 3)?,
        })
    })
}

pub(super) fn insert_issuer_key(tx: &SqliteTransaction<'_>, key: &IssuerKeyRow) -> Result<(), ControlError> {
    let retired = key.retired.map(|at| signed(at.0)).transpose()?;
    tx.execute(
        "INSERT INTO issuer_keys (kid, public, created, retired) VALUES (?1, ?2, ?3, ?4)",
        params![key.kid, key.public, signed(key.created.0)?, retired],
    )?;
    Ok(())
}

pub(super) fn moment(row: &Row<'_>, column: usize) -> Result<Option<UnixNanos>, ControlError> {
    let at: Option<i64> = row.get(column).map_err(failed)?;
    Ok(at.map(unsigned).transpose()?.map(UnixNanos))
}
