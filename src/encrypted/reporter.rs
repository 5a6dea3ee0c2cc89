//! Reports to a witness what the driver did with a tenant's rows.

use std::future::Future as _;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::runtime::Handle;

use super::names::{BOT, INSTALL, USER, tenant_of};
use super::record;
use crate::backend::{self, Change, Expect, Key, Partition, Row, Slot, Version};
use crate::installation::Revision;
use crate::store::{Act, ActKind, AuditContext, Error, Witness};
use crate::tenant::InstallationKey;

/// Whom the driver tells, and on whose behalf it acts. Without a witness, nothing is collected.
#[derive(Clone, Debug, Default)]
pub(super) struct Reporter {
    pub(super) witness: Option<Arc<dyn Witness>>,
    /// Who uses this store; `None` if the caller's task says so.
    pub(super) who: Option<AuditContext>,
}

impl Reporter {
    /// Begins a list of acts. Acts on other partitions than a tenant's are not collected, because
    /// strangers can cause them.
    pub(super) fn acts(&self, partition: &Partition) -> Acts {
        let tenant = self.witness.as_ref().and_then(|_| tenant_of(partition));
        Acts {
            tenant,
            acts: Vec::new(),
        }
    }

    /// Tells the witness of these acts. An error means that nothing may be handed out.
    pub(super) async fn report(&self, acts: Acts) -> Result<(), Error> {
        match &self.witness {
            Some(witness) if !acts.acts.is_empty() => witness.report(self.who(), acts.acts).await,
            _ => Ok(()),
        }
    }

    fn who(&self) -> AuditContext {
        self.who.clone().unwrap_or_else(AuditContext::current)
    }

    /// Begins a commit of these changes, whose outcome is unknown until it has ended.
    pub(super) fn begin<'a>(
        &'a self,
        acts: &Acts,
        changes: &'a [Change],
        cleared: &'a [(Slot, Version)],
    ) -> Begun<'a> {
        Begun {
            reporter: self,
            tenant: acts.tenant.clone(),
            changes,
            cleared,
        }
    }

    /// Reports a row of a tenant that does not open.
    pub(super) async fn unreadable(&self, key: &Key, row: &Row) -> Result<(), Error> {
        let mut acts = self.acts(&key.partition);
        acts.opened(&key.slot, "", row, false);
        self.report(acts).await
    }
}

/// A commit that has begun. If the call is cancelled before it ends, the database may have applied
/// it, so dropping this value tells the witness that the outcome is unknown.
pub(super) struct Begun<'a> {
    reporter: &'a Reporter,
    /// `None` if nothing is collected, or the commit has ended.
    tenant: Option<InstallationKey>,
    changes: &'a [Change],
    cleared: &'a [(Slot, Version)],
}

impl Begun<'_> {
    /// Says that the outcome is known.
    pub(super) fn end(mut self) {
        self.tenant = None;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let Some(tenant) = self.tenant.take() else {
            return;
        };
        let mut acts = Acts {
            tenant: Some(tenant),
            acts: Vec::new(),
        };
        let unknown = Err(backend::Error::Unavailable("the call was cancelled".into()));
        acts.changed(self.changes, self.cleared, &unknown);
        if let Some(witness) = &self.reporter.witness {
            tell(Arc::clone(witness), self.reporter.who(), acts.acts);
        }
    }
}

/// Tells a witness of these acts without waiting for it. The report begins before this returns, so
/// that a log that is closed next still has the acts. The witness logs its own failure.
pub(super) fn tell(witness: Arc<dyn Witness>, who: AuditContext, acts: Vec<Act>) {
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    let mut report = Box::pin(async move { drop(witness.report(who, acts).await) });
    let mut context = Context::from_waker(Waker::noop());
    if report.as_mut().poll(&mut context).is_pending() {
        drop(runtime.spawn(report));
    }
}

/// What was done with the rows of one tenant.
pub(super) struct Acts {
    /// `None` if nothing is collected.
    tenant: Option<InstallationKey>,
    acts: Vec<Act>,
}

impl Acts {
    /// Notes that a row was opened, or could not be. Only credentials count.
    pub(super) fn opened(&mut self, slot: &Slot, kind: &str, row: &Row, is_done: bool) {
        if [BOT, INSTALL, USER].contains(&kind) || !is_done {
            self.push(Act {
                version: Some(record::revision(row)),
                is_done,
                ..self.act(ActKind::Open, slot.as_str())
            });
        }
    }

    /// Returns whether acts are collected.
    pub(super) fn is_collecting(&self) -> bool {
        self.tenant.is_some()
    }

    /// Notes what a commit changed. `cleared` are the rows that it removed without naming them. If its outcome is unknown, the changes count as not done.
    pub(super) fn changed(
        &mut self,
        changes: &[Change],
        cleared: &[(Slot, Version)],
        outcome: &Result<(), backend::Error>,
    ) {
        if matches!(outcome, Err(backend::Error::Conflict)) {
            return;
        }
        let is_done = outcome.is_ok();
        for change in changes {
            let act = match change {
                Change::Check { .. } => continue,
                Change::Clear => self.act(ActKind::Clear, ""),
                Change::Delete { slot, only } => Act {
                    replaced: only.as_ref().map(revision),
                    ..self.act(ActKind::Remove, slot.as_str())
                },
                Change::Put { slot, row, expect } => Act {
                    version: Some(record::revision(row)),
                    replaced: match expect {
                        Expect::Version(version) => Some(revision(version)),
                        Expect::Absent | Expect::Any => None,
                    },
                    ..self.act(ActKind::Write, slot.as_str())
                },
            };
            self.push(Act { is_done, ..act });
        }
        let named: Vec<_> = changes.iter().filter_map(Change::slot).collect();
        for (slot, version) in cleared.iter().filter(|(slot, _)| !named.contains(&slot)) {
            self.push(Act {
                is_done,
                replaced: Some(revision(version)),
                ..self.act(ActKind::Remove, slot.as_str())
            });
        }
    }

    fn act(&self, kind: ActKind, row: &str) -> Act {
        Act::new(kind, self.tenant.clone(), row)
    }

    fn push(&mut self, act: Act) {
        if self.tenant.is_some() {
            self.acts.push(act);
        }
    }
}

fn revision(version: &Version) -> Revision {
    Revision::from_bytes(*version.as_bytes())
}
