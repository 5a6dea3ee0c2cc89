//! What an operator sets.

use std::time::Duration;

use redis::{Cmd, Value};

use crate::backend::connect::{ConnectError, invalid};

/// How Redis is used. What it must not lose is on [`RedisBackend`](super::RedisBackend).
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

    /// What is sent after a commit, to wait until it is safe.
    pub(super) fn wait(&self) -> Option<Cmd> {
        let Self {
            await_replicas,
            await_fsync,
            await_timeout,
            ..
        } = self;
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
