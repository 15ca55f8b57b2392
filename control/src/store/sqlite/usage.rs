//! The statements about what was used.
//!
//! Owns the sums' columns and how they saturate. Must never refer to a function that has to exist: what was used was
//! used, whoever is gone since.

use cofferdam_model::{FunctionId, KeyId, TenantId, Usage, UsageRange};
use rusqlite::{Row, named_params, params};

use super::{SqliteTransaction, damaged, get, id, number, signed};
use crate::error::ControlError;
use crate::store::{OpenCall, Tally, UsageMark, UsageRow, UsageStep};

const ADD: &str = "
    INSERT INTO usage (tenant, hour, function, calls, answered, failed, refused, cpu_us, wall_us, memory_bytes,
        memory_kib_ms, bytes_in, bytes_out, log_bytes, egress_calls, egress_bytes_out, egress_bytes_in)
    VALUES (:tenant, :hour, :function, :calls, :answered, :failed, :refused, :cpu_us, :wall_us, :memory_bytes,
        :memory_kib_ms, :bytes_in, :bytes_out, :log_bytes, :egress_calls, :egress_bytes_out, :egress_bytes_in)
    ON CONFLICT (tenant, hour, function) DO UPDATE SET
        calls = min(calls, :most - :calls) + :calls,
        answered = min(answered, :most - :answered) + :answered,
        failed = min(failed, :most - :failed) + :failed,
        refused = min(refused, :most - :refused) + :refused,
        cpu_us = min(cpu_us, :most - :cpu_us) + :cpu_us,
        wall_us = min(wall_us, :most - :wall_us) + :wall_us,
        memory_bytes = min(memory_bytes, :most - :memory_bytes) + :memory_bytes,
        memory_kib_ms = min(memory_kib_ms, :most - :memory_kib_ms) + :memory_kib_ms,
        bytes_in = min(bytes_in, :most - :bytes_in) + :bytes_in,
        bytes_out = min(bytes_out, :most - :bytes_out) + :bytes_out,
        log_bytes = min(log_bytes, :most - :log_bytes) + :log_bytes,
        egress_calls = min(egress_calls, :most - :egress_calls) + :egress_calls,
        egress_bytes_out = min(egress_bytes_out, :most - :egress_bytes_out) + :egress_bytes_out,
        egress_bytes_in = min(egress_bytes_in, :most - :egress_bytes_in) + :egress_bytes_in";

const ROWS: &str = "
    SELECT u.hour, u.function, coalesce(n.name, ''), u.calls, u.answered, u.failed, u.refused, u.cpu_us, u.wall_us,
        u.memory_bytes, u.memory_kib_ms, u.bytes_in, u.bytes_out, u.log_bytes, u.egress_calls, u.egress_bytes_out,
        u.egress_bytes_in
    FROM usage u LEFT JOIN function_names n ON n.id = u.function
    WHERE u.tenant = :tenant AND u.hour >= :since AND u.hour < :until AND (:name IS NULL OR n.name = :name)
        AND (u.hour, u.function) > (:after_hour, :after_function)
    ORDER BY u.hour, u.function LIMIT :most";

pub(super) fn mark(tx: &SqliteTransaction<'_>) -> Result<Option<(UsageMark, Vec<OpenCall>)>, ControlError> {
    let mut marks = tx.rows("SELECT origin, next, leaf FROM usage_mark", [], |row| {
        Ok(UsageMark { origin: get(row, 0)?, next: number(row, 1)?, leaf: get(row, 2)? })
    })?;
    let Some(mark) = marks.pop() else { return Ok(None) };
    let open = tx.rows("SELECT request, record, function FROM usage_open_calls ORDER BY record", [], |row| {
        Ok(OpenCall { request: get(row, 0)?, index: number(row, 1)?, function: id(row, 2, FunctionId::parse)? })
    })?;
    Ok(Some((mark, open)))
}

