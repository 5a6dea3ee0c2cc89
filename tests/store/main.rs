//! `EncryptedStore` beyond its ports: what it keeps in memory, what stands in the database, and
//! what it withstands. `tests/suite` has what it does through its ports, on every backend.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod cached;
mod golden;
mod keyring;
#[cfg(feature = "testing")]
mod lanes;
#[cfg(all(feature = "sqlite", feature = "testing"))]
mod moving;
mod shared;
mod sweeps;
mod tamper;
