//! An app whose metrics Prometheus reads, with a fake Slack and a storm of requests.
//!
//! ```text
//! cargo run --features axum,metrics,testing --example observability
//! curl localhost:3001/metrics
//! ```
//!
//! `PORT` sets another port, and `DATABASE_URL` a database instead of the process's memory.
//!
//! This file has what your own app needs: the exporter, the routes `/metrics` and `/health/…`, and
//! the task that counts. `storm.rs` is only for the example. The directory also has a configuration
//! of Prometheus, alert rules with their tests, and a dashboard for Grafana.
//! `scripts/observability` checks all of them against this example.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusBuilder;
use slack_installs::Health;
use slack_installs::prelude::*;
use tokio::net::TcpListener;

mod storm;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

async fn command(auth: Authorized) -> String {
    format!("Hello from {}", auth.installation_key())
}

async fn event(_: Authorized) {}

/// Responds to the load balancer.
async fn ready(State(app): State<SlackApp>) -> (StatusCode, Json<Health>) {
    let health = app.health().await;
    let status = if health.is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(health))
}

/// Counts what is stored, and sets the gauges. Once a minute is enough for a real app.
async fn observe(app: SlackApp) {
    let mut ticks = tokio::time::interval(Duration::from_secs(2));
    loop {
        ticks.tick().await;
        if let Err(error) = app.observe().await {
            tracing::warn!(%error, "the store cannot be counted");
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    // The exporter comes first, because the app describes its metrics when it is built.
    let exporter = PrometheusBuilder::new().install_recorder()?;
    let listener = TcpListener::bind(("127.0.0.1", port()?)).await?;
    let address = listener.local_addr()?;
    let storm = storm::Storm::new(address).await?;
    let app = storm.app(std::env::var("DATABASE_URL").ok()).await?;

    let router = Router::new()
        .route("/slack/command", post(command))
        .route("/slack/events", post(event))
        .layer(app.layer())
        .merge(app.install_routes())
        .route("/health/ready", get(ready))
        .route("/metrics", get(async move || exporter.render()))
        .merge(storm.routes())
        .with_state(app.clone());
    tokio::spawn(app.run());
    tokio::spawn(observe(app.clone()));
    tokio::spawn(storm.rage());
    println!("listening on http://{address}");
    axum::serve(listener, router).await?;
    Ok(())
}

fn port() -> Result<u16> {
    Ok(std::env::var("PORT").map_or(Ok(3001), |port| port.parse())?)
}
