//! Rows of functions, their versions and routes.
//!
//! Owns their columns, in the order in which statements ask for them.

use cofferdam_model::{Digest, FunctionId, RouteId, UnixNanos, VersionId};
use rusqlite::Row;

use super::{damaged, from_json, get, id, number};
use crate::error::ControlError;
use crate::store::{FunctionRow, RouteRow, VersionRow};

pub(super) fn function_row(row: &Row<'_>) -> Result<(FunctionRow, Option<VersionRow>), ControlError> {
    let current = match get::<Option<String>>(row, 4)? {
        Some(text) => Some(VersionId::parse(&text).map_err(damaged)?),
        None => None,
    };
    let version = current.is_some().then(|| version_row(row, 5)).transpose()?;
    let function = FunctionRow {
        id: id(row, 0, FunctionId::parse)?,
        name: get(row, 1)?,
        settings: from_json(row, 2)?,
        generation: number(row, 3)?,
        current,
    };
    Ok((function, version))
}

pub(super) fn version_row(row: &Row<'_>, first: usize) -> Result<VersionRow, ControlError> {
    Ok(VersionRow {
        id: id(row, first, VersionId::parse)?,
        function: id(row, first + 1, FunctionId::parse)?,
        component: Digest::try_from(get::<String>(row, first + 2)?).map_err(damaged)?,
        component_bytes: number(row, first + 3)?,
        settings: from_json(row, first + 4)?,
        published: UnixNanos(number(row, first + 5)?),
    })
}

pub(super) fn route_row(row: &Row<'_>) -> Result<RouteRow, ControlError> {
    Ok(RouteRow {
        id: id(row, 0, RouteId::parse)?,
        app: get(row, 1)?,
        spec: from_json(row, 2)?,
        function: id(row, 3, FunctionId::parse)?,
    })
}
