//! The task that writes the log: one batch after the other, in a run of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::entry::{END, EndNote, Entry, HEAD, RunNote, SAW, START, StartNote};
use super::head::{SignedHead, SigningKey};
use super::queue::Queue;
use super::run::{AT_ONCE, Run};
use super::sink::HeadSink;
use crate::clock::{Clock, to_millis};
use crate::error_chain::error_chain;
use crate::metrics;
use crate::store::{AuditStore, Error, RunEntry, RunId};

/// What the handles of a log share with its writer.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Notified if there is something to write.
    pub(super) wake: Notify,
    /// The ticket of the last entry that is durable.
    pub(super) durable: watch::Sender<u64>,
    /// Whether the log must be closed.
    pub(super) closing: watch::Sender<bool>,
    /// The run that is written.
    pub(super) run: watch::Sender<Option<RunId>>,
}

impl Shared {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queue: Mutex::new(Queue::new(capacity)),
            wake: Notify::new(),
            durable: watch::Sender::new(0),
            closing: watch::Sender::new(false),
            run: watch::Sender::new(None),
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes one log.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) store: Arc<dyn AuditStore>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) is_strict: bool,
    pub(super) key: Option<Arc<SigningKey>>,
    /// The heads that the sinks get.
    pub(super) heads: mpsc::Sender<SignedHead>,
    pub(super) run: Run,
    /// The number of records and the time at the last head.
    pub(super) headed: (u64, Instant),
}

/// The state of the store does not allow this run to go on: something else wrote its next batch.
struct Overtaken;

