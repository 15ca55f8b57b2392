//! End to end: real binaries, real TLS, real components, one module per property.

mod audit;
mod authentication;
mod authorization;
mod durability;
mod egress;
mod erasure;
mod evidence;
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
mod sinks;
mod stops;
mod storage;
mod tiers;
mod tools;
mod usage;
