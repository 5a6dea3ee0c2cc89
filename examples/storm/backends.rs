//! Opens the backend that `--backend` names.

use std::sync::Arc;

use slack_installs::backend::{Backend, connect};

use crate::Failure;

/// Opens a backend like [`slack_installs::backend::connect`]. On Postgres and Redis, uses a schema
/// or a key prefix of its own, so that other data on the server is not changed.
pub(crate) async fn open(named: &str) -> Result<Arc<dyn Backend>, Failure> {
    let scheme = named.split(':').next().unwrap_or_default();
    match scheme {
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" if !named.ends_with(':') => postgres(named).await,
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "cluster" if !named.ends_with(':') => redis(named).await,
        _ => connect(named).await.map_err(|error| {
            let text = with_causes(&error);
            format!("--backend {scheme}: {text}\n({REMEDY})").into()
        }),
    }
}

const REMEDY: &str =
    "`scripts/storm BACKEND` builds the example with every backend and starts a server";

/// Opens Postgres with its own schema.
#[cfg(feature = "postgres")]
async fn postgres(url: &str) -> Result<Arc<dyn Backend>, Failure> {
    use slack_installs::backend::{PostgresBackend, PostgresOptions};

    let options = PostgresOptions {
        schema: "slack_installs_storm".to_owned(),
        ..PostgresOptions::default()
    };
    let backend = PostgresBackend::connect_with(url, options).await;
    Ok(Arc::new(backend.map_err(unreachable("postgres"))?))
}

/// Opens Redis with its own key prefix.
#[cfg(feature = "redis")]
async fn redis(url: &str) -> Result<Arc<dyn Backend>, Failure> {
    use slack_installs::backend::{RedisBackend, RedisOptions};

    let options = RedisOptions {
        prefix: "slack-installs-storm".to_owned(),
        ..RedisOptions::default()
    };
    let backend = match url.strip_prefix("cluster:") {
        Some(nodes) => {
            let nodes: Vec<_> = nodes.split(',').collect();
            RedisBackend::open_cluster(&nodes, options).await
        }
        None => RedisBackend::open(url, options).await,
    };
    Ok(Arc::new(backend.map_err(unreachable("redis"))?))
}

/// Adds the remedy to an error.
#[cfg(any(feature = "postgres", feature = "redis"))]
fn unreachable<E: std::error::Error>(feature: &str) -> impl Fn(E) -> Failure {
    move |error| {
        let text = with_causes(&error);
        format!("{text}\n(`scripts/storm {feature}` starts a temporary server)").into()
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}
