//! What is recorded in the default and in the strict mode, if the log's database is slow or gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use slack_installs::Clock;
use slack_installs::InstallationKey;
use slack_installs::audit::{
    Audit, AuditOptions, Ending, Filter, HeadSink, LogRecord, SignedHead, VerifyOptions, records,
    verify,
};
use slack_installs::store::{
    Act, ActKind, AuditContext, AuditStore, Batch, Error, FoundRuns, ListCursor, Registry,
    RunEntry, RunId, StoredBatch, Witness as _,
};
use tokio::sync::watch;

use super::log::{Log, found, key, tenant, write};
use crate::support::Store;
use crate::support::checks::until;
use crate::support::installs::noon;

/// A log's database that can be stalled, and can lose a response.
#[derive(Debug)]
pub(crate) struct Slow {
    inner: Store,
    pub(crate) is_up: watch::Sender<bool>,
    loses: AtomicBool,
    /// This run begins when the first batch is read.
    begins: Mutex<Option<RunId>>,
}

impl Slow {
    pub(crate) fn of(log: &Log) -> Arc<Self> {
        Arc::new(Self {
            inner: log.store.clone(),
            is_up: watch::Sender::new(true),
            loses: AtomicBool::new(false),
            begins: Mutex::default(),
        })
    }

    fn has_begun(&self, run: &RunId) -> bool {
        *self.begins.lock().expect("no panic") != Some(*run)
    }
}

#[async_trait]
impl AuditStore for Slow {
    fn app(&self) -> &str {
        self.inner.app()
    }

    async fn append(&self, run: RunId, batch: &Batch) -> Result<(), Error> {
        let mut is_up = self.is_up.subscribe();
        is_up.wait_for(|is_up| *is_up).await.expect("it is kept");
        self.inner.append(run, batch).await?;
        if self.loses.swap(false, Ordering::SeqCst) {
            return Err(Error::Unavailable("the response was lost".into()));
        }
        Ok(())
    }

    async fn batches(
        &self,
        run: RunId,
        from: u64,
        count: u64,
    ) -> Result<Vec<Option<StoredBatch>>, Error> {
        *self.begins.lock().expect("no panic") = None;
        self.inner.batches(run, from, count).await
    }

    async fn register(&self, run: RunId, entry: &RunEntry) -> Result<(), Error> {
        let mut is_up = self.is_up.subscribe();
        is_up.wait_for(|is_up| *is_up).await.expect("it is kept");
        self.inner.register(run, entry).await
    }

    async fn registry(&self, from: Option<ListCursor>, limit: usize) -> Result<Registry, Error> {
        let mut page = self.inner.registry(from, limit).await?;
        page.runs.retain(|(run, _)| self.has_begun(run));
        Ok(page)
    }

    /// The first page is empty, as if the database had rows of others before those of the log.
    async fn runs(&self, from: Option<ListCursor>) -> Result<FoundRuns, Error> {
        if from.is_none() {
            return Ok(FoundRuns {
                next: Some(ListCursor(String::new())),
                ..FoundRuns::default()
            });
        }
        let mut page = self.inner.runs(None).await?;
        page.runs.retain(|run, _| self.has_begun(run));
        Ok(page)
    }

    async fn remove(&self, run: RunId) -> Result<(), Error> {
        self.inner.remove(run).await
    }

    async fn key_of(&self, tenant: &InstallationKey) -> Result<Option<String>, Error> {
        self.inner.key_of(tenant).await
    }

    async fn erase(&self, tenant: &InstallationKey, key: &str) -> Result<bool, Error> {
        self.inner.erase(tenant, key).await
    }
}

async fn open(store: &Arc<Slow>, options: AuditOptions) -> Audit {
    let store = Arc::clone(store) as Arc<dyn AuditStore>;
    Audit::open(store, options)
        .await
        .expect("the database is up")
}

async fn all(log: &Log) -> Vec<LogRecord> {
    let records = records(&log.store, Filter::default());
    records.try_collect().await.expect("the database is up")
}

