//! Rows in Redis: one server, one behind Sentinel, or a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};

use super::odd;
use super::{Backend, Change, Cursor, Error, Expect, Key, Page, Partition, Row, Slot};
use layout::{Layout, SHARDS, malformed, shard_of};
use node::{Failure, Timeouts};
use router::{Nature, Router};

mod check;
mod cluster;
mod connect;
mod layout;
mod node;
mod router;
mod turns;

pub use check::RedisOpenError;

/// Keeps rows in Redis 7.0 or later. Any number of processes may share it.
///
/// Rows are written by one script for each commit, and all reads go to masters.
///
/// # What the server must be set to
///
/// For a cache it may be right to forget; here the rows are all there is, so opening a server that
/// forgets is refused:
///
/// * `maxmemory-policy noeviction`, or one of the `volatile-` policies, which leave keys without
///   an expiry alone;
/// * `appendonly yes`, and better `appendfsync always`: with the default, `everysec`, a machine
///   that fails takes the last second of commits with it (a process that is killed does not);
/// * for a cluster, `cluster_state:ok`; and a master, never a replica;
/// * as many replicas, at this moment, as commits are to wait for.
///
/// [`RedisOptions`] has the exceptions, by names that say what they cost. A user of Redis's ACL
/// needs `~{slack-installs:*` (the prefix) and `+@connection +eval +evalsha +hmget +hget +hset
/// +hdel +hexists +hlen +hkeys +zadd +zrem +zcard +zscore +zrangebylex +zrangebyscore +role +info
/// +wait +waitaof +cluster|slots +cluster|info`; `+config|get` lets it warn of `appendfsync`.
///
/// # What Redis can lose
///
/// Replication is asynchronous. When a master dies and a replica takes over, by Sentinel or in a
/// cluster, the commits of the last moments are gone: what the replica had not received, usually
/// milliseconds of commits, as many as the link was behind otherwise. A master that is cut off
/// from the others goes on accepting commits until `cluster-node-timeout`, or for ever behind
/// Sentinel without `min-replicas-to-write`; all of these are gone when it comes back. In that
/// time its clients also read what the others have overwritten. A master that was told to be a
/// replica takes no commit any more, but may still be read for up to a second: so often a
/// connection is asked for its server's role.
///
/// For a token that never changes, that means an install to be done again. **An app that rotates
/// its tokens needs [`RedisOptions::await_replicas`]**: a lost commit of a refresh is a tenant
/// whose stored refresh token is spent. A commit is then answered when that many replicas have it,
/// and is [`Error::Unavailable`] otherwise, its outcome open. This narrows the gap and does not
/// close it: Redis may still promote a replica that does not have the commit.
///
/// What is [`Error::Unavailable`] is never half done: the script writes all or nothing, also when
/// the server is killed in the middle of it.
///
/// # Keys
///
/// Partitions fall into 128 shards by a hash of their name. The keys of a shard have one hash tag,
/// so they stand in one slot of a cluster, and one script may touch them:
///
/// ```text
/// {slack-installs:5c}:rows:<partition>   hash: slot -> the row
/// {slack-installs:5c}:names              sorted set: "<partition> <slot>" of every row
/// {slack-installs:5c}:due                sorted set: the same of rows that are ever due, by time
/// ```
///
/// While a slot of a cluster moves to another node, commits to its shards wait until all keys of
/// theirs are on the same side, at the latest until the whole slot has moved, and are
/// [`Error::Unavailable`] if that takes longer than the response timeout; reads do not wait.
///
/// # TLS
///
/// A URL that begins with `rediss://` is spoken to by rustls, whose default provider the driver
/// takes. If the process has none, opening the backend makes `ring` the default of the process. An
/// app that wants another installs it before.
///
/// A URL that begins with `redis://` and leads to another machine is refused, as is a password in
/// one for a master behind Sentinel, unless [`RedisOptions::allow_plaintext`] is set.
///
/// # Not verified
///
/// Tested against Redis 7.0: alone, with TLS, behind Sentinel, and as a cluster of six. Not against
/// Valkey, a cluster with TLS, Sentinel with TLS, client certificates (not supported), `WAITAOF`
/// (7.2), or any managed service.
#[derive(Debug)]
pub struct RedisBackend {
    options: RedisOptions,
    /// As it was named when opened, without credentials.
    server: String,
    layout: Layout,
    script: Script,
    reads: Arc<Router>,
    /// Another connection if commits wait for replicas, since one that waits holds up all that
    /// comes after it. Otherwise the same.
    commits: Arc<Router>,
}

