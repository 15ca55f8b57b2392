//! Where this process keeps keys, and the root key it was told of.
//!
//! Owns the way from a configuration to a vault. Must never hold a key itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_control::vault::{Kept, KeyMemory, OrdinaryMemory, Vault};
use cofferdam_gateway::root::{self, Parts, RootKeyConfig};
use cofferdam_jail::{KeyPages, KeySlot};
use cofferdam_model::{Clock, Random};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Pages that are locked and kept out of dumps, where the host allows it.
pub(crate) struct Pages(Option<KeyPages>);

struct Slot(KeySlot);

impl Kept for Slot {
    fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

impl KeyMemory for Pages {
    fn keep(&self, key: &Zeroizing<[u8; 32]>) -> Box<dyn Kept> {
        match self.0.as_ref().and_then(|pages| pages.keep(key)) {
            Some(slot) => Box::new(Slot(slot)),
            None => OrdinaryMemory.keep(key),
        }
    }
}

impl Pages {
    pub(crate) fn new() -> Self {
        Self(KeyPages::new().ok())
    }

    /// Whether keys stay out of swap and dumps; else what the host did not allow.
    pub(crate) fn state(&self) -> Result<(), String> {
        let pages = self.0.as_ref().ok_or("no pages could be had")?;
        pages.locked().map_err(|error| format!("not locked: {error}"))?;
        pages.hidden().map_err(|error| format!("not kept out of dumps: {error}"))
    }
}

/// The vault that a configuration describes. Its root key is not asked for anything yet.
pub(crate) fn vault(
    config: &RootKeyConfig,
    data: &Path,
    memory: Arc<Pages>,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<Vault, Failure> {
    let parts = Parts { memory: memory.clone(), clock: clock.clone(), random: random.clone() };
    let root = root::open(&config.provider, data, &parts)?;
    let before = config.before.iter().map(|before| root::open(before, data, &parts)).collect::<Result<Vec<_>, _>>()?;
    let keep = Duration::from_secs(config.keep_seconds);
    Ok(Vault::new(root, memory, clock.clone(), keep).with_before(before))
}
