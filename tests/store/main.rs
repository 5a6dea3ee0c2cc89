//! What `EncryptedStore` keeps in memory, what it writes to the database, and which attacks it
//! withstands. `tests/suite` checks its ports on every backend.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod cached;
mod golden;
mod holds;
mod keyring;
#[cfg(feature = "testing")]
mod lanes;
#[cfg(all(feature = "sqlite", feature = "testing"))]
mod moving;
mod refused;
mod shared;
mod sweeps;
mod tamper;
mod unopened;
mod webhooks;
