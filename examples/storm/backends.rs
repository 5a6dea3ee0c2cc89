//! From `--backend` to a backend.

use std::sync::Arc;

use slack_installs::backend::Backend;

use crate::Failure;

pub(crate) async fn open(named: &str) -> Result<Arc<dyn Backend>, Failure> {
    let (kind, rest) = named.split_once(':').unwrap_or((named, ""));
    let is_known = FORMS.iter().any(|(known, ..)| *known == kind);
    match kind {
        _ if is_known && rest.is_empty() => Err(incomplete(kind)),
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let backend = slack_installs::backend::SqliteBackend::open(rest).await?;
            Ok(Arc::new(backend))
        }
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => postgres(named).await,
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "cluster" => redis(named).await,
        #[cfg(feature = "dynamodb")]
        "dynamodb" => dynamodb(rest).await,
        _ if is_known => Err(incomplete(kind)),
        _ => Err(
            "--backend is memory, sqlite:PATH, postgres://…, redis://…, rediss://…, \
             cluster:redis://…,redis://… or dynamodb:TABLE?endpoint=URL"
                .into(),
        ),
    }
}

/// What is missing: the rest of the URL, or the feature.
fn incomplete(kind: &str) -> Failure {
    let known = FORMS.iter().find(|(known, ..)| *known == kind);
    let (_, feature, form) = known.expect("only a known kind is incomplete");
    format!(
        "--backend {kind}: give {form}, and build with --features testing,{feature}; \
         `scripts/storm {feature}` does both, and starts a server"
    )
    .into()
}

/// Kinds of backends, the feature of each, and how it is named.
const FORMS: [(&str, &str, &str); 7] = [
    ("cluster", "redis", "cluster:redis://host:6379,redis://…"),
    (
        "dynamodb",
        "dynamodb",
        "dynamodb:TABLE?endpoint=http://host:8000",
    ),
    (
        "postgres",
        "postgres",
        "postgres://user:password@host:5432/database",
    ),
    (
        "postgresql",
        "postgres",
        "postgresql://user:password@host:5432/database",
    ),
    ("redis", "redis", "redis://host:6379"),
    ("rediss", "redis", "rediss://host:6379"),
    ("sqlite", "sqlite", "sqlite:PATH"),
];

/// In a schema of its own, beside whatever the database holds.
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

/// Under a prefix of its own, beside whatever the server holds.
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

/// At an endpoint, the table is made if it is not there.
#[cfg(feature = "dynamodb")]
async fn dynamodb(place: &str) -> Result<Arc<dyn Backend>, Failure> {
    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
    use slack_installs::backend::DynamoDbBackend;

    let (table, endpoint) = match place.split_once("?endpoint=") {
        Some((table, endpoint)) => (table, Some(endpoint)),
        None => (place, None),
    };
    // An emulator wants some, whatever they are.
    let variable = |name: &str| match (std::env::var(name), endpoint) {
        (Ok(value), _) => Ok(value),
        (Err(_), Some(_)) => Ok("us-east-1".to_owned()),
        (Err(_), None) => Err(format!("{name} is not set, and AWS wants it")),
    };
    let credentials = Credentials::new(
        variable("AWS_ACCESS_KEY_ID")?,
        variable("AWS_SECRET_ACCESS_KEY")?,
        std::env::var("AWS_SESSION_TOKEN").ok(),
        None,
        "environment",
    );
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(credentials)
        .region(Region::new(variable("AWS_REGION")?));
    let config = match endpoint {
        Some(endpoint) if endpoint.starts_with("http://") => config
            .endpoint_url(endpoint)
            .http_client(aws_smithy_http_client::Builder::new().build_http()),
        Some(endpoint) => config.endpoint_url(endpoint),
        None => config,
    };
    let client = Client::from_conf(config.build());
    if endpoint.is_some() {
        let made = DynamoDbBackend::create_table(&client, table).await;
        made.map_err(unreachable("dynamodb"))?;
    }
    let backend = DynamoDbBackend::connect(&client, table).await;
    Ok(Arc::new(backend.map_err(unreachable("dynamodb"))?))
}

/// The error, and what to do about it.
#[cfg(any(feature = "dynamodb", feature = "postgres", feature = "redis"))]
fn unreachable<E: std::error::Error>(feature: &str) -> impl Fn(E) -> Failure {
    move |error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        format!("{text}\n(`scripts/storm {feature}` starts a server to throw away)").into()
    }
}
