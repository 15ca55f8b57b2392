//! From a mapped artifact to something that can be instantiated: engine, pool, component, pre-resolved imports.
//!
//! Owns how instances are allocated, sized by the limits of the one function served. Must never compile.

use cofferdam_model::limits::FunctionLimits;
use cofferdam_model::limits::component::{CORE_INSTANCES, MEMORIES, TABLE_ELEMENTS, TABLES, TABLES_PER_MODULE};
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::capability::{self, Host};
use crate::error::WorkerError;
use crate::profile;
use crate::sys::{self, Mapping, PAGE_BYTES};
use crate::ticker::Ticker;

/// Bytes of a slot's memory that stay mapped for its next instance, where written pages can be told from others.
const KEEP_RESIDENT: usize = 4 * 1024 * 1024;
/// The same where they cannot: all of it is then copied for each call, so it must be little.
const KEEP_RESIDENT_BLINDLY: usize = 64 * 1024;
/// Bytes of a table that stay mapped.
const KEEP_TABLE: usize = 64 * 1024;
/// Bytes of the engine's own bookkeeping for one instance.
const INSTANCE_BYTES: usize = 1024 * 1024;

/// Magic of an artifact.
const MAGIC: &[u8; 8] = b"COFART1\0";
/// Bytes of magic, MAC and length of the header's JSON.
const FIXED_BYTES: usize = 8 + 32 + 4;
/// Bytes of the header's JSON.
const HEADER_BYTES: usize = 64 * 1024;

/// A function version, ready to be instantiated.
pub(crate) struct Loaded {
    /// The component with its imports resolved and its handler found.
    pub(crate) proxy: ProxyPre<Host>,
    /// Moves the epoch while guests run.
    pub(crate) ticker: Ticker,
}

/// Loads an artifact whose MAC the gateway has verified. `seal` is called once its code is mapped and before any
/// second thread exists.
pub(crate) fn load(
    artifact: Mapping,
    limits: &FunctionLimits,
    seal: impl FnOnce() -> Result<(), WorkerError>,
) -> Result<Loaded, WorkerError> {
    let start = code_offset(artifact.bytes())?;
    let built = || -> wasmtime::Result<(Engine, ProxyPre<Host>)> {
        let engine = Engine::new(&config(limits))?;
        let component = sys::component(&engine, artifact, start)?;
        component.initialize_copy_on_write_image()?;
        let mut linker = Linker::new(&engine);
        capability::link(&mut linker)?;
        let proxy = ProxyPre::new(linker.instantiate_pre(&component)?)?;
        Engine::tls_eager_initialize();
        Ok((engine, proxy))
    };
    let (engine, proxy) = built().map_err(|error| WorkerError::Load(format!("{error:#}")))?;
    seal()?;
    let ticker = Ticker::start(&engine).map_err(WorkerError::Runtime)?;
    Ok(Loaded { proxy, ticker })
}

fn config(limits: &FunctionLimits) -> Config {
    let calls = limits.concurrency.max(1);
    // Asked here and never before the process confined itself: that forks, and the map seen through a descriptor from
    // before the fork would be the other process's. Pages believed clean would then carry over to the next call.
    let scan = PoolingAllocationConfig::is_pagemap_scan_available();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_stacks(calls)
        .total_core_instances(calls.saturating_mul(CORE_INSTANCES))
        .total_memories(calls.saturating_mul(MEMORIES))
        .total_tables(calls.saturating_mul(TABLES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_memories_per_module(1)
        .max_tables_per_module(TABLES_PER_MODULE)
        .max_component_instance_size(INSTANCE_BYTES)
        .max_core_instance_size(INSTANCE_BYTES)
        .table_elements(usize::try_from(TABLE_ELEMENTS).unwrap_or(usize::MAX))
        .max_memory_size(usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(if scan { KEEP_RESIDENT } else { KEEP_RESIDENT_BLINDLY })
        .table_keep_resident(KEEP_TABLE)
        .pagemap_scan(if scan { Enabled::Yes } else { Enabled::No });
    let mut config = profile::config();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .with_custom_code_memory(Some(sys::MappedCode::shared()));
    config
}

/// Where the machine code begins in an artifact.
fn code_offset(artifact: &[u8]) -> Result<usize, WorkerError> {
    let rest = artifact.strip_prefix(MAGIC).ok_or(WorkerError::Artifact("no magic"))?;
    let length =
        rest.get(32..).and_then(<[u8]>::first_chunk).ok_or(WorkerError::Artifact("shorter than its header"))?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > HEADER_BYTES {
        return Err(WorkerError::Artifact("header too long"));
    }
    let start = (FIXED_BYTES + length).next_multiple_of(PAGE_BYTES);
    if artifact.len() <= start {
        return Err(WorkerError::Artifact("no machine code"));
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_begins_at_the_page_after_the_header() {
        let mut artifact = [MAGIC.as_slice(), &[7; 32], &100u32.to_be_bytes(), &[b' '; 100]].concat();
        assert!(code_offset(&artifact).is_err(), "no code");
        artifact.resize(4096 + 1, 0);
        assert_eq!(code_offset(&artifact).unwrap(), 4096);
        for cut in 0..=4096 {
            assert!(code_offset(&artifact[..cut]).is_err(), "cut at {cut}");
        }
        artifact[40..44].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(code_offset(&artifact).is_err(), "absurd header length");
        artifact[0] = b'X';
        assert!(code_offset(&artifact).is_err(), "no magic");
    }
}
