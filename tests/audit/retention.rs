//! What is removed at the end of its retention, and what is erased.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use slack_installs::Clock;
use slack_installs::audit::{Audit, Fault};
use slack_installs::store::{AuditContext, AuditStore as _, Error, RunId, Witness as _};

use super::log::{Log, found, key, tenant, write};
use crate::support::installs::noon;

const HOUR: Duration = Duration::from_secs(3600);

/// A clock that moves when the test moves it.
#[derive(Clone, Default)]
struct Hours(Arc<AtomicU64>);

impl Hours {
    fn now(&self) -> SystemTime {
        noon() + HOUR * u32::try_from(self.0.load(Ordering::SeqCst)).expect("few")
    }

    fn pass(&self, hours: u64) {
        self.0.fetch_add(hours, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let hours = self.clone();
        Clock::from_fn(move || hours.now())
    }

    async fn open(&self, log: &Log) -> Audit {
        log.open(log.options().with_clock(self.clock())).await
    }

    /// Writes a run, and ends it.
    async fn run(&self, log: &Log) -> RunId {
        let audit = self.open(log).await;
        let run = audit.current_run().expect("it runs");
        let acts = vec![write(1)];
        audit
            .report(AuditContext::default(), acts)
            .await
            .expect("reported");
        assert!(audit.close().await);
        run
    }
}

async fn runs(log: &Log) -> Vec<RunId> {
    let found = log.store.runs(None).await.expect("read");
    found.runs.into_keys().collect()
}

async fn registered(log: &Log) -> usize {
    log.store
        .registry(None, 1000)
        .await
        .expect("read")
        .runs
        .len()
}

#[tokio::test]
async fn a_run_without_retention_is_removed_and_not_missed() {
    let (log, hours) = (Log::new().await, Hours::default());
    let old = hours.run(&log).await;
    hours.pass(24 * 5);
    let young = hours.run(&log).await;
    // A day and an hour more.
    hours.pass(25);
    let audit = hours.open(&log).await;
    assert_eq!(audit.expire(HOUR * 24 * 5).await.expect("expired"), 0);
    hours.pass(1);
    assert_eq!(audit.expire(HOUR * 24 * 5).await.expect("expired"), 1);
    assert_eq!(audit.expire(HOUR * 24 * 5).await.expect("expired"), 0);
    assert!(audit.close().await);
    let stored = runs(&log).await;
    assert!(!stored.contains(&old) && stored.contains(&young));
    assert_eq!(registered(&log).await, 2);
    let report = log.verify(log.kept.heads()).await;
    assert_eq!(report.findings, []);
    assert!(report.has_expired);
}

/// A note of retention in a run that was changed could hide what an attacker removed.
#[tokio::test]
async fn a_run_that_was_changed_is_not_believed_that_another_was_removed() {
    let (log, hours) = (Log::new().await, Hours::default());
    let old = hours.run(&log).await;
    hours.pass(24 * 10);
    let audit = hours.open(&log).await;
    let run = audit.current_run().expect("it runs");
    assert_eq!(audit.expire(HOUR).await.expect("expired"), 1);
    assert!(audit.close().await);
    assert_eq!(log.verify(log.kept.heads()).await.findings, []);
    log.edit(run, 0, |records| records[0]["time"] = serde_json::json!(1))
        .await;
    let report = log.verify(log.kept.heads()).await;
    let mut found = found(&report);
    found.sort_by_key(|(it, ..)| *it != run);
    assert_eq!(
        found,
        [(run, 0, Fault::Edited), (old, 0, Fault::RunDropped)]
    );
}

#[tokio::test]
async fn a_run_that_was_truncated_before_its_retention_ended_is_named() {
    let (log, hours) = (Log::new().await, Hours::default());
    let old = hours.run(&log).await;
    let (entry, _) = log.db.row("audit-runs", &old.to_string()).await;
    let anchor = log.kept.heads();
    // The registry is turned back too.
    let mut older = log
        .store
        .registry(None, 10)
        .await
        .expect("read")
        .runs
        .remove(0)
        .1;
    (older.records, older.batches) = (1, 1);
    log.db.remove(&entry).await;
    log.store.register(old, &older).await.expect("registered");
    for place in 1..4 {
        let (key, _) = log.batch(old, place).await;
        log.db.remove(&key).await;
    }
    hours.pass(24 * 10);
    let audit = hours.open(&log).await;
    assert_eq!(audit.expire(HOUR).await.expect("expired"), 1);
    assert!(audit.close().await);
    let report = log.verify(anchor).await;
    let found = found(&report);
    assert_eq!(found, [(old, 1, Fault::Truncated)]);
}

/// The anchor keeps the heads of all runs for ever, and each run that says which runs were removed
/// is removed itself.
#[tokio::test]
async fn two_years_of_runs_with_retention_verify_against_all_heads() {
    let (log, hours) = (Log::new().await, Hours::default());
    for week in 0..104 {
        let audit = hours.open(&log).await;
        let acts = vec![write(week)];
        audit
            .report(AuditContext::default(), acts)
            .await
            .expect("reported");
        audit.expire(HOUR * 24 * 30).await.expect("expired");
        assert!(audit.close().await);
        hours.pass(24 * 7);
        assert!(registered(&log).await <= 6, "the registry grows");
    }
    assert_eq!(log.kept.heads().len(), 104);
    let report = log.verify(log.kept.heads()).await;
    assert_eq!(report.findings, []);
}

#[tokio::test(start_paused = true)]
async fn the_log_removes_what_has_no_retention_left_by_itself() {
    let (log, hours) = (Log::new().await, Hours::default());
    hours.run(&log).await;
    let options = log
        .options()
        .with_clock(hours.clock())
        .keep_for(HOUR * 24 * 5);
    let audit = log.open(options).await;
    let running = audit.clone();
    let task = tokio::spawn(async move { running.run().await });
    tokio::time::sleep(HOUR).await;
    assert_eq!(registered(&log).await, 2);
    hours.pass(24 * 7);
    tokio::time::sleep(HOUR * 2).await;
    task.abort();
    assert!(audit.close().await);
    // The old one is removed. The one that removed it was succeeded, because it is a week old.
    assert_eq!(registered(&log).await, 2);
    assert_eq!(log.verify(log.kept.heads()).await.findings, []);
}

#[tokio::test]
async fn a_key_that_is_missing_is_told_from_a_tenant_that_was_erased() {
    let log = Log::new().await;
    let run = log.run_of(20).await;
    let audit = log.open(log.options()).await;
    assert!(audit.erase(&tenant(1)).await.expect("erased"));
    assert!(audit.close().await);
    log.assert_found(&[]).await;
    let rows = log.db.rows().await;
    let id = log
        .store
        .key_of(&tenant(2))
        .await
        .expect("read")
        .expect("a key");
    let partition = format!("/audit-key/{id}");
    let (at, _) = rows
        .into_iter()
        .find(|(key, _)| key.partition.as_str().ends_with(&partition))
        .expect("the key's row");
    log.db.remove(&at).await;
    // The acts 0, 1, 2 of the run are the records 1, 2, 3.
    log.assert_found(&[(run, 3, Fault::KeyMissing)]).await;
}

/// The record of the erasure had no retention left, and the run that needs the key has.
#[tokio::test]
async fn a_key_that_is_missing_is_not_named_if_the_record_of_its_erasure_may_have_been_removed() {
    let (log, hours) = (Log::new().await, Hours::default());
    let long = hours.open(&log).await;
    let acts = vec![write(1)];
    let reported = long.report(AuditContext::default(), acts).await;
    reported.expect("reported");
    assert!(log.wait_for_writes(&long).await);
    hours.pass(1);
    let eraser = hours.open(&log).await;
    let erased = eraser.current_run().expect("it runs");
    assert!(eraser.erase(&tenant(1)).await.expect("erased"));
    assert!(eraser.close().await);
    hours.pass(20);
    assert!(long.close().await);
    assert_eq!(log.verify(Vec::new()).await.findings, []);
    hours.pass(100);
    let last = hours.open(&log).await;
    assert_eq!(last.expire(HOUR * 94).await.expect("expired"), 1);
    assert!(last.close().await);
    assert!(!runs(&log).await.contains(&erased));
    assert_eq!(log.verify(log.kept.heads()).await.findings, []);
}

/// Without the record, an erasure looks like an attack.
#[tokio::test]
async fn what_cannot_be_recorded_is_not_erased() {
    let log = Log::new().await;
    log.run_of(20).await;
    let audit = log.open(log.options()).await;
    assert!(audit.close().await);
    let refused = audit.erase(&tenant(1)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    let key = log.store.key_of(&tenant(1)).await;
    assert!(key.expect("read").is_some());
    let report = log.verify(Vec::new()).await;
    assert_eq!(report.findings, []);
    assert_eq!(report.runs.iter().map(|run| run.erased).sum::<u64>(), 0);
}

/// Erasing is recorded before it happens. If it fails then, nothing is wrong.
#[tokio::test]
async fn an_erasure_in_a_run_that_was_changed_is_not_believed() {
    let log = Log::new().await;
    let run = log.run_of(20).await;
    let audit = log.open(log.options()).await;
    let second = audit.current_run().expect("it runs");
    assert!(audit.erase(&tenant(1)).await.expect("erased"));
    assert!(audit.close().await);
    log.edit(second, 0, |records| {
        records[0]["time"] = serde_json::json!(1)
    })
    .await;
    let report = log.verify(Vec::new()).await;
    let found = found(&report);
    assert_eq!(
        found,
        [(second, 0, Fault::Edited), (run, 2, Fault::KeyMissing)]
    );
}

#[tokio::test]
async fn a_burst_of_records_is_signed_within_its_bound() {
    let log = Log::new().await;
    log.run_of(10_000).await;
    let report = log.verify(log.kept.heads()).await;
    assert_eq!(report.findings, []);
    assert!(log.kept.heads().len() >= 9, "{}", log.kept.heads().len());
}

#[tokio::test]
async fn a_run_without_signatures_is_named_if_a_key_was_to_sign_it() {
    let log = Log::new().await;
    let options = slack_installs::audit::AuditOptions::default();
    let audit = log.open(options.with_clock(Clock::from_fn(noon))).await;
    let run = audit.current_run().expect("it runs");
    let acts = (0..2000).map(write).collect();
    audit
        .report(AuditContext::default(), acts)
        .await
        .expect("reported");
    assert!(audit.close().await);
    log.assert_found(&[(run, 1065, Fault::Unsigned)]).await;
    // The key was made later.
    let keys = vec![key().verifying_key(noon() + HOUR, None)];
    let options = slack_installs::audit::VerifyOptions {
        keys,
        ..Default::default()
    };
    let report = slack_installs::audit::verify(&log.store, &options).await;
    assert_eq!(report.expect("read").findings, []);
}
