//! Stores rows in Redis: one server, a master behind Sentinel, or a cluster.

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

#[cfg(any(test, fuzzing))]
pub(super) use index::fuzz_cursor;

pub use options::RedisOptions;

/// Stores rows in Redis 7.0 or later. Any number of processes may share it.
///
/// One script writes all rows of a commit, and all reads go to masters.
///
/// # Required server settings
///
/// A cache may lose data, but these rows exist only here. So opening a server that loses data is
/// refused. The server must have:
///
/// * `maxmemory-policy noeviction`, or one of the `volatile-` policies, which keep keys without an
///   expiry;
/// * `appendonly yes` and `appendfsync always`. With the default, `everysec`, the last commits are
///   lost if the machine fails, and also if only the process dies while the disk is slow: Redis
///   keeps them in its memory during a slow `fsync`. (A measurement lost 331 of 500 acknowledged
///   commits.) An app whose tokens rotate then loses tenants;
/// * the role of a master, not of a replica;
/// * in a cluster, `cluster_state:ok`;
/// * at least as many connected replicas as commits wait for.
///
/// While a server loads its data, opening waits for up to 10 s.
///
/// [`RedisOptions`] has the exceptions, whose names say what they cost. A user of Redis's ACL
/// requires `~{slack-installs:*` (the prefix) and `+@connection +eval +evalsha +hmget +hget
/// +hgetall +hset +hdel +hlen +zadd +zrem +zcard +zscore +zrangebylex +role +info +wait +waitaof
/// +cluster|slots +cluster|info`. With `+config|get`, `appendfsync` can be
/// checked. Without it, a warning is logged.
///
/// # What Redis can lose
///
/// Replication is asynchronous. If a master dies and a replica takes over, by Sentinel or in a
/// cluster, the commits that the replica had not received are lost: usually milliseconds of
/// commits, or as much as the replica lagged behind.
///
/// A master that is cut off from the others accepts commits until `cluster-node-timeout`. Behind
/// Sentinel, without `min-replicas-to-write`, it accepts them forever. All of these commits are
/// lost when it reconnects. Until then, its clients also read rows that other clients have
/// overwritten. A demoted master rejects commits, but may serve reads for up to a second: the
/// interval of the role check.
///
/// For a token that never changes, a lost commit means that the app must be installed again. **An
/// app that rotates its tokens must set [`RedisOptions::await_replicas`]**: if the commit of a
/// refresh is lost, the tenant's stored refresh token is already spent. A commit then succeeds when
/// that many replicas have it. Otherwise it is [`Error::Unavailable`], with an unknown outcome.
/// This makes a loss less likely, but not impossible: Redis may still promote a replica that does
/// not have the commit.
///
/// After [`Error::Unavailable`], a commit is applied wholly or not at all: the script writes all or
/// nothing, even if the server is killed while it runs.
///
/// # Keys
///
/// Partitions are spread over 128 shards by a hash of their name. The keys of a shard have the same
/// hash tag. So they are in one slot of a cluster, and one script may use them all:
///
/// ```text
/// {slack-installs:5c}:rows:<partition>   hash: slot -> the row
/// {slack-installs:5c}:names              sorted set: "<partition> <slot>" of every row
/// {slack-installs:5c}:due                sorted set: "<lane> <app> <seconds> <partition> <slot>"
///                                        of every row that is ever due
/// ```
///
/// While a cluster moves a slot to another node, commits to the slot's shards wait until all keys
/// of their shard are on one node; at the latest, until the whole slot has moved. If that takes
/// longer than the response timeout, they are [`Error::Unavailable`]. Reads do not wait.
///
/// # TLS
///
/// For a URL that begins with `rediss://`, the driver uses rustls with the process's default crypto
/// provider. If there is none, it uses the only provider that rustls was built with. If rustls was
/// built with both `ring` and `aws-lc-rs`, opening the backend fails with
/// [`ConnectErrorKind::Tls`](super::ConnectErrorKind::Tls). Then your app must install one at the
/// start of `main`: `rustls::crypto::ring::default_provider().install_default()`.
///
/// A URL that begins with `redis://` and leads to another machine is refused, unless
/// [`RedisOptions::allow_plaintext`] is set. So is such a URL with a password for a master behind
/// Sentinel.
///
/// # Not verified
///
/// The tests run against Redis 7.0: alone, with TLS, behind Sentinel, and as a cluster of six. They
/// do not cover Valkey, a cluster with TLS, Sentinel with TLS, client certificates (not supported),
/// `WAITAOF` (7.2), or managed services.
#[derive(Debug)]
pub struct RedisBackend {
    options: RedisOptions,
    /// The name that the server was opened by, without credentials.
    server: String,
    layout: Layout,
    script: Script,
    reads: Arc<Router>,
    /// A separate connection if commits wait for replicas, because a command that waits delays all
    /// later ones on its connection. Otherwise the same connection.
    commits: Arc<Router>,
}

