//! Stores notices as rows in the tenant's own partition, one per subject. Each is written and
//! removed in the commit of the change that it reports.

use std::time::SystemTime;

use super::driver::Step;
use super::install_facts::{self, InstallFacts};
use super::names::{self, NOTICE, Place, credential_of, subject_of};
use super::notice_facts::{self, NoticeFacts};
use super::record::{Record, unknown};
use super::{EncryptedStore, grant_facts};
use crate::backend::{Backend, Key, Lane};
use crate::installation::{Installation, Revision};
use crate::store::{Chain, Credential, Ending, Error, Notice, PendingNotice, Subject};
use crate::tenant::InstallationKey;

/// Returns the step that writes the notice of this subject. `install` has the facts of the
/// installation, if it is stored.
pub(super) fn put(
    key: &InstallationKey,
    subject: Subject,
    ending: &Ending,
    install: Option<&Record>,
) -> Step {
    let place = names::notice(&subject);
    let mut notice = Notice::new(key.clone(), subject, ending);
    // The change must not fail because of what the notice adds to it.
    let stored = install.and_then(|install| {
        let facts = InstallFacts::read(install).ok()?;
        let stored = install_facts::installation(install, &facts).ok()?;
        (stored.key() == *key).then_some(stored)
    });
    if let Some(stored) = stored {
        notice.key = stored.key();
        notice.installed_by = stored.installed_by;
        notice.metadata = stored.metadata;
    }
    let draft = notice_facts::draft(&notice).due(Lane::Notice, ending.tell_at);
    Step::Put(place.slot, draft)
}

/// Returns the step that removes the notice of this subject, if there is one.
pub(super) fn dropped(subject: &Subject) -> Step {
    Step::Delete(names::notice(subject).slot)
}

/// Returns the steps that tell of the end of an authorization. Its chain may have been dead before.
pub(super) fn revoked(
    key: &InstallationKey,
    credential: &Credential,
    ending: &Ending,
    install: Option<&Record>,
) -> [Step; 2] {
    [
        dropped(&Subject::Chain(credential.clone())),
        put(
            key,
            Subject::Authorization(credential.clone()),
            ending,
            install,
        ),
    ]
}

/// Returns the step that announces a chain that died at `now`, or that removes the notice of a
/// chain that is alive again.
pub(super) fn of_chain(
    (key, credential): (&InstallationKey, &Credential),
    was_dead: bool,
    next: &Chain,
    install: Option<&Record>,
    now: SystemTime,
) -> Option<Step> {
    let subject = Subject::Chain(credential.clone());
    match (was_dead, next.is_dead) {
        (false, true) => {
            let ending = Ending {
                reason: next.last_error.as_deref().unwrap_or("unknown").to_owned(),
                at: now,
                tell_at: now,
            };
            Some(put(key, subject, &ending, install))
        }
        (true, false) => Some(dropped(&subject)),
        _ => None,
    }
}

/// Returns the places of the notices that a new installation may outdate.
pub(super) fn places(new: &Installation) -> Vec<Place> {
    let bot = new.bot.iter().map(|_| Credential::Bot);
    let user = new
        .user
        .iter()
        .map(|user| Credential::User(user.id.clone()));
    let subjects = bot.chain(user).flat_map(of_credential);
    subjects.map(|subject| names::notice(&subject)).collect()
}

/// Returns the steps that remove the notices of the chains that these steps make alive.
pub(super) fn outdated(steps: &[Step]) -> Vec<Step> {
    let alive = steps.iter().filter_map(|step| match step {
        Step::Put(slot, draft) => credential_of(slot).filter(|_| grant_facts::is_alive(draft)),
        _ => None,
    });
    let subjects = alive.flat_map(of_credential);
    subjects.map(|subject| dropped(&subject)).collect()
}

fn of_credential(credential: Credential) -> [Subject; 2] {
    [
        Subject::Chain(credential.clone()),
        Subject::Authorization(credential),
    ]
}

impl<B: Backend> EncryptedStore<B> {
    pub(super) async fn notices_of(
        &self,
        key: &InstallationKey,
        subjects: &[Subject],
    ) -> Result<Vec<PendingNotice>, Error> {
        let partition = self.driver.app.tenant(key);
        let mut found = Vec::new();
        for subjects in subjects.chunks(AT_ONCE) {
            let places: Vec<_> = subjects.iter().map(names::notice).collect();
            let records = self.driver.read_current(&partition, &places).await?;
            for (subject, record) in subjects.iter().zip(&records) {
                if let Some(record) = record {
                    found.push(pending(key, subject.clone(), record)?);
                }
            }
        }
        Ok(found)
    }

    pub(super) async fn notices_due(
        &self,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<PendingNotice>, Error> {
        let place = |key: &Key| subject_of(&key.slot).map(|subject| names::notice(&subject));
        let read = |tenant: &InstallationKey, key: &Key, record: &Record| {
            let subject = subject_of(&key.slot).ok_or_else(|| unknown("a notice's place"))?;
            pending(tenant, subject, record)
        };
        self.due_notes((Lane::Notice, place), now, limit, read)
            .await
    }

    pub(super) async fn postponed(
        &self,
        pending: &PendingNotice,
        until: SystemTime,
    ) -> Result<Option<PendingNotice>, Error> {
        let attempts = pending.attempts.saturating_add(1);
        let slot = names::notice(&pending.notice.subject).slot;
        let step = |record: &Record| {
            let mut facts: NoticeFacts = record.facts(NOTICE)?;
            facts.attempts = attempts;
            let put = record.with_facts(NOTICE, &facts).due(Lane::Notice, until);
            Ok(Step::Put(slot.clone(), put))
        };
        let (revision, _) = self.change_notice(pending, step).await?;
        Ok(revision.map(|revision| PendingNotice {
            attempts,
            revision,
            ..pending.clone()
        }))
    }

    pub(super) async fn settled(&self, pending: &PendingNotice) -> Result<bool, Error> {
        let step = |_: &Record| Ok(dropped(&pending.notice.subject));
        Ok(self.change_notice(pending, step).await?.1)
    }

    async fn change_notice(
        &self,
        pending: &PendingNotice,
        step: impl Fn(&Record) -> Result<Step, Error> + Send + Sync,
    ) -> Result<(Option<Revision>, bool), Error> {
        let partition = self.driver.app.tenant(&pending.notice.key);
        let place = names::notice(&pending.notice.subject);
        let driver = &self.driver;
        driver
            .change(&partition, place, pending.revision, step)
            .await
    }
}

fn pending(
    key: &InstallationKey,
    subject: Subject,
    record: &Record,
) -> Result<PendingNotice, Error> {
    let (notice, attempts) = notice_facts::notice(subject, record)?;
    if notice.key != *key {
        return Err(unknown("a notice's ids"));
    }
    Ok(PendingNotice::new(notice, attempts, record.revision()))
}

/// The rows of one read. A backend accepts 90.
const AT_ONCE: usize = 80;