fn read(number: usize) -> Act {
    Act::new(ActKind::Open, Some(tenant(number)), "bot")
}

/// Returns how many events of this kind the log has.
async fn count(log: &Log, event: &str) -> u64 {
    let records = all(log).await.into_iter();
    let of_event = records.filter(|record| record.public.event == event);
    of_event.map(|record| record.public.count).sum()
}

#[tokio::test]
async fn by_default_a_stalled_log_delays_nothing_and_counts_what_it_could_not_keep() {
    let log = Log::new().await;
    let slow = Slow::of(&log);
    let audit = open(&slow, log.options().with_capacity(100)).await;
    slow.is_up.send_replace(false);
    for number in 0..500 {
        audit
            .report(AuditContext::default(), vec![write(number)])
            .await
            .expect("nothing fails");
    }
    slow.is_up.send_replace(true);
    assert!(audit.close().await);
    let report = log.verify(Vec::new()).await;
    assert_eq!(report.findings, []);
    let (written, lost) = (count(&log, "write").await, count(&log, "gap").await);
    assert_eq!(written + lost, 500);
    assert!(lost > 0);
    assert_eq!(report.runs[0].lost, lost);
}

#[tokio::test]
async fn by_default_equal_reads_are_one_record_with_their_number() {
    let log = Log::new().await;
    let audit = log.open(log.options()).await;
    for nth in 0..100 {
        let who = AuditContext::actor("job").request(Some(&format!("Ev{nth}")));
        audit.report(who, vec![read(1)]).await.expect("reported");
        audit
            .report(AuditContext::actor("other"), vec![read(1)])
            .await
            .expect("reported");
    }
    assert!(audit.close().await);
    let records = all(&log).await.into_iter();
    let reads = records.filter(|record| record.public.event == "open");
    let mut reads: Vec<_> = reads
        .map(|record| (record.detail.expect("it opens").actor, record.public.count))
        .collect();
    reads.sort();
    let expected = ["job", "other"].map(|actor| (Some(actor.to_owned()), 100));
    assert_eq!(reads, expected);
}

#[tokio::test]
async fn in_strict_mode_a_read_returns_after_its_record_is_durable() {
    let log = Log::new().await;
    let audit = log.open(log.options().strict()).await;
    for number in 1..4 {
        audit
            .report(AuditContext::default(), vec![read(number)])
            .await
            .expect("reported");
        assert_eq!(
            count(&log, "open").await,
            u64::try_from(number).expect("small")
        );
    }
}

#[tokio::test]
async fn in_strict_mode_a_read_of_a_stalled_log_fails_within_the_bound_and_none_is_unlogged() {
    let log = Log::new().await;
    let slow = Slow::of(&log);
    let audit = open(&slow, log.options().strict()).await;
    let mut released = 0;
    for is_up in [true, false, true] {
        slow.is_up.send_replace(is_up);
        let tells = (0..64).map(|number| {
            let report = audit.report(AuditContext::default(), vec![read(number)]);
            tokio::time::timeout(Duration::from_secs(20), report)
        });
        for told in futures_util::future::join_all(tells).await {
            let told = told.expect("it ends");
            assert!(
                is_up || matches!(told, Err(Error::Unavailable(_))),
                "{told:?}"
            );
            released += u64::from(told.is_ok());
        }
    }
    assert!(released >= 64);
    assert!(audit.close().await);
    let logged = count(&log, "open").await;
    assert!(
        released <= logged,
        "{released} were released, and {logged} recorded"
    );
    log.assert_found(&[]).await;
    let closed = audit.report(AuditContext::default(), vec![read(1)]).await;
    assert!(matches!(closed, Err(Error::Unavailable(_))), "{closed:?}");
}

