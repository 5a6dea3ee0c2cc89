//! Opens a SQLite backend by a URL `sqlite:PATH`.

use async_trait::async_trait;

use super::SqliteBackend;
use crate::backend::connect::{ByUrl, ConnectError};

#[async_trait]
impl ByUrl for SqliteBackend {
    const EXAMPLES: &str = "`sqlite:installations.sqlite3`";

    async fn by_url(url: &str) -> Result<Self, ConnectError> {
        Self::open(url.strip_prefix("sqlite:").unwrap_or(url)).await
    }
}
