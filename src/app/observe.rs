//! What an operator and a load balancer read: figures about what is stored, and the health check.

use crate::metrics;
use crate::store::{self, Figures};

use super::health::Health;
use super::{Parts, SlackApp};

impl SlackApp {
    /// Counts what is stored for the app: its installations, its chains of tokens and its queues.
    /// With the feature `metrics`, also sets the gauges to these figures.
    ///
    /// It reads the rows of all tenants, so call it every minute or less often. One process of the
    /// app is enough.
    ///
    /// # Errors
    ///
    /// [`store::Error`](enum@store::Error) if the store cannot be read. The gauges then keep their
    /// values.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any point.
    pub async fn observe(&self) -> Result<Figures, store::Error> {
        let requested = &self.0.provider.config().scopes;
        let now = self.0.clock.now();
        let figures = self.0.store.figures(now, requested).await?;
        set(&figures);
        Ok(figures)
    }

    /// Returns whether this process works and can serve requests, for the health check of a load
    /// balancer. Takes at most 1 s.
    ///
    /// It is cheap: the database is read at most once a second, however often this is called.
    ///
    /// ```
    /// # use slack_installs::SlackApp;
    /// use http::StatusCode;
    ///
    /// async fn ready(app: SlackApp) -> (StatusCode, String) {
    ///     let health = app.health().await;
    ///     let status = if health.is_ready {
    ///         StatusCode::OK
    ///     } else {
    ///         StatusCode::SERVICE_UNAVAILABLE
    ///     };
    ///     (status, serde_json::to_string(&health).unwrap_or_default())
    /// }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any point.
    pub async fn health(&self) -> Health {
        let Parts {
            checks,
            rotator,
            stop,
            store,
            ..
        } = &*self.0;
        let is_stopping = *stop.borrow();
        checks
            .health(&**store, rotator.is_rejected(), is_stopping)
            .await
    }
}

fn set(figures: &Figures) {
    let number = |count: usize| count as f64;
    metrics::TENANTS.set([], number(figures.tenants));
    metrics::SCOPE_DRIFT.set([], number(figures.scope_drift));
    metrics::DEPARTURES_WAITING.set([], number(figures.departures_waiting));
    for (state, count) in figures.chains.by_name() {
        metrics::CHAINS.set([state], number(count));
    }
    for (lane, length) in &figures.queues {
        metrics::QUEUE_LENGTH.set([lane], number(*length));
    }
    // No expiry at all is further away than each expiry.
    let nearest = figures.nearest_expiry.map(|left| left.as_secs_f64());
    metrics::NEAREST_EXPIRY.set([], nearest.unwrap_or(f64::INFINITY));
    let oldest = figures.oldest_overdue.unwrap_or_default();
    metrics::OLDEST_OVERDUE.set([], oldest.as_secs_f64());
    if let Some(age) = figures.key_age {
        metrics::KEY_AGE.set([], age.as_secs_f64());
    }
}
