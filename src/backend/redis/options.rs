//! The options of a Redis backend.

use std::time::Duration;

use redis::{Cmd, Value};

use crate::backend::connect::{ConnectError, invalid};

/// Options of a [`RedisBackend`](super::RedisBackend), whose documentation says what Redis may
/// lose.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// The start of all key names, after an opening brace: 1 to 100 visible ASCII characters except
    /// braces. Two apps with different prefixes may share a server. Default: `slack-installs`.
    pub prefix: String,
    /// How long connecting may take, including Sentinel's response and TLS. Default: 2 seconds.
    pub connect_timeout: Duration,
    /// How long a response may take, without the wait for replicas. If a read has no response by
    /// then, it is retried once on a new connection. A commit returns
    /// [`Error::Unavailable`](crate::backend::Error::Unavailable). Default: 2 seconds.
    pub response_timeout: Duration,
    /// The CA certificates to trust instead of the public CAs, as PEM text.
    pub root_certificate: Option<String>,
    /// How many replicas must have a commit before it succeeds (`WAIT`); 0 for none. Default: 0.
    ///
    /// The commits of one process then run one after the other. Each takes one round trip to the
    /// replicas.
    pub await_replicas: u32,
    /// Whether a commit succeeds only after it is on the master's disk, and on the disks of
    /// [`await_replicas`](Self::await_replicas) replicas (`WAITAOF`, Redis 7.2). Default: `false`.
    pub await_fsync: bool,
    /// How long a commit waits for replicas and disks. After that it returns
    /// [`Error::Unavailable`](crate::backend::Error::Unavailable). Default: 500 ms.
    pub await_timeout: Duration,
    /// Allows connections to another machine without TLS. Others on the network can then read and
    /// change the password and the (sealed) rows. Default: `false`.
    pub allow_plaintext: bool,
    /// Accepts a server that removes rows when its memory is full. Tokens may be lost. An index may
    /// be lost too: then installations work, but are not listed, or their tokens are not refreshed
    /// in advance. Default: `false`.
    pub accept_losing_rows_to_eviction: bool,
    /// Accepts a server without an append-only file. A restart loses some or all tokens. Default:
    /// `false`.
    pub accept_losing_rows_on_restart: bool,
    /// Accepts a server with another `appendfsync` than `always`. If its process or its machine
    /// fails, commits are lost that had succeeded. An app whose tokens rotate then loses tenants,
    /// because the stored refresh tokens are already spent. Default: `false`.
    pub accept_losing_commits_on_crash: bool,
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
            // Replicas respond within a round trip, unless something is wrong.
            await_timeout: Duration::from_millis(500),
            allow_plaintext: false,
            accept_losing_rows_to_eviction: false,
            accept_losing_rows_on_restart: false,
            accept_losing_commits_on_crash: false,
        }
    }
}

impl RedisOptions {
    pub(super) fn check(&self) -> Result<(), ConnectError> {
        let allowed = |byte: &u8| byte.is_ascii_graphic() && !b"{}".contains(byte);
        let prefix = self.prefix.as_bytes();
        if !(1..=100).contains(&prefix.len()) || !prefix.iter().all(allowed) {
            return Err(invalid(
                "the prefix (RedisOptions::prefix, or `?prefix=` of the URL) must be 1 to 100 \
                 visible ASCII characters without braces",
            ));
        }
        Ok(())
    }

    /// Returns the command that follows a commit and waits until the commit is safe.
    pub(super) fn wait(&self) -> Option<Cmd> {
        let Self {
            await_replicas,
            await_fsync,
            await_timeout,
            ..
        } = self;
        // 0 would mean to wait forever.
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

    /// Returns whether a commit is as safe as required, by the response to [`wait`](Self::wait).
    pub(super) fn is_safe(&self, answer: Option<&Value>) -> bool {
        let needed = i64::from(self.await_replicas);
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
