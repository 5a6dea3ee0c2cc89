//! An audit log that cannot be edited quietly: who had which credential, when, and why.
//!
//! A store tells the log of each credential that it opens, of each row of a tenant that it changes,
//! and of what it could not open. A record has two parts. The public part has the time, the event,
//! the outcome, and the hash of the record before it. The sealed part has the tenant, the user, the
//! actor and the purpose. The public part has the hash of the sealed part.
//!
//! ```text
//! run 7f3a…   start ◄─ open ◄─ open ◄─ head (signed) ◄─ write ◄─ … ◄─ end
//!                                        │
//!                                        └─► sinks: a file, your log, an object store
//! ```
//!
//! A process writes a run of its own. The records of a run form a chain of hashes, so an edited,
//! deleted, moved or duplicated record breaks it, and [`verify`] names the first one. The head of the
//! chain is signed, and handed to sinks outside the database: with them, [`verify`] also finds a log
//! that was rolled back as a whole. `docs/audit.md` in the repository says what the log proves and
//! what it does not.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use std::sync::Arc;
//!
//! use slack_installs::audit::{Audit, AuditOptions, SigningKey, TracingSink};
//! use slack_installs::backend::MemoryBackend;
//! use slack_installs::store::AuditContext;
//! use slack_installs::{ClientId, EncryptedStore, LocalKeyProvider, MasterKey};
//!
//! let provider = LocalKeyProvider::new(MasterKey::generate());
//! let app = ClientId::new("100000000001.200000000002")?;
//! let store = EncryptedStore::open(MemoryBackend::default(), provider, app).await?;
//! # let key = SigningKey::from_bytes(&[7; 32], 1);
//! let options = AuditOptions::default().signed_by(key).with_sink(TracingSink);
//! // The log may be in another database than the installations.
//! let audit = Audit::open(Arc::new(store.clone()), options).await?;
//! let store = store.with_witness(audit.clone());
//! let report = async { /* … reads the store … */ };
//! AuditContext::actor("nightly-report").scope(report).await;
//! audit.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;
use tokio::time::Instant;

use crate::clock::{Clock, to_millis};
use crate::error_chain::error_chain;
use crate::metrics;
use crate::store::{Act, ActKind, AuditContext, AuditStore, Error, RunId, StoredRows, Witness};
use crate::tenant::InstallationKey;

mod check;
mod entry;
mod export;
mod hash;
mod head;
mod missing;
mod query;
mod queue;
mod rows;
mod run;
mod sink;
mod verify;
mod writer;

pub use check::Fault;
pub use entry::Detail;
use entry::{BASELINE, BaselineNote, ERASED, EXPIRED, Entry, ErasedNote, ExpiredNote};
pub use export::{ExportedLog, LineError};
pub use head::{HeadError, SignedHead, SigningKey, SigningKeyError, VerifyingKey};
pub use query::{Filter, LogRecord, records};
use queue::{CLOSED, FULL, Refused};
pub use rows::{RowFault, RowFinding, RowReport, compare};
use run::Run;
pub use sink::{FileSink, HeadSink, TracingSink};
pub use verify::{Ending, Finding, Report, RunReport, VerifyOptions, has_log, verify};
use writer::{LONGEST_RUN, Shared, Writer, registry, tail, to_count, to_sinks};

/// How a log records, and who signs it.
///
/// The default mode delays nothing: what is recorded waits in a queue of 65,536 entries. Equal reads
/// within 2 s are one record with a count. If the process is killed, the last 5 s can be missing.
/// What does not fit into the queue is counted in a record of its own, a gap.
#[derive(Debug)]
#[must_use = "the options are passed to `Audit::open`"]
pub struct AuditOptions {
    is_strict: bool,
    key: Option<SigningKey>,
    sinks: Vec<Arc<dyn HeadSink>>,
    clock: Clock,
    capacity: usize,
    keep: Option<Duration>,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            is_strict: false,
            key: None,
            sinks: Vec::new(),
            clock: Clock::default(),
            capacity: CAPACITY,
            keep: Some(KEEP),
        }
    }
}

