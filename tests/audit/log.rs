//! A log in memory, for attacks on it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use slack_installs::audit::{
    Audit, AuditOptions, Fault, HeadSink, Report, SignedHead, SigningKey, VerifyOptions, verify,
};
use slack_installs::backend::{Key, MemoryBackend, Metadata, Row};
use slack_installs::store::{Act, ActKind, AuditContext, AuditStore, RunId, Witness as _};
use slack_installs::{Clock, InstallationKey};

use crate::support::checks::until;
use crate::support::installs::{noon, workspace_key};
use crate::support::{Db, Store};

/// A sink in memory, as a place outside the database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<SignedHead>>>);

impl Kept {
    pub(crate) fn heads(&self) -> Vec<SignedHead> {
        self.0.lock().expect("no panic").clone()
    }
}

#[async_trait]
impl HeadSink for Kept {
    async fn keep(
        &self,
        head: &SignedHead,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.lock().expect("no panic").push(head.clone());
        Ok(())
    }
}

pub(crate) struct Log {
    pub(crate) db: Db,
    pub(crate) store: Store,
    pub(crate) kept: Kept,
}

pub(crate) fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32], 1)
}

pub(crate) fn tenant(number: usize) -> InstallationKey {
    workspace_key(&format!("T0{number}"))
}

/// Returns an act that is never counted together with others.
pub(crate) fn write(number: usize) -> Act {
    Act::new(ActKind::Write, Some(tenant(number % 5)), "bot")
}

/// Returns what a report found: each run, with the first wrong record and its fault.
pub(crate) fn found(report: &Report) -> Vec<(RunId, u64, Fault)> {
    let findings = report.findings.iter();
    findings.map(|it| (it.run, it.record, it.fault)).collect()
}

impl Log {
    pub(crate) async fn new() -> Self {
        let db = Db::new(Arc::new(MemoryBackend::default()));
        let store = db.store().await;
        let kept = Kept::default();
        Self { db, store, kept }
    }

    pub(crate) fn options(&self) -> AuditOptions {
        AuditOptions::default()
            .signed_by(key())
            .with_sink(self.kept.clone())
            .with_clock(Clock::from_fn(noon))
    }

    pub(crate) async fn open(&self, options: AuditOptions) -> Audit {
        let audit = Audit::open(Arc::new(self.store.clone()), options).await;
        audit.expect("the database is up")
    }

    /// Writes a run with so many acts, and ends it. With the records about the run, it has four
    /// more: `start`, then the acts, and `head` and `end`.
    pub(crate) async fn run_of(&self, acts: usize) -> RunId {
        let audit = self.open(self.options()).await;
        let run = audit.current_run().expect("it runs");
        let who = AuditContext::actor("job").because("test");
        let acts = (0..acts).map(write).collect();
        audit.report(who, acts).await.expect("reported");
        let before = self.kept.heads().len();
        assert!(audit.close().await);
        until("the head is kept", async || {
            self.kept.heads().len() > before
        })
        .await;
        run
    }

    /// Waits until the run of this log has its batch of acts.
    pub(crate) async fn wait_for_writes(&self, audit: &Audit) -> bool {
        let Some(run) = audit.current_run() else {
            return false;
        };
        let has_acts = async || self.last_place(run).await > Some(0);
        until("the acts are durable", has_acts).await;
        true
    }

    /// Returns the place of the last batch of a run.
    pub(crate) async fn last_place(&self, run: RunId) -> Option<u64> {
        let found = self.store.runs(None).await.expect("read");
        found.runs.get(&run).copied()
    }

    pub(crate) async fn verify(&self, anchor: Vec<SignedHead>) -> Report {
        let keys = vec![key().verifying_key(noon(), None)];
        let options = VerifyOptions { keys, anchor };
        let report = verify(&self.store, &options).await;
        report.expect("the database is up")
    }

    /// Asserts what is found, without an anchor.
    pub(crate) async fn assert_found(&self, expected: &[(RunId, u64, Fault)]) {
        let report = self.verify(Vec::new()).await;
        assert_eq!(found(&report), expected);
    }

    /// Returns the row of a batch.
    pub(crate) async fn batch(&self, run: RunId, place: u64) -> (Key, Row) {
        let slot = format!("{place:010}");
        self.db.row(&format!("audit/{run}"), &slot).await
    }

    /// Changes the public records of a batch, as anyone can who has write access to the database.
    pub(crate) async fn edit(
        &self,
        run: RunId,
        place: u64,
        edit: impl FnOnce(&mut Vec<serde_json::Value>),
    ) {
        let (key, row) = self.batch(run, place).await;
        let mut facts: serde_json::Value =
            serde_json::from_str(row.metadata.as_str()).expect("JSON");
        edit(facts["records"].as_array_mut().expect("records"));
        let metadata = Metadata::new(facts.to_string());
        self.db.overwrite(&key, Row { metadata, ..row }).await;
    }

    /// Changes the public records of a batch, and seals it, as anyone can who has the data key too.
    pub(crate) async fn forge(
        &self,
        run: RunId,
        place: u64,
        edit: impl FnOnce(&mut slack_installs::store::Batch),
    ) {
        let stored = self.store.batches(run, place, 1).await.expect("read");
        let stored = stored.into_iter().flatten().next().expect("a batch");
        let plain = stored.parts.expect("it opens").into_iter();
        let plain = plain.map(|part| match part {
            slack_installs::store::Part::Opened(text) => {
                let detail: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
                let tenant = detail["tenant"].as_str().and_then(|id| id.parse().ok());
                Some(slack_installs::store::Plain { tenant, text })
            }
            _ => None,
        });
        let mut batch = slack_installs::store::Batch {
            place,
            records: stored.records,
            plain: plain.collect(),
        };
        edit(&mut batch);
        let (key, _) = self.batch(run, place).await;
        self.db.remove(&key).await;
        let appended = self.store.append(run, &batch).await;
        appended.expect("appended");
    }
}