/// A change was committed before it is recorded, so the log must say that it misses one.
#[tokio::test]
async fn in_strict_mode_a_change_that_does_not_fit_fails_and_is_counted_and_a_read_only_fails() {
    let log = Log::new().await;
    let slow = Slow::of(&log);
    let audit = open(&slow, log.options().strict().with_capacity(2)).await;
    for act in [write(1), read(1)] {
        let acts = vec![act.clone(), act.clone(), act];
        let reported = audit.report(AuditContext::default(), acts).await;
        assert!(
            matches!(reported, Err(Error::Unavailable(_))),
            "{reported:?}"
        );
    }
    assert!(audit.close().await);
    log.assert_found(&[]).await;
    assert_eq!(count(&log, "gap").await, 3);
    assert_eq!(count(&log, "write").await + count(&log, "open").await, 0);
}

#[tokio::test]
async fn a_batch_whose_response_was_lost_is_there_once() {
    let log = Log::new().await;
    let slow = Slow::of(&log);
    let audit = open(&slow, log.options().strict()).await;
    for number in 0..10 {
        slow.loses.store(true, Ordering::SeqCst);
        audit
            .report(AuditContext::default(), vec![read(number)])
            .await
            .expect("reported");
    }
    assert!(audit.close().await);
    log.assert_found(&[]).await;
    assert_eq!(count(&log, "open").await, 10);
}

/// As a copy of the process does, which a snapshot of a machine made.
#[tokio::test]
async fn a_run_into_which_something_else_wrote_is_left_and_nothing_is_lost() {
    let log = Log::new().await;
    let audit = log.open(log.options().strict()).await;
    let meddle = async |run, place| {
        let first = log.store.batches(run, 0, 1).await.expect("read");
        let first = first.into_iter().flatten().next().expect("a batch");
        let batch = Batch {
            place,
            plain: first.records.iter().map(|_| None).collect(),
            records: first.records,
        };
        log.store.append(run, &batch).await.expect("appended");
    };
    let first = audit.current_run().expect("it runs");
    meddle(first, 1).await;
    let acts = vec![write(1)];
    let reported = audit.report(AuditContext::default(), acts).await;
    reported.expect("it is in another run");
    let second = audit.current_run().expect("it runs");
    assert_ne!(first, second);
    // The batches 0 and 1 have what was recorded, 2 has the head, and 3 is for the last record.
    meddle(second, 3).await;
    assert!(audit.close().await);
    let records = all(&log).await.into_iter();
    let ends = records.filter(|it| it.public.event == "end");
    let ended: Vec<_> = ends.map(|it| it.run).collect();
    assert!(
        ended.len() == 1 && ![first, second].contains(&ended[0]),
        "{ended:?}"
    );
    assert_eq!(count(&log, "write").await, 1);
    let report = log.verify(log.kept.heads()).await;
    let mut found = found(&report);
    found.sort_by_key(|(run, ..)| *run != first);
    let fault = slack_installs::audit::Fault::Duplicated;
    assert_eq!(found, [(first, 0, fault), (second, 0, fault)]);
}

#[derive(Debug)]
struct Failing;

#[async_trait]
impl HeadSink for Failing {
    async fn keep(&self, _: &SignedHead) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err("the disk is full".into())
    }
}

