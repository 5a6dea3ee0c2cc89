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
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;
use tokio::time::Instant;

use crate::clock::{Clock, to_millis};
use crate::store::{Act, ActKind, AuditContext, AuditStore, Error, RunId, Witness};
use crate::tenant::InstallationKey;

mod check;
mod entry;
mod hash;
mod head;
mod query;
mod queue;
mod run;
mod sink;
mod verify;
mod writer;

pub use check::Fault;
pub use entry::Detail;
use entry::{ERASED, EXPIRED, Entry, RunNote};
pub use head::{HeadError, SignedHead, SigningKey, SigningKeyError, VerifyingKey};
pub use query::{Filter, LogRecord, records};
use run::Run;
pub use sink::{FileSink, HeadSink, TracingSink};
pub use verify::{Ending, Finding, Report, RunReport, VerifyOptions, verify};
use writer::{Shared, Writer};

/// How a log records, and who signs it.
///
/// The default mode delays nothing: what is recorded waits in a queue of 65,536 entries. Equal reads
/// within 2 s are one record with a count. If the process is killed, the last 3 s can be missing.
/// What does not fit into the queue is counted in a record of its own, a gap.
#[derive(Debug, Default)]
#[must_use = "the options are passed to `Audit::open`"]
pub struct AuditOptions {
    is_strict: bool,
    key: Option<SigningKey>,
    sinks: Vec<Arc<dyn HeadSink>>,
    clock: Clock,
    capacity: Option<usize>,
}

impl AuditOptions {
    /// Hands a credential out only after its record is durable. A batch waits at most 2 ms for more
    /// records. If it is not durable within a second, the read fails with [`Error::Unavailable`].
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
        let capacity = Some(entries);
        Self { capacity, ..self }
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
}

