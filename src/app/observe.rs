//! What an operator and a load balancer read: figures about what is stored, and the health check.

use futures_util::stream::{Stream, TryStreamExt as _};
use url::Url;

use crate::installation::Scopes;
use crate::metrics;
use crate::store::{self, Figures, InstallationStore as _};
use crate::tenant::InstallationKey;

use super::health::Health;
use super::{Parts, SlackApp};

/// A tenant that must consent again, because its bot lacks a scope that the app requests now.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct NewConsent {
    /// The tenant.
    pub key: InstallationKey,
    /// The scopes that the bot lacks.
    pub missing: Scopes,
    /// The link with which a person of this tenant installs the app again, with the new scopes.
    pub install_url: Url,
}

impl SlackApp {
    /// Streams the tenants that must consent again: their bot lacks a scope that the app requests
    /// now. Reads and opens each installation.
    ///
    /// # Errors
    ///
    /// If an installation cannot be read, yields [`store::Error`](enum@store::Error). If a page
    /// cannot be read, also ends the stream.
    pub fn needing_consent(
        &self,
    ) -> impl Stream<Item = Result<NewConsent, store::Error>> + Send + '_ {
        let summaries = self.installations();
        summaries.try_filter_map(move |summary| async move {
            let key = summary.key();
            let stored = self.0.store.fetch(&key, None).await?;
            let bot = stored.and_then(|stored| stored.installation.bot);
            let requested = &self.0.provider.config().scopes;
            let missing = bot.map(|bot| bot.grant.scopes.missing(requested));
            let missing = missing.filter(|missing| !missing.is_empty());
            Ok(missing.map(|missing| NewConsent {
                install_url: self.0.provider.install_url_of(&key),
                key,
                missing,
            }))
        })
    }

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
