//! Rows in Redis: one server, one behind Sentinel, or a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream::{self, StreamExt};
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};

use super::{
    Backend, Change, Cursor, Error, Expect, Key, Page, Partition, Queue, Row, Scope, Slot,
};
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
/// {slack-installs:5c}:due                sorted set: "<lane> <app> <seconds> <partition> <slot>" of
///                                        every row that is ever due
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
/// both `ring` and `aws-lc-rs`, opening the backend returns
/// [`RedisOpenError::NoCryptoProvider`] until your app installs one at the start of `main`:
/// `rustls::crypto::ring::default_provider().install_default()`.
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

    /// Returns some members of a sorted set in their order. The bounds are as in `ZRANGEBYLEX`.
    async fn members(
        &self,
        shard: usize,
        set: String,
        from: Vec<u8>,
        to: &str,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let command = &mut redis::cmd("ZRANGEBYLEX");
        command.arg(set).arg(from).arg(to);
        command.arg("LIMIT").arg(0).arg(limit);
        let members = array(self.ask(shard, command).await?)?;
        members.into_iter().map(bytes).collect()
    }

    /// Reads the rows that these members of an index name. `keyed` are those whose text could be
    /// parsed.
    async fn rows(&self, keyed: Vec<Indexed>) -> Result<Page, Error> {
        let mut of = BTreeMap::<_, Vec<_>>::new();
        for Indexed { key, member } in keyed {
            of.entry(key.partition)
                .or_default()
                .push((key.slot, member));
        }
        let reads: Vec<_> = of
            .iter()
            .flat_map(|(partition, slots)| {
                slots
                    .chunks(LONGEST_READ)
                    .map(move |slots| self.read_indexed(partition, slots))
            })
            .collect();
        let mut page = Page::default();
        let mut reads = stream::iter(reads).buffered(FAN_OUT);
        while let Some(read) = reads.next().await {
            let read = read?;
            page.rows.extend(read.rows);
            page.odd.extend(read.odd);
        }
        Ok(page)
    }

    /// Reads rows of one partition, and removes members of the indexes that are no longer right.
    async fn read_indexed(
        &self,
        partition: &Partition,
        indexed: &[(Slot, Option<String>)],
    ) -> Result<Page, Error> {
        let slots: Vec<_> = indexed.iter().map(|(slot, _)| slot.clone()).collect();
        let values = self.values(partition, &slots).await?;
        let (mut page, mut stale) = (Page::default(), Vec::new());
        for ((slot, member), value) in indexed.iter().zip(values) {
            let key = key(partition, slot);
            let Some(value) = value else {
                stale.push((slot, member.as_deref()));
                continue;
            };
            let Ok(row) = layout::decode(&value) else {
                page.odd.push(layout::name(&key));
                continue;
            };
            // The row may have been put off since its member was read.
            let current = row.due.map(|due| layout::due_member(&key, due));
            match member.is_some() && *member != current {
                true => stale.push((slot, member.as_deref())),
                false => page.rows.push((key, row)),
            }
        }
        if !stale.is_empty() {
            Box::pin(self.forget(partition, &stale)).await;
        }
        Ok(page)
    }

    /// Removes members from the indexes whose rows do not exist, or are due at another time. A
    /// commit keeps all in step, but a server that evicts does not, and such members would fill
    /// every page.
    async fn forget(&self, partition: &Partition, stale: &[(&Slot, Option<&str>)]) {
        let shard = shard_of(partition);
        let mut command = redis::cmd("EVAL");
        command.arg(FORGET).arg(3);
        command.arg(self.layout.rows(shard, partition));
        command
            .arg(self.layout.names(shard))
            .arg(self.layout.due(shard));
        command.arg(partition.as_str());
        for (slot, member) in stale {
            command.arg(slot.as_str()).arg(member.unwrap_or_default());
        }
        let patience = self.options.response_timeout;
        let sent = self
            .commits
            .send(shard, &command, None, Nature::Write, patience);
        if let Err(error) = sent.await {
            tracing::debug!(%partition, %error, "members without rows stay in an index");
        }
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
                    let key = key(partition, slot);
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

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let limit = limit.clamp(1, LONGEST_PAGE);
        let after = from.as_ref().map(After::from_cursor).transpose()?;
        let (first, to, shards) = match scope {
            Scope::Everything => ("-".into(), "+".into(), 0..SHARDS),
            Scope::Partition(partition) => {
                let shard = shard_of(partition);
                // The character after the space.
                (
                    format!("[{partition} "),
                    format!("({partition}!"),
                    shard..shard + 1,
                )
            }
            Scope::Prefix(prefix) => (format!("[{prefix}"), format!("[{prefix}\u{7f}"), 0..SHARDS),
        };
        let names = async |shard: usize| {
            let from = match &after {
                Some(after) if after.shard == shard => after.bound(&first[1..]),
                _ => first.clone().into_bytes(),
            };
            let names = self.members(shard, self.layout.names(shard), from, &to, limit);
            let names = names.await?.into_iter();
            Ok::<_, Error>(names.map(|name| (shard, name)).collect::<Vec<_>>())
        };
        let start = after.as_ref().map_or(0, |after| after.shard);
        let shards = shards.start.max(start)..shards.end;
        let mut found = Vec::new();
        // The first alone: it fills most pages.
        if let Some(first) = shards.clone().next() {
            found = names(first).await?;
        }
        if found.len() < limit {
            let mut others = stream::iter(shards.skip(1).map(names)).buffered(FAN_OUT);
            while found.len() < limit
                && let Some(more) = others.next().await
            {
                found.extend(more?);
            }
            found.truncate(limit);
        }
        let next = found.last().filter(|_| found.len() == limit);
        let next = next.map(|(shard, name)| After::cursor(*shard, name));
        let (mut keyed, mut odd) = (Vec::new(), Vec::new());
        for (_, name) in found {
            match layout::parse_name(&name) {
                Some(key) => keyed.push(Indexed { key, member: None }),
                None => odd.push(String::from_utf8_lossy(&name).into_owned()),
            }
        }
        let mut page = self.rows(keyed).await?;
        page.odd.extend(odd);
        Ok(Page { next, ..page })
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let limit = limit.clamp(1, LONGEST_PAGE);
        let after = from.as_ref().map(After::from_cursor).transpose()?;
        let start = layout::queue_start(queue);
        let first = after.map_or_else(
            || format!("[{start}").into_bytes(),
            |after| after.bound(&start),
        );
        // The character after the space.
        let to = format!("({start}{:012}!", layout::to_seconds(now));
        let members = |shard| {
            let set = self.layout.due(shard);
            self.members(shard, set, first.clone(), &to, limit)
        };
        let asked: Vec<_> = (0..SHARDS).map(members).collect();
        let found: Vec<_> = stream::iter(asked).buffered(FAN_OUT).collect().await;
        let mut members: Vec<_> = of_those_that_answer(found)?.into_iter().flatten().collect();
        members.sort_unstable();
        members.truncate(limit);
        let next = members.last().filter(|_| members.len() == limit);
        let next = next.map(|member| After::cursor(0, member));
        let (mut keyed, mut odd) = (Vec::new(), Vec::new());
        for member in members {
            let text = String::from_utf8_lossy(&member).into_owned();
            match layout::parse_due_member(&start, &member) {
                Some(key) => keyed.push(Indexed {
                    key,
                    member: Some(text),
                }),
                None => odd.push(text),
            }
        }
        let mut page = self.rows(keyed).await?;
        page.odd.extend(odd);
        page.rows.sort_by(|(one, row), (other, than)| {
            let time = |row: &Row| row.due.map(|due| due.at);
            (time(row), one).cmp(&(time(than), other))
        });
        Ok(Page { next, ..page })
    }
}

