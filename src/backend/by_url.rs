//! From a URL to a backend.

use std::sync::Arc;

use thiserror::Error;

use super::{Backend, BoxError, MemoryBackend};

/// Opens the backend at this URL.
///
/// | URL | feature |
/// |---|---|
/// | `memory:` | |
/// | `sqlite:PATH` | `sqlite` |
/// | `postgres://user:password@host:5432/database?sslmode=verify-full` | `postgres` |
/// | `redis://…`, or `rediss://user:password@host:6379` with TLS | `redis` |
/// | `cluster:rediss://host:6379,rediss://host:6379` | `redis` |
/// | `dynamodb:TABLE`, or `dynamodb:TABLE?endpoint=http://127.0.0.1:8000` | `dynamodb` |
///
/// Everything else about a backend has its default. For other options, open the backend itself
/// (`PostgresBackend::connect_with`, for example).
///
/// DynamoDB takes its region and credentials from AWS' default chain: environment, profile,
/// container, instance. At an `endpoint` (an emulator) the table is created if it does not exist.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let backend = slack_installs::backend::connect("memory:").await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`ConnectError`]; its text has the remedy, and never the URL, which may hold a password.
pub async fn connect(url: &str) -> Result<Arc<dyn Backend>, ConnectError> {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    let form = FORMS.iter().find(|form| form.scheme == scheme);
    let form = form.ok_or(ConnectError::Unknown)?;
    let is_complete = form.feature.is_empty() || !rest.trim_matches('/').is_empty();
    if !is_complete {
        return Err(ConnectError::Incomplete {
            scheme: form.scheme,
            example: form.example,
        });
    }
    match form.feature {
        "" => Ok(Arc::new(MemoryBackend::default())),
        #[cfg(feature = "sqlite")]
        "sqlite" => opened(form, super::SqliteBackend::open(rest).await),
        #[cfg(feature = "postgres")]
        "postgres" => opened(form, super::PostgresBackend::connect(url).await),
        #[cfg(feature = "redis")]
        "redis" => {
            let options = super::RedisOptions::default();
            let backend = match scheme {
                "cluster" => {
                    let nodes: Vec<_> = rest.split(',').collect();
                    super::RedisBackend::open_cluster(&nodes, options).await
                }
                _ => super::RedisBackend::open(url, options).await,
            };
            opened(form, backend)
        }
        #[cfg(feature = "dynamodb")]
        "dynamodb" => opened(form, super::DynamoDbBackend::from_url(rest).await),
        _ => Err(ConnectError::FeatureMissing {
            scheme: form.scheme,
            feature: form.feature,
        }),
    }
}

#[cfg(any(
    feature = "dynamodb",
    feature = "postgres",
    feature = "redis",
    feature = "sqlite"
))]
fn opened<B: Backend, E>(
    form: &'static Form,
    backend: Result<B, E>,
) -> Result<Arc<dyn Backend>, ConnectError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match backend {
        Ok(backend) => Ok(Arc::new(backend)),
        Err(source) => Err(ConnectError::Open {
            scheme: form.scheme,
            source: source.into(),
        }),
    }
}

/// Why a backend cannot be opened by its URL.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// This build cannot open such a database.
    #[error(
        "a database URL of `{scheme}:` needs the feature `{feature}`: add it to the features of \
         slack-installs in Cargo.toml"
    )]
    FeatureMissing {
        /// The URL's scheme.
        scheme: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// The URL has a scheme, and nothing after it.
    #[error("the database URL ends after `{scheme}:`; expected `{example}`")]
    Incomplete {
        /// The URL's scheme.
        scheme: &'static str,
        /// A complete URL.
        example: &'static str,
    },
    /// The database cannot be opened.
    #[error("the database at `{scheme}:` cannot be opened")]
    Open {
        /// The URL's scheme.
        scheme: &'static str,
        /// The backend's own error.
        #[source]
        source: BoxError,
    },
    /// No backend has such URLs.
    #[error(
        "not a database URL: expected `sqlite:PATH`, `postgres://…`, `redis://…`, `rediss://…`, \
         `cluster:redis://…,redis://…`, `dynamodb:TABLE` or `memory:`"
    )]
    Unknown,
}

struct Form {
    scheme: &'static str,
    /// Empty for none.
    feature: &'static str,
    example: &'static str,
}

const FORMS: [Form; 8] = [
    Form {
        scheme: "cluster",
        feature: "redis",
        example: "cluster:redis://host:6379,redis://host:6379",
    },
    Form {
        scheme: "dynamodb",
        feature: "dynamodb",
        example: "dynamodb:TABLE",
    },
    Form {
        scheme: "memory",
        feature: "",
        example: "memory:",
    },
    Form {
        scheme: "postgres",
        feature: "postgres",
        example: "postgres://user:password@host:5432/database?sslmode=verify-full",
    },
    Form {
        scheme: "postgresql",
        feature: "postgres",
        example: "postgresql://user:password@host:5432/database?sslmode=verify-full",
    },
    Form {
        scheme: "redis",
        feature: "redis",
        example: "redis://127.0.0.1:6379",
    },
    Form {
        scheme: "rediss",
        feature: "redis",
        example: "rediss://user:password@host:6379",
    },
    Form {
        scheme: "sqlite",
        feature: "sqlite",
        example: "sqlite:installations.sqlite3",
    },
];
