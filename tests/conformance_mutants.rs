//! Each check of the conformance suite catches a backend that breaks its rule.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::slice::from_ref;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::backend::conformance::CHECKS;
use slack_installs::backend::{
    Backend, Change, Cursor, Error, Expect, Key, MemoryBackend, Metadata, Page, Partition, Row,
    Sealed, Slot, Version,
};
use tokio::task::yield_now;

/// Time is paused, so that checks which wait for a lagging index give up at once.
#[tokio::test(start_paused = true)]
async fn every_mutant_is_caught_by_its_rule_and_every_check_catches_one() {
    let mut survivors = Vec::new();
    let mut idle: BTreeSet<_> = CHECKS.iter().map(|check| check.name).collect();
    for (mutation, rule) in MUTATIONS {
        let caught = caught(*mutation).await;
        if !caught.iter().any(|name| name.starts_with(rule)) {
            survivors.push(mutation);
        }
        idle.retain(|name| !caught.contains(name));
    }
    assert!(
        survivors.is_empty(),
        "these pass the checks of their rules: {survivors:?}"
    );
    assert!(idle.is_empty(), "these catch nothing: {idle:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_without_mutation_passes() {
    assert_eq!(caught(Mutation::None).await, [""; 0]);
}

/// The names of the checks that fail on this mutation.
async fn caught(mutation: Mutation) -> Vec<&'static str> {
    let mut caught = Vec::new();
    for check in CHECKS {
        let mutant = Mutant::new(mutation);
        // In a task, since a panic there comes back as an error.
        if tokio::spawn(async move { (check.run)(&mutant).await })
            .await
            .is_err()
        {
            caught.push(check.name);
        }
    }
    caught
}

