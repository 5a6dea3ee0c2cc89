//! The masters of a cluster, and which of them serves which shard.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::{ErrorKind, Value};

use super::attempt::SingleAttempt;
use super::node::{Failure, Node};
use crate::backend::ConnectError;
use crate::error_chain::error_chain;

/// Makes a node from a host and a port.
type Maker = Box<dyn Fn(&str, u16) -> Result<Node, ConnectError> + Send + Sync>;

pub(in crate::backend::redis) struct Cluster {
    /// The cluster slot of each shard.
    slots: Vec<u16>,
    /// The nodes that the cluster was opened with. They always stay in the map, so that they are
    /// asked even if no other node responds.
    seeds: Vec<Arc<Node>>,
    maker: Maker,
    map: RwLock<Map>,
    /// One caller reads the map, and the others wait for it.
    attempts: SingleAttempt,
}

#[derive(Default)]
struct Map {
    /// The master of each shard.
    masters: Vec<Option<Arc<Node>>>,
    /// All known nodes, including the seeds, by address.
    nodes: HashMap<String, Arc<Node>>,
    /// How often the map was read.
    drawn: u64,
}

impl Cluster {
    /// Creates the cluster without connecting.
    pub(super) fn new(slots: Vec<u16>, seeds: Vec<Node>, maker: Maker) -> Self {
        let seeds: Vec<_> = seeds.into_iter().map(Arc::new).collect();
        let nodes = seeds
            .iter()
            .map(|seed| (seed.address().into(), Arc::clone(seed)))
            .collect();
        let masters = vec![None; slots.len()];
        let map = RwLock::new(Map {
            masters,
            nodes,
            drawn: 0,
        });
        Self {
            slots,
            seeds,
            maker,
            map,
            attempts: SingleAttempt::default(),
        }
    }

    pub(super) async fn master(&self, shard: usize) -> Result<Arc<Node>, Failure> {
        let known = || self.read().masters[shard].clone();
        if let Some(node) = known() {
            return Ok(node);
        }
        let drawn = self.read().drawn;
        self.draw(drawn, None).await?;
        known().ok_or_else(|| Failure::Unreachable(UNSERVED.into()))
    }

    /// Returns every master that serves a shard.
    pub(super) async fn masters(&self) -> Result<Vec<Arc<Node>>, Failure> {
        let drawn = self.read().drawn;
        self.draw(drawn, None).await?;
        let masters: Option<Vec<_>> = self.read().masters.iter().cloned().collect();
        let mut masters = masters.ok_or_else(|| Failure::Unreachable(UNSERVED.into()))?;
        masters.sort_by(|one, other| one.address().cmp(other.address()));
        masters.dedup_by(|one, other| one.address() == other.address());
        Ok(masters)
    }

    /// Reads the map again, after this node failed.
    pub(super) async fn refresh(&self, failed: &Arc<Node>) {
        let drawn = self.read().drawn;
        // If the map no longer has the failed node, it was read after the node failed.
        let named = self
            .read()
            .masters
            .iter()
            .flatten()
            .any(|node| Arc::ptr_eq(node, failed));
        if named {
            // The caller gets the original failure; the map is no worse than before.
            let _ = self.draw(drawn, Some(failed)).await;
        }
    }

    /// Records that a shard has moved to another node permanently.
    pub(super) fn moved(&self, shard: usize, from: &Arc<Node>, to: &str) {
        if let Some(node) = self.node(from, to) {
            self.write().masters[shard] = Some(node);
        }
    }

    /// Returns the node at this address, as `from` wrote it.
    pub(super) fn node(&self, from: &Arc<Node>, address: &str) -> Option<Arc<Node>> {
        let (host, port) = address.rsplit_once(':')?;
        self.node_at(host_of(from, host), port.parse().ok()?)
    }

    fn node_at(&self, host: &str, port: u16) -> Option<Arc<Node>> {
        let address = format!("{host}:{port}");
        if let Some(node) = self.read().nodes.get(&address) {
            return Some(Arc::clone(node));
        }
        let made = (self.maker)(host, port).inspect_err(|error| {
            tracing::warn!(
                address,
                error = error_chain(error),
                "cannot use a node of the Redis cluster"
            )
        });
        let made = Arc::new(made.ok()?);
        let mut map = self.write();
        Some(Arc::clone(map.nodes.entry(address).or_insert(made)))
    }

    /// Asks all nodes for the map, unless another caller has read it since `since`. Uses the first
    /// response that names a master for each shard, other than the node that `failed`. If that
    /// response is wrong, the first node that returns `MOVED` corrects it.
    async fn draw(&self, since: u64, failed: Option<&Arc<Node>>) -> Result<(), Failure> {
        let permit = self.attempts.acquire().await;
        if self.read().drawn != since {
            return Ok(());
        }
        if permit.has_just_failed() {
            return Err(Failure::Unreachable(TRIED.into()));
        }
        permit.run(Box::pin(self.ask_all(failed))).await
    }

