//! Random concurrent histories of commits and reads, checked against a model.
//!
//! In each history, every commit expects the version of one row, the head. It writes a new head and
//! random changes of other rows. So the heads form a chain, and the chain is the order of the
//! commits. Every read of all rows must equal the model's state for the head that it read. Then no
//! update is lost, no two commits succeed over one version, no row reappears after a clear, and no
//! commit is applied in part. A commit without a response was applied if and only if its head is in
//! the chain.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slack_installs::backend::{
    Backend, Change, Due, Error, Expect, Lane, Metadata, Partition, Row, Scope, Sealed, Slot,
    Version,
};

use crate::queues::all_due;

/// A partition, with all commits and reads that were tried on it and their results.
#[derive(Debug)]
pub(crate) struct History {
    partition: Partition,
    slots: Vec<Slot>,
    commits: Mutex<HashMap<[u8; 16], Commit>>,
    snapshots: Mutex<Vec<Snapshot>>,
    /// Advances at the beginning of every read and when a commit is acknowledged.
    clock: AtomicUsize,
    acknowledged: AtomicUsize,
}

/// The counts of a history.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) acknowledged: usize,
    pub(crate) conflicts: usize,
    pub(crate) unknown: usize,
    /// How many of the unknown commits were applied.
    pub(crate) happened: usize,
    pub(crate) reads: usize,
}

#[derive(Debug)]
struct Commit {
    parent: Option<Version>,
    changes: Vec<Change>,
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Acknowledged { at: usize },
    Conflict,
    Unknown,
}

#[derive(Debug)]
struct Snapshot {
    begun: usize,
    rows: Vec<Option<Row>>,
}

type State = BTreeMap<Slot, Row>;

impl History {
    pub(crate) fn new(partition: &str) -> Arc<Self> {
        let slots = (0..ROWS).map(|at| slot(&format!("row/{at}")));
        let slots = std::iter::once(slot("head")).chain(slots).collect();
        Arc::new(Self {
            partition: Partition::new(partition).expect("a plain name"),
            slots,
            commits: Mutex::default(),
            snapshots: Mutex::default(),
            clock: AtomicUsize::default(),
            acknowledged: AtomicUsize::default(),
        })
    }

    /// Returns the number of acknowledged commits so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Tries this many commits, each after a read. Several writers at the same time create a
    /// history.
    pub(crate) async fn write(&self, backend: &dyn Backend, commits: usize, seed: u64) {
        let mut random = Random(seed);
        for _ in 0..commits {
            let Some(rows) = self.read(backend).await else {
                continue;
            };
            let head = rows[0].as_ref().map(|row| row.version);
            let standing: State = self.state(&rows);
            let (version, changes) = self.choose(head, &standing, &mut random);
            let commit = Commit {
                parent: head,
                changes: changes.clone(),
                outcome: None,
            };
            self.commits
                .lock()
                .expect("no panic")
                .insert(*version.as_bytes(), commit);
            let outcome = match backend.commit(&self.partition, &changes).await {
                Ok(()) => {
                    self.acknowledged.fetch_add(1, Ordering::SeqCst);
                    Outcome::Acknowledged { at: self.tick() }
                }
                Err(Error::Conflict) => Outcome::Conflict,
                Err(Error::Unavailable(_)) => Outcome::Unknown,
                Err(error) => panic!("a plain commit was refused: {error:?}"),
            };
            let mut commits = self.commits.lock().expect("no panic");
            commits
                .get_mut(version.as_bytes())
                .expect("inserted above")
                .outcome = Some(outcome);
        }
    }

    /// Reads all rows at once. Returns `None` if the backend is unavailable.
    pub(crate) async fn read(&self, backend: &dyn Backend) -> Option<Vec<Option<Row>>> {
        let begun = self.tick();
        match backend.read(&self.partition, &self.slots).await {
            Ok(rows) => {
                let snapshot = Snapshot {
                    begun,
                    rows: rows.clone(),
                };
                self.snapshots.lock().expect("no panic").push(snapshot);
                Some(rows)
            }
            Err(Error::Unavailable(_)) => {
                // Gives a starting server a moment. Correctness does not depend on this delay.
                tokio::time::sleep(Duration::from_millis(5)).await;
                None
            }
            Err(error) => panic!("a plain read was refused: {error:?}"),
        }
    }

    /// Checks all reads and commits, and checks that `scan` and `due` agree with them. No writer
    /// may be running.
    pub(crate) async fn check(&self, backend: &dyn Backend) -> Summary {
        let last = loop {
            if let Some(rows) = self.read(backend).await {
                break rows;
            }
        };
        let summary = self.compare(&last);
        self.check_indexes(backend, &self.state(&last)).await;
        summary
    }

    /// Compares all reads and commits with the chain that ends in these rows.
    fn compare(&self, last: &[Option<Row>]) -> Summary {
        let (states, order) = self.replay(last[0].as_ref().map(|row| row.version));
        let commits = self.commits.lock().expect("no panic");
        let snapshots = self.snapshots.lock().expect("no panic");
        let mut summary = Summary {
            reads: snapshots.len(),
            ..Summary::default()
        };
        for (version, commit) in commits.iter() {
            let in_chain = order.contains_key(version);
            match commit.outcome.expect("every commit came to an end") {
                Outcome::Acknowledged { .. } => {
                    assert!(in_chain, "an acknowledged commit was lost: {commit:?}");
                    summary.acknowledged += 1;
                }
                Outcome::Conflict => {
                    assert!(!in_chain, "a refused commit was applied: {commit:?}");
                    summary.conflicts += 1;
                }
                Outcome::Unknown => {
                    summary.unknown += 1;
                    summary.happened += usize::from(in_chain);
                }
            }
        }
        for snapshot in snapshots.iter() {
            let head = snapshot.rows[0].as_ref().map(|row| *row.version.as_bytes());
            let place = head.map_or(0, |head| order[&head]);
            assert_eq!(
                self.state(&snapshot.rows),
                states[place],
                "a read returned a state that never existed"
            );
            let earlier = commits.iter().filter(|(_, commit)| {
                matches!(commit.outcome, Some(Outcome::Acknowledged { at }) if at < snapshot.begun)
            });
            let newest = earlier
                .map(|(version, _)| order[version])
                .max()
                .unwrap_or(0);
            assert!(
                place >= newest,
                "a read is older than a commit acknowledged before it began"
            );
        }
        summary
    }