pub(super) fn add(tx: &SqliteTransaction<'_>, step: &UsageStep) -> Result<(), ControlError> {
    for row in &step.rows {
        let Tally { calls, answered, failed, refused, usage } = row.tally;
        tx.execute(
            ADD,
            named_params! {
                ":tenant": row.function.tenant().as_str(),
                ":hour": signed(row.hour)?,
                ":function": row.function.as_str(),
                ":most": i64::MAX,
                ":calls": most(calls),
                ":answered": most(answered),
                ":failed": most(failed),
                ":refused": most(refused),
                ":cpu_us": most(usage.cpu_us),
                ":wall_us": most(usage.wall_us),
                ":memory_bytes": most(usage.memory_bytes),
                ":memory_kib_ms": most(usage.memory_kib_ms),
                ":bytes_in": most(usage.bytes_in),
                ":bytes_out": most(usage.bytes_out),
                ":log_bytes": most(usage.log_bytes),
                ":egress_calls": most(usage.egress_calls),
                ":egress_bytes_out": most(usage.egress_bytes_out),
                ":egress_bytes_in": most(usage.egress_bytes_in),
            },
        )?;
    }
    for request in &step.closed {
        tx.execute("DELETE FROM usage_open_calls WHERE request = ?1", [request])?;
    }
    for OpenCall { request, index, function } in &step.opened {
        tx.execute(
            "INSERT OR REPLACE INTO usage_open_calls (request, record, function) VALUES (?1, ?2, ?3)",
            params![request, signed(*index)?, function.as_str()],
        )?;
    }
    for (key, at) in &step.used {
        let sql = "UPDATE api_keys SET used = max(coalesce(used, 0), ?2) WHERE id = ?1";
        tx.execute(sql, params![key.as_str(), signed(*at)?])?;
    }
    tx.execute(
        "INSERT OR REPLACE INTO usage_mark (one, origin, next, leaf) VALUES (1, ?1, ?2, ?3)",
        params![step.mark.origin, signed(step.mark.next)?, step.mark.leaf],
    )?;
    Ok(())
}

pub(super) fn of_keys(tx: &SqliteTransaction<'_>, tenant: &TenantId) -> Result<Vec<(KeyId, u64)>, ControlError> {
    let sql = "SELECT id, used FROM api_keys WHERE tenant = ?1 AND used IS NOT NULL";
    tx.rows(sql, [tenant.as_str()], |row| Ok((id(row, 0, KeyId::parse)?, number(row, 1)?)))
}

pub(super) fn forget(tx: &SqliteTransaction<'_>, before: u64) -> Result<(), ControlError> {
    tx.execute("DELETE FROM usage WHERE hour < ?1", [signed(before)?])?;
    let unnamed = "DELETE FROM function_names
        WHERE id NOT IN (SELECT id FROM functions) AND id NOT IN (SELECT function FROM usage)
            AND id NOT IN (SELECT function FROM usage_open_calls)";
    tx.execute(unnamed, []).map(|_| ())
}

pub(super) fn rows(
    tx: &SqliteTransaction<'_>,
    tenant: &TenantId,
    range: &UsageRange,
    most_rows: usize,
) -> Result<Vec<(UsageRow, String)>, ControlError> {
    let after = range.after.as_ref();
    let values = named_params! {
        ":tenant": tenant.as_str(),
        ":since": most(range.hours.start),
        ":until": most(range.hours.end),
        ":name": range.function,
        ":after_hour": after.map_or(-1, |after| most(after.hour)),
        ":after_function": after.map_or("", |after| after.function.as_str()),
        ":most": i64::try_from(most_rows).map_err(damaged)?,
    };
    tx.rows(ROWS, values, row)
}

fn row(row: &Row<'_>) -> Result<(UsageRow, String), ControlError> {
    let usage = Usage {
        cpu_us: number(row, 7)?,
        wall_us: number(row, 8)?,
        memory_bytes: number(row, 9)?,
        memory_kib_ms: number(row, 10)?,
        bytes_in: number(row, 11)?,
        bytes_out: number(row, 12)?,
        log_bytes: number(row, 13)?,
        egress_calls: number(row, 14)?,
        egress_bytes_out: number(row, 15)?,
        egress_bytes_in: number(row, 16)?,
    };
    let tally = Tally {
        calls: number(row, 3)?,
        answered: number(row, 4)?,
        failed: number(row, 5)?,
        refused: number(row, 6)?,
        usage,
    };
    Ok((UsageRow { hour: number(row, 0)?, function: id(row, 1, FunctionId::parse)?, tally }, get(row, 2)?))
}

/// A number as SQLite has them, at most the largest of those.
fn most(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
