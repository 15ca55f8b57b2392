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
pub mod govern;
pub mod handover;
pub mod id;
pub mod invoke;
pub mod keep;
pub mod limits;
pub mod machine;
pub mod operation;
pub mod prove;
pub mod random;
pub mod reading;
pub mod resource;
pub mod revocation;
pub mod route;
pub mod secret;
pub mod supposition;
pub mod tenant;

pub use clock::{Clock, SystemClock, UnixNanos};
pub use digest::Digest;
pub use egress::{EgressCeiling, EgressEnd, EgressFacts, EgressRule};
pub use facts::{
    Bound, CallFacts, Circumstances, ConnectionFacts, CredentialKind, DecisionFacts, Ending, Fields, GivenFacts,
    Isolation, Level, LimitFacts, LimitScope, Origin, OutcomeFacts, PolicyTier, PrincipalFacts, PrincipalKind, Reply,
    Session, SetFacts, Step, Steps, Subject, TlsVersion, Usage, UseFacts, Way,
};
pub use function::{FunctionSettings, Recycle};
pub use id::{
    CellId, FunctionId, IdError, KeyId, OrganisationId, RequestId, RevocationId, RouteId, TenantId, VersionId,
};
pub use limits::{FunctionLimits, Limits, Rate, TenantLimits};
pub use machine::{ClientAccount, ClientCa, KeyKind, KeySettings, Network};
pub use operation::{Action, Govern, Grants, Invoke, Keep, Manage, Operation, Prove, Resource};
pub use random::{OsRandom, Random};
pub use reading::{AuditRange, CursorError, LogCursor, LogRange, UsageCursor, UsageRange};
pub use revocation::{Revived, RevocationTarget};
pub use route::RouteSpec;
pub use secret::{Env, SealedEnv, SealedValue, SecretValue, WrappedDataKey};
pub use supposition::{Asker, Simulation, Supposition, Surroundings, Thing, Unclear};
pub use tenant::TenantSettings;