/// A backend that works but for one mistake.
#[derive(Debug)]
struct Mutant {
    mutation: Mutation,
    rows: MemoryBackend,
    /// What was read first, for those that go on answering it.
    cache: Mutex<HashMap<Key, Option<Row>>>,
    /// What was ever due, for those that never forget.
    index: Mutex<BTreeMap<(Partition, Slot), Row>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mutation {
    AbsentIsAny,
    AnyIsAbsent,
    AnyIsPresent,
    CaseIsFolded,
    ClearBeforeJudging,
    ClearForgetsWhatIsPutBeside,
    ClearHasALimit,
    ClearIsDoneTwice,
    ClearIsIgnored,
    ClearTakesPrefixes,
    CursorIsAnOffset,
    CursorOfAnyKind,
    CursorOfOthersIsTheStart,
    DeleteIgnoresOnly,
    DeleteIsIgnored,
    DeleteOfNothingConflicts,
    DeleteOfNothingIsFine,
    DueAfterTheSecond,
    DueAtIsDropped,
    DueAtIsOfTheMinute,
    DueAtStays,
    DueIgnoresLimit,
    DueIsEarlyByASecond,
    DueIsUnordered,
    DueNeverForgets,
    DueTruncatesFirst,
    DueWithoutTime,
    DuplicatesAreTaken,
    DuplicatesAreWrittenAndRefused,
    EmptyCommitIsMalformed,
    EmptyCommitClears,
    JoinsNames,
    LargeCommitsAreCut,
    LargeCommitsAreRefused,
    LargeRowsAreRefused,
    LargeTransactionsAreRefused,
    MetadataIsReformatted,
    MetadataIsTrimmed,
    NamesArePatterns,
    NamesAreShortened,
    None,
    OneByOne,
    ReadDropsDuplicates,
    ReadDropsGaps,
    ReadIsSorted,
    ReadIsTorn,
    ReadOfNothingReadsAll,
    ReadsAreStale,
    ScanBreaksOffWhenFull,
    ScanIgnoresLimit,
    ScanLimitZeroIsNothing,
    ScanSkipsAtPages,
    ScanRepeatsAtPages,
    SealedEndsAtNul,
    SealedIsText,
    SlotsAreFolded,
    VersionIsAny,
    VersionIsNotChecked,
    VersionIsANumber,
    WritesAfterLooking,
    WritesAfterLookingForVersions,
}

use Mutation as M;

/// Each mutation and the beginning of the names of the checks of its rule.
const MUTATIONS: &[(Mutation, &str)] = &[
    (M::AbsentIsAny, "rule_03"),
    (M::AnyIsAbsent, "rule_05"),
    (M::AnyIsPresent, "rule_05"),
    (M::CaseIsFolded, "rule_12"),
    (M::ClearBeforeJudging, "rule_09"),
    (M::ClearForgetsWhatIsPutBeside, "rule_07"),
    (M::ClearHasALimit, "rule_07_clear_removes_hundreds"),
    (M::ClearIsDoneTwice, "rule_08_a_clear_and_a_put"),
    (M::ClearIsIgnored, "rule_07"),
    (M::ClearTakesPrefixes, "rule_07"),
    (M::CursorIsAnOffset, "rule_13_scan_visits_rows_that_stand"),
    (M::CursorOfAnyKind, "rule_13_a_cursor_of_another_kind"),
    (M::CursorOfOthersIsTheStart, "rule_13_a_foreign_cursor"),
    (M::DeleteIgnoresOnly, "rule_06"),
    (M::DeleteIsIgnored, "rule_06"),
    (M::DeleteOfNothingConflicts, "rule_06"),
    (M::DeleteOfNothingIsFine, "rule_06"),
    (M::DueAfterTheSecond, "rule_14"),
    (M::DueAtIsDropped, "rule_02"),
    (M::DueAtIsOfTheMinute, "rule_02"),
    (M::DueAtStays, "rule_02_an_overwrite"),
    (M::DueIgnoresLimit, "rule_14"),
    (M::DueIsEarlyByASecond, "rule_14"),
    (M::DueIsUnordered, "rule_14"),
    (M::DueNeverForgets, "rule_14_due_forgets"),
    (M::DueTruncatesFirst, "rule_14_due_answers_the_earliest"),
    (M::DueWithoutTime, "rule_14"),
    (M::DuplicatesAreTaken, "rule_09_two_changes"),
    (M::DuplicatesAreWrittenAndRefused, "rule_09_two_changes"),
    (M::EmptyCommitClears, "rule_09_no_changes"),
    (M::EmptyCommitIsMalformed, "rule_09_no_changes"),
    (M::JoinsNames, "rule_12_partition_and_slot"),
    (M::LargeCommitsAreCut, "rule_15_what_is_too_much"),
    (M::LargeCommitsAreRefused, "rule_15_ninety"),
    (M::LargeRowsAreRefused, "rule_15_the_largest"),
    (M::LargeTransactionsAreRefused, "rule_15_two_mebibytes"),
    (M::MetadataIsReformatted, "rule_02_metadata"),
    (M::MetadataIsTrimmed, "rule_02_metadata"),
    (M::NamesArePatterns, "rule_12_slots"),
    (M::NamesAreShortened, "rule_12_the_longest"),
    (M::OneByOne, "rule_08_one_failed"),
    (M::ReadDropsDuplicates, "rule_01_read_answers_a_slot"),
    (M::ReadDropsGaps, "rule_01"),
    (M::ReadIsSorted, "rule_01_read_answers_each"),
    (M::ReadIsTorn, "rule_08_no_read"),
    (M::ReadOfNothingReadsAll, "rule_01_read_of_no"),
    (M::ReadsAreStale, "rule_11"),
    (M::ScanBreaksOffWhenFull, "rule_13"),
    (M::ScanIgnoresLimit, "rule_13"),
    (M::ScanLimitZeroIsNothing, "rule_13_a_limit"),
    (M::ScanRepeatsAtPages, "rule_13_scan_visits_every"),
    (M::ScanSkipsAtPages, "rule_13_scan_visits_every"),
    (M::SealedEndsAtNul, "rule_02_sealed"),
    (M::SealedIsText, "rule_02_sealed"),
    (M::SlotsAreFolded, "rule_12_slots"),
    (M::VersionIsANumber, "rule_02_versions"),
    (M::VersionIsAny, "rule_04"),
    (M::VersionIsNotChecked, "rule_04_a_row_made_anew"),
    (
        M::WritesAfterLooking,
        "rule_10_one_of_many_that_expect_absence",
    ),
    (M::WritesAfterLookingForVersions, "rule_10_no_update"),
];

impl Mutant {
    fn new(mutation: Mutation) -> Self {
        let rows = MemoryBackend::default();
        Self {
            mutation,
            rows,
            cache: Mutex::default(),
            index: Mutex::default(),
        }
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == mutation
    }

