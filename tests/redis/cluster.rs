//! A cluster of six nodes: lost responses, a slot that moves, and a master that dies.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use servers::Cluster;
use slack_installs::testing::conformance::CHECKS;
use tokio::task::JoinHandle;

/// A cluster takes seconds to start, so one test runs all checks on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_answers_passes_the_suite() {
    let cluster = Cluster::start().await;
    let backend = cluster.open(RedisOptions::default()).await;
    let flaky = Flaky::new(backend, Faults::default());
    for check in CHECKS {
        (check.run)(&flaky).await;
        println!("redis cluster that loses answers: {} ok", check.name);
    }
    println!("redis cluster that loses answers: {} checks", CHECKS.len());
}

/// Writers that run until they are stopped.
struct Traffic {
    history: Arc<History>,
    backend: Arc<dyn Backend>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn start(tenant: &str, backend: RedisBackend) -> Self {
        let backend: Arc<dyn Backend> = Arc::new(backend);
        let (history, stop) = (History::new(tenant), Arc::new(AtomicBool::new(false)));
        let writers = (0..4)
            .map(|nth| {
                let (history, stop) = (Arc::clone(&history), Arc::clone(&stop));
                let backend = Arc::clone(&backend);
                tokio::spawn(async move {
                    let mut seed = nth * 100_000;
                    while !stop.load(Ordering::SeqCst) {
                        seed += 1;
                        history.write(&backend, 1, seed).await;
                    }
                })
            })
            .collect();
        Self {
            history,
            backend,
            stop,
            writers,
        }
    }

    /// Waits until this many more commits have succeeded.
    async fn flows(&self, commits: usize) {
        let before = self.history.acknowledged();
        let more = async || self.history.acknowledged() >= before + commits;
        until("commits succeed", more).await;
    }

    async fn stop(self) -> (Arc<History>, Arc<dyn Backend>) {
        self.stop.store(true, Ordering::SeqCst);
        for writer in self.writers {
            writer.await.expect("no writer panics");
        }
        (self.history, self.backend)
    }
}

/// Returns the Redis slot of this tenant's keys, and the index of its master.
async fn home(cluster: &Cluster, tenant: &str) -> (u16, usize) {
    for node in &cluster.nodes {
        let keys: Vec<String> = node.run(&["KEYS", &format!("*:rows:{tenant}")]).await;
        if let Some(key) = keys.first() {
            let slot: u16 = node.run(&["CLUSTER", "KEYSLOT", key]).await;
            let master = cluster
                .master_of(slot, 0)
                .await
                .expect("all slots are served");
            return (slot, master);
        }
    }
    panic!("no node has the tenant's rows");
}

/// A move of a Redis slot from the node that serves it to another node.
struct Move<'a> {
    slot: String,
    from: &'a Redis,
    to: &'a Redis,
    ids: [String; 2],
}

impl<'a> Move<'a> {
    /// Prepares a move of the slot of this tenant's rows to another master.
    async fn of(cluster: &'a Cluster, tenant: &str) -> Self {
        let (slot, from) = home(cluster, tenant).await;
        let mut to = from;
        for served in [0, 8192, 16383] {
            let master = cluster
                .master_of(served, 0)
                .await
                .expect("all slots are served");
            if master != from {
                to = master;
            }
        }
        let [from, to] = [from, to].map(|at| &cluster.nodes[at]);
        let ids = [
            from.run(&["CLUSTER", "MYID"]).await,
            to.run(&["CLUSTER", "MYID"]).await,
        ];
        Self {
            slot: slot.to_string(),
            from,
            to,
            ids,
        }
    }

    async fn begin(&self) {
        let [from_id, to_id] = &self.ids;
        let () = self
            .to
            .run(&["CLUSTER", "SETSLOT", &self.slot, "IMPORTING", from_id])
            .await;
        let () = self
            .from
            .run(&["CLUSTER", "SETSLOT", &self.slot, "MIGRATING", to_id])
            .await;
    }

    async fn keys(&self) -> Vec<String> {
        self.from
            .run(&["CLUSTER", "GETKEYSINSLOT", &self.slot, "100"])
            .await
    }

