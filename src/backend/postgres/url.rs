//! Opens a Postgres backend by a URL `postgres://…?schema=NAME`.

use async_trait::async_trait;

use super::{PostgresBackend, PostgresOptions};
use crate::backend::connect::{ByUrl, ConnectError, take_parameter};

#[async_trait]
impl ByUrl for PostgresBackend {
    const EXAMPLES: &str = "`postgres://user:password@host:5432/database?sslmode=verify-full`";

    async fn by_url(url: &str) -> Result<Self, ConnectError> {
        let mut options = PostgresOptions::default();
        let (url, schema) = take_parameter(url, "schema");
        options.schema = schema.unwrap_or(options.schema);
        Self::connect_with(&url, options).await
    }
}
