//! What waits to be written. It has a bound, and counts what does not fit.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::entry::{Entry, GAP, GapNote};
use crate::metrics;
use crate::store::{Act, AuditContext};

/// Entries that wait for the writer. Not shared: the caller locks it.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    is_closed: bool,
    ready: Vec<Entry>,
    /// Equal reads, which become one record, and when the first of them came.
    reads: HashMap<(Act, AuditContext), (Instant, Entry)>,
    /// The time of the oldest entry that the writer took and has not written yet.
    writing_since: Option<u64>,
    lost: u64,
    lost_since: u64,
    /// How many entries were made ready so far. A caller waits until so many are durable.
    tickets: u64,
}

/// Why the queue accepts no entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// It has no room.
    Full,
    /// The log is being closed. What is in the queue is still written.
    Closed,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            is_closed: false,
            ready: Vec::new(),
            reads: HashMap::new(),
            writing_since: None,
            lost: 0,
            lost_since: 0,
            tickets: 0,
        }
    }

    /// Adds entries that must be written as soon as possible. Returns the ticket of the last.
    pub(super) fn push(&mut self, entries: Vec<Entry>) -> Result<u64, Refused> {
        if self.is_closed {
            return Err(Refused::Closed);
        }
        if self.len() + entries.len() > self.capacity {
            return Err(Refused::Full);
        }
        self.tickets += u64::try_from(entries.len()).expect("a count");
        self.ready.extend(entries);
        Ok(self.tickets)
    }

    /// Adds a read. If an equal one waits, counts it there.
    pub(super) fn push_read(
        &mut self,
        act: Act,
        who: AuditContext,
        time: u64,
    ) -> Result<(), Refused> {
        if self.is_closed {
            return Err(Refused::Closed);
        }
        let is_full = self.len() >= self.capacity;
        // Requests have ids of their own. The record has the first.
        let equal = AuditContext {
            request: None,
            ..who.clone()
        };
        if let Some((_, entry)) = self.reads.get_mut(&(act.clone(), equal.clone())) {
            entry.count += 1;
            return Ok(());
        }
        if is_full {
            return Err(Refused::Full);
        }
        let entry = Entry::act(time, act.clone(), who);
        self.reads.insert((act, equal), (Instant::now(), entry));
        Ok(())
    }

    /// Accepts no further entry.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Counts entries that did not fit.
    pub(super) fn lose(&mut self, count: usize, time: u64) {
        if self.lost == 0 {
            self.lost_since = time;
        }
        let count = u64::try_from(count).expect("a count");
        self.lost += count;
        metrics::AUDIT_LOST.add_many([FULL], count);
    }

    /// Returns the time of the oldest entry that must be written and is not. It may be with the
    /// writer. `None` if there is none. Reads that are still counted together do not count.
    pub(super) fn oldest(&self) -> Option<u64> {
        let ready = self.ready.first().map(|entry| entry.time);
        self.writing_since.or(ready)
    }

    /// Returns how many entries can be written now.
    pub(super) fn ready(&self) -> usize {
        self.ready.len() + usize::from(self.lost > 0)
    }

    /// Makes the reads ready whose first came this long ago, or all of them.
    pub(super) fn ripen(&mut self, age: Duration) {
        let now = Instant::now();
        let is_ripe = |since: Instant| now.duration_since(since) >= age;
        let ripe = self.reads.extract_if(|_, (since, _)| is_ripe(*since));
        let mut ripe: Vec<_> = ripe.map(|(_, (_, entry))| entry).collect();
        ripe.sort_by_key(|entry| entry.time);
        self.tickets += u64::try_from(ripe.len()).expect("a count");
        self.ready.extend(ripe);
    }

    /// Takes so many entries at most, and the ticket of the last. What was lost is counted first.
    pub(super) fn take(&mut self, time: u64, most: usize) -> (Vec<Entry>, u64) {
        let mut entries = Vec::new();
        if self.lost > 0 {
            let since = self.lost_since;
            let mut gap = Entry::note(time, GAP, &GapNote { since });
            gap.count = std::mem::take(&mut self.lost);
            entries.push(gap);
        }
        let count = self.ready.len().min(most - entries.len());
        entries.extend(self.ready.drain(..count));
        self.writing_since = entries.iter().map(|entry| entry.time).min();
        let left = u64::try_from(self.ready.len()).expect("a count");
        (entries, self.tickets - left)
    }

    fn len(&self) -> usize {
        self.ready.len() + self.reads.len()
    }
}

/// Why the log lacks records, for metrics.
pub(super) const FULL: &str = "full";
pub(super) const CLOSED: &str = "closed";

#[cfg(test)]
mod tests {
    use super::super::entry::Content;
    use super::*;
    use crate::store::ActKind;

    fn read(row: &str) -> (Act, AuditContext) {
        let tenant = "T0ALPHA0001".parse().expect("an id");
        (
            Act::new(ActKind::Open, Some(tenant), row),
            AuditContext::actor("job"),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn equal_reads_within_the_window_are_one_entry_with_a_count() {
        let mut queue = Queue::new(10);
        for (nth, row) in ["bot", "bot", "user/U1", "bot"].into_iter().enumerate() {
            let (act, who) = read(row);
            let who = who.request(Some(&format!("Ev{nth}")));
            queue.push_read(act, who, 1).expect("there is room");
        }
        queue.ripen(Duration::from_secs(2));
        assert_eq!(queue.ready(), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        queue.ripen(Duration::from_secs(2));
        let (entries, ticket) = queue.take(1, 64);
        let mut counts: Vec<_> = entries.iter().map(|entry| entry.count).collect();
        counts.sort_unstable();
        assert_eq!((counts, ticket), (vec![1, 3], 2));
    }

    #[test]
    fn what_does_not_fit_is_counted_in_a_gap() {
        let mut queue = Queue::new(2);
        let (act, who) = read("bot");
        let entry = || Entry::act(5, act.clone(), who.clone());
        assert_eq!(queue.push(vec![entry(), entry()]).ok(), Some(2));
        assert!(queue.push(vec![entry()]).is_err());
        queue.lose(1, 7);
        assert!(queue.push_read(act.clone(), who.clone(), 8).is_err());
        queue.lose(1, 8);
        let (entries, ticket) = queue.take(9, 64);
        assert_eq!((entries.len(), ticket), (3, 2));
        assert_eq!((entries[0].event, entries[0].count), (GAP, 2));
        let Content::Note(note) = &entries[0].content else {
            panic!("a gap is a note");
        };
        assert_eq!(note, r#"{"since":7}"#);
        assert_eq!(queue.ready(), 0);
        // Reads that are counted together have one place.
        for (row, fits) in [("a", true), ("b", true), ("c", false), ("a", true)] {
            let (act, who) = read(row);
            assert_eq!(queue.push_read(act, who, 9).is_ok(), fits, "{row}");
        }
    }

    #[test]
    fn what_is_taken_has_a_bound_and_the_ticket_of_its_last() {
        let mut queue = Queue::new(1000);
        let (act, who) = read("bot");
        let entry = Entry::act(5, act, who);
        queue.push(vec![entry; 100]).expect("there is room");
        queue.lose(1, 5);
        let (entries, ticket) = queue.take(9, 64);
        assert_eq!((entries.len(), ticket), (64, 63));
        let (entries, ticket) = queue.take(9, 64);
        assert_eq!((entries.len(), ticket), (37, 100));
    }
}