impl AuditOptions {
    /// Hands a credential out only after its record is durable. What is recorded during one commit
    /// is in the next. If it is not durable within a second, the read fails with
    /// [`Error::Unavailable`].
    ///
    /// A change that was committed stays. Its caller gets the error too, and tries again.
    pub fn strict(self) -> Self {
        Self {
            is_strict: true,
            ..self
        }
    }

    /// Signs the head of the run with this key, every 10 s or 1,000 records.
    pub fn signed_by(self, key: SigningKey) -> Self {
        let key = Some(key);
        Self { key, ..self }
    }

    /// Hands each signed head to this sink. Several sinks are allowed.
    pub fn with_sink(mut self, sink: impl HeadSink) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }

    /// Replaces the clock.
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Sets how many entries may wait, instead of 65,536.
    pub fn with_capacity(self, entries: usize) -> Self {
        let capacity = entries;
        Self { capacity, ..self }
    }

    /// Keeps each run of the log this long after its last record, instead of 400 days; `None` keeps
    /// all runs. [`Audit::run`] removes older ones.
    pub fn keep_for(self, time: impl Into<Option<Duration>>) -> Self {
        let keep = time.into();
        Self { keep, ..self }
    }
}

/// A log that is written. Cheap to clone. When the last clone is dropped, the log is closed in the
/// background.
#[derive(Clone)]
pub struct Audit(Arc<Handle>);

struct Handle {
    store: Arc<dyn AuditStore>,
    shared: Arc<Shared>,
    clock: Clock,
    is_strict: bool,
    keep: Option<Duration>,
    has_warned: AtomicBool,
}