/// How Redis is used. What it must not lose is on [`RedisBackend`].
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// What the names of all keys begin with, after a brace: 1 to 100 visible ASCII characters but
    /// braces. Two apps with different prefixes may share a server.
    pub prefix: String,
    /// For how long a connection may take, Sentinel's answer and TLS included.
    pub connect_timeout: Duration,
    /// For how long an answer may take, waiting for replicas not included. A read without one is
    /// asked once more, on a new connection; a commit is [`Error::Unavailable`].
    pub response_timeout: Duration,
    /// In PEM form, the certificates of the authorities to trust, instead of the public ones.
    pub root_certificate: Option<String>,
    /// How many replicas must have a commit before it succeeds (`WAIT`). 0 for none.
    ///
    /// Commits of one process then follow each other, one round trip to the replicas each.
    pub await_replicas: u32,
    /// Whether a commit succeeds only when it is on the master's disk, and on that of as many
    /// replicas as [`await_replicas`](Self::await_replicas) says (`WAITAOF`, Redis 7.2).
    pub await_fsync: bool,
    /// For how long to wait for either. Past that a commit is [`Error::Unavailable`].
    pub await_timeout: Duration,
    /// Speaks to another machine without TLS. Whoever is on the way can read the password and the
    /// rows (which are sealed), and change them.
    pub allow_plaintext: bool,
    /// Uses a server that removes rows when its memory is full. Tokens get lost. An index may go
    /// as well: then installations work, but are not listed, or not refreshed ahead.
    pub accept_losing_rows_to_eviction: bool,
    /// Uses a server without an append-only file. A restart loses tokens, or all of them.
    pub accept_losing_rows_on_restart: bool,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            prefix: "slack-installs".into(),
            // A handshake across a continent takes a quarter of a second.
            connect_timeout: Duration::from_secs(2),
            // Commands take well under a millisecond; with `appendfsync always` on a busy disk,
            // some hundred. Slack gives a handler three seconds.
            response_timeout: Duration::from_secs(2),
            root_certificate: None,
            await_replicas: 0,
            await_fsync: false,
            // Replicas answer within a round trip, unless something is wrong.
            await_timeout: Duration::from_millis(500),
            allow_plaintext: false,
            accept_losing_rows_to_eviction: false,
            accept_losing_rows_on_restart: false,
        }
    }
}

impl RedisBackend {
    /// Opens one server: `redis://user:password@host:6379/0`, or `rediss://…` for TLS.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`] if it cannot be reached, or would lose rows.
    pub async fn open(url: &str, options: RedisOptions) -> Result<Self, RedisOpenError> {
        let make = |timeouts| {
            Ok(Router::Alone(Arc::new(connect::server(
                url, &options, timeouts,
            )?)))
        };
        let (reads, commits) = routers(&options, make)?;
        Self::start(options, reads, commits).await
    }

    /// Opens the cluster that these nodes are of, with `redis://…` or `rediss://…` for all of
    /// them, and the same credentials. One that is up is enough.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`] if none can be reached, or one of the masters would lose rows.
    pub async fn open_cluster(
        urls: &[&str],
        options: RedisOptions,
    ) -> Result<Self, RedisOpenError> {
        let slots = Layout::new(&options.prefix).cluster_slots();
        let make = |timeouts| {
            let cluster = connect::cluster(urls, slots.clone(), &options, timeouts)?;
            Ok(Router::Cluster(Box::new(cluster)))
        };
        let (reads, commits) = routers(&options, make)?;
        Self::start(options, reads, commits).await
    }