    async fn carry(&self, key: &str) {
        let port = self.to.port.to_string();
        let done: String = self
            .from
            .run(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"])
            .await;
        assert!(done == "OK" || done == "NOKEY", "{done}");
    }

    async fn end(&self) {
        for node in [self.to, self.from] {
            let () = node
                .run(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &self.ids[1]])
                .await;
        }
    }
}

/// The request has reached its master, which has not responded yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_cut_off_on_a_cluster_is_unavailable_and_not_sent_again() {
    let cluster = Cluster::start().await;
    let backend = Arc::new(cluster.open(RedisOptions::default()).await);
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let rows: Vec<_> = (0..2).map(|seed| random_row(&mut Random(seed))).collect();
    let create = put(&bot, &rows[0], Expect::Absent);
    backend.commit(&tenant, &create).await.expect("a first row");
    let master = &cluster.nodes[home(&cluster, "app/T1").await.1];
    let before = faults::calls(master).await;

    let () = master.run(&["CLIENT", "PAUSE", "60000", "WRITE"]).await;
    let change = put(&bot, &rows[1], Expect::Version(rows[0].version));
    let cut = tokio::spawn({
        let (backend, tenant, change) = (Arc::clone(&backend), tenant.clone(), change.clone());
        async move { backend.commit(&tenant, &change).await }
    });
    until("the commit is held", async || {
        let clients: String = master.run(&["INFO", "clients"]).await;
        clients.contains("blocked_clients:1")
    })
    .await;
    let _: u64 = master.run(&["CLIENT", "KILL", "TYPE", "NORMAL"]).await;
    let () = master.run(&["CLIENT", "UNPAUSE"]).await;
    let outcome = cut.await.expect("no panic");
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    let standing = read_one(&*backend, &tenant, &bot).await;
    assert_eq!(standing.as_ref(), Some(&rows[0]));
    assert_eq!(
        faults::calls(master).await,
        before,
        "the commit is not sent again"
    );
    backend
        .commit(&tenant, &change)
        .await
        .expect("it works again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_on_the_move_is_followed_at_every_step() {
    let cluster = Cluster::start().await;
    let options = RedisOptions {
        response_timeout: Duration::from_millis(500),
        ..RedisOptions::default()
    };
    let backend = cluster.open(options).await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let mut standing = random_row(&mut Random(0));
    standing.due = refresh_at(std::time::UNIX_EPOCH);
    let mut change = put(&bot, &standing, Expect::Absent);
    let mut rewrite = async || {
        let outcome = backend.commit(&tenant, &change).await;
        let stands = read_one(&backend, &tenant, &bot).await;
        if outcome.is_ok() {
            assert_eq!(stands.as_ref(), Some(&standing));
            let mut next = standing.clone();
            next.version = slack_installs::backend::Version::mint();
            change = put(&bot, &next, Expect::Version(standing.version));
            standing = next;
        } else {
            assert_ne!(stands.as_ref(), Some(&standing));
            assert!(stands.is_some(), "a read follows the row");
        }
        outcome
    };
    rewrite().await.expect("a first row");

    let step = Move::of(&cluster, "app/T1").await;
    step.begin().await;
    rewrite().await.expect("all keys are where they were");
    a_commit_that_empties_keys_on_the_way_is_whole(&backend).await;
    let keys = step.keys().await;
    assert_eq!(keys.len(), 3, "{keys:?}");
    let (rows, others): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key.contains(":rows:"));
    step.carry(rows[0]).await;
    let torn = rewrite().await;
    assert!(
        matches!(torn, Err(Error::Unavailable(_))),
        "its keys are on two nodes: {torn:?}"
    );
    for key in others {
        step.carry(key).await;
    }
    rewrite()
        .await
        .expect("all keys are at the new node, and the slot is not yet");
    step.end().await;
    rewrite().await.expect("the slot has moved");
    assert_eq!(
        scanned(&backend, 10).await.expect("available").rows.len(),
        1
    );
    let due = backend
        .due(&refreshes(), std::time::SystemTime::now(), None, 10)
        .await
        .expect("available");
    assert_eq!(due.rows.len(), 1);
}

