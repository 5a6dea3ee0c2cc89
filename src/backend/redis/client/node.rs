//! One master and its connection, which is made when it is needed and replaced when it fails.
//!
//! The driver's own `ConnectionManager` does not support Sentinel, and keeps a connection on which
//! responses no longer arrive.

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::sentinel::SentinelClient;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError,
    Value,
};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::attempt::SingleAttempt;
use crate::backend::host::leaves_the_machine;

/// One master. All calls share one connection.
pub(in crate::backend::redis) struct Node {
    address: String,
    home: Home,
    timeouts: Timeouts,
    live: RwLock<Option<Live>>,
    /// One caller makes or checks the connection, and the others wait for it.
    attempts: SingleAttempt,
}

/// How the master is found.
pub(super) enum Home {
    /// A node of a cluster. Its role is not checked, because even a replica reports which keys it
    /// does not serve.
    Member(Client),
    Sentinel {
        client: Mutex<SentinelClient>,
        allow_plaintext: bool,
    },
    Server(Client),
}

#[derive(Clone, Copy, Debug)]
pub(in crate::backend::redis) struct Timeouts {
    pub(in crate::backend::redis) connect: Duration,
    pub(in crate::backend::redis) response: Duration,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    made: Instant,
    checked: Instant,
}

/// Why a command has no usable response.
#[derive(Debug, Error)]
pub(in crate::backend::redis) enum Failure {
    /// It was sent, and it is unknown whether it was applied.
    #[error("Redis did not respond")]
    Lost(#[source] RedisError),
    /// It was not sent, because others on the network could read it.
    #[error(
        "{host} is another machine, and the connection to it would not be encrypted; use \
         `rediss://`, or set RedisOptions::allow_plaintext"
    )]
    Plaintext { host: String },
    /// The server refused it.
    #[error("Redis refused a command")]
    Refused(#[source] RedisError),
    /// It was not sent, because the server is not a master.
    #[error("this Redis server is a replica")]
    Replica,
    /// It was not sent, because there is no connection.
    #[error("Redis cannot be reached")]
    Unreachable(#[source] RedisError),
}

impl Node {
    pub(super) fn new(address: String, home: Home, timeouts: Timeouts) -> Self {
        Self {
            address,
            home,
            timeouts,
            live: RwLock::default(),
            attempts: SingleAttempt::default(),
        }
    }

    pub(in crate::backend::redis) fn address(&self) -> &str {
        &self.address
    }

    /// Sends one command.
    pub(in crate::backend::redis) async fn send(&self, command: &Cmd) -> Result<Value, Failure> {
        let mut live = self.live().await?;
        let answer = live.connection.send_packed_command(command).await;
        self.judge(&live, answer.and_then(Value::extract_error))
    }

    /// Sends commands directly after each other, without other callers' commands in between.
    /// Returns their responses in the same order; an error from the server is one of them.
    pub(in crate::backend::redis) async fn send_together(
        &self,
        commands: &[&Cmd],
    ) -> Result<Vec<Result<Value, Failure>>, Failure> {
        let mut live = self.live().await?;
        let mut pipeline = redis::Pipeline::with_capacity(commands.len());
        for &command in commands {
            pipeline.add_command(command.clone());
        }
        let answers = live
            .connection
            .send_packed_commands(&pipeline, 0, commands.len())
            .await;
        let answers = self.judge(&live, answers)?;
        Ok(answers
            .into_iter()
            .map(|it| it.extract_error().map_err(Failure::Refused))
            .collect())
    }

    /// Drops the connection, so that the next command finds the master again.
    pub(super) fn forget(&self) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns a connection to a master. Checks its role from time to time, because a server that
    /// was demoted still responds to reads.
    async fn live(&self) -> Result<Live, Failure> {
        match self.current().filter(is_fresh) {
            Some(live) => Ok(live),
            // Boxed, so that most commands do not carry it.
            None => Box::pin(self.renewed()).await,
        }
    }

    async fn renewed(&self) -> Result<Live, Failure> {
        let permit = self.attempts.acquire().await;
        // Another caller may have connected meanwhile.
        if let Some(live) = self.current().filter(is_fresh) {
            return Ok(live);
        }
        if permit.has_just_failed() {
            return Err(Failure::Unreachable(TRIED.into()));
        }
        permit.run(self.renew()).await
    }

    async fn renew(&self) -> Result<Live, Failure> {
        if let Some(mut live) = self.current()
            && self.check(&mut live.connection).await.is_ok()
        {
            live.checked = Instant::now();
            return Ok(self.keep(live));
        }
        self.forget();
        let connect = async {
            let mut connection = self.connect().await?;
            self.check(&mut connection).await?;
            Ok(connection)
        };
        // The driver limits each step: finding the master, connecting, and the response.
        let connected = timeout(self.timeouts.connect, connect).await;
        let connection = connected.unwrap_or(Err(Failure::Unreachable(LATE.into())))?;
        let now = Instant::now();
        Ok(self.keep(Live {
            connection,
            made: now,
            checked: now,
        }))
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Failure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeouts.connect))
            .set_response_timeout(Some(self.timeouts.response));
        let client = match &self.home {
            Home::Sentinel {
                client,
                allow_plaintext,
            } => {
                let found = client.lock().await.async_get_client().await;
                let found = found.map_err(Failure::Unreachable)?;
                let host = plaintext_host(found.get_connection_info());
                if let Some(host) = host.filter(|_| !allow_plaintext) {
                    return Err(Failure::Plaintext { host: host.into() });
                }
                found
            }
            Home::Member(client) | Home::Server(client) => client.clone(),
        };
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(Failure::Unreachable)
    }

    /// Checks that the server responds and, outside a cluster, is a master.
    async fn check(&self, connection: &mut MultiplexedConnection) -> Result<(), Failure> {
        let is_member = matches!(self.home, Home::Member(_));
        let command = redis::cmd(if is_member { "PING" } else { "ROLE" });
        let answer = connection.send_packed_command(&command).await;
        let answer = answer
            .and_then(Value::extract_error)
            .map_err(Failure::Unreachable)?;
        let role = match &answer {
            Value::Array(role) => role.first(),
            _ => None,
        };
        match role {
            _ if is_member => Ok(()),
            Some(Value::BulkString(role)) if role == b"master" => Ok(()),
            _ => Err(Failure::Replica),
        }
    }

    /// If the error is the connection's and not the server's, drops the connection.
    fn judge<T>(&self, live: &Live, answer: Result<T, RedisError>) -> Result<T, Failure> {
        answer.map_err(|error| {
            if is_from_server(&error) {
                return Failure::Refused(error);
            }
            let mut current = self.live.write().unwrap_or_else(PoisonError::into_inner);
            // Another caller may have replaced it already.
            current.take_if(|current| current.made == live.made);
            Failure::Lost(error)
        })
    }

    fn current(&self) -> Option<Live> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn keep(&self, live: Live) -> Live {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
        live
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// Returns the other machine that this connects to without TLS, if any.
pub(super) fn plaintext_host(info: &ConnectionInfo) -> Option<&str> {
    match info.addr() {
        ConnectionAddr::Tcp(host, _) if leaves_the_machine(host) => Some(host),
        _ => None,
    }
}

fn is_fresh(live: &Live) -> bool {
    live.checked.elapsed() < RECHECK
}

fn is_from_server(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

const LATE: (ErrorKind, &str) = (ErrorKind::Io, "could not connect to a master in time");

const TRIED: (ErrorKind, &str) = (ErrorKind::Io, "another call has just failed to connect");

/// How long a server's role and its connection are trusted after a check. One short command per
/// second costs almost nothing. Without the check, a connection that broke while idle would be
/// noticed only by a command, which may be lost.
const RECHECK: Duration = Duration::from_secs(1);
