//! This process's memory.

use std::sync::Arc;

use slack_installs::backend::MemoryBackend;

use super::House;
use crate::{malformed, suite, suite_cached};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory() {
    suite("memory", Arc::new(MemoryBackend::default())).await;
    let backend = MemoryBackend::default();
    malformed("memory", &backend, "its own", &|key| {
        backend.spoil(&key);
        Box::pin(std::future::ready(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_through_a_cache() {
    suite_cached("memory through a cache", Arc::new(MemoryBackend::default())).await;
}

pub fn house() -> House {
    House::new("memory", MemoryBackend::default(), ()).refusing(&["due/fraction"])
}
