//! `EncryptedStore` through its ports, check by check, in memory and on SQLite; `tests/suite` runs
//! the same list on every backend.

#[macro_use]
mod support;
#[macro_use]
#[path = "support/store_behaviour.rs"]
mod store_behaviour;

#[path = "store/due.rs"]
mod due;
#[path = "store/sweeps.rs"]
mod sweeps;

mod memory {
    use std::sync::Arc;

    use slack_installs::backend::{Backend, MemoryBackend};

    async fn open() -> (Arc<dyn Backend>, ()) {
        (Arc::new(MemoryBackend::default()), ())
    }

    store_behaviour!(open);
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::sync::Arc;

    use slack_installs::backend::{Backend, SqliteBackend};
    use tempfile::TempDir;

    async fn open() -> (Arc<dyn Backend>, TempDir) {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("installations.sqlite3");
        let backend = SqliteBackend::open(path)
            .await
            .expect("a new file can be made there");
        (Arc::new(backend), directory)
    }

    store_behaviour!(open);
}