#[tokio::test]
async fn a_sink_that_fails_keeps_no_head_from_the_others() {
    let log = Log::new().await;
    let options = AuditOptions::default().signed_by(key());
    let options = options.with_sink(Failing).with_sink(log.kept.clone());
    let audit = log.open(options).await;
    assert!(audit.close().await);
    until("the head is kept", async || log.kept.heads().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_after_a_day_and_names_its_successor() {
    let log = Log::new().await;
    let hours = Arc::new(AtomicU64::new(0));
    let passed = Arc::clone(&hours);
    let now = move || noon() + Duration::from_secs(3600 * passed.load(Ordering::SeqCst));
    let options = log.options().with_clock(Clock::from_fn(now));
    let audit = log.open(options).await;
    let mut runs = vec![audit.current_run()];
    for day in 1..4 {
        audit
            .report(AuditContext::default(), vec![write(1)])
            .await
            .expect("reported");
        hours.store(24 * day, Ordering::SeqCst);
        let before = audit.current_run();
        until("the next run begins", async || {
            audit.current_run() != before
        })
        .await;
        runs.push(audit.current_run());
    }
    assert!(audit.close().await);
    until("the heads are kept", async || log.kept.heads().len() == 4).await;
    let report = log.verify(log.kept.heads()).await;
    assert_eq!(report.findings, []);
    assert_eq!(report.runs.len(), runs.len());
    for run in &report.runs {
        // After the last head are only its own record and the last one.
        assert_eq!(run.ending, Ending::Ended);
        assert_eq!(run.anchored, run.records - 2, "{run:?}");
    }
    // A run that begins after the runs were listed is read too.
    let slow = Slow::of(&log);
    *slow.begins.lock().expect("no panic") = runs[3];
    let report = verify(&*slow, &VerifyOptions::default()).await;
    let report = report.expect("the database is up");
    assert_eq!((report.findings, report.runs.len()), (vec![], 4));
    // Without the second run, its predecessor and the registry miss it.
    let second = runs[1].expect("it ran");
    log.store.remove(second).await.expect("removed");
    let fault = slack_installs::audit::Fault::RunDropped;
    log.assert_found(&[(second, 0, fault)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_of_a_process_that_died_is_named_by_later_runs_for_a_day_only() {
    let log = Log::new().await;
    let died = log
        .open(log.options().with_clock(Clock::from_fn(noon)))
        .await;
    let dead = died.current_run().expect("it runs").to_string();
    std::mem::forget(died);
    let mut named = Vec::new();
    for hour in [1, 26, 27] {
        let now = move || noon() + Duration::from_secs(3600 * hour);
        let audit = log
            .open(log.options().with_clock(Clock::from_fn(now)))
            .await;
        let run = audit.current_run().expect("it runs");
        assert!(audit.close().await);
        let records = all(&log).await.into_iter();
        let saw = records.filter(|it| it.run == run && it.public.event == "saw");
        named.push(saw.filter(|it| it.public.note.contains(&dead)).count());
    }
    assert_eq!(named, [1, 1, 0]);
    log.assert_found(&[]).await;
}

#[tokio::test]
async fn an_erased_tenant_is_unreadable_the_others_are_not_and_the_log_verifies() {
    let log = Log::new().await;
    let audit = log.open(log.options()).await;
    let report = |number| audit.report(AuditContext::actor("job"), vec![write(number)]);
    for number in [1, 2, 1] {
        report(number).await.expect("reported");
    }
    // Everything is written when the run has ended.
    assert!(audit.close().await);
    let tenants = |records: Vec<LogRecord>| {
        let details = records.into_iter().filter_map(|record| record.detail);
        details
            .filter_map(|detail| detail.tenant)
            .collect::<Vec<_>>()
    };
    assert_eq!(tenants(all(&log).await), [tenant(1), tenant(2), tenant(1)]);
    let audit = log.open(log.options()).await;
    assert!(audit.erase(&tenant(1)).await.expect("erased"));
    assert!(!audit.erase(&tenant(1)).await.expect("erased already"));
    assert!(!audit.erase(&tenant(7)).await.expect("unknown"));
    assert_eq!(tenants(all(&log).await), [tenant(2)]);
    // Its later records are readable, under a key of their own.
    audit
        .report(AuditContext::actor("job"), vec![write(1)])
        .await
        .expect("reported");
    assert!(audit.close().await);
    // The two runs began at the same time, so each can be first.
    let readable = tenants(all(&log).await);
    assert_eq!(readable.len(), 2);
    assert!(readable.contains(&tenant(1)) && readable.contains(&tenant(2)));
    let report = log.verify(log.kept.heads()).await;
    assert_eq!(report.findings, []);
    assert_eq!(report.runs.iter().map(|run| run.erased).sum::<u64>(), 2);
    // No row names the tenant beside its new key.
    let rows = log.db.rows().await;
    let names = |row: &&(slack_installs::backend::Key, _)| row.0.to_string().contains("T01");
    assert_eq!(rows.iter().filter(names).count(), 1);
}
