//! The worker, which serves due chains in the background of every process.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::Engine;
use super::protocol::{self, KEEP_ALIVE, Served};
use super::rotator::TokenRotator;
use super::trigger::Trigger;
use crate::error_chain::error_chain;
use crate::store::{ChainKey, ListCursor};

/// Configures how often a worker reads the database and how fast it refreshes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WorkerConfig {
    /// The pause between two reads of the database, plus or minus a half. If a process dies during
    /// a refresh, a worker repeats the refresh within one lease (15 s) plus this pause. Slack then
    /// still accepts the refresh token.
    pub every: Duration,
    /// How many refreshes this process starts per second.
    pub rate: u32,
}

impl Default for WorkerConfig {
    /// Reads every 2 s and starts 5 refreshes a second. Slack allows 600 calls of
    /// `oauth.v2.access` a minute (`docs.slack.dev/reference/methods/oauth.v2.access`). The
    /// default leaves a part of them to callers, who come first.
    fn default() -> Self {
        Self {
            every: Duration::from_secs(2),
            rate: 5,
        }
    }
}

impl TokenRotator {
    /// Serves due chains until [`shutdown`](Self::shutdown). Run it in every process: the leases
    /// divide the work.
    ///
    /// The worker
    ///
    /// * refreshes tokens ahead, for tenants that were active within about a day,
    /// * repeats refreshes whose process died,
    /// * keeps a PKCE app's idle chains alive,
    /// * deletes expired OAuth states.
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
    /// The future may be dropped at any time. A refresh that has begun continues.
    pub async fn work(&self, config: WorkerConfig) {
        let engine = &self.engine;
        let mut from = None;
        let mut swept: Option<Instant> = None;
        while !engine.flights.is_closed() {
            if swept.is_none_or(|swept| swept.elapsed() > SWEEP_EVERY) {
                swept = Some(Instant::now());
                if let Err(error) = engine.store.sweep().await {
                    tracing::warn!(
                        error = error_chain(&error),
                        "expired OAuth states could not be deleted"
                    );
                }
            }
            let look = engine.serve_due(from.take(), config).await;
            from = look.next;
            // Reads take at most a tenth of the worker's time, unless they are very slow.
            let longest = if look.has_failed {
                FAILED_REST
            } else {
                LONGEST_REST
            };
            let rest = (look.took * 9).min(longest);
            tokio::time::sleep(engine.jitter.around(config.every).max(rest)).await;
        }
    }
}

/// The result of one look at the queue of due chains.
struct Look {
    /// Where the next look starts: after the rows that this look served or skipped. `None` if it
    /// starts at the head of the queue.
    next: Option<ListCursor>,
    took: Duration,
    has_failed: bool,
}

impl Engine {
    /// Reads the queue of due chains from this cursor on. Serves the first page that has a chain
    /// to serve.
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
                    tracing::warn!(
                        error = error_chain(&error),
                        "the queue of due chains could not be read"
                    );
                    return Look {
                        next: None,
                        took,
                        has_failed: true,
                    };
                }
            };
            // Skips chains that cannot be served now. Their number does not matter, because the
            // loop continues with the next page.
            due.retain(|key| !self.recent.worker_skips(key) && !self.flights.is_running(key));
            if !due.is_empty() {
                let is_done = self.serve_page(due, config).await;
                let next = next.filter(|_| is_done);
                return Look {
                    next,
                    took,
                    has_failed: false,
                };
            }
            from = next;
            if from.is_none() {
                break;
            }
        }
        Look {
            next: from,
            took,
            has_failed: false,
        }
    }

    /// Serves these chains. Returns whether it reached the last one.
    async fn serve_page(self: &Arc<Self>, mut due: Vec<ChainKey>, config: WorkerConfig) -> bool {
        // Starts at a random chain, so that processes rarely compete for the same lease.
        let begin = (self.jitter.random() * due.len() as f64) as usize;
        let begin = begin.min(due.len());
        due.rotate_left(begin);
        let pause = Duration::from_secs(1) / config.rate.max(1);
        for key in &due {
            // Stops while Slack limits the rate of this process's calls: callers come first.
            if self.flights.is_closed() || self.pace.is_held() {
                return false;
            }
            if self.serve(key).await {
                tokio::time::sleep(pause).await;
            }
        }
        true
    }

    /// Serves one chain. Returns whether a refresh was started.
    async fn serve(self: &Arc<Self>, key: &ChainKey) -> bool {
        let keep_alive = self.config.is_pkce_app.then_some(KEEP_ALIVE);
        let served = self.step_unscheduled(key, None, |chain| {
            protocol::serve(chain, self.clock.now(), keep_alive)
        });
        match served.await {
            Ok((_, Served::Nothing)) => false,
            Ok((_, Served::Refresh)) => self.refresh(key, Trigger::Worker).is_ok(),
            Err(error) => {
                if let Some(left_out) = self.log_limit.admit("due") {
                    tracing::warn!(
                        tenant = %key.tenant, whose = %key.credential, left_out,
                        error = error_chain(&error),
                        "a due chain could not be read or scheduled"
                    );
                }
                let pause = if error.is_transient() {
                    AWAY_PAUSE
                } else {
                    BROKEN_PAUSE
                };
                self.recent.note_checked(key, pause, pause);
                false
            }
        }
    }
}

/// The number of rows in a page.
const PAGE: usize = 100;

/// The number of pages that one look reads. The next look continues after them.
const PAGES: usize = 100;

/// The longest pause between two looks that are slow.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// The pause between two deletions of expired states. The install flow uses the same pause.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The longest pause after a look that failed. Once the database responds, a call of unknown
/// outcome must be repeated soon.
const FAILED_REST: Duration = Duration::from_secs(10);

/// The time until a row is read again whose database did not respond. A row that is locked takes
/// seconds at each try.
const AWAY_PAUSE: Duration = Duration::from_secs(10);

/// The time until a row that could not be opened is read again.
const BROKEN_PAUSE: Duration = Duration::from_secs(60);
