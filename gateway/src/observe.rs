//! The cells of a tenant, as the management API shows them.
//!
//! Owns the shape of that answer. Must never show a cell of another tenant, nor what one was given.

use cofferdam_model::TenantId;
use cofferdam_model::operation::FunctionRef;
use cofferdam_sandbox::CellInfo;
use serde_json::{Value, json};

use crate::node::Node;

/// The cells of a tenant, or of one function of it, by function and age.
pub(crate) fn cells(node: &Node, tenant: &TenantId, function: Option<&FunctionRef>) -> Value {
    let snapshot = node.live.load();
    let mut cells: Vec<CellInfo> = node.sandbox.cells();
    cells.retain(|cell| {
        cell.function.as_ref().is_some_and(|of| of.tenant() == *tenant && function.is_none_or(|only| only.id == *of))
    });
    cells.sort_by(|a, b| (&a.function, b.age).cmp(&(&b.function, a.age)));
    let shown = cells.iter().map(|cell| {
        let named = cell.function.as_ref().and_then(|of| snapshot.snapshot.function_by_id(of));
        json!({
            "id": cell.id.as_str(),
            "function": named.map(|function| function.name.to_string()),
            "version": cell.version.as_ref().map(|version| version.as_str()),
            "calls": cell.calls,
            "served": cell.served,
            "age_seconds": cell.age.as_secs(),
            "memory_bytes": cell.memory_bytes,
            "isolation": cell.isolation.as_str(),
            "draining": cell.draining,
        })
    });
    json!({ "cells": shown.collect::<Vec<Value>>() })
}
