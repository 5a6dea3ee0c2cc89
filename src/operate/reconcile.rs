//! Checks every installation with Slack, because events can be lost.

use std::time::Duration;

use super::{OperateError, Operator};
use crate::error_chain::error_chain;
use crate::events::LifecycleError;
use crate::installation::{Grant, Installation, StoredInstallation};
use crate::slack::{self, AuthTest, ErrorClass};
use crate::store::{self, ChainKey, Credential, Facts, Summary};
use crate::tenant::{EnterpriseId, InstallationKey};

/// The options of a sweep.
#[derive(Clone, Debug)]
pub struct ReconcileConfig {
    /// Whether to purge dead tenants and to update facts. If `false`, the sweep only reports.
    pub repairs: bool,
    /// The pause before each call of `auth.test`. Slack allows hundreds of calls per minute.
    pub pause: Duration,
    /// The most tenants that one sweep purges. If more look dead, it purges none, because a local
    /// cause is then more likely. One such cause is an address that is not on the app's allow-list.
    pub most_purges: usize,
    /// The largest share of the checked tenants that one sweep purges, in percent. One tenant may
    /// always be purged.
    pub most_percent: usize,
}

impl Default for ReconcileConfig {
    /// Only reports, makes five calls per second, and purges at most 10 tenants and 5 percent.
    fn default() -> Self {
        Self {
            repairs: false,
            pause: Duration::from_millis(200),
            most_purges: 10,
            most_percent: 5,
        }
    }
}

/// The result of a sweep.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Reconciled {
    /// How many installations were checked.
    pub examined: usize,
    /// The installations that need attention.
    pub findings: Vec<Examined>,
    /// How many tenants were purged.
    pub purged: usize,
    /// How many installations had a dead credential deleted (the bot's or the installing user's),
    /// or their facts updated.
    pub repaired: usize,
    /// Whether more tenants looked dead than one sweep may purge. Then none was purged.
    pub is_guard_tripped: bool,
}

/// One finding.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Examined {
    /// The tenant.
    pub key: InstallationKey,
    /// What the sweep found.
    pub verdict: Verdict,
}

/// What Slack reports about an installation.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// The bot's and the installing user's tokens are certainly dead. The tenant is purged if no
    /// other user's token is alive.
    Gone,
    /// The installation is alive, but one of the two checked credentials is dead.
    PartlyGone,
    /// The installation is alive, but its stored organisation, URL or bot id is out of date.
    Outdated,
    /// The access token has expired. Token rotation handles this.
    Expired,
    /// Slack's response proves nothing: `invalid_auth`, a migration, or an unknown error. Contains
    /// the error's code, if there is one.
    Unclear(Option<slack::ErrorCode>),
    /// No token is stored, so Slack cannot be asked.
    Tokenless,
    /// A stored row cannot be decrypted.
    Unreadable,
}

/// What `auth.test` reports about one token.
enum State {
    Alive(AuthTest),
    Dead,
    Expired,
    Unclear(Option<slack::ErrorCode>),
}

