//! What can be missing from a log decides whether a row is called unknown.
//!
//! The time is that of the test, because a comparison waits for the processes that write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slack_installs::audit::{Audit, AuditOptions, RowFault, RowReport, compare};
use slack_installs::store::{Act, ActKind, AuditContext, AuditStore as _, RunId, Witness as _};
use slack_installs::{Clock, Delete, InstallationStore as _, Revision};

use super::log::{Log, write};
use crate::support::installs::{noon, with_both, workspace_key};

const HOUR: u64 = 60;

/// A log and a store, with a clock that moves when the test moves it.
struct World {
    log: Log,
    minutes: Arc<AtomicU64>,
}

impl World {
    async fn new() -> Self {
        Self {
            log: Log::new().await,
            minutes: Arc::default(),
        }
    }

    /// Sets the time, in minutes after the begin of the test.
    fn at(&self, minutes: u64) -> &Self {
        self.minutes.store(minutes, Ordering::SeqCst);
        self
    }

    async fn open_with(&self, options: AuditOptions) -> Audit {
        let minutes = Arc::clone(&self.minutes);
        let now = move || noon() + Duration::from_secs(60 * minutes.load(Ordering::SeqCst));
        self.log.open(options.with_clock(Clock::from_fn(now))).await
    }

    async fn open(&self) -> Audit {
        self.open_with(self.log.options().strict()).await
    }

    async fn install(&self, audit: &Audit, bot: &str) {
        let store = self.log.store.clone().with_witness(audit.clone());
        let installation = with_both("T1", bot, "U1", "xoxp-1");
        store.store(&installation).await.expect("stored");
    }

    /// Changes a row past the log.
    async fn meddle(&self) {
        let changed = with_both("T1", "xoxb-9", "U1", "xoxp-1");
        self.log.store.store(&changed).await.expect("stored");
    }

    async fn note_rows(&self, audit: &Audit) {
        let noted = audit.note_rows(&self.log.store).await;
        noted.expect("the database is up");
    }

    /// Loses records in a run of its own.
    async fn lose(&self) {
        let lossy = self.open_with(self.log.options().with_capacity(1)).await;
        let acts = (0..5).map(write).collect();
        let told = lossy.report(AuditContext::default(), acts).await;
        told.expect("nothing fails in the default mode");
        assert!(lossy.close().await);
    }

    async fn compared(&self) -> RowReport {
        let report = self.log.verify(Vec::new()).await;
        assert_eq!(report.findings, []);
        let now = noon() + Duration::from_secs(60 * self.minutes.load(Ordering::SeqCst));
        let compared = compare(&self.log.store, &self.log.store, &report, now).await;
        compared.expect("the database is up")
    }

    /// Returns what differs in the rows of the tenant.
    async fn found(&self) -> Vec<(String, RowFault)> {
        let findings = self.compared().await.findings.into_iter();
        let of_tenant = findings.filter(|it| it.tenant.id() == "T1");
        of_tenant.map(|it| (it.row, it.fault)).collect()
    }

    /// Returns how the bot's row differs.
    async fn bot(&self) -> Option<RowFault> {
        let found = self.found().await.into_iter();
        found.filter(|it| it.0 == "bot").map(|it| it.1).next()
    }

    async fn remove(&self, row: &str) {
        let (key, _) = self.log.db.row("T1", row).await;
        self.log.db.remove(&key).await;
    }

    /// Writes a run of a process that has crashed. The registry heard of it just now.
    async fn crash(&self) -> RunId {
        let audit = self.open().await;
        let run = audit.current_run().expect("it runs");
        assert!(audit.close().await);
        let (key, _) = self.log.batch(run, 2).await;
        self.log.db.remove(&key).await;
        self.register(run, |entry| {
            entry.is_ended = false;
            (entry.records, entry.batches, entry.head) = (1, 1, String::new());
        })
        .await;
        run
    }

