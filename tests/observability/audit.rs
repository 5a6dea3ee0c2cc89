//! The metrics of the audit log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics_util::debugging::DebuggingRecorder;
use slack_installs::audit::{Audit, AuditOptions};
use slack_installs::backend::{Error, MemoryBackend};
use slack_installs::store::{Act, ActKind, AuditContext, Witness as _};
use slack_installs::{ClientId, Clock, EncryptedStore, LocalKeyProvider};
use tokio::sync::watch;
use tokio::time::Instant;

use super::series::{Series, assert_counted, changes, series};
use crate::support::app::{ALPHA, key};
use crate::support::hooked::{Call, Hooked, Hooks};
use crate::support::installs::noon;
use crate::support::providers::master_key;

/// Fails every commit while the database is away.
struct Away(watch::Receiver<bool>);

#[async_trait]
impl Hooks for Away {
    async fn before(&self, call: Call<'_>) -> Result<(), Error> {
        if *self.0.borrow() && matches!(call, Call::Commit(_)) {
            return Err(Error::Unavailable("the test took it away".into()));
        }
        Ok(())
    }
}

/// Opens a log whose database the test takes away. Its clock is the runtime's.
async fn log(options: AuditOptions) -> (Audit, watch::Sender<bool>) {
    let (is_away, receiver) = watch::channel(false);
    let backend = Hooked::over(Arc::new(MemoryBackend::default()), Away(receiver));
    let app = ClientId::new("100000000001.200000000002").expect("an id");
    let store = EncryptedStore::open(backend, LocalKeyProvider::new(master_key()), app).await;
    let store = store.expect("the database is up");
    let began = Instant::now();
    let clock = Clock::from_fn(move || noon() + began.elapsed());
    let audit = Audit::open(Arc::new(store), options.with_clock(clock)).await;
    (audit.expect("the database is up"), is_away)
}

async fn write(audit: &Audit, row: &str) -> bool {
    let act = Act::new(ActKind::Write, Some(key(ALPHA)), row);
    let reported = audit.report(AuditContext::actor("a test"), vec![act]);
    reported.await.is_ok()
}

fn lag(changes: &Series) -> f64 {
    changes["audit_lag_seconds"]
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_the_audit_log_is_the_age_of_its_oldest_unwritten_record() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (audit, is_away) = log(AuditOptions::default()).await;
    assert!(write(&audit, "bot").await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(lag(&changes(&seen).1), 0.0);
    is_away.send_replace(true);
    assert!(write(&audit, "bot").await);
    tokio::time::sleep(Duration::from_secs(60)).await;
    // A younger record does not make the oldest one younger.
    assert!(write(&audit, "bot").await);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let waited = lag(&changes(&seen).1);
    assert!((95.0..=100.0).contains(&waited), "{waited}");
    is_away.send_replace(false);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(lag(&changes(&seen).1), 0.0);
    assert_counted(&seen, "no record was lost", &[]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_the_audit_log_lacks_is_counted_with_its_reason() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let strict = AuditOptions::default().strict();
    // In strict mode, the writer has taken the first record before the second one comes.
    for (options, lost) in [(AuditOptions::default(), 3.0), (strict, 2.0)] {
        let (audit, is_away) = log(options.with_capacity(2)).await;
        // Both series begin at 0, so that Prometheus sees their first increase.
        let names = seen.snapshot().into_vec().into_iter();
        let names = names.filter(|(key, ..)| key.key().name() == "slack_installs_audit_lost_total");
        assert_eq!(names.count(), 2);
        is_away.send_replace(true);
        for row in ["1", "2", "3", "4", "5"] {
            write(&audit, row).await;
        }
        assert_lost(&seen, "full", lost);
        is_away.send_replace(false);
        assert!(audit.close().await);
        assert_eq!(changes(&seen).0, Series::new());
        write(&audit, "6").await;
        assert_lost(&seen, "closed", 1.0);
    }
}

#[track_caller]
fn assert_lost(seen: &metrics_util::debugging::Snapshotter, reason: &str, count: f64) {
    let name = format!("audit_lost_total reason={reason}");
    assert_eq!(changes(seen).0, series(&[(&name, count)]));
}