impl Operator {
    /// Checks every installation with `auth.test`, one after the other.
    ///
    /// A tenant is purged only under three conditions:
    ///
    /// 1. For each of its tokens, Slack returns an error that only a dead token has. `invalid_auth`
    ///    alone is not enough. A revoked token that rotates is not enough either, because a newer
    ///    token may have replaced it.
    /// 2. A second check gives the same result.
    /// 3. Only a few tenants look dead at the same time: see [`ReconcileConfig`].
    ///
    /// The tokens of users other than the installing user are checked only before a purge. Run the
    /// sweep daily, and after an outage in which events may have been lost.
    ///
    /// # Errors
    ///
    /// [`OperateError`] if the store is unavailable. Completed changes stay; another sweep does the
    /// rest.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point.
    pub async fn reconcile(&self, config: &ReconcileConfig) -> Result<Reconciled, OperateError> {
        let mut report = Reconciled::default();
        let mut from = None;
        loop {
            let page = self.store.list(from, PAGE).await?;
            for summary in page.installations {
                report.examined += 1;
                if let Some(examined) = self.examine(&summary, config).await? {
                    report.findings.push(examined);
                }
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        if config.repairs {
            self.repair(&mut report, config).await?;
        }
        tracing::info!(
            examined = report.examined,
            findings = report.findings.len(),
            purged = report.purged,
            repaired = report.repaired,
            is_guard_tripped = report.is_guard_tripped,
            "the reconcile sweep is complete"
        );
        Ok(report)
    }

    async fn examine(
        &self,
        summary: &Summary,
        config: &ReconcileConfig,
    ) -> Result<Option<Examined>, OperateError> {
        let key = summary.home.key();
        let installation = match self.store.fetch(&key, summary.installed_by.as_ref()).await {
            Ok(Some(installation)) => installation,
            Ok(None) => return Ok(None),
            Err(store::Error::Unreadable(_)) => {
                let verdict = Verdict::Unreadable;
                return Ok(Some(Examined { key, verdict }));
            }
            Err(error) => return Err(error.into()),
        };
        let verdict = self.judge(&installation, config).await;
        Ok(verdict.map(|verdict| Examined { key, verdict }))
    }

    /// Checks the bot's token and the installing user's. Returns `None` if nothing is wrong.
    async fn judge(
        &self,
        installation: &Installation,
        config: &ReconcileConfig,
    ) -> Option<Verdict> {
        let mut states = Vec::new();
        for grant in installation.grants().into_iter().flatten() {
            states.push(self.ask(grant, config).await);
        }
        let dead = states.iter().filter(|it| matches!(it, State::Dead)).count();
        let alive = states.iter().find_map(|state| match state {
            State::Alive(test) => Some(test),
            _ => None,
        });
        match alive {
            Some(_) if dead > 0 => return Some(Verdict::PartlyGone),
            Some(test) if is_outdated(installation, test) => return Some(Verdict::Outdated),
            Some(_) => return None,
            None => {}
        }
        if states.is_empty() {
            return Some(Verdict::Tokenless);
        }
        if dead == states.len() {
            return Some(Verdict::Gone);
        }
        let unclear = states.into_iter().find_map(|state| match state {
            State::Unclear(code) => Some(Verdict::Unclear(code)),
            _ => None,
        });
        Some(unclear.unwrap_or(Verdict::Expired))
    }

    async fn ask(&self, grant: &Grant, config: &ReconcileConfig) -> State {
        for attempt in 0..ATTEMPTS {
            tokio::time::sleep(config.pause).await;
            let error = match self.slack.auth_test(&grant.access_token).await {
                Ok(test) => return State::Alive(test),
                Err(error) => error,
            };
            if let slack::Error::RateLimited { retry_after } = &error
                && attempt + 1 < ATTEMPTS
            {
                let wait = retry_after.unwrap_or(RATE_LIMITED).min(RATE_LIMITED);
                tokio::time::sleep(wait).await;
                continue;
            }
            let code = match &error {
                slack::Error::Api { code, .. } => Some(code.clone()),
                _ => None,
            };
            return match error.class() {
                ErrorClass::Dead => State::Dead,
                // Slack also revokes a rotating token when a newer one replaces it.
                ErrorClass::Revoked if grant.refresh_token.is_none() => State::Dead,
                ErrorClass::TokenExpired => State::Expired,
                _ => State::Unclear(code),
            };
        }
        State::Unclear(None)
    }

    async fn repair(
        &self,
        report: &mut Reconciled,
        config: &ReconcileConfig,
    ) -> Result<(), OperateError> {
        let gone = report.findings.iter();
        let gone = gone.filter(|it| it.verdict == Verdict::Gone).count();
        let share = (report.examined * config.most_percent / 100).max(1);
        report.is_guard_tripped = gone > config.most_purges.min(share);
        if report.is_guard_tripped {
            tracing::error!(
                gone,
                "too many tenants look dead at once, so none is purged: check the app's allow-list"
            );
        }
        for Examined { key, verdict } in &report.findings {
            let is_gone = *verdict == Verdict::Gone;
            let is_repairable = matches!(verdict, Verdict::PartlyGone | Verdict::Outdated)
                || (is_gone && !report.is_guard_tripped);
            if !is_repairable {
                continue;
            }
            let by = self.installer(key).await?;
            let Some(installation) = self.store.fetch(key, by.as_ref()).await? else {
                continue;
            };
            let is_done = match verdict {
                Verdict::Gone => self.purge_if_gone(&installation, config).await?,
                Verdict::PartlyGone => self.delete_dead(&installation, config).await?,
                _ => self.update(&installation, config).await?,
            };
            let count = if is_gone {
                &mut report.purged
            } else {
                &mut report.repaired
            };
            *count += usize::from(is_done);
        }
        Ok(())
    }

    /// Purges a tenant if a second check gives the same result.
    async fn purge_if_gone(
        &self,
        installation: &StoredInstallation,
        config: &ReconcileConfig,
    ) -> Result<bool, OperateError> {
        if self.judge(installation, config).await != Some(Verdict::Gone)
            || self.any_other_user_lives(installation, config).await?
        {
            return Ok(false);
        }
        let key = &installation.key();
        let reason = "reconcile: its tokens are dead";
        match self
            .lifecycle
            .purge(key, installation.revision, reason)
            .await
        {
            Ok(()) => Ok(true),
            Err(LifecycleError::Store(store::Error::Conflict)) => Ok(false),
            // The departure is stored, so the hook is called again later.
            Err(LifecycleError::Hook(error)) => {
                tracing::error!(
                    tenant = %key,
                    error = error_chain(&*error),
                    "the hook `LifecycleHooks::uninstalled` failed; it is called again later"
                );
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns whether a user other than the installing user has a token that is not certainly
    /// dead.
    async fn any_other_user_lives(
        &self,
        installation: &Installation,
        config: &ReconcileConfig,
    ) -> Result<bool, OperateError> {
        let key = installation.key();
        for user in self.store.users(&key).await? {
            if installation.installed_by.as_ref() == Some(&user) {
                continue;
            }
            let found = match self.store.fetch(&key, Some(&user)).await {
                Err(store::Error::Unreadable(_)) => return Ok(true),
                found => found?,
            };
            if let Some(user) = found.and_then(|found| found.installation.user)
                && !matches!(self.ask(&user.grant, config).await, State::Dead)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes the bot's or the installing user's credential, if a second check confirms that it is
    /// dead.
    async fn delete_dead(
        &self,
        installation: &StoredInstallation,
        config: &ReconcileConfig,
    ) -> Result<bool, OperateError> {
        let [bot, user] = installation.grants();
        let users_id = installation.user.as_ref().map(|user| user.id.clone());
        let parts = [
            (bot, Some(Credential::Bot)),
            (user, users_id.map(Credential::User)),
        ];
        let mut any = false;
        for (grant, credential) in parts {
            let (Some(grant), Some(credential)) = (grant, credential) else {
                continue;
            };
            if matches!(self.ask(grant, config).await, State::Dead) {
                let tenant = installation.key();
                let chain = ChainKey { credential, tenant };
                let (only, token) = (installation.revision, &grant.access_token);
                let reason = "reconcile: its token is dead";
                any |= match self.lifecycle.revoked(&chain, only, token, reason).await {
                    Err(store::Error::Conflict) => false,
                    outcome => outcome?,
                };
            }
        }
        Ok(any)
    }

    async fn update(
        &self,
        installation: &StoredInstallation,
        config: &ReconcileConfig,
    ) -> Result<bool, OperateError> {
        let Some(grant) = installation.grants().into_iter().flatten().next() else {
            return Ok(false);
        };
        let State::Alive(test) = self.ask(grant, config).await else {
            return Ok(false);
        };
        // One change per sweep: each change requires the revision that was judged, and creates a
        // new one.
        if enterprise_moved(installation, &test) {
            let enterprise = test.enterprise_id.as_ref();
            let key = installation.key();
            return Ok(self
                .store
                .set_enterprise(&key, installation.revision, enterprise)
                .await?);
        }
        let facts = Facts {
            bot_id: test.bot_id.filter(|_| installation.bot.is_some()),
            url: test.url,
        };
        let key = installation.key();
        Ok(self.store.note(&key, installation.revision, &facts).await?)
    }
}

fn is_outdated(installation: &Installation, test: &AuthTest) -> bool {
    let url = test.url.is_some() && test.url != installation.url;
    let bot = installation.bot.as_ref();
    let bot = bot.is_some_and(|bot| test.bot_id.is_some() && test.bot_id != bot.id);
    url || bot || enterprise_moved(installation, test)
}

/// Returns whether the workspace's organisation differs from the stored one. The result counts only
/// if Slack's response names this workspace.
fn enterprise_moved(installation: &Installation, test: &AuthTest) -> bool {
    let stored: Option<&EnterpriseId> = installation.home.enterprise().map(|org| &org.id);
    let team = installation.home.team().map(|team| &team.id);
    team.is_some() && test.team_id.as_ref() == team && test.enterprise_id.as_ref() != stored
}

const PAGE: usize = 200;

/// The longest wait. Slack's `Retry-After` is at most a minute, because its limits are per minute.
const RATE_LIMITED: Duration = Duration::from_secs(60);

const ATTEMPTS: usize = 3;