    async fn standing(&self, partition: &Partition, slot: &Slot) -> Result<Option<Row>, Error> {
        Ok(self.rows.read(partition, from_ref(slot)).await?.remove(0))
    }

    async fn all(&self) -> Result<Vec<(Key, Row)>, Error> {
        Ok(self.rows.scan(None, usize::MAX).await?.rows)
    }

    async fn clear(
        &self,
        wanted: impl Fn(&Key) -> bool + Send + Sync,
        limit: usize,
    ) -> Result<(), Error> {
        for (key, _) in self
            .all()
            .await?
            .into_iter()
            .filter(|(key, _)| wanted(key))
            .take(limit)
        {
            let delete = Change::Delete {
                slot: key.slot,
                only: None,
            };
            self.rows.commit(&key.partition, &[delete]).await?;
        }
        Ok(())
    }

    fn partition(&self, partition: &Partition) -> Partition {
        match self.mutation {
            M::CaseIsFolded => renamed(partition.as_str().to_lowercase()),
            M::NamesAreShortened => renamed(partition.as_str().chars().take(254).collect()),
            _ => partition.clone(),
        }
    }

    fn slot(&self, slot: &Slot) -> Slot {
        let name = slot.as_str();
        let name = match self.mutation {
            M::SlotsAreFolded => name.to_lowercase(),
            M::NamesArePatterns => name.replace(['%', '_', '*', '?'], "."),
            M::NamesAreShortened => name.chars().take(254).collect(),
            _ => return slot.clone(),
        };
        Slot::new(name).expect("as long as the name, or shorter")
    }

    /// The row as this mutant writes it.
    fn written(&self, standing: Option<Row>, row: Row) -> Row {
        let minute = |time: SystemTime| time - Duration::from_secs(seconds(time) % 60);
        match self.mutation {
            M::DueAtIsDropped => Row {
                due_at: None,
                ..row
            },
            M::DueAtIsOfTheMinute => Row {
                due_at: row.due_at.map(minute),
                ..row
            },
            M::DueAtStays => Row {
                due_at: row.due_at.or_else(|| standing.and_then(|row| row.due_at)),
                ..row
            },
            M::MetadataIsReformatted => {
                let json: serde_json::Value =
                    serde_json::from_str(row.metadata.as_str()).unwrap_or_default();
                Row {
                    metadata: Metadata::new(json.to_string()),
                    ..row
                }
            }
            M::MetadataIsTrimmed => Row {
                metadata: Metadata::new(row.metadata.as_str().trim()),
                ..row
            },
            M::SealedEndsAtNul => {
                let bytes = row.sealed.as_bytes();
                let end = bytes
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |last| last + 1);
                Row {
                    sealed: Sealed::from_stored(&bytes[..end]),
                    ..row
                }
            }
            M::SealedIsText => {
                let text = String::from_utf8_lossy(row.sealed.as_bytes()).into_owned();
                Row {
                    sealed: Sealed::from_stored(text),
                    ..row
                }
            }
            M::VersionIsANumber => {
                let number = u128::from_be_bytes(*row.version.as_bytes()) & (u128::MAX >> 1);
                Row {
                    version: Version::from_bytes(number.to_be_bytes()),
                    ..row
                }
            }
            _ => row,
        }
    }

    /// What this mutant takes the caller to expect.
    fn expected(&self, standing: Option<&Row>, expect: Expect) -> Expect {
        match (self.mutation, expect) {
            (M::AbsentIsAny, Expect::Absent) | (M::VersionIsAny, Expect::Version(_)) => Expect::Any,
            (M::AnyIsAbsent, Expect::Any) => Expect::Absent,
            (M::AnyIsPresent, Expect::Any) => {
                Expect::Version(standing.map_or_else(Version::mint, |row| row.version))
            }
            (M::VersionIsNotChecked, Expect::Version(version)) => {
                Expect::Version(standing.map_or(version, |row| row.version))
            }
            (_, expect) => expect,
        }
    }

