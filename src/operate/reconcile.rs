//! Checks every installation with Slack, because events can be lost.

use std::time::Duration;

use super::judge::Inquiry;
use super::proof::Verdict;
use super::{OperateError, Operator};
use crate::store::{AuditContext, Summary};
use crate::tenant::InstallationKey;

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
    /// Why the sweep is made, for the audit log.
    pub reason: Option<String>,
}

impl Default for ReconcileConfig {
    /// Only reports, makes five calls per second, and purges at most 10 tenants and 5 percent.
    fn default() -> Self {
        Self {
            repairs: false,
            pause: Duration::from_millis(200),
            most_purges: 10,
            most_percent: 5,
            reason: None,
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
    /// Whether more tenants looked dead than one sweep may purge. Then none is purged.
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

impl Operator {
    /// Checks every installation with `auth.test`, one after the other.
    ///
    /// A tenant is purged only under three conditions:
    ///
    /// 1. Of each of its tokens it is proven that it cannot be used again, and at least one is
    ///    dead: Slack returns an error that only a dead token has. `invalid_auth` alone is not
    ///    enough. `token_revoked` is enough for a token that rotates only if Slack has also refused
    ///    every refresh token of it. Otherwise a newer token may have replaced it.
    /// 2. A second check gives the same result.
    /// 3. Only a few tenants look dead at the same time: see [`ReconcileConfig`].
    ///
    /// A sweep that repairs also schedules a refresh of each rotating token that Slack calls
    /// revoked. If Slack refuses the refresh, the next sweep has the proof.
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
        let purpose = match &config.reason {
            Some(reason) => format!("reconcile: {reason}"),
            None => "reconcile".to_owned(),
        };
        let context = AuditContext::current_or("operator").because(&purpose);
        context.scope(self.reconcile_now(config)).await
    }

    async fn reconcile_now(&self, config: &ReconcileConfig) -> Result<Reconciled, OperateError> {
        let mut report = Reconciled::default();
        let mut inquiry = Inquiry {
            pause: config.pause,
            attempts: ATTEMPTS,
            repairs: config.repairs,
            trusts_given_up: true,
            by: "reconcile",
            revoked: Vec::new(),
        };
        let mut from = None;
        loop {
            let page = self.store.list(from, PAGE).await?;
            for summary in page.installations {
                report.examined += 1;
                if let Some(examined) = self.examine(&summary, &mut inquiry).await? {
                    report.findings.push(examined);
                }
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
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
        if config.repairs {
            self.repair(&mut report, &mut inquiry).await?;
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
        inquiry: &mut Inquiry,
    ) -> Result<Option<Examined>, OperateError> {
        inquiry.revoked.clear();
        let key = summary.home.key();
        let by = summary.installed_by.as_ref();
        let verdict = self.verdict_of(&key, by, inquiry).await?;
        Ok(verdict.map(|verdict| Examined { key, verdict }))
    }

    async fn repair(
        &self,
        report: &mut Reconciled,
        inquiry: &mut Inquiry,
    ) -> Result<(), OperateError> {
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
            let count = if is_gone {
                &mut report.purged
            } else {
                &mut report.repaired
            };
            let is_done = self.act_on(verdict, &installation, inquiry).await?;
            *count += usize::from(is_done);
        }
        Ok(())
    }
}

const PAGE: usize = 200;

const ATTEMPTS: usize = 3;
