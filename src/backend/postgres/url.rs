//! Opens a Postgres backend by a URL `postgres://…?schema=NAME`.

use async_trait::async_trait;

use super::{PostgresBackend, PostgresOptions};
use crate::backend::connect::{ByUrl, ConnectError, invalid, take_parameter};

#[async_trait]
impl ByUrl for PostgresBackend {
    const EXAMPLES: &str = "`postgres://user:password@host:5432/database?sslmode=verify-full`";

    async fn by_url(url: &str) -> Result<Self, ConnectError> {
        let (url, options) = parse(url)?;
        Self::connect_with(&url, options).await
    }

    async fn by_url_to_read(url: &str) -> Result<Self, ConnectError> {
        let (url, options) = parse(url)?;
        Self::connect_as(&url, options, false).await
    }

    async fn migrate_by_url(url: &str) -> Result<(), ConnectError> {
        let (url, options) = parse(url)?;
        Self::migrate(&url, &options).await
    }

    async fn missing_by_url(url: &str) -> Result<Vec<String>, ConnectError> {
        let (url, options) = parse(url)?;
        Self::missing(&url, &options).await
    }
}

/// Returns the URL without our own parameters, and the options that they set.
fn parse(url: &str) -> Result<(String, PostgresOptions), ConnectError> {
    let mut options = PostgresOptions::default();
    let (url, schema) = take_parameter(url, "schema");
    options.schema = schema.unwrap_or(options.schema);
    let (url, security) = flag(&url, "row_level_security")?;
    let (url, pooler) = flag(&url, "transaction_pooler")?;
    options.row_level_security = security;
    options.transaction_pooler = pooler;
    Ok((url, options))
}

fn flag(url: &str, name: &str) -> Result<(String, bool), ConnectError> {
    let (url, value) = take_parameter(url, name);
    match value.as_deref() {
        None | Some("false") => Ok((url, false)),
        Some("true") => Ok((url, true)),
        Some(_) => Err(invalid(format!(
            "the value of `?{name}=` must be `true` or `false`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_a_url_are_taken_out_of_it() {
        let url = "postgres://h/d?schema=s&row_level_security=true&transaction_pooler=true&x=1";
        let (left, options) = parse(url).expect("the options are known");
        assert_eq!(left, "postgres://h/d?x=1");
        assert_eq!(options.schema, "s");
        assert!(options.row_level_security && options.transaction_pooler);
        let (_, plain) = parse("postgres://h/d").expect("no options");
        assert_eq!(plain, PostgresOptions::default());
        assert!(parse("postgres://h/d?row_level_security=maybe").is_err());
    }
}
