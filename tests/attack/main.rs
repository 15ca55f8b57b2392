//! Attacks, each named for what fails: hostile clients, hostile guests, hostile tenants, a hostile disk.

mod cells;
mod components;
mod guests;
mod hostile;
mod machines;
mod meanwhile;
mod memory;
mod storage;
mod tenants;
mod tokens;
mod wire;