    async fn ask_all(&self, failed: Option<&Arc<Node>>) -> Result<(), Failure> {
        let is_failed = |node: &Arc<Node>| failed.is_some_and(|failed| Arc::ptr_eq(node, failed));
        let nodes: Vec<_> = self.read().nodes.values().cloned().collect();
        let ask = |node: Arc<Node>| {
            let asked = async move {
                let answer = node.send(redis::cmd("CLUSTER").arg("SLOTS")).await?;
                Ok::<_, Failure>((node, answer))
            };
            asked.boxed()
        };
        // If no other node is known, the failed node may work again.
        let others: Vec<_> = nodes.iter().filter(|it| !is_failed(it)).cloned().collect();
        let asked = if others.is_empty() { nodes } else { others };
        let mut asked: FuturesUnordered<_> = asked.into_iter().map(ask).collect();
        let (mut best, mut failure) = (None, Failure::Unreachable(UNSERVED.into()));
        while let Some(answer) = asked.next().await {
            let masters = match answer {
                Ok((asked, answer)) => self.masters_in(&asked, answer),
                Err(error) => {
                    failure = error;
                    continue;
                }
            };
            let of_use =
                |master: &&Option<Arc<Node>>| master.as_ref().is_some_and(|it| !is_failed(it));
            let served = masters.iter().filter(of_use).count();
            if served == self.slots.len() {
                self.install(masters);
                return Ok(());
            }
            if best.as_ref().is_none_or(|(most, _)| served > *most) {
                best = Some((served, masters));
            }
        }
        // An incomplete response comes from a node that never belonged to the cluster, was removed
        // from it, or is cut off; or the cluster does not serve all slots.
        let (_, masters) = best.ok_or(failure)?;
        self.install_partly(masters);
        Ok(())
    }

    /// Returns the master of each shard, as this response names it.
    fn masters_in(&self, asked: &Node, answer: Value) -> Vec<Option<Arc<Node>>> {
        let ranges = ranges(asked, answer);
        let held = |slot| {
            ranges
                .iter()
                .find(|range| (range.first..=range.last).contains(&slot))
        };
        self.slots
            .iter()
            .map(|&slot| held(slot).and_then(|range| self.node_at(&range.host, range.port)))
            .collect()
    }

    fn install(&self, masters: Vec<Option<Arc<Node>>>) {
        let mut map = self.write();
        // Nodes that left the cluster are removed, with their connections.
        map.nodes = masters
            .iter()
            .flatten()
            .chain(&self.seeds)
            .map(|node| (node.address().into(), Arc::clone(node)))
            .collect();
        map.masters = masters;
        map.drawn += 1;
    }

    /// Updates the shards that the response names. The other shards and the nodes stay unchanged.
    fn install_partly(&self, masters: Vec<Option<Arc<Node>>>) {
        let mut map = self.write();
        for (known, master) in map.masters.iter_mut().zip(masters) {
            if master.is_some() {
                *known = master;
            }
        }
        map.drawn += 1;
    }

    fn read(&self) -> RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.seeds).finish()
    }
}

/// A range of slots that one master serves.
struct Range {
    first: u16,
    last: u16,
    host: String,
    port: u16,
}

/// Parses the response to `CLUSTER SLOTS`: first slot, last slot, master, replicas. An entry of
/// another form is skipped, so its shards have no master.
fn ranges(asked: &Node, answer: Value) -> Vec<Range> {
    let number = |value: &Value| match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    };
    let range = |range: &Value| {
        let Value::Array(range) = range else {
            return None;
        };
        let [first, last, Value::Array(master), ..] = range.as_slice() else {
            return None;
        };
        let [host, port, ..] = master.as_slice() else {
            return None;
        };
        let host = match host {
            Value::BulkString(host) => str::from_utf8(host).ok()?,
            _ => "",
        };
        Some(Range {
            first: number(first)?,
            last: number(last)?,
            host: host_of(asked, host).into(),
            port: number(port)?,
        })
    };
    match answer {
        Value::Array(ranges) => ranges.iter().filter_map(range).collect(),
        _ => Vec::new(),
    }
}

/// Returns the host of a node. A node that does not know its own host sends an empty one or `?`;
/// then its host is the one of the node that was asked.
fn host_of<'a>(asked: &'a Node, host: &'a str) -> &'a str {
    match host {
        "" | "?" => asked
            .address()
            .rsplit_once(':')
            .map_or("", |(host, _)| host),
        host => host,
    }
}

const TRIED: (ErrorKind, &str) = (
    ErrorKind::Io,
    "another call has just failed to read the cluster's slots",
);

const UNSERVED: (ErrorKind, &str) = (
    ErrorKind::ClusterConnectionNotFound,
    "no known node of the cluster serves this slot",
);