impl Audit {
    /// Begins a run of the log, and writes it on a task of its own.
    ///
    /// # Errors
    ///
    /// [`Error`], if the first record cannot be written.
    pub async fn open(store: Arc<dyn AuditStore>, options: AuditOptions) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(options.capacity.unwrap_or(CAPACITY)));
        let now = to_millis(options.clock.now());
        let mut writer = Writer {
            run: Run::begin(store.app(), now),
            store: Arc::clone(&store),
            shared: Arc::clone(&shared),
            clock: options.clock.clone(),
            is_strict: options.is_strict,
            key: options.key.map(Arc::new),
            sinks: options.sinks,
            headed: (0, Instant::now()),
        };
        writer.begin().await?;
        drop(tokio::spawn(writer.work()));
        Ok(Self(Arc::new(Handle {
            store,
            shared,
            clock: options.clock,
            is_strict: options.is_strict,
        })))
    }

    /// Returns the run that this process writes.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        *self.0.shared.run.borrow()
    }

    /// Writes what waits, signs the head, and ends the run. Returns whether it was written within
    /// 10 s. Nothing is recorded afterwards: in strict mode, reads then fail.
    pub async fn close(&self) -> bool {
        let shared = &self.0.shared;
        shared.closing.send_replace(true);
        let mut run = shared.run.subscribe();
        let ended = run.wait_for(Option::is_none);
        tokio::time::timeout(CLOSE, ended).await.is_ok()
    }

    /// Makes a tenant's part of the log unreadable: who acted for the tenant, and why. The records
    /// stay, and the log still verifies. Returns whether there was such a part.
    ///
    /// Uninstallation and a purge do not do this, because the log must outlive them. Another process
    /// may seal new records under the destroyed key for 15 minutes. They are unreadable too.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the database does not respond. Call it again then.
    pub async fn erase(&self, tenant: &InstallationKey) -> Result<bool, Error> {
        let existed = self.0.store.erase(tenant).await?;
        let time = to_millis(self.0.clock.now());
        self.record(vec![Entry::note(time, ERASED, &())]).await?;
        Ok(existed)
    }

    /// Removes runs of the log that ended longer ago than this. Returns their number.
    ///
    /// A record in this process's run says which runs were removed, and where they ended. So
    /// [`verify`] does not miss them. A run of a process that died counts as ended an hour and a day
    /// after it began.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the database does not respond. Some runs may have been removed.
    pub async fn expire(&self, keep: Duration) -> Result<usize, Error> {
        let now = to_millis(self.0.clock.now());
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        let (mut expired, mut from) = (Vec::new(), None);
        loop {
            let page = self.0.store.registry(from, REGISTRY_PAGE).await?;
            let runs = page.runs.into_iter().filter(|(_, entry)| {
                let is_over = entry.is_ended || entry.is_abandoned;
                is_over && now.saturating_sub(entry.touched) > keep
            });
            expired.extend(runs);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        for (run, entry) in &expired {
            let note = RunNote {
                run: run.to_string(),
                records: entry.records,
                hash: entry.head.clone(),
            };
            // The record first. A run that is missing without one looks like an attack.
            self.durably(Entry::note(now, EXPIRED, &note)).await?;
            self.0.store.remove(*run).await?;
        }
        Ok(expired.len())
    }

    /// Records an entry, and waits until it is durable in any mode.
    async fn durably(&self, entry: Entry) -> Result<(), Error> {
        let shared = &self.0.shared;
        if shared.run.borrow().is_none() {
            return Err(not_logged(NotLogged::Closed));
        }
        let pushed = shared.queue().push(vec![entry]);
        let ticket = pushed.map_err(|_| not_logged(NotLogged::Full))?;
        self.written(ticket, CLOSE).await
    }

    async fn written(&self, ticket: u64, within: Duration) -> Result<(), Error> {
        self.0.shared.wake.notify_one();
        let mut durable = self.0.shared.durable.subscribe();
        let written = durable.wait_for(|durable| *durable >= ticket);
        match tokio::time::timeout(within, written).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(not_logged(NotLogged::Late)),
        }
    }

    /// Records entries that must not wait for equal ones.
    async fn record(&self, entries: Vec<Entry>) -> Result<(), Error> {
        let (shared, count) = (&self.0.shared, entries.len());
        if shared.run.borrow().is_none() {
            return Err(not_logged(NotLogged::Closed));
        }
        let pushed = shared.queue().push(entries);
        let Ok(ticket) = pushed else {
            if !self.0.is_strict {
                let now = to_millis(self.0.clock.now());
                shared.queue().lose(count, now);
            }
            return Err(not_logged(NotLogged::Full));
        };
        if self.0.is_strict {
            return self.written(ticket, STRICT).await;
        }
        shared.wake.notify_one();
        Ok(())
    }
}

#[async_trait]
impl Witness for Audit {
    async fn report(&self, who: AuditContext, acts: Vec<Act>) -> Result<(), Error> {
        let time = to_millis(self.0.clock.now());
        if self.0.is_strict {
            let entries = acts.into_iter();
            let entries = entries.map(|act| Entry::act(time, act, who.clone()));
            return self.record(entries.collect()).await;
        }
        let (reads, others): (Vec<_>, Vec<_>) =
            acts.into_iter().partition(|act| act.kind == ActKind::Open);
        {
            let mut queue = self.0.shared.queue();
            for act in reads {
                if queue.push_read(act, who.clone(), time).is_err() {
                    queue.lose(1, time);
                }
            }
        }
        let others = others.into_iter();
        let others: Vec<_> = others
            .map(|act| Entry::act(time, act, who.clone()))
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        // In this mode nothing fails because of the log. What does not fit is counted.
        drop(self.record(others).await);
        Ok(())
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit")
            .field("store", &self.0.store)
            .field("run", &self.run())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
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

fn not_logged(reason: NotLogged) -> Error {
    Error::Unavailable(reason.into())
}

/// The entries that may wait: at 1,000 a second, a minute's.
const CAPACITY: usize = 65_536;

/// How long a caller waits in strict mode. Slack gives a handler 3 s.
const STRICT: Duration = Duration::from_secs(1);

/// The entries of a page of the registry.
const REGISTRY_PAGE: usize = 500;

/// How long closing takes at most.
const CLOSE: Duration = Duration::from_secs(10);
