//! Random bytes for guests, all from the kernel.
//!
//! The "insecure" interfaces get the same bytes: a second generator would only be a second thing to get wrong. Must
//! never fill a buffer of the guest's choosing without a bound.

use std::sync::Arc;

use cofferdam_model::random::Random;
use wasmtime::component::{HasData, Linker};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use super::Host;

/// Bytes a guest gets at a time.
const MAX_BYTES: usize = 1024 * 1024;

/// A guest asked for more at a time than it gets.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_BYTES} random bytes at a time")]
pub(crate) struct TooMuch;

/// The cell's source.
pub(super) struct Bounded(pub(super) Arc<dyn Random>);

impl Bounded {
    fn bytes(&self, count: u64) -> wasmtime::Result<Vec<u8>> {
        let count = usize::try_from(count).ok().filter(|count| *count <= MAX_BYTES);
        let count = count.ok_or(TooMuch)?;
        let mut bytes = vec![0; count];
        self.0.fill(&mut bytes);
        Ok(bytes)
    }

    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl HasData for Bounded {
    type Data<'a> = &'a mut Bounded;
}

/// Links the three interfaces.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    random::add_to_linker::<Host, Bounded>(linker, |host| &mut host.random)?;
    insecure::add_to_linker::<Host, Bounded>(linker, |host| &mut host.random)?;
    insecure_seed::add_to_linker::<Host, Bounded>(linker, |host| &mut host.random)
}

impl random::Host for Bounded {
    fn get_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(count)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.number())
    }
}

impl insecure::Host for Bounded {
    fn get_insecure_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(count)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.number())
    }
}

impl insecure_seed::Host for Bounded {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.number(), self.number()))
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_model::random::SeededRandom;

    use super::*;

    #[test]
    fn a_guest_cannot_ask_for_unbounded_random_bytes() {
        let source = Bounded(Arc::new(SeededRandom::new(1)));
        assert_eq!(source.bytes(1024 * 1024).unwrap().len(), 1024 * 1024);
        assert!(source.bytes(1024 * 1024 + 1).is_err());
        assert!(source.bytes(u64::MAX).is_err());
    }
}