impl RedisBackend {
    /// Opens one server: `redis://user:password@host:6379/0`, or `rediss://…` for TLS.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the server cannot be reached, or would lose rows.
    pub async fn open(url: &str, options: RedisOptions) -> Result<Self, ConnectError> {
        Self::start(&options, |timeouts| client::server(url, &options, timeouts)).await
    }

    /// Opens the cluster of these nodes. Their URLs must all begin with `redis://`, or all with
    /// `rediss://`, and have the same credentials. One reachable node is enough.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if no node can be reached, or if a master would lose rows.
    pub async fn open_cluster(urls: &[&str], options: RedisOptions) -> Result<Self, ConnectError> {
        let slots = Layout::new(&options.prefix).cluster_slots();
        let make = |timeouts| client::cluster(urls, slots.clone(), &options, timeouts);
        Self::start(&options, make).await
    }

    /// Opens the master that these sentinels name: `redis://host:26379` for each. `url` says how to
    /// connect to the master, with the master's name as its host:
    /// `rediss://user:password@mymaster/0`. All sentinels must have the same credentials.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the master does not exist, or would lose rows.
    pub async fn open_sentinel(
        sentinels: &[&str],
        url: &str,
        options: RedisOptions,
    ) -> Result<Self, ConnectError> {
        let make = |timeouts| client::sentinel(sentinels, url, &options, timeouts);
        Self::start(&options, make).await
    }

    /// Repeats the checks of opening, for a health check. A setting can change while the server
    /// runs, and a new master has its own settings.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if a master would lose rows, or cannot be reached.
    pub async fn check(&self) -> Result<(), ConnectError> {
        check::check(&self.reads, &self.server, &self.options).await
    }

    /// Opens the backend with connections that `make` makes with these timeouts.
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
            return Err(malformed(
                "Redis returned a different number of fields than requested",
            ));
        }
        let value = |value| match value {
            Value::Nil => Ok(None),
            value => bytes(value).map(Some),
        };
        values.into_iter().map(value).collect()
    }

    /// Returns the command that runs a script, by its hash or its text, with a partition's keys and
    /// name.
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

    /// Returns the command of a commit, with the changes as its arguments.
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
            // The server was started or promoted since and does not know the script. It has not run
            // anything.
            Err(Failure::Refused(error)) if is_unknown_script(&error) => {
                run(&self.script("EVAL", COMMIT, partition, changes)).await
            }
            answer => answer,
        };
        match answer.map_err(failed)? {
            (Value::Int(1), waited) if self.options.is_safe(waited.as_ref()) => Ok(()),
            (Value::Int(1), _) => Err(Error::Unavailable(
                "the commit was not confirmed by enough replicas or disks within await_timeout; \
                 check the replicas"
                    .into(),
            )),
            (Value::Int(0), _) => Err(Error::Conflict),
            (Value::Int(-1), _) => Err(malformed("a value in Redis is not a valid row")),
            _ => Err(Error::Unavailable(
                "the commit script returned an unknown value".into(),
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
        _ => Err(malformed("Redis did not return a list")),
    }
}

fn bytes(value: Value) -> Result<Vec<u8>, Error> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(malformed("Redis did not return a string")),
    }
}

/// Maps a failure. Failures that are not known to be permanent are transient.
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

/// Error codes that the same command always returns: a key of another type, or keys in two slots.
const PERMANENT: [&str; 2] = ["CROSSSLOT", "WRONGTYPE"];