    async fn changes(
        &self,
        partition: &Partition,
        changes: &[Change],
    ) -> Result<Vec<Change>, Error> {
        let mut mutated = Vec::new();
        for change in changes {
            let standing = match change.slot() {
                Some(slot) => self.standing(partition, &self.slot(slot)).await?,
                None => None,
            };
            mutated.push(match change.clone() {
                Change::Put { slot, row, expect } => Change::Put {
                    slot: self.slot(&slot),
                    expect: self.expected(standing.as_ref(), expect),
                    row: self.written(standing, row),
                },
                Change::Delete { .. } if self.is(M::DeleteIsIgnored) => continue,
                Change::Delete { slot, only } => {
                    let only = match (self.mutation, standing) {
                        (M::DeleteIgnoresOnly, _) | (M::DeleteOfNothingIsFine, None) => None,
                        (M::DeleteOfNothingConflicts, None) => Some(Version::mint()),
                        _ => only,
                    };
                    Change::Delete {
                        slot: self.slot(&slot),
                        only,
                    }
                }
                Change::Clear if self.is(M::ClearIsIgnored) => continue,
                Change::Clear => Change::Clear,
            });
        }
        Ok(mutated)
    }

    /// Judges, lets others in, and writes what it judged.
    async fn look_then_write(
        &self,
        partition: &Partition,
        changes: Vec<Change>,
    ) -> Result<(), Error> {
        for change in &changes {
            if let Some(slot) = change.slot() {
                let standing = self.standing(partition, slot).await?;
                if !change.allows(standing.map(|row| row.version)) {
                    return Err(Error::Conflict);
                }
            }
        }
        yield_now().await;
        let unguarded = changes.into_iter().map(|change| match change {
            Change::Put { slot, row, .. } => Change::Put {
                slot,
                row,
                expect: Expect::Any,
            },
            Change::Delete { slot, .. } => Change::Delete { slot, only: None },
            Change::Clear => Change::Clear,
        });
        self.rows
            .commit(partition, &unguarded.collect::<Vec<_>>())
            .await
    }

