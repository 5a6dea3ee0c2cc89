//! Every check of the conformance suite catches a backend that breaks its rule.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::slice::from_ref;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::backend::{
    Backend, Change, Cursor, Due, Error, Expect, Key, Lane, MemoryBackend, Metadata, Page,
    Partition, Prefix, Queue, Row, Scope, Sealed, Slot, Version,
};
use slack_installs::testing::conformance::{CHECKS, MALFORMED_CHECKS, Spoiling};
use tokio::task::yield_now;

/// Time is paused, so that a check that waits for a lagging index gives up immediately.
#[tokio::test(start_paused = true)]
async fn every_mutant_is_caught_by_its_rule_and_every_check_catches_one() {
    let mut survivors = Vec::new();
    let malformed = MALFORMED_CHECKS.iter().map(|check| check.name);
    let mut idle: BTreeSet<_> = CHECKS
        .iter()
        .map(|check| check.name)
        .chain(malformed)
        .collect();
    for (mutation, rule) in MUTATIONS {
        let caught = caught(*mutation).await;
        if !caught.iter().any(|name| name.starts_with(rule)) {
            survivors.push(mutation);
        }
        idle.retain(|name| !caught.contains(name));
    }
    assert!(
        survivors.is_empty(),
        "no check of its rule caught these mutants: {survivors:?}"
    );
    assert!(idle.is_empty(), "these checks caught no mutant: {idle:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_without_mutation_passes() {
    assert_eq!(caught(Mutation::None).await, [""; 0]);
}

/// Returns the names of the checks that fail for this mutation.
async fn caught(mutation: Mutation) -> Vec<&'static str> {
    let mut caught = Vec::new();
    for check in CHECKS {
        let mutant = Mutant::new(mutation);
        // Runs the check in a task, so that a panic becomes an error.
        if tokio::spawn(async move { (check.run)(&mutant).await })
            .await
            .is_err()
        {
            caught.push(check.name);
        }
    }
    for check in MALFORMED_CHECKS {
        let mutant = Mutant::new(mutation);
        let run = async move {
            let rows = &mutant.rows;
            let spoil = |key: Key| -> Spoiling<'_> { Box::pin(async move { rows.spoil(&key) }) };
            (check.run)(&mutant, &spoil).await;
        };
        if tokio::spawn(run).await.is_err() {
            caught.push(check.name);
        }
    }
    caught
}

