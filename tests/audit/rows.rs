//! The log compared with the rows that are stored.
//!
//! The time is that of the test, because a comparison waits for the processes that write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slack_installs::audit::{Audit, Filter, RowFault, RowReport, compare};
use slack_installs::backend::{Key, Row};
use slack_installs::store::{Act, ActKind, AuditContext, AuditStore, Witness as _};
use slack_installs::{Clock, Delete, Hold, InstallationStore as _, LifecycleStore as _};

use super::log::{Log, write};
use super::modes::Slow;
use super::world::World;
use crate::support::Store;
use crate::support::installs::{noon, user_id, with_both, workspace_key};

async fn compared(world: &World) -> RowReport {
    let report = world.log.verify(Vec::new()).await;
    assert_eq!(report.findings, []);
    let log = &world.log.store;
    let report = compare(log, log, &report, noon()).await;
    report.expect("the database is up")
}

async fn found(world: &World) -> Vec<(String, String, RowFault)> {
    let report = compared(world).await;
    let findings = report.findings.into_iter();
    findings
        .map(|it| (it.tenant.id().to_owned(), it.row, it.fault))
        .collect()
}

fn finding(row: &str, fault: RowFault) -> (String, String, RowFault) {
    ("T1".to_owned(), row.to_owned(), fault)
}

async fn install(world: &World, bot: &str) {
    let installation = with_both("T1", bot, "U1", "xoxp-1");
    world.store.store(&installation).await.expect("stored");
}

fn hold(is_on: bool) -> Hold {
    Hold {
        is_on,
        reason: "ticket 1".to_owned(),
        at: noon(),
    }
}

async fn set_hold(world: &World, is_on: bool) {
    let key = workspace_key("T1");
    let held = world.store.hold(&key, &hold(is_on)).await;
    assert!(held.expect("held"), "the tenant is known");
}

/// Returns the rows of the tenant.
async fn rows(world: &World) -> Vec<(Key, Row)> {
    let mut rows = world.log.db.rows().await;
    rows.retain(|(key, _)| {
        key.partition.as_str().ends_with("/T1") && !key.partition.as_str().contains("audit")
    });
    rows
}

