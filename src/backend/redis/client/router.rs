//! Chooses the master for a command, and handles a wrong choice.
//!
//! The driver's own cluster client sends a command again if the connection breaks, which is wrong
//! for a commit. If retries are switched off, the client does not follow moved slots either.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, ServerErrorKind, Value};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::node::{Failure, Node};

#[derive(Debug)]
pub(in crate::backend::redis) enum Router {
    /// One master for all shards: a single server, or a master behind Sentinel.
    Alone(Arc<Node>),
    Cluster(Box<Cluster>),
}

/// Whether a command without a response may be sent again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::backend::redis) enum Nature {
    /// It changes nothing, so it may be sent again.
    Read,
    /// It may have been applied.
    Write,
}

impl Router {
    pub(in crate::backend::redis) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Sends a command to the master of this shard, and directly after it, on the same connection,
    /// `then`. Returns both responses.
    ///
    /// If the server says that it has not applied the command, retries it on the same or another
    /// node, for up to `patience`.
    pub(in crate::backend::redis) async fn send(
        &self,
        shard: usize,
        command: &Cmd,
        then: Option<&Cmd>,
        nature: Nature,
        patience: Duration,
    ) -> Result<(Value, Option<Value>), Failure> {
        let deadline = Instant::now() + patience;
        let mut importer = None;
        let mut tried_again = false;
        let mut pause = FIRST_PAUSE;
        loop {
            let asking = importer.is_some();
            let node = match importer.take() {
                Some(node) => node,
                None => self.master(shard).await?,
            };
            let failure = match send_to(&node, asking, command, then).await {
                Ok(answers) => return Ok(answers),
                Err(failure) => failure,
            };
            let in_time = Instant::now() < deadline;
            // Boxed, so that a successful command does not carry it.
            match Box::pin(self.remedy(&node, shard, &failure)).await {
                Remedy::Ask(node) if in_time => importer = Some(node),
                // Also after the deadline, because a response that timed out has used all of the
                // time.
                Remedy::Once if !tried_again => tried_again = true,
                Remedy::OnceIfRead if !tried_again && nature == Nature::Read => tried_again = true,
                Remedy::Wait if in_time => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                _ => return Err(failure),
            }
        }
    }

    /// Returns all masters.
    pub(in crate::backend::redis) async fn masters(&self) -> Result<Vec<Arc<Node>>, Failure> {
        match self {
            Self::Alone(node) => Ok(vec![Arc::clone(node)]),
            Self::Cluster(cluster) => cluster.masters().await,
        }
    }

    async fn master(&self, shard: usize) -> Result<Arc<Node>, Failure> {
        match self {
            Self::Alone(node) => Ok(Arc::clone(node)),
            Self::Cluster(cluster) => cluster.master(shard).await,
        }
    }

    async fn remedy(&self, node: &Arc<Node>, shard: usize, failure: &Failure) -> Remedy {
        let error = match failure {
            Failure::Lost(_) => return Remedy::OnceIfRead,
            Failure::Plaintext { .. } => return Remedy::None,
            Failure::Refused(error) => error,
            Failure::Replica | Failure::Unreachable(_) => return self.elsewhere(node, shard).await,
        };
        let ErrorKind::Server(kind) = error.kind() else {
            return Remedy::None;
        };
        match (kind, self, error.redirect_node()) {
            (ServerErrorKind::Ask, Self::Cluster(cluster), Some((to, _))) => {
                cluster.node(node, to).map_or(Remedy::None, Remedy::Ask)
            }
            (ServerErrorKind::Moved, Self::Cluster(cluster), Some((to, _))) => {
                cluster.moved(shard, node, to);
                Remedy::Wait
            }
            // The master was demoted. Sentinel may know the new master.
            (ServerErrorKind::ReadOnly, Self::Alone(_), _) => {
                node.forget();
                Remedy::Once
            }
            (ServerErrorKind::ReadOnly, ..) => self.elsewhere(node, shard).await,
            // Some keys of the slot have moved to another node, and some have not.
            (ServerErrorKind::TryAgain, ..) => Remedy::Wait,
            _ => Remedy::None,
        }
    }

    /// Finds another master after a command that was not applied. The failed master is not tried
    /// again.
    async fn elsewhere(&self, failed: &Arc<Node>, shard: usize) -> Remedy {
        let Self::Cluster(cluster) = self else {
            return Remedy::None;
        };
        cluster.refresh(failed).await;
        match cluster.master(shard).await {
            Ok(master) if !Arc::ptr_eq(&master, failed) => Remedy::Once,
            _ => Remedy::None,
        }
    }
}

/// What to do about a failure.
enum Remedy {
    /// Ask this node, to which the keys are moving.
    Ask(Arc<Node>),
    None,
    Once,
    OnceIfRead,
    Wait,
}

async fn send_to(
    node: &Node,
    asking: bool,
    command: &Cmd,
    then: Option<&Cmd>,
) -> Result<(Value, Option<Value>), Failure> {
    if !asking && then.is_none() {
        return Ok((node.send(command).await?, None));
    }
    let ask = redis::cmd("ASKING");
    let commands: Vec<_> = [asking.then_some(&ask), Some(command), then]
        .into_iter()
        .flatten()
        .collect();
    let mut answers = node
        .send_together(&commands)
        .await?
        .into_iter()
        .skip(usize::from(asking));
    let mut next = || {
        answers
            .next()
            .ok_or_else(|| Failure::Lost(NO_ANSWER.into()))
    };
    let answer = next()??;
    let after = match then {
        // Its failure does not affect the command before it.
        Some(_) => Some(next()?.unwrap_or(Value::Nil)),
        None => None,
    };
    Ok((answer, after))
}

const NO_ANSWER: (ErrorKind, &str) = (
    ErrorKind::Parse,
    "Redis returned fewer responses than commands",
);

/// Keys move between nodes within milliseconds, and whole slots within a second.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