/// A correct backend with one mistake.
#[derive(Debug)]
struct Mutant {
    mutation: Mutation,
    rows: MemoryBackend,
    /// The first result of each read, for mutants that keep returning it.
    cache: Mutex<HashMap<Key, Option<Row>>>,
    /// Every row that was ever due, for mutants that never remove one.
    index: Mutex<BTreeMap<(Partition, Slot, Lane), Row>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mutation {
    AbsentIsAny,
    AnyIsAbsent,
    AnyIsPresent,
    CaseIsFolded,
    CheckAloneIsIgnored,
    CheckBesideIsIgnored,
    CheckIsIgnored,
    CheckIsNoChange,
    CheckOfAnyVersion,
    CheckOfNothingIsFine,
    CheckOutlivesClear,
    CheckRewritesTheRow,
    ChecksAreJudgedBefore,
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
    DueAtIsOfTheMinute,
    DueCursorIsAnOffset,
    DueCursorIsTheNextTime,
    DueCursorIsTheTime,
    DueCursorOfAnyKind,
    DueCursorOfOthersIsTheStart,
    DueIgnoresLimit,
    DueIsDropped,
    DueIsEarlyByASecond,
    DueIsUnordered,
    DueNeverForgets,
    DueStays,
    DueTruncatesFirst,
    DueWithoutTime,
    DuplicatesAreTaken,
    DuplicatesAreWrittenAndRefused,
    EmptyCommitClears,
    EmptyCommitIsMalformed,
    JoinsNames,
    LaneIsOfTheFirstPut,
    LanesAreOne,
    LargeCommitsAreCut,
    LargeCommitsAreRefused,
    LargeRowsAreRefused,
    LargeTransactionsAreRefused,
    MetadataIsReformatted,
    MetadataIsTrimmed,
    MovedRowsStayInTheOldLane,
    NamesArePatterns,
    NamesAreShortened,
    None,
    MalformedCannotBeReplaced,
    MalformedEndsTheQueue,
    MalformedEndsTheScan,
    MalformedFailsTheQueue,
    MalformedFailsTheScan,
    MalformedIsNotReturned,
    MalformedIsTakenForAbsent,
    MalformedOutlivesClear,
    MalformedReadsAsAbsent,
    OneByOne,
    PartitionIsAPrefix,
    PrefixFoldsCase,
    PrefixIsAPartition,
    PrefixIsAPattern,
    PrefixIsOfTheApp,
    QueueFiltersAfterwards,
    QueueIgnoresApp,
    QueueIgnoresLane,
    QueueTakesAppsByPrefix,
    ReadDropsDuplicates,
    ReadDropsGaps,
    ReadIsSorted,
    ReadIsTorn,
    ReadOfNothingReadsAll,
    ReadsAreStale,
    ScanBreaksOffWhenFull,
    ScanFiltersAfterwards,
    ScanIgnoresLimit,
    ScanLimitZeroIsNothing,
    ScanOfNothingGoesOn,
    ScanRepeatsAtPages,
    ScanSkipsAtPages,
    ScopeIsIgnored,
    SealedEndsAtNul,
    SealedIsText,
    SlotsAreFolded,
    VersionIsANumber,
    VersionIsAny,
    VersionIsNotChecked,
    WritesAfterLooking,
    WritesAfterLookingForVersions,
}

use Mutation as M;

/// Each mutation, with a prefix of the names of the checks of its rule.
const MUTATIONS: &[(Mutation, &str)] = &[
    (M::AbsentIsAny, "rule_03"),
    (M::AnyIsAbsent, "rule_05"),
    (M::AnyIsPresent, "rule_05"),
    (M::CaseIsFolded, "rule_12"),
    (M::CheckAloneIsIgnored, "rule_16_a_check_commits_only"),
    (M::CheckBesideIsIgnored, "rule_16_a_check_decides"),
    (M::CheckIsIgnored, "rule_16_a_check_commits_only"),
    (M::CheckIsNoChange, "rule_16_a_check_is_a_change"),
    (M::CheckOfAnyVersion, "rule_16_a_check_commits_only"),
    (M::CheckOfNothingIsFine, "rule_16_a_check_commits_only"),
    (M::CheckOutlivesClear, "rule_16_a_check_decides"),
    (M::CheckRewritesTheRow, "rule_16_a_check_writes"),
    (M::ChecksAreJudgedBefore, "rule_16_a_check_conflicts"),
    (M::ClearBeforeJudging, "rule_09"),
    (M::ClearForgetsWhatIsPutBeside, "rule_07"),
    (M::ClearHasALimit, "rule_07_clear_removes_hundreds"),
    (M::ClearIsDoneTwice, "rule_08_a_clear_and_a_put"),
    (M::ClearIsIgnored, "rule_07"),
    (M::ClearTakesPrefixes, "rule_07"),
    (M::CursorIsAnOffset, "rule_13_scan_returns_rows_that_exist"),
    (M::CursorOfAnyKind, "rule_13_a_cursor_of_another_kind"),
    (M::CursorOfOthersIsTheStart, "rule_13_a_foreign_cursor"),
    (M::DeleteIgnoresOnly, "rule_06"),
    (M::DeleteIsIgnored, "rule_06"),
    (M::DeleteOfNothingConflicts, "rule_06"),
    (M::DeleteOfNothingIsFine, "rule_06"),
    (M::DueAfterTheSecond, "rule_14_due_returns_rows"),
    (M::DueAtIsOfTheMinute, "rule_02_due"),
    (M::DueCursorIsAnOffset, "rule_14_rows_that_stay_due"),
    (
        M::DueCursorIsTheNextTime,
        "rule_14_due_returns_the_earliest",
    ),
    (M::DueCursorIsTheTime, "rule_14_due_returns_the_earliest"),
    (M::DueCursorOfAnyKind, "rule_14_a_foreign_cursor"),
    (M::DueCursorOfOthersIsTheStart, "rule_14_a_foreign_cursor"),
    (M::DueIgnoresLimit, "rule_14_due_returns_the_earliest"),
    (M::DueIsDropped, "rule_02_due"),
    (M::DueIsEarlyByASecond, "rule_14_due_returns_rows"),
    (M::DueIsUnordered, "rule_14_due_returns_the_earliest"),
    (M::DueNeverForgets, "rule_14_due_forgets"),
    (M::DueStays, "rule_02_an_overwrite"),
    (M::DueTruncatesFirst, "rule_14_due_returns_the_earliest"),
    (M::DueWithoutTime, "rule_14_due_returns_rows"),
    (M::DuplicatesAreTaken, "rule_09_two_changes"),
    (M::DuplicatesAreWrittenAndRefused, "rule_09_two_changes"),
    (M::EmptyCommitClears, "rule_09_no_changes"),
    (M::EmptyCommitIsMalformed, "rule_09_no_changes"),
    (M::JoinsNames, "rule_12_partition_and_slot"),
    (M::LaneIsOfTheFirstPut, "rule_14_due_forgets"),
    (M::LanesAreOne, "rule_02_due"),
    (M::LargeCommitsAreCut, "rule_15_what_is_too_much"),
    (M::LargeCommitsAreRefused, "rule_15_ninety"),
    (M::LargeRowsAreRefused, "rule_15_the_largest"),
    (M::LargeTransactionsAreRefused, "rule_15_two_mebibytes"),
    (M::MetadataIsReformatted, "rule_02_metadata"),
    (M::MetadataIsTrimmed, "rule_02_metadata"),
    (M::MovedRowsStayInTheOldLane, "rule_14_due_forgets"),
    (M::NamesArePatterns, "rule_12_slots"),
    (M::NamesAreShortened, "rule_12_the_longest"),
    (M::MalformedCannotBeReplaced, "rule_17_a_malformed"),
    (M::MalformedEndsTheQueue, "rule_17_due"),
    (M::MalformedEndsTheScan, "rule_17_scan"),
    (M::MalformedFailsTheQueue, "rule_17_due"),
    (M::MalformedFailsTheScan, "rule_17_scan"),
    (M::MalformedIsNotReturned, "rule_17_scan"),
    (M::MalformedIsTakenForAbsent, "rule_17_a_malformed"),
    (M::MalformedOutlivesClear, "rule_17_a_malformed"),
    (M::MalformedReadsAsAbsent, "rule_17_read"),
    (M::OneByOne, "rule_08_one_failed"),
    (M::PartitionIsAPrefix, "rule_13_scan_returns_every"),
    (M::PrefixFoldsCase, "rule_13_a_prefix"),
    (M::PrefixIsAPartition, "rule_13_a_prefix"),
    (M::PrefixIsAPattern, "rule_13_scan_returns_every"),
    (M::PrefixIsOfTheApp, "rule_13_a_prefix"),
    (M::QueueFiltersAfterwards, "rule_14_other_queues"),
    (M::QueueIgnoresApp, "rule_14_a_row_waits"),
    (M::QueueIgnoresLane, "rule_14_a_row_waits"),
    (M::QueueTakesAppsByPrefix, "rule_14_a_row_waits"),
    (M::ReadDropsDuplicates, "rule_01_read_answers_a_slot"),
    (M::ReadDropsGaps, "rule_01"),
    (M::ReadIsSorted, "rule_01_read_answers_each"),
    (M::ReadIsTorn, "rule_08_no_read"),
    (M::ReadOfNothingReadsAll, "rule_01_read_of_no"),
    (M::ReadsAreStale, "rule_11"),
    (M::ScanBreaksOffWhenFull, "rule_13"),
    (M::ScanFiltersAfterwards, "rule_18"),
    (M::ScanIgnoresLimit, "rule_13"),
    (M::ScanLimitZeroIsNothing, "rule_13_a_limit"),
    (M::ScanOfNothingGoesOn, "rule_13_a_scope_without_rows"),
    (M::ScanRepeatsAtPages, "rule_13_scan_returns_every"),
    (M::ScanSkipsAtPages, "rule_13_scan_returns_every"),
    (M::ScopeIsIgnored, "rule_13_scan_returns_every"),
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

    /// Returns the row of a slot. A malformed row counts as absent, because no mutant mutates it.
    async fn standing(&self, partition: &Partition, slot: &Slot) -> Result<Option<Row>, Error> {
        match self.rows.read(partition, from_ref(slot)).await {
            Err(Error::Malformed(_)) => Ok(None),
            read => Ok(read?.remove(0)),
        }
    }

    async fn is_malformed(&self, partition: &Partition, slot: &Slot) -> bool {
        self.rows.read(partition, from_ref(slot)).await.is_err()
    }

    async fn all(&self) -> Result<Vec<(Key, Row)>, Error> {
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let page = self.rows.scan(&Scope::Everything, from, usize::MAX).await?;
            all.extend(page.rows);
            from = page.next;
            if from.is_none() {
                return Ok(all);
            }
        }
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

    /// Returns the row as this mutant writes it.
    fn written(&self, standing: Option<Row>, row: Row) -> Row {
        let minute = |time: SystemTime| time - Duration::from_secs(seconds(time) % 60);
        match self.mutation {
            M::DueIsDropped => Row { due: None, ..row },
            M::DueAtIsOfTheMinute => Row {
                due: row.due.map(|due| Due {
                    at: minute(due.at),
                    ..due
                }),
                ..row
            },
            M::DueStays => Row {
                due: row.due.or_else(|| standing.and_then(|row| row.due)),
                ..row
            },
            M::LaneIsOfTheFirstPut => Row {
                due: row.due.map(|due| Due {
                    lane: standing
                        .and_then(|row| row.due)
                        .map_or(due.lane, |due| due.lane),
                    ..due
                }),
                ..row
            },
            M::LanesAreOne => Row {
                due: row.due.map(|due| Due {
                    lane: Lane::Refresh,
                    ..due
                }),
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

    /// Returns the expectation as this mutant misreads it.
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
        let clears = changes.iter().any(|change| matches!(change, Change::Clear));
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
                Change::Check { slot, version } => {
                    let slot = self.slot(&slot);
                    let beside = changes.iter().any(|it| !matches!(it, Change::Check { .. }));
                    match (self.mutation, standing) {
                        (M::CheckIsIgnored, _) | (M::CheckOfNothingIsFine, None) => continue,
                        (M::CheckAloneIsIgnored, _) if !beside => continue,
                        (M::CheckBesideIsIgnored, _) if beside => continue,
                        (M::CheckOfAnyVersion, Some(row)) => Change::Check {
                            slot,
                            version: row.version,
                        },
                        (M::CheckRewritesTheRow, Some(row)) if !clears => Change::Put {
                            slot,
                            row: Row { due: None, ..row },
                            expect: Expect::Version(version),
                        },
                        (M::CheckOutlivesClear, Some(row)) if clears => Change::Put {
                            slot,
                            row,
                            expect: Expect::Version(version),
                        },
                        _ => Change::Check { slot, version },
                    }
                }
            });
        }
        Ok(mutated)
    }