/// While a slot moves away, Redis treats a key that a script has emptied as one that is on the
/// other node.
async fn a_commit_that_empties_keys_on_the_way_is_whole(backend: &RedisBackend) {
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let other = slot("other");
    let standing = read_one(backend, &tenant, &bot)
        .await
        .expect("a row is stored");
    let is_due = |at| Row {
        due: refresh_at(std::time::UNIX_EPOCH),
        ..random_row(&mut Random(at))
    };
    let never = |at| Row {
        due: None,
        ..random_row(&mut Random(at))
    };
    let put = |slot: &Slot, row: &Row| put(slot, row, Expect::Any)[0].clone();
    let delete = |slot: &Slot| Change::Delete {
        slot: slot.clone(),
        only: None,
    };
    for changes in [
        vec![Change::Clear, put(&other, &is_due(1))],
        vec![put(&other, &never(2)), put(&bot, &is_due(3))],
        vec![delete(&bot), delete(&slot("none")), put(&other, &is_due(4))],
        vec![delete(&other), put(&bot, &standing)],
    ] {
        backend
            .commit(&tenant, &changes)
            .await
            .expect("all keys are where they were");
        for change in &changes {
            let row = match change {
                Change::Put { row, .. } => Some(row),
                _ => None,
            };
            if let Some(slot) = change.slot() {
                assert_eq!(read_one(backend, &tenant, slot).await.as_ref(), row);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_while_its_rows_are_written() {
    let cluster = Cluster::start().await;
    let options = RedisOptions {
        response_timeout: Duration::from_secs(60),
        ..RedisOptions::default()
    };
    let traffic = Traffic::start("app/T1", cluster.open(options).await);
    for _ in 0..3 {
        traffic.flows(20).await;
        let step = Move::of(&cluster, "app/T1").await;
        step.begin().await;
        // A commit may create keys again as long as none has moved.
        loop {
            let keys = step.keys().await;
            if keys.is_empty() {
                break;
            }
            for key in &keys {
                step.carry(key).await;
            }
        }
        step.end().await;
    }
    traffic.flows(20).await;
    let (history, backend) = traffic.stop().await;
    let summary = history.check(&*backend).await;
    println!("{summary:?}");
    assert_eq!(
        summary.unknown, 0,
        "a commit that a move refuses was not applied, and is sent again"
    );
}

/// Each commit is on the replica before it is acknowledged, so the death of the master loses no
/// commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_dies_and_its_replica_takes_over() {
    let mut cluster = Cluster::start().await;
    let options = RedisOptions {
        await_replicas: 1,
        await_timeout: Duration::from_secs(2),
        ..RedisOptions::default()
    };
    let backend = cluster.open(options).await;
    let plain = cluster.open(RedisOptions::default()).await;
    let traffic = Traffic::start("app/T1", backend);
    traffic.flows(30).await;
    let (slot, master) = home(&cluster, "app/T1").await;
    let neighbour = a_neighbour(&plain, &cluster.nodes[master]).await;
    cluster.nodes[master].kill();
    let asked = (master + 1) % cluster.nodes.len();
    until("a replica has taken over", async || {
        cluster
            .master_of(slot, asked)
            .await
            .is_some_and(|now| now != master)
    })
    .await;
    // The new master has no replica. If commits wait for a replica, they are applied and not
    // acknowledged. Without that wait they are acknowledged.
    let (bot, row) = (super::slot("bot"), random_row(&mut Random(7)));
    until("commits succeed at the new master", async || {
        plain
            .commit(&neighbour, &put(&bot, &row, Expect::Any))
            .await
            .is_ok()
    })
    .await;
    assert_eq!(read_one(&plain, &neighbour, &bot).await, Some(row));
    plain
        .commit(&neighbour, &[Change::Clear])
        .await
        .expect("the next call works");

    cluster.nodes[master].restart().await;
    cluster.whole().await;
    traffic.flows(30).await;
    let (history, backend) = traffic.stop().await;
    let summary = history.check(&*backend).await;
    println!("{summary:?}");
}

/// Returns a tenant whose rows are on this master.
async fn a_neighbour(backend: &RedisBackend, master: &Redis) -> Partition {
    let row = random_row(&mut Random(3));
    for nth in 0..32 {
        let tenant = partition(&format!("neighbour/{nth}"));
        backend
            .commit(&tenant, &put(&slot("bot"), &row, Expect::Any))
            .await
            .expect("any row");
    }
    let keys: Vec<String> = master.run(&["KEYS", "*:rows:neighbour/*"]).await;
    let (_, tenant) = keys[0].split_once(":rows:").expect("the pattern matched");
    partition(tenant)
}