    /// Opens the server that these sentinels name as master: `redis://host:26379` for each. `url`
    /// says how to speak to it, with the master's name as its host:
    /// `rediss://user:password@mymaster/0`. All sentinels have the same credentials.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`] if there is no such master, or it would lose rows.
    pub async fn open_sentinel(
        sentinels: &[&str],
        url: &str,
        options: RedisOptions,
    ) -> Result<Self, RedisOpenError> {
        let make = |timeouts| {
            let node = connect::sentinel(sentinels, url, &options, timeouts)?;
            Ok(Router::Alone(Arc::new(node)))
        };
        let (reads, commits) = routers(&options, make)?;
        Self::start(options, reads, commits).await
    }

    /// Checks again what opening has checked: a setting can change while the server runs, and a
    /// master that takes over has settings of its own. Made for a health check.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`] if a master would lose rows, or cannot be reached.
    pub async fn check(&self) -> Result<(), RedisOpenError> {
        check::check(&self.reads, &self.server, &self.options).await
    }

    async fn start(
        options: RedisOptions,
        reads: Arc<Router>,
        commits: Arc<Router>,
    ) -> Result<Self, RedisOpenError> {
        let layout = Layout::new(&options.prefix);
        let server = format!("{reads:?}");
        let script = Script::new(COMMIT);
        let backend = Self {
            options,
            server,
            layout,
            script,
            reads,
            commits,
        };
        backend.check().await?;
        Ok(backend)
    }

    async fn ask(&self, shard: usize, command: &Cmd) -> Result<Value, Error> {
        let patience = self.options.response_timeout;
        let asked = self
            .reads
            .send(shard, command, None, Nature::Read, patience)
            .await;
        asked.map(|(answer, _)| answer).map_err(failed)
    }

