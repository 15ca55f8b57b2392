//! The nouns every other crate speaks: ids, operations, facts, limits, frames, clock, randomness, secrets.
//!
//! Owns the vocabulary and its validation. Must never do I/O (the system clock and the kernel's randomness, behind
//! their traits, are the two exceptions), never be async, and never know Cedar, the log's format or a database.

pub mod clock;
pub mod digest;
pub mod egress;
pub mod facts;
pub mod frame;
pub mod function;
pub mod handover;
pub mod id;
pub mod invoke;
pub mod limits;
pub mod operation;
pub mod random;
pub mod reading;
pub mod route;
pub mod secret;
pub mod supposition;
pub mod tenant;

pub use clock::{Clock, SystemClock, UnixNanos};
pub use digest::Digest;
pub use egress::{EgressCeiling, EgressEnd, EgressFacts, EgressRule};
pub use facts::{
    CallFacts, Circumstances, CredentialKind, DecisionFacts, Ending, GivenFacts, Isolation, Level, Origin,
    OutcomeFacts, PrincipalFacts, PrincipalKind, Reply, Subject, TlsVersion, Usage,
};
pub use function::{FunctionSettings, Recycle};
pub use id::{CellId, FunctionId, IdError, KeyId, RequestId, RouteId, TenantId, VersionId};
pub use limits::{FunctionLimits, Limits, Rate, TenantLimits};
pub use operation::{Action, Invoke, Manage, Operation, Resource};
pub use random::{OsRandom, Random};
pub use reading::{AuditRange, CursorError, LogCursor, LogRange, UsageCursor, UsageRange};
pub use route::RouteSpec;
pub use secret::{Env, SealedEnv, SealedValue, SecretValue};
pub use supposition::{Asker, Simulation, Supposition, Surroundings, Unclear};
pub use tenant::TenantSettings;