impl Writer {
    /// Begins a run: its entry in the registry, its first record, and the heads of all runs that
    /// have not ended.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        let now = to_millis(self.clock.now());
        let others = self.open_runs().await?;
        self.store
            .register(self.run.id, &self.run.entry(now, false))
            .await?;
        let key = self.key.as_ref();
        let note = StartNote {
            mode: if self.is_strict { "strict" } else { "default" }.to_owned(),
            key: key.map(|key| key.public()).unwrap_or_default(),
            epoch: key.map(|key| key.epoch()).unwrap_or_default(),
        };
        let mut entries = vec![Entry::note(now, START, &note)];
        for (run, entry) in &others {
            let note = tail(&*self.store, *run, entry).await?;
            if note.records > 0 {
                entries.push(Entry::note(now, SAW, &note));
            }
        }
        for entries in entries.chunks(AT_ONCE) {
            self.append_once(entries).await?;
            if self.run.records - self.headed.0 >= HEAD_RECORDS
                && let Some((head, entry)) = self.signed(now)
            {
                self.headed = (self.run.records, Instant::now());
                self.append_once(&[entry]).await?;
                self.keep(head);
            }
        }
        for (run, entry) in others {
            // Every run ends within a day, so the process of this one died.
            if now.saturating_sub(entry.started) > to_count(LONGEST_RUN) {
                let is_abandoned = true;
                let entry = RunEntry {
                    is_abandoned,
                    ..entry
                };
                self.store.register(run, &entry).await?;
            }
        }
        self.shared.run.send_replace(Some(self.run.id));
        Ok(())
    }

    /// Returns the runs that have not ended, and of which no other run knows that they died.
    async fn open_runs(&self) -> Result<Vec<(RunId, RunEntry)>, Error> {
        let mut runs = registry(&*self.store).await?;
        runs.retain(|(run, entry)| !entry.is_ended && !entry.is_abandoned && *run != self.run.id);
        Ok(runs)
    }

    /// Writes until the log is closed.
    pub(super) async fn work(mut self) {
        let mut closing = self.shared.closing.subscribe();
        loop {
            let is_closing = *closing.borrow_and_update();
            self.write_all(is_closing).await;
            self.run.flushes += 1;
            if is_closing {
                self.head().await;
                // If something else wrote into the run, another one began, and is ended too.
                while !self.end(None).await {}
                self.shared.run.send_replace(None);
                return;
            }
            if self.is_head_due() {
                self.head().await;
            } else if self.headed.1.elapsed() >= HEARTBEAT {
                self.headed.1 = Instant::now();
                self.register(false).await;
            }
            if self.is_old() {
                self.succeed().await;
            }
            let wake = self.shared.wake.notified();
            tokio::select! {
                () = wake => self.linger().await,
                () = tokio::time::sleep(TICK) => {}
                _ = closing.changed() => {}
            }
        }
    }

    /// Waits a moment for more entries in the default mode, unless a batch is full. In strict mode,
    /// callers wait, and what comes during a commit is in the next one.
    async fn linger(&self) {
        if !self.is_strict && self.shared.queue().ready() < AT_ONCE {
            tokio::time::sleep(LINGER).await;
        }
    }

    /// Writes everything that is ready, and signs on the way.
    async fn write_all(&mut self, is_closing: bool) {
        let age = if is_closing { Duration::ZERO } else { WINDOW };
        loop {
            let now = to_millis(self.clock.now());
            let (entries, ticket) = {
                let mut queue = self.shared.queue();
                queue.ripen(age);
                queue.take(now, AT_ONCE)
            };
            self.show_lag();
            if entries.is_empty() {
                return;
            }
            self.write(&entries).await;
            self.shared.durable.send_replace(ticket);
            if self.is_head_due() {
                self.head().await;
            }
        }
    }

    /// Writes entries. If something else wrote their place, goes on in another run.
    async fn write(&mut self, entries: &[Entry]) {
        while self.append(entries).await.is_err() {
            self.begin_another().await;
        }
    }

    /// Writes what this run says about itself. If something else wrote its place, another run
    /// begins, and the result is `false`.
    async fn write_own(&mut self, entry: Entry) -> bool {
        let is_written = self.append(&[entry]).await.is_ok();
        if !is_written {
            self.begin_another().await;
        }
        is_written
    }

    async fn begin_another(&mut self) {
        tracing::error!(
            run = %self.run.id,
            "something else wrote into a run of the audit log; another run begins"
        );
        loop {
            let now = to_millis(self.clock.now());
            self.run = Run::begin(self.store.app(), now);
            self.headed = (0, Instant::now());
            let Err(error) = self.begin().await else {
                return;
            };
            let error = error_chain(&error);
            tracing::warn!(
                error,
                "a run of the audit log cannot begin; it is tried again"
            );
            self.show_lag();
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
    }

    /// Appends a batch, and repeats it until it is durable. An attempt that failed may have been
    /// applied, so the same bytes are appended again.
    async fn append(&mut self, entries: &[Entry]) -> Result<(), Overtaken> {
        let (batch, next) = self.run.batch(entries);
        let mut pause = FIRST_PAUSE;
        loop {
            let append = self.store.append(next.id, &batch);
            match tokio::time::timeout(PATIENCE, append).await {
                Ok(Ok(())) => {
                    self.run = next;
                    return Ok(());
                }
                Ok(Err(Error::Conflict)) => return Err(Overtaken),
                Ok(Err(error)) => {
                    let error = error_chain(&error);
                    tracing::warn!(error, "the audit log cannot be written; it is tried again");
                }
                Err(_) => tracing::warn!("the audit log does not respond; it is tried again"),
            }
            self.show_lag();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sets the metric of how long the oldest entry has waited.
    fn show_lag(&self) {
        let now = to_millis(self.clock.now());
        let oldest = self.shared.queue().oldest();
        let waited = now.saturating_sub(oldest.unwrap_or(now));
        metrics::AUDIT_LAG.set([], Duration::from_millis(waited).as_secs_f64());
    }

    async fn append_once(&mut self, entries: &[Entry]) -> Result<(), Error> {
        let (batch, next) = self.run.batch(entries);
        self.store.append(next.id, &batch).await?;
        self.run = next;
        Ok(())
    }

    fn is_head_due(&self) -> bool {
        let new = self.run.records - self.headed.0;
        new >= HEAD_RECORDS || new > 0 && self.headed.1.elapsed() >= HEAD_AGE
    }

    /// Signs the head, records it, and hands it to the registry and to the sinks.
    async fn head(&mut self) {
        let now = to_millis(self.clock.now());
        if let Some((head, entry)) = self.signed(now)
            && self.write_own(entry).await
        {
            self.keep(head);
        }
        self.headed = (self.run.records, Instant::now());
        self.register(false).await;
    }

    /// Returns the signed head, and the entry that records it.
    fn signed(&self, now: u64) -> Option<(SignedHead, Entry)> {
        let head = self.key.as_ref()?.sign(SignedHead {
            app: self.store.app().to_owned(),
            run: self.run.id.to_string(),
            records: self.run.records,
            hash: self.run.head.clone(),
            time: now,
            epoch: 0,
            signature: String::new(),
        });
        let entry = Entry::note(now, HEAD, &head);
        Some((head, entry))
    }

    fn keep(&self, head: SignedHead) {
        if self.heads.try_send(head).is_err() {
            tracing::error!("the sinks of the audit log are slow; a head was not kept");
        }
    }

    async fn register(&self, is_ended: bool) {
        let entry = self.run.entry(to_millis(self.clock.now()), is_ended);
        if let Err(error) = self.store.register(self.run.id, &entry).await {
            let error = error_chain(&error);
            tracing::warn!(
                error,
                "a run's entry in the audit log's registry is out of date"
            );
        }
    }

    fn is_old(&self) -> bool {
        let age = to_millis(self.clock.now()).saturating_sub(self.run.started);
        age >= to_count(RUN_AGE) || self.run.records >= RUN_RECORDS
    }

    /// Ends this run, and goes on with another.
    async fn succeed(&mut self) {
        let now = to_millis(self.clock.now());
        let mut next = Self {
            store: Arc::clone(&self.store),
            shared: Arc::clone(&self.shared),
            clock: self.clock.clone(),
            is_strict: self.is_strict,
            key: self.key.clone(),
            heads: self.heads.clone(),
            run: Run::begin(self.store.app(), now),
            headed: (0, Instant::now()),
        };
        // The successor exists before the last record names it.
        if let Err(error) = next.begin().await {
            let error = error_chain(&error);
            tracing::warn!(
                error,
                "the next run of the audit log cannot begin; this one goes on"
            );
            return;
        }
        self.head().await;
        self.end(Some(next.run.id)).await;
        *self = next;
    }

    async fn end(&mut self, successor: Option<RunId>) -> bool {
        let now = to_millis(self.clock.now());
        let successor = successor.map(|run| run.to_string()).unwrap_or_default();
        let is_ended = self
            .write_own(Entry::note(now, END, &EndNote { successor }))
            .await;
        if is_ended {
            self.register(true).await;
        }
        is_ended
    }
}

/// Hands heads to the sinks on a task of its own, so that a slow sink delays no record.
pub(super) fn to_sinks(sinks: Vec<Arc<dyn HeadSink>>) -> mpsc::Sender<SignedHead> {
    let (sender, mut heads) = mpsc::channel::<SignedHead>(HEADS);
    drop(tokio::spawn(async move {
        while let Some(head) = heads.recv().await {
            for sink in &sinks {
                if let Err(error) = sink.keep(&head).await {
                    let error = error_chain(&*error);
                    tracing::error!(error, "a sink did not keep a head of the audit log");
                }
            }
        }
    }));
    sender
}

/// Returns the whole registry.
pub(super) async fn registry(store: &dyn AuditStore) -> Result<Vec<(RunId, RunEntry)>, Error> {
    let (mut runs, mut from) = (Vec::new(), None);
    loop {
        let page = store.registry(from, PAGE).await?;
        runs.extend(page.runs);
        from = page.next;
        if from.is_none() {
            return Ok(runs);
        }
    }
}

/// Returns the number of records of another run, and the hash of the last. The entry in the registry
/// can be older than the last batch.
pub(super) async fn tail(
    store: &dyn AuditStore,
    run: RunId,
    entry: &RunEntry,
) -> Result<RunNote, Error> {
    let mut note = RunNote {
        run: run.to_string(),
        records: entry.records,
        hash: entry.head.clone(),
    };
    let mut place = entry.batches;
    loop {
        let batches = store.batches(run, place, BATCHES).await?;
        let count = batches.len();
        let present: Vec<_> = batches.into_iter().map_while(|batch| batch).collect();
        let last = present.iter().rev().find_map(|batch| batch.records.last());
        if let Some(record) = last {
            note.records = record.sequence + 1;
            note.hash = super::hash::of_record(run, record);
        }
        if present.is_empty() || present.len() < count {
            return Ok(note);
        }
        place += BATCHES;
    }
}

pub(super) fn to_count(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long a run is written, and how many records it has.
const RUN_AGE: Duration = Duration::from_secs(24 * 3600);
const RUN_RECORDS: u64 = 1 << 20;

/// How long a run lasts at most, with the time to end it.
pub(super) const LONGEST_RUN: Duration = Duration::from_secs(25 * 3600);

/// After how many records, or how long, a head is signed.
pub(super) const HEAD_RECORDS: u64 = 1000;
const HEAD_AGE: Duration = Duration::from_secs(10);

/// How often the registry learns that a run is still written, if nothing is recorded.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);

/// How long equal reads are counted together.
const WINDOW: Duration = Duration::from_secs(2);

/// The writer signs a head after so many records and the rest of a batch. The head is a record too.
pub(super) const MOST_UNSIGNED: usize = HEAD_RECORDS as usize + AT_ONCE;

/// How long the writer waits for more entries in the default mode.
const LINGER: Duration = Duration::from_millis(100);

/// How often the writer looks for reads that were counted long enough.
const TICK: Duration = Duration::from_millis(500);

/// How long one attempt to append a batch takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pauses between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The batches that are read at once.
const BATCHES: u64 = 12;

/// The heads that wait for slow sinks.
const HEADS: usize = 64;

/// The entries of a page of the registry.
const PAGE: usize = 500;