    /// Some of the names in a shard, in their order.
    async fn names(
        &self,
        shard: usize,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, Error> {
        let from = after.map_or_else(|| "-".into(), |key| format!("({}", layout::name(key)));
        let command = &mut redis::cmd("ZRANGEBYLEX");
        command
            .arg(self.layout.names(shard))
            .arg(from)
            .arg("+")
            .arg("LIMIT")
            .arg(0)
            .arg(limit);
        let names = array(self.ask(shard, command).await?)?;
        names
            .into_iter()
            .map(|name| layout::parse_name(&bytes(name)?))
            .collect()
    }

    /// Some of the names in a shard that are due, the earliest first, with their times.
    async fn due_names(
        &self,
        shard: usize,
        now: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Key)>, Error> {
        let command = &mut redis::cmd("ZRANGEBYSCORE");
        command
            .arg(self.layout.due(shard))
            .arg("-inf")
            .arg(now)
            .arg("WITHSCORES");
        // A negative count is all of them.
        command
            .arg("LIMIT")
            .arg(0)
            .arg(isize::try_from(limit).unwrap_or(-1));
        let found = array(self.ask(shard, command).await?)?;
        let (pairs, _) = found.as_chunks();
        let parse = |[name, score]: &[Value; 2]| {
            let score: f64 = redis::from_redis_value_ref(score).map_err(malformed)?;
            Ok((score as u64, layout::parse_name(&bytes(name.clone())?)?))
        };
        let parsed = pairs.iter().map(parse);
        let warn = |error: &Error| {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(
                shard,
                cause,
                "a name that is due is left out: it is malformed"
            );
        };
        Ok(parsed.filter_map(|it| it.inspect_err(warn).ok()).collect())
    }

    /// The rows of these names, in no order, or what is wrong with them. Those that are gone by
    /// now are left out.
    async fn rows(&self, names: Vec<Key>) -> Vec<Result<(Key, Row), Error>> {
        let mut slots = BTreeMap::<_, Vec<_>>::new();
        for Key { partition, slot } in names {
            slots.entry(partition).or_default().push(slot);
        }
        let reads: Vec<_> = slots
            .iter()
            .flat_map(|(partition, slots)| {
                slots
                    .chunks(LONGEST_READ)
                    .map(move |slots| self.read_named(partition, slots))
            })
            .collect();
        let rows: Vec<Vec<_>> = stream::iter(reads).buffered(FAN_OUT).collect().await;
        rows.into_iter().flatten().collect()
    }

    async fn read_named(
        &self,
        partition: &Partition,
        slots: &[Slot],
    ) -> Vec<Result<(Key, Row), Error>> {
        let (mut rows, mut gone) = (Vec::new(), Vec::new());
        let mut sort = |slot: &Slot, row| match row {
            Ok(Some(row)) => rows.push(Ok((key(partition, slot), row))),
            Ok(None) => gone.push(slot.clone()),
            Err(error) => rows.push(Err(odd::named(&key(partition, slot), error))),
        };
        match self.read(partition, slots).await {
            Ok(found) => slots
                .iter()
                .zip(found)
                .for_each(|(slot, row)| sort(slot, Ok(row))),
            // One by one, to know which.
            Err(Error::Malformed(_)) => {
                for slot in slots {
                    let found = self.read(partition, std::slice::from_ref(slot)).await;
                    sort(slot, found.map(|mut rows| rows.pop().flatten()));
                }
            }
            Err(error) => rows.push(Err(error)),
        }
        if !gone.is_empty() {
            Box::pin(self.forget(partition, &gone)).await;
        }
        rows
    }

    /// Takes names out of the indexes whose rows are not there. A commit keeps both in step, but
    /// a server that evicts does not, and names of no row would fill every page.
    async fn forget(&self, partition: &Partition, gone: &[Slot]) {
        let shard = shard_of(partition);
        let mut command = redis::cmd("EVAL");
        command.arg(FORGET).arg(3);
        command.arg(self.layout.rows(shard, partition));
        command
            .arg(self.layout.names(shard))
            .arg(self.layout.due(shard));
        command.arg(partition.as_str());
        for slot in gone {
            command.arg(slot.as_str());
        }
        let patience = self.options.response_timeout;
        let sent = self
            .commits
            .send(shard, &command, None, Nature::Write, patience);
        if let Err(error) = sent.await {
            tracing::debug!(%partition, %error, "names without rows stay in an index");
        }
    }

    /// The script with its keys and arguments, by its hash or by its text.
    fn script(&self, how: &str, script: &str, partition: &Partition, changes: &[Change]) -> Cmd {
        let shard = shard_of(partition);
        let mut command = redis::cmd(how);
        command.arg(script).arg(3);
        command.arg(self.layout.rows(shard, partition));
        command
            .arg(self.layout.names(shard))
            .arg(self.layout.due(shard));
        command.arg(partition.as_str());
        for change in changes {
            match change {
                Change::Put { slot, row, expect } => {
                    command.arg("put").arg(slot.as_str());
                    match expect {
                        Expect::Absent => command.arg(""),
                        Expect::Any => command.arg("*"),
                        Expect::Version(version) => command.arg(version.as_bytes().as_slice()),
                    };
                    command.arg(layout::encode(row));
                    match row.due_at {
                        Some(due_at) => command.arg(layout::to_seconds(due_at)),
                        None => command.arg(""),
                    };
                }
                Change::Delete { slot, only } => {
                    command.arg("delete").arg(slot.as_str());
                    match only {
                        Some(version) => command.arg(version.as_bytes().as_slice()),
                        None => command.arg("*"),
                    };
                    command.arg("").arg("");
                }
                Change::Clear => {
                    command.arg("clear").arg("").arg("*").arg("").arg("");
                }
            }
        }
        command
    }

    /// What is sent after a commit, to wait until it is safe.
    fn wait(&self) -> Option<Cmd> {
        let RedisOptions {
            await_replicas,
            await_fsync,
            await_timeout,
            ..
        } = &self.options;
        // 0 would be for ever.
        let timeout = await_timeout.as_millis().max(1).to_string();
        let mut command = match (await_fsync, await_replicas) {
            (false, 0) => return None,
            (false, _) => redis::cmd("WAIT"),
            (true, _) => redis::cmd("WAITAOF"),
        };
        if *await_fsync {
            command.arg(1);
        }
        command.arg(await_replicas).arg(timeout);
        Some(command)
    }

    /// Whether a commit is as safe as was asked for, by the answer to [`wait`](Self::wait).
    fn is_safe(&self, answer: Option<&Value>) -> bool {
        let needed = i64::from(self.options.await_replicas);
        match answer {
            None => true,
            Some(Value::Int(replicas)) => *replicas >= needed,
            Some(Value::Array(counts)) => match counts.as_slice() {
                [Value::Int(local), Value::Int(replicas)] => *local >= 1 && *replicas >= needed,
                _ => false,
            },
            Some(_) => false,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for RedisBackend {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let shard = shard_of(partition);
        let command = &mut redis::cmd("HMGET");
        command.arg(self.layout.rows(shard, partition));
        for slot in slots {
            command.arg(slot.as_str());
        }
        let values = array(self.ask(shard, command).await?)?;
        if values.len() != slots.len() {
            return Err(malformed("Redis answered fewer fields than were asked for"));
        }
        let row = |value| match value {
            Value::Nil => Ok(None),
            value => Ok(Some(layout::decode(&bytes(value)?)?)),
        };
        values.into_iter().map(row).collect()
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        Change::check(changes)?;
        if changes.is_empty() {
            return Ok(());
        }
        let (shard, patience) = (shard_of(partition), self.options.response_timeout);
        let wait = self.wait();
        let run = async |script: &Cmd| {
            self.commits
                .send(shard, script, wait.as_ref(), Nature::Write, patience)
                .await
        };
        let by_hash = self.script("EVALSHA", self.script.get_hash(), partition, changes);
        let answer = match run(&by_hash).await {
            // A server that was started or promoted since; it has not run anything.
            Err(Failure::Refused(error)) if is_unknown_script(&error) => {
                run(&self.script("EVAL", COMMIT, partition, changes)).await
            }
            answer => answer,
        };
        match answer.map_err(failed)? {
            (Value::Int(1), waited) if self.is_safe(waited.as_ref()) => Ok(()),
            (Value::Int(1), _) => Err(Error::Unavailable(
                "too few replicas or disks have the commit in time".into(),
            )),
            (Value::Int(0), _) => Err(Error::Conflict),
            (Value::Int(-1), _) => Err(malformed("a value in Redis is not a row of ours")),
            _ => Err(Error::Unavailable(
                "the script gave an answer that it never gives".into(),
            )),
        }
    }

    async fn scan(&self, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let after = from.map(|cursor| cursor.key(KIND)).transpose()?;
        let limit = limit.clamp(1, LONGEST_PAGE);
        let shard = after.as_ref().map_or(0, |key| shard_of(&key.partition));
        let mut names = self.names(shard, after.as_ref(), limit).await?;
        if names.len() < limit {
            let others: Vec<_> = (shard + 1..SHARDS)
                .map(|shard| self.names(shard, None, limit))
                .collect();
            let mut others = stream::iter(others).buffered(FAN_OUT);
            while names.len() < limit
                && let Some(more) = others.next().await
            {
                names.extend(more?);
            }
            names.truncate(limit);
        }
        let next = names
            .last()
            .filter(|_| names.len() == limit)
            .map(|key| Cursor::after(KIND, key));
        let rows = self.rows(names).await;
        Ok(Page {
            rows: rows.into_iter().collect::<Result<_, _>>()?,
            next,
        })
    }

    async fn due(&self, now: SystemTime, limit: usize) -> Result<Vec<(Key, Row)>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let until = layout::to_seconds(now);
        let asked: Vec<_> = (0..SHARDS)
            .map(|shard| self.due_names(shard, until, limit))
            .collect();
        let found: Vec<_> = stream::iter(asked).buffered(FAN_OUT).collect().await;
        let mut names: Vec<_> = of_those_that_answer(found)?.into_iter().flatten().collect();
        names.sort_unstable();
        names.truncate(limit);
        let rows = self
            .rows(names.into_iter().map(|(_, name)| name).collect())
            .await;
        let mut rows = odd::sound(rows);
        // A row may have been put off since its name was read.
        rows.retain(|(_, row)| row.due_at.is_some_and(|due_at| due_at <= now));
        rows.sort_by_key(|(_, row)| row.due_at);
        Ok(rows)
    }
}

/// For reads and for commits; the same unless commits wait for replicas.
fn routers(
    options: &RedisOptions,
    make: impl Fn(Timeouts) -> Result<Router, RedisOpenError>,
) -> Result<(Arc<Router>, Arc<Router>), RedisOpenError> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"{}".contains(&byte);
    let prefix = options.prefix.as_bytes();
    if !(1..=100).contains(&prefix.len()) || !prefix.iter().copied().all(allowed) {
        let reason = "the prefix must be 1 to 100 visible ASCII characters without braces";
        return Err(RedisOpenError::Misconfigured(reason.into()));
    }
    let (connect, response) = (options.connect_timeout, options.response_timeout);
    let reads = Arc::new(make(Timeouts { connect, response })?);
    if options.await_replicas == 0 && !options.await_fsync {
        return Ok((Arc::clone(&reads), reads));
    }
    let response = response + options.await_timeout;
    let commits = Arc::new(make(Timeouts { connect, response })?);
    Ok((reads, commits))
}

/// One master that is away must not keep back what is due on the others.
fn of_those_that_answer<T>(asked: Vec<Result<T, Error>>) -> Result<Vec<T>, Error> {
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    for answer in asked {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(error) => failures.push(error),
        }
    }
    match failures.pop() {
        Some(error) if answers.is_empty() => Err(error),
        Some(error) => {
            let shards = failures.len() + 1;
            tracing::warn!(shards, %error, "what is due there is left out");
            Ok(answers)
        }
        None => Ok(answers),
    }
}