impl Audit {
    /// Begins a run of the log, and writes it on a task of its own.
    ///
    /// # Errors
    ///
    /// [`Error`](enum@Error), if the first record cannot be written.
    pub async fn open(store: Arc<dyn AuditStore>, options: AuditOptions) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(options.capacity));
        let now = to_millis(options.clock.now());
        let mut writer = Writer {
            run: Run::begin(store.app(), now),
            store: Arc::clone(&store),
            shared: Arc::clone(&shared),
            clock: options.clock.clone(),
            is_strict: options.is_strict,
            key: options.key.map(Arc::new),
            heads: to_sinks(options.sinks),
            headed: (0, Instant::now()),
        };
        writer.begin().await?;
        for reason in [FULL, CLOSED] {
            metrics::AUDIT_LOST.add_many([reason], 0);
        }
        drop(tokio::spawn(writer.work()));
        Ok(Self(Arc::new(Handle {
            store,
            shared,
            clock: options.clock,
            is_strict: options.is_strict,
            keep: options.keep,
            has_warned: AtomicBool::new(false),
        })))
    }

    /// Returns the run that this process writes.
    #[must_use]
    pub fn current_run(&self) -> Option<RunId> {
        *self.0.shared.run.borrow()
    }

    /// Writes what waits, signs the head, and ends the run. Returns whether it was written within
    /// 10 s. Nothing is recorded afterwards: in strict mode, reads then fail.
    pub async fn close(&self) -> bool {
        let shared = &self.0.shared;
        shared.queue().close();
        shared.closing.send_replace(true);
        let mut run = shared.run.subscribe();
        let ended = run.wait_for(Option::is_none);
        tokio::time::timeout(CLOSE, ended).await.is_ok()
    }

    /// Makes a tenant's part of the log unreadable: who acted for the tenant, and why. The records
    /// stay, and the log still verifies. Returns whether there was such a part. A record says who did
    /// this, and why ([`AuditContext`]), and not for which tenant.
    ///
    /// Uninstallation and a purge do not do this, because the log must outlive them. Another process
    /// may seal new records under the destroyed key for 15 minutes. They are unreadable too.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the database does not respond. Call it again then.
    pub async fn erase(&self, tenant: &InstallationKey) -> Result<bool, Error> {
        let Some(key) = self.0.store.key_of(tenant).await? else {
            return Ok(false);
        };
        let time = to_millis(self.0.clock.now());
        let note = ErasedNote { key };
        let act = Act::new(ActKind::Erase, None, note.key.as_str());
        let entries = vec![
            Entry::note(time, ERASED, &note),
            Entry::act(time, act, AuditContext::current()),
        ];
        // The records first. A key that is missing without one looks like an attack.
        self.durably(entries).await?;
        self.0.store.erase(tenant, &note.key).await
    }

    /// Removes runs of the log whose last record is this old, and a day and an hour more. Returns
    /// their number. [`run`](Self::run) calls it.
    ///
    /// A record in this process's run says which runs were removed, and where they ended. So
    /// [`verify`] does not miss them. The day and the hour are the longest time of a run: so what
    /// names a run is removed after that run. A run of a process that died counts as ended then.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the database does not respond. Some runs may have been removed.
    pub async fn expire(&self, keep: Duration) -> Result<usize, Error> {
        let now = to_millis(self.0.clock.now());
        let before = now.saturating_sub(to_count(keep));
        let longest = to_count(LONGEST_RUN);
        let mut expired = registry(&*self.0.store).await?;
        let own = self.current_run();
        expired.retain(|(run, entry)| {
            Some(*run) != own && entry.touched.saturating_add(longest) < before
        });
        for (run, entry) in &expired {
            let run_note = tail(&*self.0.store, *run, entry).await?;
            let note = ExpiredNote {
                run: run_note,
                before,
            };
            // The record first. A run that is missing without one looks like an attack.
            self.durably(vec![Entry::note(now, EXPIRED, &note)]).await?;
            self.0.store.remove(*run).await?;
        }
        Ok(expired.len())
    }

    /// Removes what has no retention left ([`AuditOptions::keep_for`]), immediately and then every
    /// hour. Never returns; drop the future to stop. [`SlackApp::run`](crate::SlackApp::run) does
    /// this for its own log.
    pub async fn run(&self) {
        let mut hours = tokio::time::interval(EXPIRE_EVERY);
        loop {
            hours.tick().await;
            let expired = match self.0.keep {
                Some(keep) => self.expire(keep).await,
                None => Ok(0),
            };
            if let Err(error) = expired {
                tracing::warn!(
                    error = error_chain(&error),
                    "old runs of the audit log cannot be removed; this is tried again in an hour"
                );
            }
        }
    }

    /// Records the versions of all rows, and that these are all: a baseline. Returns the number of
    /// rows.
    ///
    /// Call it once if rows were written before the log began. Otherwise [`compare`] reports them as
    /// [`RowFault::Unlogged`]. Call it also after a process crashed, after a gap, or after old runs
    /// were removed. What was lost more than 15 minutes before is then no longer a reason for
    /// [`RowFault::Unknown`]. Compare first: a baseline accepts each row as it is, unless the log says
    /// that it is an old copy.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if a database does not respond. Call it again then.
    pub async fn note_rows(&self, rows: &dyn StoredRows) -> Result<u64, Error> {
        let (mut count, mut from) = (0, None);
        let since = to_millis(self.0.clock.now());
        loop {
            let page = rows.stored_rows(from).await?;
            let time = to_millis(self.0.clock.now());
            let entries = page.rows.into_iter().map(|row| {
                let act = Act {
                    version: Some(row.version),
                    ..Act::new(ActKind::Found, Some(row.tenant), row.row)
                };
                Entry::act(time, act, AuditContext::current())
            });
            let entries: Vec<_> = entries.collect();
            count += u64::try_from(entries.len()).expect("a page");
            self.durably(entries).await?;
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let note = BaselineNote { since, rows: count };
        let time = to_millis(self.0.clock.now());
        self.durably(vec![Entry::note(time, BASELINE, &note)])
            .await?;
        Ok(count)
    }

    /// Records entries, and waits until they are durable in any mode.
    async fn durably(&self, entries: Vec<Entry>) -> Result<(), Error> {
        let pushed = self.0.shared.queue().push(entries);
        let ticket = pushed.map_err(not_logged)?;
        self.written(ticket, CLOSE).await
    }

    async fn written(&self, ticket: u64, within: Duration) -> Result<(), Error> {
        self.0.shared.wake.notify_one();
        let mut durable = self.0.shared.durable.subscribe();
        let written = durable.wait_for(|durable| *durable >= ticket);
        match tokio::time::timeout(within, written).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::Unavailable(NotLogged::Late.into())),
        }
    }

    /// Records acts, each in a record of its own, before it returns. An act that hands nothing out
    /// was done already. If it cannot be recorded, it is counted.
    async fn report_strictly(
        &self,
        context: AuditContext,
        acts: Vec<Act>,
        time: u64,
    ) -> Result<(), Error> {
        let done = acts.iter().filter(|act| act.kind != ActKind::Open).count();
        let acts = acts.into_iter();
        let entries = acts.map(|act| Entry::act(time, act, context.clone()));
        let pushed = {
            let mut queue = self.0.shared.queue();
            let pushed = queue.push(entries.collect());
            match pushed {
                Ok(_) => {}
                Err(Refused::Full) => queue.lose(done, time),
                Err(Refused::Closed) => lose_after_closing(done),
            }
            pushed
        };
        self.written(pushed.map_err(not_logged)?, STRICT).await
    }

    /// Records acts later. Equal reads are counted together. Nothing fails because of the log: what
    /// does not fit is counted.
    fn report_later(&self, context: &AuditContext, acts: Vec<Act>, time: u64) {
        let mut queue = self.0.shared.queue();
        let mut left = acts.len();
        for act in acts {
            let is_read = matches!(act.kind, ActKind::Open | ActKind::Unwrap);
            let pushed = if is_read {
                queue.push_read(act, context.clone(), time)
            } else {
                let entry = Entry::act(time, act, context.clone());
                queue.push(vec![entry]).map(drop)
            };
            match pushed {
                Ok(()) => {}
                Err(Refused::Full) => queue.lose(1, time),
                Err(Refused::Closed) => {
                    drop(queue);
                    lose_after_closing(left);
                    return self.warn_once();
                }
            }
            left -= 1;
        }
        if queue.ready() > 0 {
            self.0.shared.wake.notify_one();
        }
    }

    fn warn_once(&self) {
        if !self.0.has_warned.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the audit log is closed, and the store is still used; this is not recorded"
            );
        }
    }
}