    /// Checks the expectations, yields to other tasks, and then writes without a check.
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
        let unguarded = changes.into_iter().filter_map(|change| match change {
            Change::Put { slot, row, .. } => Some(Change::Put {
                slot,
                row,
                expect: Expect::Any,
            }),
            Change::Delete { slot, .. } => Some(Change::Delete { slot, only: None }),
            Change::Clear => Some(Change::Clear),
            Change::Check { .. } => None,
        });
        self.rows
            .commit(partition, &unguarded.collect::<Vec<_>>())
            .await
    }

    /// Returns a page of the rows of the partitions that `is_wanted` accepts.
    async fn chosen(
        &self,
        is_wanted: impl Fn(&Partition) -> bool + Send + Sync,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let after = from.map(|cursor| cursor.key("memory")).transpose()?;
        let mut all = self.all().await?;
        all.retain(|(key, _)| {
            is_wanted(&key.partition) && after.as_ref().is_none_or(|after| key > after)
        });
        let limit = limit.max(1);
        let more = all.len() > limit;
        all.truncate(limit);
        let last = all.last().filter(|_| more);
        Ok(Page {
            next: last.map(|(key, _)| Cursor::after("memory", key)),
            rows: all,
            ..Page::default()
        })
    }

    /// Returns a page of a queue that also contains rows of other queues.
    async fn mixed(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let after = from.map(|cursor| cursor.due("memory")).transpose()?;
        let mut all = self.all().await?;
        all.retain(|(key, row)| {
            let Some(due) = row.due.filter(|due| due.at <= now) else {
                return false;
            };
            let is_app = key.partition.app() == queue.app();
            let is_lane = due.lane == queue.lane();
            let is_here = match self.mutation {
                M::QueueIgnoresApp => is_lane,
                M::QueueIgnoresLane => is_app,
                M::QueueTakesAppsByPrefix => {
                    is_lane && key.partition.as_str().starts_with(queue.app())
                }
                _ => true,
            };
            let place = (at(row), key);
            is_here && after.as_ref().is_none_or(|(at, key)| place > (*at, key))
        });
        all.sort_by(|(one, one_row), (other, other_row)| {
            (at(one_row), one).cmp(&(at(other_row), other))
        });
        let limit = limit.clamp(1, 1000);
        let more = all.len() > limit;
        all.truncate(limit);
        let last = all.last().filter(|_| more);
        let next = last.and_then(|(key, row)| Some(Cursor::after_due("memory", row.due?.at, key)));
        if self.is(M::QueueFiltersAfterwards) {
            all.retain(|(key, row)| queue.contains(&key.partition, row));
        }
        Ok(Page {
            rows: all,
            next,
            ..Page::default()
        })
    }

    fn remember_due(&self, partition: &Partition, changes: &[Change]) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            if let Change::Put { slot, row, .. } = change
                && let Some(due) = row.due
            {
                index.insert((partition.clone(), slot.clone(), due.lane), row.clone());
            }
        }
    }

    /// Commits for mutants that misinterpret a malformed row, and delegates for all others.
    async fn commit_malformed(
        &self,
        original: &Partition,
        partition: &Partition,
        changes: &[Change],
    ) -> Result<(), Error> {
        let clears = changes.iter().any(|change| matches!(change, Change::Clear));
        match self.mutation {
            M::MalformedCannotBeReplaced => {
                for slot in changes.iter().filter_map(Change::slot) {
                    if self.is_malformed(partition, slot).await {
                        return Err(Error::Malformed("a malformed row".into()));
                    }
                }
            }
            M::MalformedIsTakenForAbsent => {
                for change in changes {
                    if let Change::Put {
                        slot,
                        expect: Expect::Absent,
                        ..
                    } = change
                        && self.is_malformed(partition, slot).await
                    {
                        let delete = Change::Delete {
                            slot: slot.clone(),
                            only: None,
                        };
                        self.rows.commit(partition, &[delete]).await?;
                    }
                }
            }
            M::MalformedOutlivesClear if clears => {
                let scope = Scope::Partition(partition.clone());
                let malformed = self.rows.scan(&scope, None, usize::MAX).await?.malformed;
                self.rows.commit(partition, changes).await?;
                for key in malformed {
                    let slot = key.split(' ').nth(1).map(Slot::new);
                    let slot = slot.expect("a key").expect("a name");
                    if changes.iter().any(|change| change.slot() == Some(&slot)) {
                        continue;
                    }
                    let put = Change::Put {
                        slot: slot.clone(),
                        row: malformed_row(),
                        expect: Expect::Absent,
                    };
                    self.rows.commit(partition, &[put]).await?;
                    self.rows.spoil(&key_of(partition, &slot));
                }
                return Ok(());
            }
            _ => {}
        }
        self.commit_cut(original, partition, changes).await
    }

    /// Commits for mutants that apply only a part or refuse too much, and delegates for all others.
    async fn commit_cut(
        &self,
        original: &Partition,
        partition: &Partition,
        changes: &[Change],
    ) -> Result<(), Error> {
        let size = |change: &Change| match change {
            Change::Put { row, .. } => row.sealed.as_bytes().len() + row.metadata.as_str().len(),
            Change::Check { .. } | Change::Clear | Change::Delete { .. } => 0,
        };
        let refused = || Err(Error::Malformed("too large".into()));
        match self.mutation {
            M::DuplicatesAreTaken | M::DuplicatesAreWrittenAndRefused => {
                for change in changes {
                    self.rows.commit(partition, from_ref(change)).await?;
                }
                if !self.is(M::DuplicatesAreTaken) {
                    return Change::check(changes);
                }
                return Ok(());
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

    /// Scans for mutants that misinterpret the scope, and delegates for all others.
    async fn scan_scope(
        &self,
        scope: &Scope,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        match self.mutation {
            M::PartitionIsAPrefix => {
                let prefix = match scope {
                    Scope::Partition(partition) => prefix(partition.as_str()),
                    scope => scope.clone(),
                };
                self.rows.scan(&prefix, from, limit).await
            }
            M::PrefixIsAPartition
            | M::PrefixIsAPattern
            | M::PrefixIsOfTheApp
            | M::PrefixFoldsCase => {
                let Scope::Prefix(prefix) = scope else {
                    return self.rows.scan(scope, from, limit).await;
                };
                let prefix = prefix.as_str();
                let is_wanted = |partition: &Partition| match self.mutation {
                    M::PrefixIsAPartition => partition.as_str() == prefix,
                    M::PrefixIsAPattern => is_like(partition.as_str(), prefix),
                    M::PrefixIsOfTheApp => prefix.split('/').next() == Some(partition.app()),
                    _ => {
                        let folded = partition.as_str().to_lowercase();
                        folded.starts_with(&prefix.to_lowercase())
                    }
                };
                self.chosen(is_wanted, from, limit).await
            }
            M::ScanFiltersAfterwards => {
                let mut page = self.rows.scan(&Scope::Everything, from, limit).await?;
                page.rows.retain(|(key, _)| scope.contains(&key.partition));
                page.malformed.retain(|key| {
                    let partition = key.split(' ').next().map(Partition::new);
                    partition.is_some_and(|it| it.is_ok_and(|it| scope.contains(&it)))
                });
                Ok(page)
            }
            M::ScopeIsIgnored => self.rows.scan(&Scope::Everything, from, limit).await,
            _ => self.scan_page(scope, from, limit).await,
        }
    }

    /// Scans for mutants that page wrongly through the right rows, and delegates for all others.
    async fn scan_page(
        &self,
        scope: &Scope,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        match self.mutation {
            M::MalformedEndsTheScan => {
                let page = self.rows.scan(scope, from, limit).await?;
                Ok(Page {
                    next: page.next.filter(|_| page.malformed.is_empty()),
                    ..page
                })
            }
            M::MalformedFailsTheScan => all_sound(self.rows.scan(scope, from, limit).await?),
            M::MalformedIsNotReturned => Ok(Page {
                malformed: Vec::new(),
                ..self.rows.scan(scope, from, limit).await?
            }),
            M::ScanBreaksOffWhenFull => {
                let page = self.rows.scan(scope, from, limit).await?;
                Ok(Page {
                    next: page.next.filter(|_| page.rows.len() % 2 == 1),
                    ..page
                })
            }
            M::ScanIgnoresLimit => {
                let limit = limit.saturating_add(1);
                self.rows.scan(scope, from, limit).await
            }
            M::ScanLimitZeroIsNothing if limit == 0 => Ok(Page::default()),
            M::ScanOfNothingGoesOn => {
                let page = self.rows.scan(scope, from, limit).await?;
                let after_all = || {
                    let place = Partition::new("~/~").expect("a name");
                    let place = key_of(&place, &Slot::new("~").expect("a name"));
                    Cursor::after("memory", &place)
                };
                let is_empty = page.rows.is_empty() && page.malformed.is_empty();
                Ok(Page {
                    next: page.next.or_else(|| is_empty.then(after_all)),
                    ..page
                })
            }
            M::ScanRepeatsAtPages => {
                let page = self.rows.scan(scope, from, limit).await?;
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
                let limit = limit.max(1);
                let more = limit.saturating_add(1);
                let mut page = self.rows.scan(scope, from, more).await?;
                page.rows.truncate(limit);
                Ok(page)
            }
            _ => self.rows.scan(scope, from, limit).await,
        }
    }

    /// Lists due rows for mutants that page wrongly through the right rows, and delegates for all
    /// others.
    async fn due_page(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        match self.mutation {
            M::DueIgnoresLimit => self.rows.due(queue, now, from, limit.max(10)).await,
            M::DueIsEarlyByASecond => {
                self.rows
                    .due(queue, now + Duration::from_secs(1), from, limit)
                    .await
            }
            M::DueIsUnordered => {
                let mut page = self.rows.due(queue, now, from, limit).await?;
                page.rows.reverse();
                Ok(page)
            }
            M::DueTruncatesFirst => {
                let mut page = self.rows.due(queue, now, None, usize::MAX).await?;
                page.rows.sort_by(|(one, _), (other, _)| one.cmp(other));
                let start = from.map_or(Ok(0), |cursor| cursor.0.parse::<usize>());
                let start = start.map_err(|error| Error::Malformed(error.into()))?;
                let mut page = offset(&page.rows, start, limit);
                page.rows.sort_by_key(|(_, row)| at(row));
                Ok(page)
            }
            M::DueWithoutTime => {
                let mut due = self.all().await?;
                due.retain(|(key, row)| {
                    key.partition.app() == queue.app()
                        && row
                            .due
                            .is_none_or(|due| due.lane == queue.lane() && due.at <= now)
                });
                due.sort_by_key(|(_, row)| row.due.map(|_| at(row)));
                due.truncate(limit.max(1));
                Ok(Page {
                    rows: due,
                    ..Page::default()
                })
            }
            M::MalformedEndsTheQueue => {
                let page = self.rows.due(queue, now, from, limit).await?;
                Ok(Page {
                    next: page.next.filter(|_| page.malformed.is_empty()),
                    ..page
                })
            }
            M::MalformedFailsTheQueue => all_sound(self.rows.due(queue, now, from, limit).await?),
            M::MalformedIsNotReturned => Ok(Page {
                malformed: Vec::new(),
                ..self.rows.due(queue, now, from, limit).await?
            }),
            M::QueueFiltersAfterwards
            | M::QueueIgnoresApp
            | M::QueueIgnoresLane
            | M::QueueTakesAppsByPrefix => self.mixed(queue, now, from, limit).await,
            _ => self.due_index(queue, now, from, limit).await,
        }
    }

    /// Lists due rows for mutants whose index differs from the rows, and delegates for all others.
    async fn due_index(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let is_due = |row: &Row| row.due.is_some_and(|due| due.at <= now);
        match self.mutation {
            M::DueNeverForgets => {
                let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
                let mut due: Vec<_> = index
                    .iter()
                    .map(|((partition, slot, _), row)| (key_of(partition, slot), row.clone()))
                    .collect();
                due.retain(|(key, row)| queue.contains(&key.partition, row) && is_due(row));
                due.sort_by_key(|(_, row)| at(row));
                due.truncate(limit);
                Ok(Page {
                    rows: due,
                    ..Page::default()
                })
            }
            M::MovedRowsStayInTheOldLane => {
                let mut page = self.rows.due(queue, now, from, limit).await?;
                let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
                let old = index.iter().filter(|((partition, slot, lane), row)| {
                    let key = key_of(partition, slot);
                    let is_known = page.rows.iter().any(|(known, _)| *known == key);
                    let is_moved = Lane::ALL.iter().any(|other| {
                        let moved = (partition.clone(), slot.clone(), *other);
                        other != lane && index.contains_key(&moved)
                    });
                    queue.contains(partition, row) && is_due(row) && is_moved && !is_known
                });
                let old: Vec<_> = old
                    .map(|((partition, slot, _), row)| (key_of(partition, slot), row.clone()))
                    .collect();
                page.rows.extend(old);
                page.rows.sort_by_key(|(_, row)| at(row));
                Ok(page)
            }
            _ => self.rows.due(queue, now, from, limit).await,
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
        if self.is(M::MalformedReadsAsAbsent) {
            let mut rows = Vec::new();
            for slot in &slots {
                rows.push(self.standing(partition, slot).await?);
            }
            return Ok(rows);
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
        let tolerant = matches!(
            self.mutation,
            M::DuplicatesAreTaken | M::DuplicatesAreWrittenAndRefused
        );
        let is_check = |change: &Change| matches!(change, Change::Check { .. });
        if self.is(M::CheckIsNoChange) {
            let others: Vec<_> = changes.iter().filter(|it| !is_check(it)).cloned().collect();
            Change::check(&others)?;
            for check in changes.iter().filter(|it| is_check(it)) {
                self.rows.commit(partition, from_ref(check)).await?;
            }
            return self.rows.commit(partition, &others).await;
        }
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
            // Clears a second time, as a backend that finds leftover rows, and so deletes rows that
            // were written meanwhile.
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
            M::ChecksAreJudgedBefore => {
                let (checks, others): (Vec<_>, Vec<_>) =
                    changes.iter().cloned().partition(|it| is_check(it));
                self.rows.commit(partition, &checks).await?;
                yield_now().await;
                // Checks the expectations of the other changes too. If one fails, nothing is
                // written.
                return self.rows.commit(partition, &others).await;
            }
            M::DueNeverForgets | M::MovedRowsStayInTheOldLane => {
                self.remember_due(partition, changes);
            }
            _ => {}
        }
        self.commit_malformed(original, partition, changes).await
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        match self.mutation {
            M::CursorIsAnOffset => {
                let start = from.map_or(Ok(0), |cursor| cursor.0.parse::<usize>());
                let start = start.map_err(|error| Error::Malformed(error.into()))?;
                let mut all = self.all().await?;
                all.retain(|(key, _)| scope.contains(&key.partition));
                Ok(offset(&all, start, limit))
            }
            M::CursorOfAnyKind => self.rows.scan(scope, from.map(of_any_kind), limit).await,
            M::CursorOfOthersIsTheStart => {
                let known = from.filter(|cursor| cursor.key("memory").is_ok());
                self.rows.scan(scope, known, limit).await
            }
            _ => self.scan_scope(scope, from, limit).await,
        }
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let is_due = |row: &Row| row.due.is_some_and(|due| due.at <= now);
        match self.mutation {
            M::DueAfterTheSecond => {
                let mut page = self.rows.due(queue, now, from, limit).await?;
                page.rows
                    .retain(|(_, row)| row.due.is_some_and(|due| due.at < now));
                Ok(page)
            }
            M::DueCursorIsAnOffset => {
                let start = from.map_or(Ok(0), |cursor| cursor.0.parse::<usize>());
                let start = start.map_err(|error| Error::Malformed(error.into()))?;
                let mut all = self.all().await?;
                all.retain(|(key, row)| queue.contains(&key.partition, row) && is_due(row));
                all.sort_by_key(|(_, row)| at(row));
                Ok(offset(&all, start, limit))
            }
            // Compares only the times and ignores the keys.
            M::DueCursorIsTheNextTime | M::DueCursorIsTheTime => {
                let after = from.map(|cursor| cursor.due("memory")).transpose()?;
                let strictly = self.is(M::DueCursorIsTheNextTime);
                let mut all = self.all().await?;
                all.retain(|(key, row)| {
                    let is_after = after.as_ref().is_none_or(|(after, _)| {
                        at(row) > *after || !strictly && at(row) == *after
                    });
                    queue.contains(&key.partition, row) && is_due(row) && is_after
                });
                all.sort_by_key(|(_, row)| at(row));
                let limit = limit.max(1);
                let more = all.len() > limit;
                all.truncate(limit);
                let last = all.last().filter(|_| more);
                let next =
                    last.and_then(|(key, row)| Some(Cursor::after_due("memory", row.due?.at, key)));
                Ok(Page {
                    rows: all,
                    next,
                    ..Page::default()
                })
            }
            M::DueCursorOfAnyKind => {
                let known = from.map(of_any_kind);
                self.rows.due(queue, now, known, limit).await
            }
            M::DueCursorOfOthersIsTheStart => {
                let known = from.filter(|cursor| cursor.due("memory").is_ok());
                self.rows.due(queue, now, known, limit).await
            }
            _ => self.due_page(queue, now, from, limit).await,
        }
    }
}

/// Returns an error for a page that contains malformed rows.
fn all_sound(page: Page) -> Result<Page, Error> {
    if page.malformed.is_empty() {
        Ok(page)
    } else {
        Err(Error::Malformed("a malformed row".into()))
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

fn key_of(partition: &Partition, slot: &Slot) -> Key {
    Key {
        partition: partition.clone(),
        slot: slot.clone(),
    }
}

/// Returns when a row is due, in seconds since 1970.
fn at(row: &Row) -> u64 {
    row.due.map_or(0, |due| seconds(due.at))
}

fn malformed_row() -> Row {
    Row {
        version: Version::mint(),
        metadata: Metadata::new("{}"),
        sealed: Sealed::from_stored(Vec::new()),
        due: None,
    }
}

fn prefix(text: &str) -> Scope {
    Scope::Prefix(Prefix::new(text).expect("a name"))
}

/// Returns a page whose cursor is a row number.
fn offset(all: &[(Key, Row)], start: usize, limit: usize) -> Page {
    let rows: Vec<_> = all.iter().skip(start).take(limit.max(1)).cloned().collect();
    let end = start + rows.len();
    Page {
        next: (end < all.len()).then(|| Cursor(end.to_string())),
        rows,
        ..Page::default()
    }
}

/// Returns the same position as if this kind of backend had created the cursor.
fn of_any_kind(cursor: Cursor) -> Cursor {
    match cursor.0.split_once(' ') {
        Some((kind, place)) => {
            let at = kind.split_once('@').map(|(_, at)| format!("@{at}"));
            Cursor(format!("memory{} {place}", at.unwrap_or_default()))
        }
        None => cursor,
    }
}

/// Returns whether a text begins with a match of an SQL `LIKE` pattern.
fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.split_at_checked(1) {
        None => true,
        Some(("%", rest)) => (0..=text.len()).any(|at| {
            text.split_at_checked(at)
                .is_some_and(|(_, text)| is_like(text, rest))
        }),
        Some((first, rest)) => text
            .split_at_checked(1)
            .is_some_and(|(one, text)| (one == first || first == "_") && is_like(text, rest)),
    }
}
