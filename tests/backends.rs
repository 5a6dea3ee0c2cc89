//! Every backend and every wrapper, through the whole conformance suite.

use std::sync::Arc;

use slack_installs::backend::{Backend, Faults, Flaky, MemoryBackend, SqliteBackend};
use slack_installs::conformance;
use tempfile::TempDir;

conformance!(memory);
conformance!(sqlite);
conformance!(through_a_pointer);
conformance!(memory_that_loses_answers);
conformance!(sqlite_that_loses_answers);

async fn memory() -> (MemoryBackend, ()) {
    (MemoryBackend::default(), ())
}

async fn sqlite() -> (SqliteBackend, TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("installations.sqlite3");
    (
        SqliteBackend::open(path)
            .await
            .expect("a new file can be made there"),
        directory,
    )
}

async fn through_a_pointer() -> (Arc<dyn Backend>, ()) {
    (Arc::new(Box::new(MemoryBackend::default())), ())
}

async fn memory_that_loses_answers() -> (Flaky<MemoryBackend>, ()) {
    (Flaky::new(MemoryBackend::default(), Faults::default()), ())
}

async fn sqlite_that_loses_answers() -> (Flaky<SqliteBackend>, TempDir) {
    let (backend, directory) = sqlite().await;
    (Flaky::new(backend, Faults::default()), directory)
}