    fn remember_due(&self, partition: &Partition, changes: &[Change]) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            if let Change::Put { slot, row, .. } = change
                && row.due_at.is_some()
            {
                index.insert((partition.clone(), slot.clone()), row.clone());
            }
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Mutant {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let partition = &self.partition(partition);
        let mut slots: Vec<_> = slots.iter().map(|slot| self.slot(slot)).collect();
        match self.mutation {
            M::JoinsNames => {
                let mut rows = Vec::new();
                for slot in &slots {
                    let (partition, slot) = joined(partition, slot);
                    rows.push(self.standing(&partition, &slot).await?);
                }
                return Ok(rows);
            }
            M::ReadDropsDuplicates => {
                slots.sort();
                slots.dedup();
            }
            M::ReadIsSorted => slots.sort(),
            M::ReadIsTorn => {
                let mut rows = Vec::new();
                for slot in &slots {
                    rows.push(self.standing(partition, slot).await?);
                    yield_now().await;
                }
                return Ok(rows);
            }
            M::ReadOfNothingReadsAll if slots.is_empty() => {
                let mut all = self.all().await?;
                all.retain(|(key, _)| key.partition == *partition);
                return Ok(all.into_iter().map(|(_, row)| Some(row)).collect());
            }
            _ => {}
        }
        let mut rows = self.rows.read(partition, &slots).await?;
        if self.is(M::ReadsAreStale) {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            for (slot, row) in slots.iter().zip(&mut rows) {
                let key = Key {
                    partition: partition.clone(),
                    slot: slot.clone(),
                };
                *row = cache.entry(key).or_insert_with(|| row.clone()).clone();
            }
        }
        if self.is(M::ReadDropsGaps) {
            rows.retain(Option::is_some);
        }
        Ok(rows)
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        let original = partition;
        let partition = &self.partition(partition);
        let changes = &self.changes(partition, changes).await?[..];
        let clears = changes.iter().any(|change| matches!(change, Change::Clear));
        let size = |change: &Change| match change {
            Change::Put { row, .. } => row.sealed.as_bytes().len() + row.metadata.as_str().len(),
            Change::Clear | Change::Delete { .. } => 0,
        };
        let refused = || Err(Error::Malformed("too large".into()));
        let tolerant = matches!(
            self.mutation,
            M::DuplicatesAreTaken | M::DuplicatesAreWrittenAndRefused
        );
        if !tolerant {
            Change::check(changes)?;
        }
        match self.mutation {
            M::ClearBeforeJudging if clears => {
                self.rows.commit(partition, &[Change::Clear]).await?;
            }
            M::ClearForgetsWhatIsPutBeside if clears => {
                self.rows.commit(partition, changes).await?;
                return self.rows.commit(partition, &[Change::Clear]).await;
            }
            M::ClearHasALimit if clears => {
                self.clear(|key| key.partition == *partition, 200).await?;
                let others: Vec<_> = changes
                    .iter()
                    .filter(|change| change.slot().is_some())
                    .cloned()
                    .collect();
                return self.rows.commit(partition, &others).await;
            }
            // As a backend that finds rows left over, and takes those that came meanwhile.
            M::ClearIsDoneTwice if clears => {
                self.rows.commit(partition, changes).await?;
                yield_now().await;
                let kept: Vec<_> = changes.iter().filter_map(Change::slot).collect();
                let late = |key: &Key| key.partition == *partition && !kept.contains(&&key.slot);
                return self.clear(late, usize::MAX).await;
            }
            M::ClearTakesPrefixes if clears => {
                let family = |key: &Key| key.partition.as_str().starts_with(partition.as_str());
                self.clear(|key| family(key) && key.partition != *partition, usize::MAX)
                    .await?;
            }
            M::DueNeverForgets => self.remember_due(partition, changes),
            M::DuplicatesAreTaken | M::DuplicatesAreWrittenAndRefused => {
                for change in changes {
                    self.rows.commit(partition, from_ref(change)).await?;
                }
                return match self.is(M::DuplicatesAreTaken) {
                    true => Ok(()),
                    false => Change::check(changes),
                };
            }
            M::EmptyCommitClears if changes.is_empty() => {
                return self.rows.commit(partition, &[Change::Clear]).await;
            }
            M::EmptyCommitIsMalformed if changes.is_empty() => {
                return Err(Error::Malformed("no changes".into()));
            }
            M::JoinsNames => {
                for change in changes {
                    let Change::Put { slot, row, .. } = change else {
                        continue;
                    };
                    let (partition, slot) = joined(original, slot);
                    let put = Change::Put {
                        slot,
                        row: row.clone(),
                        expect: Expect::Any,
                    };
                    self.rows.commit(&partition, &[put]).await?;
                }
                return Ok(());
            }
            M::LargeCommitsAreCut if changes.len() > 90 => {
                self.rows.commit(partition, &changes[..90]).await?;
                return refused();
            }
            M::LargeCommitsAreRefused if changes.len() > 64 => return refused(),
            M::LargeRowsAreRefused if changes.iter().any(|it| size(it) > 300_000) => {
                return refused();
            }
            M::LargeTransactionsAreRefused
                if changes.iter().map(size).sum::<usize>() > 1_500_000 =>
            {
                return refused();
            }
            M::OneByOne => {
                for change in changes {
                    self.rows.commit(partition, from_ref(change)).await?;
                }
                return Ok(());
            }
            M::WritesAfterLooking => return self.look_then_write(partition, changes.into()).await,
            M::WritesAfterLookingForVersions => {
                let absent = |change: &Change| {
                    matches!(
                        change,
                        Change::Put {
                            expect: Expect::Absent,
                            ..
                        }
                    )
                };
                if !changes.iter().any(absent) {
                    return self.look_then_write(partition, changes.into()).await;
                }
            }
            _ => {}
        }
        self.rows.commit(partition, changes).await
    }