/// A row that an index names.
struct Indexed {
    key: Key,
    /// Its member in the set of what is due, if that is where it was found.
    member: Option<String>,
}

/// The member of an index after which a page starts.
struct After {
    /// Of the index; all shards for what is due.
    shard: usize,
    member: Vec<u8>,
}

impl After {
    fn cursor(shard: usize, member: &[u8]) -> Cursor {
        Cursor(format!("{KIND} {shard} {}", URL_SAFE_NO_PAD.encode(member)))
    }

    fn from_cursor(cursor: &Cursor) -> Result<Self, Error> {
        let parse = || {
            let (shard, member) = cursor
                .0
                .strip_prefix(KIND)?
                .strip_prefix(' ')?
                .split_once(' ')?;
            let after = Self {
                shard: shard.parse().ok()?,
                member: URL_SAFE_NO_PAD.decode(member).ok()?,
            };
            (after.shard < SHARDS).then_some(after)
        };
        parse().ok_or_else(|| malformed("not a cursor of this backend"))
    }

    /// The bound of `ZRANGEBYLEX` for what follows, within a range that starts here.
    fn bound(&self, start: &str) -> Vec<u8> {
        match self.member.as_slice() < start.as_bytes() {
            true => format!("[{start}").into_bytes(),
            false => [b"(", self.member.as_slice()].concat(),
        }
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

const COMMIT: &str = concat!(
    include_str!("redis/member.lua"),
    include_str!("redis/commit.lua")
);

const FORGET: &str = concat!(
    include_str!("redis/member.lua"),
    include_str!("redis/forget.lua")
);

/// Commands at once, to find what is due or to fill a page. More would not come back sooner: it
/// is one connection to each server.
const FAN_OUT: usize = 32;

/// Rows of a page at most, whatever is asked for, so that no answer holds up others for long.
const LONGEST_PAGE: usize = 1000;

/// Slots of one command at most, for the same reason.
const LONGEST_READ: usize = 90;

/// Refusals that the same command meets again: a key of another type, or keys of two slots.
const PERMANENT: [&str; 2] = ["CROSSSLOT", "WRONGTYPE"];
