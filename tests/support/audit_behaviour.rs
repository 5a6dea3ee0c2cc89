//! The audit log as rows: what is written is read, verified, erased and removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use slack_installs::audit::{
    Audit, AuditOptions, Ending, Fault, Filter, LogRecord, SigningKey, VerifyOptions, compare,
    records, verify,
};
use slack_installs::backend::Row;
use slack_installs::store::{
    Act, ActKind, AuditContext, AuditStore as _, Batch, Error, PublicPart, RunId, Witness as _,
};
use slack_installs::{Clock, InstallationStore as _};

use crate::support::installs::{noon, with_both, workspace_key};
use crate::support::{Db, Store};

const DAY: u64 = 24 * 3600;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32], 1)
}

async fn open(store: &Store, options: AuditOptions) -> Audit {
    let options = options.signed_by(key());
    let audit = Audit::open(Arc::new(store.clone()), options).await;
    audit.expect("the database is up")
}

fn options() -> AuditOptions {
    AuditOptions::default().with_clock(Clock::from_fn(noon))
}

async fn found(store: &Store) -> Vec<(RunId, u64, Fault)> {
    let options = VerifyOptions {
        keys: vec![key().verifying_key(noon(), None)],
        ..VerifyOptions::default()
    };
    let report = verify(store, &options).await.expect("the database is up");
    let findings = report.findings.into_iter();
    findings.map(|it| (it.run, it.record, it.fault)).collect()
}

async fn all(store: &Store) -> Vec<LogRecord> {
    let records = records(store, Filter::default());
    records.try_collect().await.expect("the database is up")
}

async fn is_gone(store: &Store, run: RunId) -> bool {
    let (mut is_found, mut from) = (false, None);
    loop {
        let page = store.runs(from).await.expect("read");
        is_found |= page.runs.contains_key(&run);
        from = page.next;
        if from.is_none() {
            return !is_found;
        }
    }
}

fn act(nth: usize) -> Act {
    let tenant = workspace_key(&format!("T{}", nth % 3));
    Act::new(ActKind::Write, Some(tenant), "bot")
}

async fn report(audit: &Audit, acts: usize) {
    let acts = (0..acts).map(act).collect();
    let reported = audit.report(AuditContext::actor("job"), acts).await;
    reported.expect("the default mode fails nothing");
}

/// Its batches are more than one page of a backend.
pub(crate) async fn an_audit_log_is_read_in_order_and_verifies(db: Db) {
    let store = db.store().await;
    let audit = open(&store, options()).await;
    let run = audit.current_run().expect("it runs");
    report(&audit, 1000).await;
    assert!(audit.close().await);
    assert_eq!(found(&store).await, []);
    let records = all(&store).await;
    assert!(records.iter().all(|it| it.run == run));
    let sequences = records.iter().map(|it| it.public.sequence);
    assert!(sequences.eq(0..u64::try_from(records.len()).expect("a count")));
    let tenants: Vec<_> = records
        .iter()
        .filter_map(|it| it.detail.as_ref()?.tenant.clone())
        .collect();
    let expected: Vec<_> = (0..1000).filter_map(|nth| act(nth).tenant).collect();
    assert_eq!(tenants, expected);
}

pub(crate) async fn an_edited_or_deleted_batch_of_an_audit_log_is_found(db: Db) {
    let store = db.store().await;
    let audit = open(&store, options()).await;
    let run = audit.current_run().expect("it runs");
    report(&audit, 100).await;
    assert!(audit.close().await);
    let (at, row) = db.row(&format!("audit/{run}"), "0000000001").await;
    let text = row.metadata.as_str().replace("\"done\"", "\"failed\"");
    let metadata = slack_installs::backend::Metadata::new(text);
    db.overwrite(
        &at,
        Row {
            metadata,
            ..row.clone()
        },
    )
    .await;
    assert_eq!(found(&store).await, [(run, 1, Fault::Edited)]);
    db.remove(&at).await;
    assert_eq!(found(&store).await, [(run, 1, Fault::Deleted)]);
    db.overwrite(&at, row).await;
    assert_eq!(found(&store).await, []);
}

