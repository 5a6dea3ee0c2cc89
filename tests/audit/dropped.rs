//! A change whose caller went away: a client disconnected, or a program was interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use slack_installs::audit::{Filter, compare, records};
use slack_installs::backend::Error;
use slack_installs::store::AuditContext;
use slack_installs::{Delete, Hold, InstallationStore as _, LifecycleStore as _, LocalKeyProvider};
use tokio::sync::Notify;

use super::log::Log;
use crate::support::hooked::{Call, Hooked, Hooks};
use crate::support::installs::{noon, with_both, workspace_key};
use crate::support::providers::master_key;

/// Commits are applied, and nobody gets their responses.
#[derive(Default)]
struct Silent {
    is_on: AtomicBool,
    applied: Notify,
}

#[async_trait]
impl Hooks for Silent {
    async fn after(&self, call: Call<'_>) -> Result<(), Error> {
        if matches!(call, Call::Commit(_)) && self.is_on.load(Ordering::SeqCst) {
            self.applied.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// Makes a change, and drops its future when the database has applied it. Returns the rows that
/// differ from the log then, and the acts in the log.
async fn dropped(is_strict: bool, change: &str) -> (usize, String) {
    let log = Log::new().await;
    let mut options = log.options();
    if is_strict {
        options = options.strict();
    }
    let audit = log.open(options).await;
    let backend = Hooked::<Silent>::new(Arc::clone(&log.db.backend));
    let store = log
        .db
        .store_over(backend.clone(), LocalKeyProvider::new(master_key()))
        .await;
    let store = store.with_witness(audit.clone());
    let installation = with_both("T1", "xoxb-1", "U1", "xoxp-1");
    store.store(&installation).await.expect("stored");
    backend.is_on.store(true, Ordering::SeqCst);
    let key = workspace_key("T1");
    let hold = Hold {
        is_on: true,
        reason: "ticket 1".to_owned(),
        at: noon(),
    };
    let change = AuditContext::actor("operator").scope(async {
        match change {
            "hold" => store.hold(&key, &hold).await.is_ok(),
            "delete" => store.delete(&key, &Delete::all()).await.is_ok(),
            _ => store.keys().add().await.is_ok(),
        }
    });
    tokio::select! {
        _ = change => panic!("nothing responds"),
        () = backend.applied.notified() => {}
    }
    assert!(audit.close().await);
    let report = log.verify(Vec::new()).await;
    assert_eq!(report.findings, []);
    let compared = compare(&log.store, &log.store, &report, noon()).await;
    let compared = compared.expect("the database is up");
    assert!(compared.is_complete);
    let records = records(&log.store, Filter::default());
    let records: Vec<_> = records.try_collect().await.expect("the database is up");
    let of_operator = records.iter().filter(|it| {
        let actor = it
            .detail
            .as_ref()
            .and_then(|detail| detail.actor.as_deref());
        actor == Some("operator")
    });
    let acts = of_operator.map(|it| format!("{} {}", it.public.event, it.public.outcome));
    let mut acts: Vec<_> = acts.collect();
    acts.sort_unstable();
    let shown = acts.join(", ");
    (compared.findings.len(), shown)
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_applied_after_its_caller_went_away_is_recorded_as_unknown() {
    for is_strict in [true, false] {
        for (change, acts) in [
            ("hold", "write failed"),
            (
                "delete",
                "clear failed, remove failed, remove failed, remove failed",
            ),
            ("key", "key failed, unwrap done"),
        ] {
            let expected = (0, acts.to_owned());
            assert_eq!(dropped(is_strict, change).await, expected, "{change}");
        }
    }
}
