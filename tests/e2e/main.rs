//! End to end: real binaries, real TLS, real components, one module per property.

mod audit;
mod authentication;
mod authorization;
mod conservation;
mod durability;
mod egress;
mod explain;
mod identity;
mod invocation;
mod languages;
mod limits;
mod logs;
mod machines;
mod management;
mod metrics;
mod recycling;
mod root_key;
mod secrets;
mod shutdown;
mod stops;
mod storage;
mod tiers;
mod usage;
