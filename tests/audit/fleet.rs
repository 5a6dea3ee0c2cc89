//! Four processes with one log, over a day with deploys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slack_installs::Clock;
use slack_installs::audit::{Audit, Ending};
use slack_installs::store::{AuditContext, AuditStore, Witness as _};

use super::log::{Log, write};
use super::modes::Slow;
use crate::support::installs::noon;

#[tokio::test]
async fn the_log_of_four_processes_of_which_two_are_killed_verifies_after_a_day_of_deploys() {
    let log = Log::new().await;
    let minutes = Arc::new(AtomicU64::new(0));
    let passed = Arc::clone(&minutes);
    let clock =
        Clock::from_fn(move || noon() + Duration::from_secs(60 * passed.load(Ordering::SeqCst)));
    let start = async || {
        let slow = Slow::of(&log);
        let store = Arc::clone(&slow) as Arc<dyn AuditStore>;
        let options = log.options().with_clock(clock.clone());
        let audit = Audit::open(store, options).await.expect("opens");
        (slow, audit)
    };
    let mut fleet = Vec::new();
    for _ in 0..4 {
        fleet.push(start().await);
    }
    let mut written = 0;
    for hour in 0..24_usize {
        for (nth, (_, audit)) in fleet.iter().enumerate() {
            let acts = (0..10).map(|act| write(act + nth)).collect();
            let reported = audit.report(AuditContext::actor("job"), acts).await;
            reported.expect("the default mode fails nothing");
            written += 10;
        }
        minutes.fetch_add(60, Ordering::SeqCst);
        if hour == 7 || hour == 13 {
            // Killed: its writer never writes again.
            let (slow, audit) = fleet.remove(0);
            let durable = log.wait_for_writes(&audit).await;
            assert!(durable);
            slow.is_up.send_replace(false);
            std::mem::forget(audit);
            fleet.push(start().await);
        }
        if hour % 5 == 4 {
            // A deploy: the new processes start before the old ones end.
            let new = [start().await, start().await, start().await, start().await];
            for (_, audit) in std::mem::replace(&mut fleet, new.into()) {
                assert!(audit.close().await);
            }
        }
    }
    for (_, audit) in &fleet {
        assert!(audit.close().await);
    }
    let report = log.verify(log.kept.heads()).await;
    assert_eq!(report.findings, []);
    let open = report.runs.iter().filter(|run| run.ending == Ending::Open);
    assert_eq!((open.count(), report.runs.len()), (2, 4 + 2 + 4 * 4));
    let records: u64 = report.runs.iter().map(|run| run.records).sum();
    assert!(records > written);
    // Another week, and nothing of the day is left, except what says so.
    minutes.fetch_add(60 * 24 * 7, Ordering::SeqCst);
    let (_, audit) = start().await;
    let keep = Duration::from_secs(2 * 24 * 3600);
    assert_eq!(
        audit.expire(keep).await.expect("expired"),
        report.runs.len()
    );
    assert!(audit.close().await);
    let registry = log.store.registry(None, 1000).await.expect("read");
    assert_eq!(registry.runs.len(), 1);
    let report = log.verify(log.kept.heads()).await;
    assert_eq!(report.findings, []);
}