#[tokio::test(start_paused = true)]
async fn rows_that_only_the_store_changed_agree_with_the_log() {
    let world = World::new().await;
    let key = workspace_key("T1");
    for nth in 0..3 {
        install(&world, &format!("xoxb-{nth}")).await;
        set_hold(&world, nth % 2 == 0).await;
    }
    let user = Delete::user(user_id("U1"));
    world.store.delete(&key, &user).await.expect("deleted");
    world.store.fetch(&key, None).await.expect("fetched");
    let report = compared(&world).await;
    assert_eq!(report.findings, []);
    assert!(report.is_complete && report.rows >= 3, "{report:?}");
    world
        .store
        .delete(&key, &Delete::all())
        .await
        .expect("deleted");
    assert_eq!(compared(&world).await.findings, []);
    install(&world, "xoxb-3").await;
    assert_eq!(compared(&world).await.findings, []);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_was_replaced_by_its_own_older_version_is_rolled_back() {
    let world = World::new().await;
    install(&world, "xoxb-1").await;
    let (key, old) = world.log.db.row("T1", "bot").await;
    install(&world, "xoxb-2").await;
    assert_eq!(found(&world).await, []);
    world.log.db.overwrite(&key, old).await;
    // It opens, because it is bound to its place and its version only.
    let fetched = world.log.store.fetch(&workspace_key("T1"), None).await;
    assert!(fetched.expect("it opens").is_some());
    assert_eq!(found(&world).await, [finding("bot", RowFault::RolledBack)]);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_was_revived_is_rolled_back() {
    let world = World::new().await;
    install(&world, "xoxb-1").await;
    let before = rows(&world).await;
    let key = workspace_key("T1");
    world
        .store
        .delete(&key, &Delete::all())
        .await
        .expect("deleted");
    for (key, row) in before {
        world.log.db.overwrite(&key, row).await;
    }
    let rows = ["bot", "install", "user/U1"];
    let expected = rows.map(|row| finding(row, RowFault::RolledBack));
    assert_eq!(found(&world).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_was_deleted_or_replayed_is_rolled_back() {
    let world = World::new().await;
    install(&world, "xoxb-1").await;
    set_hold(&world, true).await;
    let (key, on) = world.log.db.row("T1", "hold").await;
    world.log.db.remove(&key).await;
    assert_eq!(found(&world).await, [finding("hold", RowFault::RolledBack)]);
    world.log.db.overwrite(&key, on.clone()).await;
    assert_eq!(found(&world).await, []);
    set_hold(&world, false).await;
    assert_eq!(found(&world).await, []);
    world.log.db.overwrite(&key, on).await;
    assert_eq!(found(&world).await, [finding("hold", RowFault::RolledBack)]);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_was_written_past_the_log_is_unlogged_and_in_a_gap_it_is_unknown() {
    let world = World::new().await;
    install(&world, "xoxb-1").await;
    let silent = &world.log.store;
    let changed = with_both("T1", "xoxb-2", "U1", "xoxp-1");
    silent.store(&changed).await.expect("stored");
    let unlogged = found(&world).await;
    assert!(
        unlogged.contains(&finding("bot", RowFault::Unlogged)),
        "{unlogged:?}"
    );
    assert!(unlogged.iter().all(|it| it.2 == RowFault::Unlogged));

    let options = world.log.options().with_capacity(1);
    let lossy = world.log.open(options).await;
    let acts = (0..5).map(write).collect();
    let told = lossy.report(AuditContext::default(), acts).await;
    told.expect("nothing fails in the default mode");
    assert!(lossy.close().await);
    let report = compared(&world).await;
    assert!(!report.is_complete);
    let mut unknown: Vec<_> = unlogged.into_iter().map(|it| (it.1, it.2)).collect();
    unknown.iter_mut().for_each(|it| it.1 = RowFault::Unknown);
    let of_t1 = report
        .findings
        .into_iter()
        .filter(|it| it.tenant.id() == "T1");
    let of_t1: Vec<_> = of_t1.map(|it| (it.row, it.fault)).collect();
    assert_eq!(of_t1, unknown);
}

#[tokio::test(start_paused = true)]
async fn rows_from_before_the_log_are_unlogged_until_they_are_noted() {
    let world = World::new().await;
    let installation = with_both("T1", "xoxb-1", "U1", "xoxp-1");
    world.log.store.store(&installation).await.expect("stored");
    assert!(!found(&world).await.is_empty());
    let noted = world
        .audit
        .note_rows(&world.log.store)
        .await
        .expect("noted");
    assert_eq!(noted, u64::try_from(rows(&world).await.len()).expect("few"));
    assert_eq!(found(&world).await, []);
}

/// What happened while the rows were read may be missing, so it is after the baseline.
#[tokio::test]
async fn a_baseline_counts_from_the_moment_before_its_first_row_was_read() {
    let world = World::new().await;
    install(&world, "xoxb-1").await;
    let seconds = AtomicU64::new(0);
    let now = move || noon() + Duration::from_secs(seconds.fetch_add(1, Ordering::SeqCst));
    let options = world.log.options().with_clock(Clock::from_fn(now));
    let audit = world.log.open(options).await;
    audit.note_rows(&world.log.store).await.expect("noted");
    let of = async |event: &str| {
        let event = Some(event.to_owned());
        let filter = Filter {
            event,
            ..Filter::default()
        };
        world.records(filter).await.remove(0).public
    };
    let note: serde_json::Value = serde_json::from_str(&of("baseline").await.note).expect("JSON");
    assert!(
        note["since"].as_u64() < Some(of("found").await.time),
        "{note}"
    );
    assert!(audit.close().await);
}

/// A write whose response was lost may be there. Neither version is called rolled back until
/// somebody has seen the new one.
#[tokio::test(start_paused = true)]
async fn a_write_of_unknown_outcome_accuses_nobody() {
    let world = World::new().await;
    install(&world, "xoxb-1").await;
    let (key, old) = world.log.db.row("T1", "bot").await;
    world
        .log
        .store
        .store(&with_both("T1", "xoxb-2", "U1", "xoxp-1"))
        .await
        .expect("stored");
    let (_, new) = world.log.db.row("T1", "bot").await;
    world.log.db.overwrite(&key, old.clone()).await;
    let (_, install) = world.log.db.row("T1", "install").await;
    let revision = |row: &Row| slack_installs::Revision::from_bytes(*row.version.as_bytes());
    let report = async |kind, row: &str, version, replaced, is_done| {
        let mut act = Act::new(kind, Some(workspace_key("T1")), row);
        (act.version, act.replaced, act.is_done) = (Some(version), replaced, is_done);
        let reported = world.audit.report(AuditContext::default(), vec![act]).await;
        reported.expect("reported");
    };
    let (v1, v2) = (revision(&old), revision(&new));
    let installed = revision(&install);
    report(ActKind::Found, "install", installed, None, true).await;
    report(ActKind::Write, "bot", v2, Some(v1), false).await;
    let bots = async || {
        let found = found(&world).await.into_iter();
        found
            .filter(|it| it.1 == "bot")
            .map(|it| it.2)
            .collect::<Vec<_>>()
    };
    assert_eq!(bots().await, []);
    world.log.db.overwrite(&key, new.clone()).await;
    assert_eq!(bots().await, []);
    report(ActKind::Open, "bot", v2, None, true).await;
    world.log.db.overwrite(&key, old).await;
    assert_eq!(bots().await, [RowFault::RolledBack]);
}

/// A process that recorded a first installation, and crashed before it recorded the next changes.
struct Crashed {
    log: Log,
    first: Vec<(Key, Row)>,
}

impl Crashed {
    async fn new() -> Self {
        let log = Log::new().await;
        let slow = Slow::of(&log);
        let audit = Audit::open(Arc::clone(&slow) as Arc<dyn AuditStore>, log.options()).await;
        let audit = audit.expect("the database is up");
        let store = log.store.clone().with_witness(audit.clone());
        let install = async |bot: &str, store: &Store| {
            let installation = with_both("T1", bot, "U1", "xoxp-1");
            store.store(&installation).await.expect("stored");
        };
        install("xoxb-1", &store).await;
        let first = log.db.rows().await;
        install("xoxb-2", &store).await;
        assert!(log.wait_for_writes(&audit).await);
        slow.is_up.send_replace(false);
        let crashed = Self { log, first };
        std::mem::forget(audit);
        crashed.forgets(store).await;
        crashed
    }

    /// Changes rows in the last moments of the process.
    async fn forgets(&self, store: Store) {
        let changed = with_both("T1", "xoxb-3", "U1", "xoxp-1");
        store.store(&changed).await.expect("stored");
        let user = Delete::user(user_id("U1"));
        let deleted = store.delete(&workspace_key("T1"), &user).await;
        deleted.expect("deleted");
    }

    /// Returns what differs, so many minutes after the crash.
    async fn found(&self, minutes: u64) -> Vec<(String, RowFault)> {
        let report = self.log.verify(Vec::new()).await;
        assert_eq!(report.findings, []);
        let now = noon() + Duration::from_secs(60 * minutes);
        let compared = compare(&self.log.store, &self.log.store, &report, now).await;
        let compared = compared.expect("the database is up");
        let findings = compared.findings.into_iter();
        findings.map(|it| (it.row, it.fault)).collect()
    }
}

/// The registry heard of it moments ago, as of a process that lives.
#[tokio::test(start_paused = true)]
async fn what_a_process_changed_just_before_it_crashed_is_unknown_however_long_ago_that_is() {
    let crashed = Crashed::new().await;
    for minutes in [0, 1, 9, 11, 60 * 24] {
        let found = crashed.found(minutes).await;
        let rows: Vec<_> = found.iter().map(|it| it.0.as_str()).collect();
        assert!(
            rows.contains(&"bot") && rows.contains(&"user/U1"),
            "{found:?}"
        );
        let mut faults = found.iter().map(|it| it.1);
        assert!(
            faults.all(|it| it == RowFault::Unknown),
            "after {minutes} minutes: {found:?}"
        );
    }
}

/// A later version was recorded, so a lost record cannot explain the older one.
#[tokio::test(start_paused = true)]
async fn an_older_copy_is_rolled_back_although_a_crash_lost_records() {
    let crashed = Crashed::new().await;
    let bot = crashed
        .first
        .iter()
        .find(|(key, _)| key.slot.as_str() == "bot" && key.partition.as_str().ends_with("/T1"));
    let (key, old) = bot.expect("it was installed");
    crashed.log.db.overwrite(key, old.clone()).await;
    let found = crashed.found(1).await;
    assert!(
        found.contains(&("bot".to_owned(), RowFault::RolledBack)),
        "{found:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_baseline_a_crash_before_it_explains_no_row() {
    let crashed = Crashed::new().await;
    let log = &crashed.log;
    let later = Clock::from_fn(|| noon() + Duration::from_secs(3600));
    let audit = log.open(log.options().with_clock(later)).await;
    assert!(!crashed.found(60).await.is_empty());
    audit.note_rows(&log.store).await.expect("noted");
    assert_eq!(crashed.found(60).await, []);
    let (key, _) = log.db.row("T1", "bot").await;
    let changed = with_both("T1", "xoxb-4", "U1", "xoxp-4");
    log.store.store(&changed).await.expect("stored");
    let found = crashed.found(60).await;
    assert!(
        found.contains(&("user/U1".to_owned(), RowFault::Unlogged)),
        "{found:?}"
    );
    log.db.remove(&key).await;
    let found = crashed.found(60).await;
    assert!(
        found.contains(&("bot".to_owned(), RowFault::RolledBack)),
        "{found:?}"
    );
    assert!(audit.close().await);
}