#[async_trait]
impl Witness for Audit {
    async fn report(&self, context: AuditContext, acts: Vec<Act>) -> Result<(), Error> {
        let time = to_millis(self.0.clock.now());
        if self.0.is_strict {
            return self.report_strictly(context, acts, time).await;
        }
        self.report_later(&context, acts, time);
        Ok(())
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit")
            .field("store", &self.0.store)
            .field("run", &self.current_run())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue().close();
        self.shared.closing.send_replace(true);
    }
}

/// Why nothing was handed out in strict mode: the source of an [`Error::Unavailable`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum NotLogged {
    /// The log was closed.
    #[error("the audit log is closed, and nothing is handed out without a record")]
    Closed,
    /// Too many records wait.
    #[error("too many records of the audit log wait to be written: its database is too slow")]
    Full,
    /// The record was not durable in time.
    #[error("the record of the audit log was not durable in time")]
    Late,
}

/// Counts acts that are in no record and in no gap.
fn lose_after_closing(count: usize) {
    let count = u64::try_from(count).expect("a count");
    metrics::AUDIT_LOST.add_many([CLOSED], count);
}

fn not_logged(refused: Refused) -> Error {
    let reason = match refused {
        Refused::Full => NotLogged::Full,
        Refused::Closed => NotLogged::Closed,
    };
    Error::Unavailable(reason.into())
}

/// The entries that may wait: at 1,000 a second, a minute's.
const CAPACITY: usize = 65_536;

/// How long a caller waits in strict mode. Slack gives a handler 3 s.
const STRICT: Duration = Duration::from_secs(1);

/// How long runs are kept: a year, and a month to look at it.
const KEEP: Duration = Duration::from_secs(400 * 24 * 3600);

/// How often old runs are removed.
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);

/// How long closing takes at most.
const CLOSE: Duration = Duration::from_secs(10);