    /// Changes a run's entry in the registry.
    async fn register(&self, run: RunId, change: impl Fn(&mut slack_installs::store::RunEntry)) {
        let page = self.log.store.registry(None, 100).await.expect("read");
        let entry = page.runs.into_iter().find(|it| it.0 == run);
        let (_, mut entry) = entry.expect("it is registered");
        change(&mut entry);
        self.log.store.register(run, &entry).await.expect("stored");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_log_said_of_an_erased_tenant_may_explain_its_rows() {
    let world = World::new().await;
    let audit = world.open().await;
    world.install(&audit, "xoxb-1").await;
    assert_eq!(world.found().await, []);
    let erased = audit.erase(&workspace_key("T1")).await;
    assert!(erased.expect("the database is up"));
    assert_eq!(world.bot().await, Some(RowFault::Unknown));
    assert!(!world.compared().await.is_complete);
    assert!(audit.close().await);
}

/// The clocks of two processes may differ by five minutes.
#[tokio::test(start_paused = true)]
async fn a_gap_explains_no_row_if_a_baseline_is_later_by_more_than_the_skew_of_clocks() {
    for (baseline, is_complete) in [(60, false), (65, false), (66, true)] {
        let world = World::new().await;
        let first = world.open().await;
        world.install(&first, "xoxb-1").await;
        world.at(1);
        let second = world.open().await;
        world.at(30).note_rows(&second).await;
        world.at(60).lose().await;
        world.at(baseline).note_rows(&first).await;
        assert!(first.close().await && second.close().await);
        let compared = world.compared().await;
        assert_eq!(compared.is_complete, is_complete, "{baseline}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_run_may_explain_what_is_older_than_its_last_record_can_be() {
    let world = World::new().await;
    let first = world.open().await;
    assert!(first.close().await);
    let second = world.at(240 * HOUR).open().await;
    world.note_rows(&second).await;
    assert!(second.close().await);
    let expire = async |hour: u64, keep: u64| {
        let audit = world.at(hour * HOUR).open().await;
        let keep = Duration::from_secs(3600 * keep);
        assert!(audit.expire(keep).await.expect("expired") > 0);
        assert!(audit.close().await);
        world.compared().await.is_complete
    };
    // What was removed ended at the hour 225 or earlier, and then at 274 or earlier.
    assert!(expire(260, 10).await);
    assert!(!expire(300, 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_last_record_is_its_end_has_ended_although_the_registry_does_not_know_it() {
    let world = World::new().await;
    let audit = world.open().await;
    let run = audit.current_run().expect("it runs");
    assert!(audit.close().await);
    world.register(run, |entry| entry.is_ended = false).await;
    world.at(24 * HOUR).meddle().await;
    let found = world.found().await;
    assert!(!found.is_empty());
    assert!(
        found.iter().all(|it| it.1 == RowFault::Unlogged),
        "{found:?}"
    );
}

/// It may write for ten minutes after it was heard of last.
#[tokio::test(start_paused = true)]
async fn a_baseline_just_after_a_crash_does_not_accuse_what_the_process_may_have_changed() {
    for (minutes, fault) in [(15, RowFault::Unknown), (16, RowFault::Unlogged)] {
        let world = World::new().await;
        std::mem::forget(world.open().await);
        let audit = world.at(minutes).open().await;
        world.note_rows(&audit).await;
        assert!(audit.close().await);
        world.meddle().await;
        world.at(24 * HOUR);
        assert_eq!(world.bot().await, Some(fault), "{minutes}");
    }
}

/// One heartbeat can be of what it wrote before.
#[tokio::test(start_paused = true)]
async fn a_process_has_shown_that_it_lives_when_it_wrote_its_entry_twice() {
    for (beats, fault) in [(1, RowFault::Unknown), (2, RowFault::Unlogged)] {
        let world = Arc::new(World::new().await);
        let run = world.crash().await;
        world.meddle().await;
        let beating = Arc::clone(&world);
        let heart = tokio::spawn(async move {
            for _ in 0..beats {
                tokio::time::sleep(Duration::from_secs(10)).await;
                beating.register(run, |entry| entry.flushes += 1).await;
            }
        });
        assert_eq!(world.bot().await, Some(fault), "{beats}");
        heart.await.expect("no panic");
    }
}

/// A write of unknown outcome may have replaced the stored version. A later one replaced none.
#[tokio::test(start_paused = true)]
async fn an_older_version_is_unknown_if_a_lost_record_can_explain_that_it_is_stored() {
    for (loses, fault) in [(false, RowFault::RolledBack), (true, RowFault::Unknown)] {
        let world = World::new().await;
        let audit = world.open().await;
        world.install(&audit, "xoxb-1").await;
        let (_, row) = world.log.db.row("T1", "bot").await;
        let stored = Revision::from_bytes(*row.version.as_bytes());
        for (version, replaced, is_done) in [(1, Some(stored), false), (2, None, true)] {
            let mut write = Act::new(ActKind::Write, Some(workspace_key("T1")), "bot");
            write.version = Some(Revision::from_bytes([version; 16]));
            (write.replaced, write.is_done) = (replaced, is_done);
            let reported = audit.report(AuditContext::default(), vec![write]).await;
            reported.expect("reported");
        }
        if loses {
            world.lose().await;
        }
        assert!(audit.close().await);
        assert_eq!(world.bot().await, Some(fault));
    }
}

/// The removal of the entry, by an attacker or at the end of its retention, proves nothing.
#[tokio::test(start_paused = true)]
async fn a_process_whose_entry_is_removed_has_not_shown_that_it_lives() {
    let world = Arc::new(World::new().await);
    let run = world.crash().await;
    world.meddle().await;
    let removing = Arc::clone(&world);
    let removal = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        removing.log.store.remove(run).await.expect("removed");
    });
    assert_eq!(world.bot().await, Some(RowFault::Unknown));
    removal.await.expect("no panic");
}

/// The records of several runs are in no order.
#[tokio::test(start_paused = true)]
async fn a_row_that_a_baseline_has_and_an_earlier_record_of_a_later_run_is_missed() {
    let world = World::new().await;
    let first = world.open().await;
    let second = world.at(1).open().await;
    world.at(5).install(&second, "xoxb-1").await;
    world.at(10).note_rows(&first).await;
    assert!(first.close().await && second.close().await);
    world.remove("bot").await;
    assert_eq!(world.bot().await, Some(RowFault::RolledBack));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_was_removed_an_hour_before_its_tenant_is_missed() {
    let world = World::new().await;
    let audit = world.open().await;
    world.install(&audit, "xoxb-1").await;
    world.remove("user/U1").await;
    world.at(HOUR);
    let store = world.log.store.clone().with_witness(audit.clone());
    let deleted = store.delete(&workspace_key("T1"), &Delete::all()).await;
    deleted.expect("deleted");
    assert!(audit.close().await);
    let missed = ("user/U1".to_owned(), RowFault::RolledBack);
    assert_eq!(world.found().await, [missed]);
}

#[tokio::test(start_paused = true)]
async fn a_removal_of_a_tenant_that_failed_explains_no_row_that_is_missing() {
    let world = World::new().await;
    let audit = world.open().await;
    world.install(&audit, "xoxb-1").await;
    let mut clear = Act::new(ActKind::Clear, Some(workspace_key("T1")), "");
    clear.is_done = false;
    let reported = audit.report(AuditContext::default(), vec![clear]).await;
    reported.expect("reported");
    assert!(audit.close().await);
    world.remove("bot").await;
    assert_eq!(world.bot().await, Some(RowFault::RolledBack));
}
