//! A SQLite file.

use std::path::PathBuf;
use std::sync::Arc;

use slack_installs::backend::SqliteBackend;
use tempfile::TempDir;

use super::House;
use crate::{malformed, spoil, suite};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite() {
    let (backend, path, _directory) = open().await;
    for way in spoil::SQLITE {
        malformed("sqlite", &backend, way, &|key| {
            let path = path.clone();
            Box::pin(async move { spoil::sqlite(&path, &key, way).await })
        })
        .await;
    }
    suite("sqlite", Arc::new(backend)).await;
}

pub async fn house() -> House {
    let (backend, _, directory) = open().await;
    House::new("sqlite", backend, directory).refusing(&["due/fraction"])
}

async fn open() -> (SqliteBackend, PathBuf, TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory can be created");
    let path = directory.path().join("installations.sqlite3");
    let backend = SqliteBackend::open(&path).await;
    let backend = backend.expect("a new file can be created there");
    (backend, path, directory)
}
