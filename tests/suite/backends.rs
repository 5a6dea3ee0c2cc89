//! Each backend, and what it needs to start. A new backend adds a line here, and a file.

#[cfg(feature = "dynamodb")]
mod dynamodb;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::any::Any;
use std::sync::Arc;

use slack_installs::backend::Backend;

/// A database from and to which installations are moved.
pub struct House {
    pub name: &'static str,
    pub backend: Arc<dyn Backend>,
    /// The rows of `moving::malformed_rows` that this database certainly rejects.
    pub refuses: &'static [&'static str],
    /// The server ends when this value is dropped.
    _server: Box<dyn Any>,
}

impl House {
    fn new(name: &'static str, backend: impl Backend, server: impl Any) -> Self {
        Self {
            name,
            backend: Arc::new(backend),
            refuses: &[],
            _server: Box::new(server),
        }
    }

    /// Adds the rows that this database rejects.
    fn refusing(self, refuses: &'static [&'static str]) -> Self {
        Self { refuses, ..self }
    }
}

/// Returns a database of each kind, memory last.
pub async fn houses() -> Vec<House> {
    let mut houses = Vec::new();
    #[cfg(feature = "dynamodb")]
    houses.push(dynamodb::house().await);
    #[cfg(feature = "postgres")]
    houses.push(postgres::house().await);
    #[cfg(feature = "redis")]
    houses.extend(redis::houses().await);
    #[cfg(feature = "sqlite")]
    houses.push(sqlite::house().await);
    houses.push(memory::house());
    houses
}