    async fn scan(&self, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        match self.mutation {
            M::CursorIsAnOffset => {
                let start = from.map_or(Ok(0), |cursor| cursor.0.parse::<usize>());
                let start = start.map_err(|error| Error::Malformed(error.into()))?;
                let all = self.all().await?;
                let rows: Vec<_> = all.iter().skip(start).take(limit.max(1)).cloned().collect();
                let end = start + rows.len();
                let next = (end < all.len()).then(|| Cursor(end.to_string()));
                Ok(Page { rows, next })
            }
            M::CursorOfAnyKind => {
                let known = from.map(|cursor| match cursor.0.split_once(' ') {
                    Some((_, place)) => Cursor(format!("memory {place}")),
                    None => cursor,
                });
                self.rows.scan(known, limit).await
            }
            M::CursorOfOthersIsTheStart => {
                let known = from.filter(|cursor| cursor.key("memory").is_ok());
                self.rows.scan(known, limit).await
            }
            M::ScanBreaksOffWhenFull => {
                let page = self.rows.scan(from, limit).await?;
                Ok(Page {
                    next: page.next.filter(|_| page.rows.len() % 2 == 1),
                    ..page
                })
            }
            M::ScanIgnoresLimit => self.rows.scan(from, limit.saturating_add(1)).await,
            M::ScanLimitZeroIsNothing if limit == 0 => Ok(Page {
                rows: Vec::new(),
                next: None,
            }),
            M::ScanRepeatsAtPages => {
                let page = self.rows.scan(from, limit).await?;
                let second = page
                    .rows
                    .iter()
                    .nth_back(1)
                    .map(|(key, _)| Cursor::after("memory", key));
                Ok(Page {
                    next: page.next.map(|next| second.unwrap_or(next)),
                    ..page
                })
            }
            M::ScanSkipsAtPages => {
                let page = self.rows.scan(from, limit.max(1).saturating_add(1)).await?;
                let skipped = page.rows.len().min(limit.max(1));
                Ok(Page {
                    rows: page.rows[..skipped].to_vec(),
                    next: page.next,
                })
            }
            _ => self.rows.scan(from, limit).await,
        }
    }

    async fn due(&self, now: SystemTime, limit: usize) -> Result<Vec<(Key, Row)>, Error> {
        let second = Duration::from_secs(1);
        match self.mutation {
            M::DueAfterTheSecond => {
                let mut due = self.rows.due(now, limit).await?;
                due.retain(|(_, row)| row.due_at.is_some_and(|due_at| due_at < now));
                Ok(due)
            }
            M::DueIgnoresLimit => self.rows.due(now, limit.max(10)).await,
            M::DueIsEarlyByASecond => self.rows.due(now + second, limit).await,
            M::DueIsUnordered => {
                let mut due = self.rows.due(now, limit).await?;
                due.reverse();
                Ok(due)
            }
            M::DueNeverForgets => {
                let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
                let key = |(partition, slot): &(Partition, Slot)| Key {
                    partition: partition.clone(),
                    slot: slot.clone(),
                };
                let mut due: Vec<_> = index
                    .iter()
                    .map(|(at, row)| (key(at), row.clone()))
                    .collect();
                due.retain(|(_, row)| row.due_at.is_some_and(|due_at| due_at <= now));
                due.sort_by_key(|(_, row)| row.due_at);
                due.truncate(limit);
                Ok(due)
            }
            M::DueTruncatesFirst => {
                let mut due = self.rows.due(now, usize::MAX).await?;
                due.sort_by(|(one, _), (other, _)| one.cmp(other));
                due.truncate(limit);
                due.sort_by_key(|(_, row)| row.due_at);
                Ok(due)
            }
            M::DueWithoutTime => {
                let mut due = self.all().await?;
                due.retain(|(_, row)| row.due_at.is_none_or(|due_at| due_at <= now));
                due.sort_by_key(|(_, row)| row.due_at);
                due.truncate(limit);
                Ok(due)
            }
            _ => self.rows.due(now, limit).await,
        }
    }
}

fn renamed(name: String) -> Partition {
    Partition::new(name).expect("as long as the name, or shorter")
}

fn joined(partition: &Partition, slot: &Slot) -> (Partition, Slot) {
    let name = format!("{partition}/{slot}");
    let (head, tail) = name.split_at(name.len() / 2);
    (
        renamed(head.into()),
        Slot::new(tail).expect("half of two names is no longer than a name"),
    )
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
