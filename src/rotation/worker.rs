//! What every process does in the background: looks after chains whose time has come.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::Engine;
use super::protocol::{self, KEEP_ALIVE, Served};
use super::refresh::Trigger;
use super::rotator::TokenRotator;
use crate::store::{ChainKey, ListCursor};

/// How much a worker does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WorkerConfig {
    /// Between two looks at the database, give or take half of it. An orphaned refresh is
    /// repeated within one lease (15 s) and this, so that Slack still takes the refresh token.
    pub every: Duration,
    /// Refreshes begun per second, by this process.
    pub rate: u32,
}

impl Default for WorkerConfig {
    /// Every 2 s; 5 refreshes a second. Slack takes 600 calls of `oauth.v2.access` a minute
    /// (`docs.slack.dev/reference/methods/oauth.v2.access`), and callers come first.
    fn default() -> Self {
        Self {
            every: Duration::from_secs(2),
            rate: 5,
        }
    }
}

impl TokenRotator {
    /// Serves what is due until [`shutdown`](Self::shutdown): refreshes ahead for tenants that
    /// were active within a day, repeats refreshes whose process died, keeps a PKCE app's idle
    /// chains alive, and removes expired OAuth states. Run it in every process; the lease parts
    /// the work.
    ///
    /// ```no_run
    /// # fn example(rotator: slack_installs::TokenRotator) {
    /// use slack_installs::rotation::WorkerConfig;
    ///
    /// tokio::spawn(async move { rotator.work(WorkerConfig::default()).await });
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point: a refresh that has begun goes on.
    pub async fn work(&self, config: WorkerConfig) {
        let engine = &self.engine;
        let mut from = None;
        let mut swept: Option<Instant> = None;
        while !engine.flights.is_closed() {
            if swept.is_none_or(|swept| swept.elapsed() > SWEEP_EVERY) {
                swept = Some(Instant::now());
                if let Err(error) = engine.store.sweep().await {
                    tracing::warn!(%error, "expired records could not be removed");
                }
            }
            let look = engine.serve_due(from.take(), config).await;
            from = look.next;
            // A database in which looks are long is not kept busy by them.
            let rest = (look.took * 9).min(LONGEST_REST);
            tokio::time::sleep(engine.jitter.around(config.every).max(rest)).await;
        }
    }
}

/// A look at the database.
struct Look {
    /// The place where the next one starts: behind the rows that this one has served, or could
    /// not help. `None` at the head of the queue.
    next: Option<ListCursor>,
    took: Duration,
}

impl Engine {
    /// Serves the first page of what is due, from this place on, that has anything to serve.
    async fn serve_due(
        self: &Arc<Self>,
        mut from: Option<ListCursor>,
        config: WorkerConfig,
    ) -> Look {
        let mut took = Duration::ZERO;
        for _ in 0..PAGES {
            let begun = Instant::now();
            let due = self.store.due(self.clock.now(), from, PAGE).await;
            took += begun.elapsed();
            let (mut due, next) = match due {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "what is due could not be read");
                    return Look { next: None, took };
                }
            };
            // Nobody can help these for a while. Any number of them hides nothing.
            due.retain(|key| !self.recent.was_checked(key) && !self.flights.is_running(key));
            if !due.is_empty() {
                let is_done = self.serve_page(due, config).await;
                let next = next.filter(|_| is_done);
                return Look { next, took };
            }
            from = next;
            if from.is_none() {
                break;
            }
        }
        Look { next: from, took }
    }

    /// Serves these chains. Answers whether it came to the last.
    async fn serve_page(self: &Arc<Self>, mut due: Vec<ChainKey>, config: WorkerConfig) -> bool {
        // Processes that begin at different places do not meet at every lease.
        let begin = (self.jitter.random() * due.len() as f64) as usize;
        let begin = begin.min(due.len());
        due.rotate_left(begin);
        let pause = Duration::from_secs(1) / config.rate.max(1);
        for key in &due {
            // Slack has told this process to wait: what callers need comes first.
            if self.flights.is_closed() || self.pace.is_held() {
                return false;
            }
            if self.serve(key).await {
                tokio::time::sleep(pause).await;
            }
        }
        true
    }

    /// Whether a refresh was begun.
    async fn serve(self: &Arc<Self>, key: &ChainKey) -> bool {
        let keep_alive = self.config.is_pkce_app.then_some(KEEP_ALIVE);
        let served = self.step_unscheduled(key, None, |chain| {
            protocol::serve(chain, self.clock.now(), keep_alive)
        });
        match served.await {
            Ok((_, Served::Nothing)) => false,
            Ok((_, Served::Refresh)) => self.refresh(key, Trigger::Worker).is_ok(),
            Err(error) => {
                tracing::warn!(chain = %key, %error, "a chain that is due could not be looked at");
                self.recent.note_checked(key, Instant::now() + BROKEN_PAUSE);
                false
            }
        }
    }
}

/// Rows asked for at once.
const PAGE: usize = 100;

/// Of rows that nobody can help, in one look. The next look goes on behind them.
const PAGES: usize = 100;

/// Between two looks, however long they take.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// As often as the install flow does it.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// A row that does not open is looked at again after this.
const BROKEN_PAUSE: Duration = Duration::from_secs(60);
