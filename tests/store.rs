//! `EncryptedStore` through its ports, on every backend that this build has.

#[macro_use]
#[path = "support/store_behaviour.rs"]
mod store_behaviour;
mod support;

mod memory {
    use std::sync::Arc;

    use slack_installs::backend::{Backend, MemoryBackend};

    async fn open() -> Arc<dyn Backend> {
        Arc::new(MemoryBackend::default())
    }

    store_behaviour!(open);
}
