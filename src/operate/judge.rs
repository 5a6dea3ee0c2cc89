//! The rule that ends installations: what proves that an installation is dead, and what is then
//! done. A sweep applies it to all tenants, and a call that Slack refused to one.

use std::time::Duration;

use super::proof::{ChainState, Proof, Verdict, verdict};
use super::{OperateError, Operator};
use crate::error_chain::error_chain;
use crate::events::LifecycleError;
use crate::installation::{Grant, Installation, StoredInstallation};
use crate::rotation;
use crate::slack::{self, AuthTest};
use crate::store::{self, ChainKey, Credential, Facts, Mark};
use crate::tenant::{EnterpriseId, InstallationKey, UserId};

/// How tokens are checked, and what the checks left open.
#[derive(Debug)]
pub(super) struct Inquiry {
    /// The pause before each call of `auth.test`.
    pub(super) pause: Duration,
    /// How often a rate-limited call is made, at most.
    pub(super) attempts: usize,
    /// Whether chains and tenants may be changed.
    pub(super) repairs: bool,
    /// Whether a chain that was given up proves that its revoked token is dead. A chain may have
    /// been given up just now, and another process may still save a pair that Slack issued to it.
    pub(super) trusts_given_up: bool,
    /// What made the check: the first word of the reason that your app is told.
    pub(super) by: &'static str,
    /// The chains whose stored token Slack calls revoked, and which may get another one. Their
    /// refresh is due.
    pub(super) revoked: Vec<ChainKey>,
}

