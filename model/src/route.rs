//! What a tenant declares about a route.

use serde::{Deserialize, Serialize};

use crate::facts::Level;
use crate::limits::Rate;

/// One route: which requests it takes, which function answers them, and under what conditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Host the request must name, lower case, without port. `*` takes every host (operators only).
    pub host: String,
    /// Path pattern: `/orders/{id}`, or `/files/{*rest}` for everything below.
    pub path: String,
    /// Methods taken; empty takes all but CONNECT and TRACE.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Name of the function.
    pub function: String,
    /// Whether callers without a credential are let as far as the policies (which still decide).
    #[serde(default)]
    pub public: bool,
    /// How durably the call is recorded before it takes effect.
    #[serde(default)]
    pub audit: Level,
    /// Limit of the route, all callers together.
    #[serde(default)]
    pub limit: Option<Rate>,
    /// Bytes of a request body, below the function's own limit.
    #[serde(default)]
    pub body_bytes: Option<u64>,
    /// Whether answers carry receipts, whoever calls. Callers who are known may ask for one anyway.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub receipt: bool,
}