pub(crate) async fn an_erased_tenant_of_an_audit_log_is_unreadable_and_the_log_verifies(db: Db) {
    let store = db.store().await;
    let audit = open(&store, options()).await;
    report(&audit, 30).await;
    assert!(audit.close().await);
    let audit = open(&store, options()).await;
    assert!(audit.erase(&workspace_key("T1")).await.expect("erased"));
    assert!(!audit.erase(&workspace_key("T1")).await.expect("erased"));
    assert!(audit.close().await);
    assert_eq!(found(&store).await, []);
    let records = all(&store).await;
    let erased = records.iter().filter(|it| it.erased.is_some()).count();
    let readable = records.iter().filter(|it| it.detail.is_some()).count();
    // The last one says who erased.
    assert_eq!((erased, readable), (10, 20 + 1));
}

pub(crate) async fn a_run_of_an_audit_log_is_removed_after_its_retention_and_no_other(db: Db) {
    let store = db.store().await;
    let seconds = Arc::new(AtomicU64::new(0));
    let passed = Arc::clone(&seconds);
    let now = move || noon() + Duration::from_secs(passed.load(Ordering::SeqCst));
    let options = || AuditOptions::default().with_clock(Clock::from_fn(now.clone()));
    let mut runs = Vec::new();
    for _ in 0..3 {
        let audit = open(&store, options()).await;
        runs.extend(audit.current_run());
        report(&audit, 200).await;
        if runs.len() == 3 {
            let keep = Duration::from_secs(10 * DAY);
            assert_eq!(audit.expire(keep).await.expect("expired"), 1);
        }
        assert!(audit.close().await);
        seconds.fetch_add(8 * DAY, Ordering::SeqCst);
    }
    assert_eq!(found(&store).await, []);
    assert!(is_gone(&store, runs[0]).await);
    let (mut kept, mut from) = (Vec::new(), None);
    loop {
        let page = store.registry(from, 1).await.expect("read");
        kept.extend(page.runs.into_iter().map(|(run, _)| run));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let mut expected = runs[1..].to_vec();
    kept.sort_unstable();
    expected.sort_unstable();
    assert_eq!(kept, expected);
}

pub(crate) async fn a_batch_of_an_audit_log_is_appended_once_at_its_place(db: Db) {
    let store = db.store().await;
    let run = RunId::from_bytes([7; 16]);
    let batch = |event: &str, place| Batch {
        place,
        records: vec![PublicPart::new(0, 0, event, "done", String::new())],
        plain: vec![None],
    };
    for _ in 0..2 {
        let appended = store.append(run, &batch("one", 0)).await;
        appended.expect("it is appended, or there");
    }
    let other = store.append(run, &batch("two", 0)).await;
    assert_matches!(other, Err(Error::Conflict));
    let stored = store.batches(run, 0, 2).await.expect("read");
    let [Some(stored), None] = &stored[..] else {
        panic!("one batch: {stored:?}");
    };
    assert_eq!(stored.records, batch("one", 0).records);
    store.remove(run).await.expect("removed");
    store.remove(run).await.expect("removed already");
    assert!(is_gone(&store, run).await);
}

pub(crate) async fn rows_agree_with_the_audit_log_until_one_is_put_back(db: Db) {
    let silent = db.store().await;
    let audit = open(&silent, options().strict()).await;
    let store = silent.clone().with_witness(audit.clone());
    let installation = |bot| with_both("T1", bot, "U1", "xoxp-1");
    store.store(&installation("xoxb-1")).await.expect("stored");
    let (at, old) = db.row("T1", "bot").await;
    store.store(&installation("xoxb-2")).await.expect("stored");
    assert!(audit.close().await);
    let report = verify(&silent, &VerifyOptions::default()).await;
    let report = report.expect("the database is up");
    assert_eq!(report.runs[0].ending, Ending::Ended);
    let differing = async || {
        let report = compare(&silent, &silent, &report, noon()).await;
        let findings = report.expect("the database is up").findings.into_iter();
        findings.map(|it| it.row).collect::<Vec<_>>()
    };
    assert!(differing().await.is_empty());
    db.overwrite(&at, old).await;
    assert_eq!(differing().await, ["bot"]);
}
