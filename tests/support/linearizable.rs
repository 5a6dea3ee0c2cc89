//! Whether a history of concurrent calls could have come of a backend that does one call at a
//! time, each at some moment between its start and its answer.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use slack_installs::backend::{Backend, Change, Error, Partition, Row, Slot, Version};

/// What stands in each slot of one partition.
type State = Vec<Option<Version>>;

/// One call, and when it was made.
#[derive(Clone, Debug)]
pub struct Call {
    pub start: u64,
    pub end: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// These slots were read, and this stood there.
    Read(Vec<usize>, State),
    /// These changes were committed, or not.
    Commit(Vec<Change>, Outcome),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Committed,
    Conflict,
    /// It may happen at any time after its start, or never.
    Unknown,
}

/// Calls a backend, and writes down what it answers. All slots are of one partition.
#[derive(Debug)]
pub struct Recorder {
    pub partition: Partition,
    pub slots: Vec<Slot>,
    now: AtomicU64,
}

impl Recorder {
    pub fn new(partition: Partition, slots: Vec<Slot>) -> Self {
        Self {
            partition,
            slots,
            now: AtomicU64::new(0),
        }
    }

    /// Reads these slots. `None` if there was no answer, which says nothing.
    pub async fn read(&self, backend: &dyn Backend, slots: &[usize]) -> Option<Call> {
        let start = self.tick();
        let names: Vec<_> = slots.iter().map(|at| self.slots[*at].clone()).collect();
        let version = |row: Option<Row>| row.map(|row| row.version);
        match backend.read(&self.partition, &names).await {
            Ok(rows) => {
                let found = rows.into_iter().map(version).collect();
                Some(Call {
                    start,
                    end: self.tick(),
                    what: What::Read(slots.to_vec(), found),
                })
            }
            Err(Error::Unavailable(_)) => None,
            Err(error) => panic!("a read was refused: {error:?}"),
        }
    }

    pub async fn commit(&self, backend: &dyn Backend, changes: Vec<Change>) -> Call {
        let start = self.tick();
        let outcome = match backend.commit(&self.partition, &changes).await {
            Ok(()) => Outcome::Committed,
            Err(Error::Conflict) => Outcome::Conflict,
            Err(Error::Unavailable(_)) => Outcome::Unknown,
            Err(error) => panic!("a commit was refused: {error:?}"),
        };
        Call {
            start,
            end: self.tick(),
            what: What::Commit(changes, outcome),
        }
    }

    /// Whether one call at a time explains this.
    pub fn explains(&self, history: &[Call]) -> bool {
        assert!(history.len() <= 64, "a set of calls is kept in 64 bits");
        let search = Search {
            slots: &self.slots,
            history,
        };
        search.explain(0, &vec![None; self.slots.len()], &mut HashSet::new())
    }

    fn tick(&self) -> u64 {
        self.now.fetch_add(1, Ordering::SeqCst)
    }
}

/// Wing and Gong's search, with Lowe's memory of what was tried.
struct Search<'a> {
    slots: &'a [Slot],
    history: &'a [Call],
}

impl Search<'_> {
    fn explain(&self, done: u64, state: &State, tried: &mut HashSet<(u64, State)>) -> bool {
        if !tried.insert((done, state.clone())) {
            return false;
        }
        let open = || (0..self.history.len()).filter(|at| done & (1 << at) == 0);
        let known = |at: &usize| !self.history[*at].is_unknown();
        let Some(first_answer) = open().filter(known).map(|at| self.history[at].end).min() else {
            return true;
        };
        open()
            .filter(|at| self.history[*at].start < first_answer)
            .any(|at| {
                self.after(&self.history[at].what, state)
                    .is_some_and(|after| self.explain(done | (1 << at), &after, tried))
            })
    }

    /// What stands after this call, if it can have been made where this stood.
    fn after(&self, what: &What, state: &State) -> Option<State> {
        match what {
            What::Read(slots, found) => slots
                .iter()
                .map(|at| state[*at])
                .eq(found.iter().copied())
                .then(|| state.clone()),
            What::Commit(changes, outcome) => {
                let place = |slot: &Slot| {
                    let mut slots = self.slots.iter();
                    slots
                        .position(|known| known == slot)
                        .expect("the recorder knows all slots")
                };
                let standing = |change: &Change| change.slot().and_then(|slot| state[place(slot)]);
                let allowed = changes.iter().all(|change| change.allows(standing(change)));
                match (allowed, outcome) {
                    (true, Outcome::Conflict) | (false, Outcome::Committed) => return None,
                    (false, _) => return Some(state.clone()),
                    (true, _) => {}
                }
                let mut after = state.clone();
                if changes.iter().any(|change| matches!(change, Change::Clear)) {
                    after.fill(None);
                }
                for change in changes {
                    match change {
                        Change::Put { slot, row, .. } => after[place(slot)] = Some(row.version),
                        Change::Delete { slot, .. } => after[place(slot)] = None,
                        Change::Check { .. } | Change::Clear => {}
                    }
                }
                Some(after)
            }
        }
    }
}

impl Call {
    fn is_unknown(&self) -> bool {
        matches!(self.what, What::Commit(_, Outcome::Unknown))
    }
}
