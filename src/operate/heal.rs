//! Judges a tenant as soon as Slack refuses a token of it in a call of your app. Then nobody waits
//! for the next sweep.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::judge::Inquiry;
use super::proof::Verdict;
use super::{OperateError, Operator};
use crate::error_chain::error_chain;
use crate::lru::Lru;
use crate::rotation::{Judge, Judgement, TokenRotator};
use crate::store::{ChainKey, Credential};
use crate::tenant::InstallationKey;

impl Operator {
    /// Returns the same rotator, whose [`call`](TokenRotator::call) makes this operator judge a
    /// tenant whose authorisation seems to have ended. [`SlackApp`](crate::SlackApp) does this for
    /// its rotator.
    ///
    /// The rule is the one of [`reconcile`](Self::reconcile): what Slack confirms as dead is
    /// deleted, or the tenant is purged and your app's hook is called. In addition:
    ///
    /// * The judgement runs on a task of its own. The call does not wait for it, and
    ///   [`TokenRotator::shutdown`] does. A process judges a tenant at most once in 5 minutes.
    /// * A rotating token that Slack calls revoked is refreshed first. If Slack refuses that too,
    ///   the token cannot be used again, but another token of the tenant must be dead before the
    ///   tenant is purged. The sweep decides the other cases.
    /// * A process purges at most 10 tenants an hour in this way. A local cause, or an outage of
    ///   Slack, is more likely to explain more of them. The sweep decides about the rest.
    #[must_use]
    pub fn heal_calls(&self, rotator: TokenRotator) -> TokenRotator {
        rotator.with_judge(Arc::new(Healer {
            operator: self.clone(),
            judged: Mutex::new(Lru::new(TENANTS)),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            purges: Arc::default(),
        }))
    }

    /// Judges the tenant of this chain, and does what the verdict requires.
    async fn heal(
        &self,
        chain: &ChainKey,
        rotator: &TokenRotator,
        purges: &Purges,
    ) -> Result<(), OperateError> {
        for _ in 0..ROUNDS {
            let mut inquiry = Inquiry {
                pause: Duration::ZERO,
                attempts: 1,
                repairs: true,
                trusts_given_up: false,
                by: "call",
                revoked: Vec::new(),
            };
            self.heal_once(chain, purges, &mut inquiry).await?;
            if inquiry.revoked.is_empty() {
                return Ok(());
            }
            for revoked in inquiry.revoked {
                // The result is in the chain, which is judged next.
                drop(rotator.token_for(&revoked.tenant, revoked.credential).await);
            }
        }
        Ok(())
    }

    async fn heal_once(
        &self,
        chain: &ChainKey,
        purges: &Purges,
        inquiry: &mut Inquiry,
    ) -> Result<(), OperateError> {
        let key = &chain.tenant;
        let user = match &chain.credential {
            Credential::Bot => self.installer(key).await?,
            Credential::User(id) => Some(id.clone()),
        };
        let Some(installation) = self.store.fetch(key, user.as_ref()).await? else {
            return Ok(());
        };
        let Some(verdict) = self.judge(&installation, inquiry).await? else {
            return Ok(());
        };
        if verdict == Verdict::Gone && !purges.is_one_more_allowed() {
            tracing::error!(
                tenant = %key,
                "too many tenants look dead at once, so this one is not purged: run a sweep"
            );
            return Ok(());
        }
        let is_done = self.act_on(&verdict, &installation, inquiry).await?;
        if is_done && verdict == Verdict::Gone {
            purges.note();
        }
        tracing::info!(
            tenant = %key, ?verdict, is_done,
            "a tenant was judged, because Slack refused a token of it in a call"
        );
        Ok(())
    }
}

/// Decides which tenants are judged now.
struct Healer {
    operator: Operator,
    /// When each tenant may be judged again.
    judged: Mutex<Lru<InstallationKey, Instant>>,
    at_once: Arc<Semaphore>,
    purges: Arc<Purges>,
}

impl Judge for Healer {
    fn judgement(&self, chain: &ChainKey, rotator: &TokenRotator) -> Option<Judgement> {
        let now = Instant::now();
        let mut judged = locked(&self.judged);
        if judged.get(&chain.tenant).is_some_and(|until| now < until) {
            return None;
        }
        // Without a permit, a later call begins the judgement.
        let permit = Arc::clone(&self.at_once).try_acquire_owned().ok()?;
        judged.insert(chain.tenant.clone(), now + INTERVAL);
        drop(judged);
        let (operator, purges) = (self.operator.clone(), Arc::clone(&self.purges));
        let (chain, rotator) = (chain.clone(), rotator.clone());
        Some(Box::pin(async move {
            let healed = operator.heal(&chain, &rotator, &purges);
            match tokio::time::timeout(LONGEST, healed).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(
                    tenant = %chain.tenant,
                    error = error_chain(&error),
                    "a tenant could not be judged after Slack refused a token of it in a call"
                ),
                Err(_) => tracing::warn!(
                    tenant = %chain.tenant,
                    "the judgement of a tenant took too long; a later call begins it again"
                ),
            }
            drop(permit);
        }))
    }
}

/// The purges of the last hour.
#[derive(Default)]
struct Purges(Mutex<VecDeque<Instant>>);

impl Purges {
    fn is_one_more_allowed(&self) -> bool {
        let mut purges = locked(&self.0);
        purges.retain(|at| at.elapsed() < HOUR);
        purges.len() < MOST_PURGES
    }

    fn note(&self) {
        locked(&self.0).push_back(Instant::now());
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The judgements of one process at the same time.
const AT_ONCE: usize = 4;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// The time between two judgements of one tenant.
const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Longer than a hook may take (a minute).
const LONGEST: Duration = Duration::from_secs(90);

/// The most tenants that a process purges in an hour, as in one sweep.
const MOST_PURGES: usize = 10;

/// How often a tenant is judged in one judgement: before the refresh of its revoked tokens, and
/// after it.
const ROUNDS: usize = 4;

/// The tenants that are remembered.
const TENANTS: usize = 10_000;
