//! Opens a SQLite backend by a URL `sqlite:PATH`.

use async_trait::async_trait;

use super::SqliteBackend;
use crate::backend::connect::{ByUrl, ConnectError};

#[async_trait]
impl ByUrl for SqliteBackend {
    const EXAMPLES: &str = "`sqlite:installations.sqlite3`";

    async fn by_url(url: &str) -> Result<Self, ConnectError> {
        Self::open(path(url)).await
    }

    async fn by_url_to_read(url: &str) -> Result<Self, ConnectError> {
        Self::open_to_read(path(url)).await
    }

    async fn migrate_by_url(url: &str) -> Result<(), ConnectError> {
        Self::migrate(path(url)).await
    }

    async fn missing_by_url(url: &str) -> Result<Vec<String>, ConnectError> {
        Self::missing(path(url)).await
    }
}

fn path(url: &str) -> &str {
    url.strip_prefix("sqlite:").unwrap_or(url)
}
