//! What opening an environment costs a cell that starts, with the tenant's key at hand and without.

use std::sync::Arc;

use cofferdam_control::fresh_key;
use cofferdam_control::vault::{KEEP, LocalRoot, OrdinaryMemory, Place, Vault};
use cofferdam_model::{FunctionId, OsRandom, SecretValue, SystemClock, TenantId};

use crate::times::{Times, now};

const ROUNDS: usize = 2_000;
/// Bytes of all values together.
const BYTES: usize = 4096;

pub(crate) fn run() {
    let memory = Arc::new(OrdinaryMemory);
    let root = LocalRoot::of(&fresh_key(&OsRandom), memory.clone(), Arc::new(OsRandom)).expect("a root key");
    let vault = Vault::new(Arc::new(root), memory, Arc::new(SystemClock::default()), KEEP);
    let tenant = TenantId::mint(&OsRandom);
    let function = FunctionId::mint(&tenant, &OsRandom);
    let keys = [vault.tenant_key(&tenant, 1, &OsRandom).expect("a tenant's key")];
    println!("| unseal of 4 KiB | tenant's key | p50 us | p99 us |\n|---|---|---|---|");
    for count in [1, 16, 64] {
        let names: Vec<String> = (0..count).map(|at| format!("SECRET_{at}")).collect();
        let sealed: Vec<_> = names
            .iter()
            .map(|name| {
                let value = SecretValue::new(vec![b'x'; BYTES / count]);
                vault.seal(&keys, Place::secret(&tenant, &function, name, 1), &value, &OsRandom).expect("sealed")
            })
            .collect();
        for held in [true, false] {
            let mut times = Times::default();
            for _ in 0..ROUNDS {
                if !held {
                    vault.forget(Some(&tenant));
                }
                let at = now();
                for (name, sealed) in names.iter().zip(&sealed) {
                    vault.open(&keys, Place::secret(&tenant, &function, name, 1), sealed).expect("opened");
                }
                times.push(at.elapsed());
            }
            let us = |part: usize, times: &mut Times| times.percentile(part).as_secs_f64() * 1e6;
            let (mid, worst) = (us(50, &mut times), us(99, &mut times));
            let key = if held { "at hand" } else { "unwrapped for it" };
            println!("| {count} values | {key} | {mid:.1} | {worst:.1} |");
        }
    }
    println!();
}