fn key(partition: &Partition, slot: &Slot) -> Key {
    Key {
        partition: partition.clone(),
        slot: slot.clone(),
    }
}

fn array(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(malformed("Redis answered something else than a list")),
    }
}

fn bytes(value: Value) -> Result<Vec<u8>, Error> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(malformed("Redis answered something else than a text")),
    }
}

/// What a failure means to a caller. All that is not known to be permanent is transient.
fn failed(failure: Failure) -> Error {
    let permanent = match &failure {
        Failure::Refused(error) => error.code().is_some_and(|code| PERMANENT.contains(&code)),
        _ => false,
    };
    match permanent {
        true => Error::Malformed(failure.into()),
        false => Error::Unavailable(failure.into()),
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// In its cursors.
const KIND: &str = "redis";

const COMMIT: &str = include_str!("redis/commit.lua");

/// The keys of a commit; a partition and slots.
const FORGET: &str = "
for at = 2, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[at]) == 0 then
    local name = ARGV[1] .. ' ' .. ARGV[at]
    redis.call('ZREM', KEYS[2], name)
    redis.call('ZREM', KEYS[3], name)
  end
end";

/// Commands at once, to find what is due or to fill a page. More would not come back sooner: it
/// is one connection to each server.
const FAN_OUT: usize = 32;

/// Rows of a page at most, whatever is asked for, so that no answer holds up others for long.
const LONGEST_PAGE: usize = 1000;

/// Slots of one command at most, for the same reason.
const LONGEST_READ: usize = 90;

/// Refusals that the same command meets again: a key of another type, or keys of two slots.
const PERMANENT: [&str; 2] = ["CROSSSLOT", "WRONGTYPE"];