impl Operator {
    /// Judges the installation by its bot and this user. Returns `None` if nothing is wrong, or if
    /// nothing is stored.
    pub(super) async fn verdict_of(
        &self,
        key: &InstallationKey,
        user: Option<&UserId>,
        inquiry: &mut Inquiry,
    ) -> Result<Option<Verdict>, OperateError> {
        match self.store.fetch(key, user).await {
            Ok(Some(installation)) => self.judge(&installation, inquiry).await,
            Ok(None) => Ok(None),
            Err(store::Error::Unreadable(_)) => Ok(Some(Verdict::Unreadable)),
            // A fault of one tenant's key must not end the check of the others.
            Err(error) if error.is_of_record() => {
                let error = error_chain(&error);
                tracing::error!(tenant = %key, error, "a tenant cannot be checked without its key");
                Ok(Some(Verdict::WithoutKey))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Does what a verdict requires, if a second check gives the same result. Returns whether
    /// anything was changed.
    pub(super) async fn act_on(
        &self,
        verdict: &Verdict,
        installation: &StoredInstallation,
        inquiry: &mut Inquiry,
    ) -> Result<bool, OperateError> {
        match verdict {
            Verdict::Gone => self.purge_if_gone(installation, inquiry).await,
            Verdict::PartlyGone => self.delete_dead(installation, inquiry).await,
            Verdict::Outdated => self.update(installation, inquiry).await,
            _ => Ok(false),
        }
    }

    /// Checks the bot's token and the fetched user's. Returns `None` if nothing is wrong.
    pub(super) async fn judge(
        &self,
        installation: &Installation,
        inquiry: &mut Inquiry,
    ) -> Result<Option<Verdict>, OperateError> {
        let mut proofs = Vec::new();
        for (chain, grant) in tokens(installation) {
            proofs.push(self.ask(&chain, grant, inquiry).await?);
        }
        let verdict = verdict(&proofs);
        let alive = proofs.iter().find_map(|proof| match proof {
            Proof::Alive(test) => Some(test),
            _ => None,
        });
        let is_outdated = alive.is_some_and(|test| is_outdated(installation, test));
        Ok(match verdict {
            None | Some(Verdict::ReinstallNeeded) if is_outdated => Some(Verdict::Outdated),
            verdict => verdict,
        })
    }

    async fn ask(
        &self,
        chain: &ChainKey,
        grant: &Grant,
        inquiry: &mut Inquiry,
    ) -> Result<Proof, OperateError> {
        let mut attempt = 1;
        let outcome = loop {
            tokio::time::sleep(inquiry.pause).await;
            match self.slack.auth_test(&grant.access_token).await {
                Err(slack::Error::RateLimited { retry_after }) if attempt < inquiry.attempts => {
                    let wait = retry_after.unwrap_or(RATE_LIMITED).min(RATE_LIMITED);
                    tokio::time::sleep(wait).await;
                    attempt += 1;
                }
                outcome => break outcome,
            }
        };
        // Only these responses need the chain's state.
        let ended = match &outcome {
            Err(error) if error.class().ends_token() => Some(error.class()),
            _ => None,
        };
        let state = match ended {
            None => ChainState::Rotating,
            Some(_) if grant.refresh_token.is_none() => ChainState::LongLived,
            Some(class) => {
                let is_revoked = class == slack::ErrorClass::Revoked;
                self.state_of(chain, grant, is_revoked, inquiry).await?
            }
        };
        Ok(Proof::of(outcome, state))
    }

    /// Returns the state of a rotating chain. If Slack calls its token revoked and another one may
    /// be issued, makes the chain due: the refresh brings a new token, or proves that none exists.
    async fn state_of(
        &self,
        key: &ChainKey,
        grant: &Grant,
        is_revoked: bool,
        inquiry: &mut Inquiry,
    ) -> Result<ChainState, OperateError> {
        // An update without a change reads the database, not a cache.
        let stored = match self.chains.update(key, None, &mut |_| None).await {
            Err(error) if error.is_of_record() => return Ok(ChainState::Rotating),
            stored => stored?,
        };
        let asked = Mark::of_access_token(&grant.access_token);
        let is_asked =
            |it: &store::StoredChain| Mark::of_access_token(&it.grant.access_token) == asked;
        let Some(stored) = stored.filter(is_asked) else {
            return Ok(ChainState::Rotating);
        };
        if stored.chain.is_dead {
            return Ok(if inquiry.trusts_given_up {
                ChainState::GivenUp
            } else {
                ChainState::JustGivenUp
            });
        }
        if is_revoked && inquiry.repairs {
            let (install, generation) = (stored.chain.install, stored.chain.generation);
            let now = self.clock.now();
            let mut end = |chain: Option<&store::Chain>| {
                rotation::ended_and_wanted(chain, install, generation, now)
            };
            self.chains.update(key, None, &mut end).await?;
            inquiry.revoked.push(key.clone());
        }
        Ok(ChainState::Rotating)
    }

    async fn purge_if_gone(
        &self,
        installation: &StoredInstallation,
        inquiry: &mut Inquiry,
    ) -> Result<bool, OperateError> {
        if self.judge(installation, inquiry).await? != Some(Verdict::Gone)
            || self.may_other_user_live(installation, inquiry).await?
        {
            return Ok(false);
        }
        let key = &installation.key();
        let revision = installation.revision;
        let reason = format!("{}: its tokens are dead", inquiry.by);
        match self.lifecycle.purge(key, revision, &reason).await {
            Ok(()) => Ok(true),
            Err(LifecycleError::Store(store::Error::Conflict)) => Ok(false),
            // The departure is stored, so the hook is called again later.
            Err(LifecycleError::Hook(error)) => {
                tracing::warn!(
                    tenant = %key,
                    error = error_chain(&*error),
                    "the hook `LifecycleHooks::uninstalled` failed; it is called again later"
                );
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns whether a user other than the fetched one may have a token that Slack accepts.
    async fn may_other_user_live(
        &self,
        installation: &Installation,
        inquiry: &mut Inquiry,
    ) -> Result<bool, OperateError> {
        let key = installation.key();
        let mut any = false;
        for user in self.store.users(&key).await? {
            let judged = installation.user.as_ref();
            if judged.is_some_and(|judged| judged.id == user) {
                continue;
            }
            let found = match self.store.fetch(&key, Some(&user)).await {
                Err(error) if error.is_of_record() => return Ok(true),
                found => found?,
            };
            let Some(user) = found.and_then(|found| found.installation.user) else {
                continue;
            };
            let chain = chain_key(&key, Credential::User(user.id));
            let open = inquiry.revoked.len();
            if self.ask(&chain, &user.grant, inquiry).await?.may_live() {
                // The refreshes of all revoked chains begin now, so that one later check suffices.
                if inquiry.revoked.len() == open {
                    return Ok(true);
                }
                any = true;
            }
        }
        Ok(any)
    }

    /// Deletes the bot's or the fetched user's credential, if a second check confirms that it is
    /// dead. Your app is told.
    async fn delete_dead(
        &self,
        installation: &StoredInstallation,
        inquiry: &mut Inquiry,
    ) -> Result<bool, OperateError> {
        let mut any = false;
        for (chain, grant) in tokens(installation) {
            if matches!(self.ask(&chain, grant, inquiry).await?, Proof::Dead) {
                let (only, token) = (installation.revision, &grant.access_token);
                let reason = format!("{}: its token is dead", inquiry.by);
                any |= match self.lifecycle.revoked(&chain, only, token, &reason).await {
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
        inquiry: &mut Inquiry,
    ) -> Result<bool, OperateError> {
        let Some((chain, grant)) = tokens(installation).next() else {
            return Ok(false);
        };
        let Proof::Alive(test) = self.ask(&chain, grant, inquiry).await? else {
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

/// Returns the tokens of the bot and of the fetched user, with their chains.
fn tokens(installation: &Installation) -> impl Iterator<Item = (ChainKey, &Grant)> {
    let key = installation.key();
    let bot = installation.bot.as_ref();
    let bot = bot.map(|bot| (chain_key(&key, Credential::Bot), &bot.grant));
    let user = installation.user.as_ref();
    let user = user.map(|user| {
        let credential = Credential::User(user.id.clone());
        (chain_key(&key, credential), &user.grant)
    });
    bot.into_iter().chain(user)
}

fn chain_key(tenant: &InstallationKey, credential: Credential) -> ChainKey {
    ChainKey {
        credential,
        tenant: tenant.clone(),
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

/// The longest wait. Slack's `Retry-After` is at most a minute, because its limits are per minute.
const RATE_LIMITED: Duration = Duration::from_secs(60);
