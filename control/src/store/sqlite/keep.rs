//! Legal holds and keys of subjects, in SQLite.
//!
//! Owns these statements. Must never build one from text it was given.

use cofferdam_model::{TenantId, UnixNanos};
use rusqlite::{Row, params};

use super::identity::moment;
use super::{SqliteTransaction, failed, get, id, number, signed};
use crate::error::ControlError;
use crate::store::keep::{HoldRow, Keeps, SubjectKeyRow};
use crate::vault;

fn key_row(row: &Row<'_>) -> Result<SubjectKeyRow, ControlError> {
    let sealed: Option<Vec<u8>> = get(row, 3)?;
    Ok(SubjectKeyRow {
        id: get(row, 0)?,
        tenant: id(row, 1, TenantId::parse)?,
        subject: get::<Option<[u8; 32]>>(row, 2)?.unwrap_or_default(),
        sealed: sealed.map(|bytes| vault::decode(&bytes)).transpose()?,
        created: UnixNanos(number(row, 4)?),
    })
}

const KEY: &str = "SELECT id, tenant, subject, sealed, created FROM subject_keys";

impl Keeps for SqliteTransaction<'_> {
    fn holds(&mut self) -> Result<Vec<HoldRow>, ControlError> {
        self.rows("SELECT name, tenant, begins, ends, reason, created FROM holds ORDER BY name", [], |row| {
            let tenant: Option<String> = row.get(1).map_err(failed)?;
            Ok(HoldRow {
                name: get(row, 0)?,
                tenant: tenant.map(|_| id(row, 1, TenantId::parse)).transpose()?,
                from: moment(row, 2)?,
                until: moment(row, 3)?,
                reason: get(row, 4)?,
                created: UnixNanos(number(row, 5)?),
            })
        })
    }

    fn put_hold(&mut self, hold: &HoldRow) -> Result<(), ControlError> {
        self.execute(
            "INSERT INTO holds (name, tenant, begins, ends, reason, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (name) DO UPDATE SET tenant = excluded.tenant, begins = excluded.begins, ends = excluded.ends,
                 reason = excluded.reason",
            params![
                hold.name,
                hold.tenant.as_ref().map(TenantId::as_str),
                hold.from.map(|at| signed(at.0)).transpose()?,
                hold.until.map(|at| signed(at.0)).transpose()?,
                hold.reason,
                signed(hold.created.0)?,
            ],
        )?;
        Ok(())
    }

    fn remove_hold(&mut self, name: &str) -> Result<bool, ControlError> {
        Ok(self.execute("DELETE FROM holds WHERE name = ?1", [name])? > 0)
    }

    fn subject_key(&mut self, tenant: &TenantId, subject: &[u8; 32]) -> Result<Option<SubjectKeyRow>, ControlError> {
        let sql = format!("{KEY} WHERE tenant = ?1 AND subject = ?2");
        Ok(self.rows(&sql, params![tenant.as_str(), subject], key_row)?.pop())
    }

    fn subject_key_named(&mut self, id: &str) -> Result<Option<SubjectKeyRow>, ControlError> {
        Ok(self.rows(&format!("{KEY} WHERE id = ?1"), [id], key_row)?.pop())
    }

    fn insert_subject_key(&mut self, key: &SubjectKeyRow) -> Result<(), ControlError> {
        self.execute(
            "INSERT INTO subject_keys (id, tenant, subject, sealed, created) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                key.id,
                key.tenant.as_str(),
                key.subject,
                key.sealed.as_ref().map(vault::encode),
                signed(key.created.0)?
            ],
        )?;
        Ok(())
    }

    fn destroy_subject_keys(
        &mut self,
        tenant: &TenantId,
        subject: Option<&[u8; 32]>,
        at: UnixNanos,
    ) -> Result<Vec<String>, ControlError> {
        let those = "tenant = ?1 AND destroyed IS NULL AND (?2 IS NULL OR subject = ?2)";
        let sql = format!("SELECT id FROM subject_keys WHERE {those} ORDER BY id");
        let names = self.rows(&sql, params![tenant.as_str(), subject], |row| get(row, 0))?;
        let sql = format!("UPDATE subject_keys SET sealed = NULL, subject = NULL, destroyed = ?3 WHERE {those}");
        self.execute(&sql, params![tenant.as_str(), subject, signed(at.0)?])?;
        Ok(names)
    }
}
