//! What every process does in the background: looks after chains whose time has come.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::TokenRotator;
use super::engine::{Engine, Want};
use super::protocol::{self, Demand, Served};
use crate::store::{Chain, ChainKey};

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
        let mut look = Look {
            limit: PAGE,
            took: Duration::ZERO,
        };
        let mut swept: Option<Instant> = None;
        while !engine.flights.is_closed() {
            if swept.is_none_or(|swept| swept.elapsed() > SWEEP_EVERY) {
                swept = Some(Instant::now());
                if let Err(error) = engine.store.sweep().await {
                    tracing::warn!(%error, "expired records could not be removed");
                }
            }
            look = engine.serve_due(look.limit, config).await;
            // A database in which looks are long, as where another app left its rows overdue, is
            // not kept busy by them.
            let rest = (look.took * 9).min(LONGEST_REST);
            tokio::time::sleep(engine.jittered(config.every).max(rest)).await;
        }
    }
}

/// A look at the database.
struct Look {
    /// Rows to ask for in the next one.
    limit: usize,
    took: Duration,
}

impl Engine {
    /// Serves a page of what is due. Answers how many rows to ask for next time.
    async fn serve_due(self: &Arc<Self>, limit: usize, config: WorkerConfig) -> Look {
        let begun = Instant::now();
        let due = self.store.due(self.clock.now(), limit).await;
        let took = begun.elapsed();
        let mut due = match due {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "what is due could not be read");
                return Look { limit: PAGE, took };
            }
        };
        let found = due.len();
        due.retain(|key| !self.memo.is_quiet(key) && !self.flights.is_flying(key));
        // Processes that begin at different places do not meet at every lease.
        let begin = (self.memo.random() * due.len() as f64) as usize;
        let begin = begin.min(due.len());
        due.rotate_left(begin);
        let pause = Duration::from_secs(1) / config.rate.max(1);
        for key in &due {
            // Slack has told this process to wait: what callers need comes first.
            if self.flights.is_closed() || self.pace.is_held() {
                break;
            }
            if self.serve(key).await {
                tokio::time::sleep(pause).await;
            }
        }
        // Rows that nobody can help stand at the head of the queue; look behind them.
        let limit = match due.is_empty() && found > 0 {
            true => (limit * 2).min(LARGEST_PAGE),
            false => PAGE,
        };
        Look { limit, took }
    }

    /// Whether a refresh was begun.
    async fn serve(self: &Arc<Self>, key: &ChainKey) -> bool {
        let keep_alive = self.keep_alive();
        let mut served = Served::Nothing;
        let mut decide = |chain: Option<&Chain>| {
            let (next, answer) = protocol::serve(chain, self.clock.now(), keep_alive);
            served = answer;
            next
        };
        if let Err(error) = self.store.update(key, None, &mut decide).await {
            tracing::warn!(chain = %key, %error, "a chain that is due could not be looked at");
            self.memo.keep_quiet(key, Instant::now() + BROKEN_PAUSE);
            return false;
        }
        let want = Want {
            demand: Demand::Current,
            waits: false,
            is_ahead: true,
        };
        served == Served::Refresh && self.board(key, want).is_ok()
    }
}

/// Rows asked for at once.
const PAGE: usize = 100;

const LARGEST_PAGE: usize = 10_000;

/// Between two looks, however long they take.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// As often as the install flow does it.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// A row that does not open is looked at again after this.
const BROKEN_PAUSE: Duration = Duration::from_secs(60);