    /// Returns the state after each commit of the chain that ends with this head, and each commit's
    /// position in the chain. Position 0 is the state before the first commit.
    fn replay(&self, head: Option<Version>) -> (Vec<State>, HashMap<[u8; 16], usize>) {
        let commits = self.commits.lock().expect("no panic");
        let mut chain = Vec::new();
        let mut at = head;
        while let Some(version) = at {
            let commit = commits
                .get(version.as_bytes())
                .expect("a head that nobody wrote");
            chain.push((*version.as_bytes(), commit));
            assert!(chain.len() <= commits.len(), "the chain is circular");
            at = commit.parent;
        }
        let mut states = vec![State::new()];
        let mut order = HashMap::new();
        for (version, commit) in chain.into_iter().rev() {
            let mut state = states.last().expect("never empty").clone();
            if commit
                .changes
                .iter()
                .any(|change| matches!(change, Change::Clear))
            {
                state.clear();
            }
            for change in &commit.changes {
                match change {
                    Change::Put { slot, row, .. } => {
                        state.insert(slot.clone(), row.clone());
                    }
                    Change::Delete { slot, .. } => {
                        state.remove(slot);
                    }
                    Change::Check { .. } | Change::Clear => {}
                }
            }
            order.insert(version, states.len());
            states.push(state);
        }
        (states, order)
    }

    async fn check_indexes(&self, backend: &dyn Backend, last: &State) {
        let mut scanned = State::new();
        let mut from = None;
        loop {
            let page = backend
                .scan(&Scope::Everything, from, 7)
                .await
                .expect("the backend is available");
            for (key, row) in page.rows {
                if key.partition == self.partition {
                    let before = scanned.insert(key.slot, row);
                    assert!(before.is_none(), "scanned twice");
                }
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(scanned, *last, "a scan finds what a read finds");
        let now = UNIX_EPOCH + Duration::from_secs(500);
        let due = all_due(backend, now).await.into_iter();
        let ours = due.filter(|(partition, _, _)| partition == self.partition.as_str());
        let mut found = State::new();
        for (_, name, row) in ours {
            let before = found.insert(slot(&name), row);
            assert!(before.is_none(), "due twice");
        }
        let is_due = |row: &Row| row.due.is_some_and(|due| due.at <= now);
        let wanted: State = last
            .clone()
            .into_iter()
            .filter(|(_, row)| is_due(row))
            .collect();
        assert_eq!(found, wanted, "what is due is what a read finds");
    }

    /// Returns a commit that must succeed unless another writer was faster.
    fn choose(
        &self,
        head: Option<Version>,
        standing: &State,
        random: &mut Random,
    ) -> (Version, Vec<Change>) {
        let new_head = random_row(random);
        let version = new_head.version;
        let expect = head.map_or(Expect::Absent, Expect::Version);
        let mut changes = vec![Change::Put {
            slot: self.slots[0].clone(),
            row: new_head,
            expect,
        }];
        for slot in &self.slots[1..] {
            let stands = standing.get(slot).map(|row| row.version);
            let row = random_row(random);
            let slot = slot.clone();
            changes.push(match (random.below(6), stands) {
                (0, None) => Change::Put {
                    slot,
                    row,
                    expect: Expect::Absent,
                },
                (0, Some(version)) => Change::Put {
                    slot,
                    row,
                    expect: Expect::Version(version),
                },
                (1, _) => Change::Put {
                    slot,
                    row,
                    expect: Expect::Any,
                },
                (2, Some(version)) => Change::Delete {
                    slot,
                    only: Some(version),
                },
                (3, _) => Change::Delete { slot, only: None },
                _ => continue,
            });
        }
        if random.below(5) == 0 {
            let at = random.below(changes.len() as u64 + 1);
            changes.insert(at as usize, Change::Clear);
        }
        (version, changes)
    }

    fn state(&self, rows: &[Option<Row>]) -> State {
        let standing = self.slots.iter().zip(rows);
        standing
            .filter_map(|(slot, row)| Some((slot.clone(), row.clone()?)))
            .collect()
    }

    fn tick(&self) -> usize {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// A deterministic random number generator (SplitMix64).
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

pub(crate) fn random_row(random: &mut Random) -> Row {
    let content: Vec<u8> = (0..100 + random.below(200))
        .map(|_| random.next() as u8)
        .collect();
    let due = (random.below(3) > 0).then(|| Due {
        lane: Lane::ALL[usize::try_from(random.below(6)).expect("small")],
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(random.below(1000)),
    });
    Row {
        version: Version::mint(),
        metadata: Metadata::new(format!("{{\"n\":{}}}", random.next())),
        sealed: Sealed::from_stored([&b"SLE1"[..], &content].concat()),
        due,
    }
}

pub(crate) fn slot(name: &str) -> Slot {
    Slot::new(name).expect("a plain name")
}

const ROWS: usize = 6;
