//! Rows in Redis: one server, one behind Sentinel, or a cluster.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};

use super::{
    Backend, Change, ConnectError, Cursor, Error, Expect, Key, Page, Partition, Queue, Row, Scope,
    Slot,
};
use client::{Failure, Nature, Router, Timeouts};
use layout::{Layout, malformed, shard_of};

mod check;
mod client;
mod index;
mod layout;
mod options;
mod url;

pub use options::RedisOptions;

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
/// needs `~{slack-installs:*` (the prefix) and `+@connection +eval +evalsha +hmget +hget +hgetall
/// +hset +hdel +hlen +zadd +zrem +zcard +zscore +zrangebylex +role +info +wait +waitaof
/// +cluster|slots +cluster|info`; `+config|get` lets it warn of `appendfsync`.
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
/// {slack-installs:5c}:due                sorted set: "<lane> <app> <seconds> <partition> <slot>"
///                                        of every row that is ever due
/// ```
///
/// While a slot of a cluster moves to another node, commits to its shards wait until all keys of
/// theirs are on the same side, at the latest until the whole slot has moved, and are
/// [`Error::Unavailable`] if that takes longer than the response timeout; reads do not wait.
///
/// # TLS
///
/// For a URL that begins with `rediss://`, the driver uses rustls with the default crypto provider
/// of the process, or else with the only one that rustls was built with. If rustls was built with
/// both `ring` and `aws-lc-rs`, opening the backend fails with
/// [`ConnectErrorKind::Tls`](super::ConnectErrorKind::Tls) until your app installs one at the start
/// of `main`: `rustls::crypto::ring::default_provider().install_default()`.
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

impl RedisBackend {
    /// Opens one server: `redis://user:password@host:6379/0`, or `rediss://…` for TLS.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if it cannot be reached, or would lose rows.
    pub async fn open(url: &str, options: RedisOptions) -> Result<Self, ConnectError> {
        Self::start(&options, |timeouts| client::server(url, &options, timeouts)).await
    }

    /// Opens the cluster that these nodes are of, with `redis://…` or `rediss://…` for all of
    /// them, and the same credentials. One that is up is enough.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if none can be reached, or one of the masters would lose rows.
    pub async fn open_cluster(urls: &[&str], options: RedisOptions) -> Result<Self, ConnectError> {
        let slots = Layout::new(&options.prefix).cluster_slots();
        let make = |timeouts| client::cluster(urls, slots.clone(), &options, timeouts);
        Self::start(&options, make).await
    }

    /// Opens the server that these sentinels name as master: `redis://host:26379` for each. `url`
    /// says how to speak to it, with the master's name as its host:
    /// `rediss://user:password@mymaster/0`. All sentinels have the same credentials.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if there is no such master, or it would lose rows.
    pub async fn open_sentinel(
        sentinels: &[&str],
        url: &str,
        options: RedisOptions,
    ) -> Result<Self, ConnectError> {
        let make = |timeouts| client::sentinel(sentinels, url, &options, timeouts);
        Self::start(&options, make).await
    }

    /// Checks again what opening has checked: a setting can change while the server runs, and a
    /// master that takes over has settings of its own. Made for a health check.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if a master would lose rows, or cannot be reached.
    pub async fn check(&self) -> Result<(), ConnectError> {
        check::check(&self.reads, &self.server, &self.options).await
    }

    /// `make` makes connections that wait this long.
    async fn start(
        options: &RedisOptions,
        make: impl Fn(Timeouts) -> Result<Router, ConnectError>,
    ) -> Result<Self, ConnectError> {
        options.check()?;
        let (connect, response) = (options.connect_timeout, options.response_timeout);
        let reads = Arc::new(make(Timeouts { connect, response })?);
        let commits = if options.wait().is_some() {
            let response = response + options.await_timeout;
            Arc::new(make(Timeouts { connect, response })?)
        } else {
            Arc::clone(&reads)
        };
        let backend = Self {
            options: options.clone(),
            server: format!("{reads:?}"),
            layout: Layout::new(&options.prefix),
            script: Script::new(COMMIT),
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

    /// Returns the stored values of these slots.
    async fn values(
        &self,
        partition: &Partition,
        slots: &[Slot],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
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
            return Err(malformed("Redis returned fewer fields than were requested"));
        }
        let value = |value| match value {
            Value::Nil => Ok(None),
            value => bytes(value).map(Some),
        };
        values.into_iter().map(value).collect()
    }

    /// A script, by its hash or by its text, with the keys of a partition and its name.
    fn eval(&self, how: &str, script: &str, partition: &Partition) -> Cmd {
        let shard = shard_of(partition);
        let mut command = redis::cmd(how);
        command.arg(script).arg(3);
        command.arg(self.layout.rows(shard, partition));
        command.arg(self.layout.names(shard));
        command.arg(self.layout.due(shard));
        command.arg(partition.as_str());
        command
    }

    /// The script of a commit, with the changes as its arguments.
    fn script(&self, how: &str, script: &str, partition: &Partition, changes: &[Change]) -> Cmd {
        let mut command = self.eval(how, script, partition);
        for change in changes {
            let what = match change {
                Change::Check { .. } => "check",
                Change::Clear => "clear",
                Change::Delete { .. } => "delete",
                Change::Put { .. } => "put",
            };
            command
                .arg(what)
                .arg(change.slot().map_or("", Slot::as_str));
            match change.expects() {
                Expect::Absent => command.arg(""),
                Expect::Any => command.arg("*"),
                Expect::Version(version) => command.arg(version.as_bytes().as_slice()),
            };
            match change {
                Change::Put { slot, row, .. } => {
                    let key = Key::of(partition, slot);
                    let due = row.due.map(|due| layout::due_member(&key, due));
                    command
                        .arg(layout::encode(row))
                        .arg(due.unwrap_or_default())
                }
                _ => command.arg("").arg(""),
            };
        }
        command
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for RedisBackend {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let values = self.values(partition, slots).await?;
        let row = |value: Option<Vec<u8>>| value.map(|value| layout::decode(&value)).transpose();
        values.into_iter().map(row).collect()
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        Change::check(changes)?;
        if changes.is_empty() {
            return Ok(());
        }
        let (shard, patience) = (shard_of(partition), self.options.response_timeout);
        let wait = self.options.wait();
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
            (Value::Int(1), waited) if self.options.is_safe(waited.as_ref()) => Ok(()),
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

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.scan_names(scope, from.as_ref(), limit).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.scan_due(queue, now, from.as_ref(), limit).await
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
    if permanent {
        Error::Malformed(failure.into())
    } else {
        Error::Unavailable(failure.into())
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

const COMMIT: &str = concat!(
    include_str!("redis/member.lua"),
    include_str!("redis/commit.lua")
);

/// Refusals that the same command meets again: a key of another type, or keys of two slots.
const PERMANENT: [&str; 2] = ["CROSSSLOT", "WRONGTYPE"];
