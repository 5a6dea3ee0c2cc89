//! `EncryptedStore` beyond its ports: what it keeps in memory, what stands in the database, and
//! what it withstands. `tests/suite` has what it does through its ports, on every backend.

#[macro_use]
mod support;

#[path = "store/cached.rs"]
mod cached;
#[path = "store/golden.rs"]
mod golden;
#[path = "store/keyring.rs"]
mod keyring;
#[cfg(feature = "testing")]
#[path = "store/lanes.rs"]
mod lanes;
#[cfg(all(feature = "sqlite", feature = "testing"))]
#[path = "store/moving.rs"]
mod moving;
#[path = "store/shared.rs"]
mod shared;
#[path = "store/sweeps.rs"]
mod sweeps;
#[path = "store/tamper.rs"]
mod tamper;
