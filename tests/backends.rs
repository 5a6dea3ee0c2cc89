//! Runs every check of the conformance suite on the backends that need no server and on every
//! wrapper. `tests/suite` runs it on every backend.

use std::collections::BTreeSet;
use std::sync::Arc;

use slack_installs::backend::{Backend, Key, MemoryBackend, SqliteBackend};
use slack_installs::conformance;
use slack_installs::testing::conformance::{CHECKS, MALFORMED_CHECKS};
use slack_installs::testing::{Faults, Flaky};
use tempfile::TempDir;

#[path = "support/spoil.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with tests of other backends"
)]
mod spoil;

conformance!(memory, spoil);
conformance!(sqlite, spoil_file);
conformance!(through_a_pointer);
conformance!(memory_that_loses_answers, spoil_inner);
conformance!(sqlite_that_loses_answers, spoil_inner_file);

#[test]
fn every_check_is_listed_and_every_rule_has_one() {
    let written: BTreeSet<_> = SUITE
        .iter()
        .flat_map(|source| source.split("\npub async fn ").skip(1))
        .filter_map(|rest| rest.split('(').next())
        .collect();
    let malformed = MALFORMED_CHECKS.iter().map(|check| check.name);
    let listed: BTreeSet<_> = CHECKS
        .iter()
        .map(|check| check.name)
        .chain(malformed)
        .collect();
    assert_eq!(listed, written);
    for rule in 1..=18 {
        let number = format!("rule_{rule:02}_");
        assert!(
            listed.iter().any(|name| name.starts_with(&number)),
            "{number} has no check"
        );
    }
}

async fn memory() -> (MemoryBackend, ()) {
    (MemoryBackend::default(), ())
}

async fn spoil(backend: &MemoryBackend, _: &(), key: Key) {
    backend.spoil(&key);
}

async fn spoil_inner(backend: &Flaky<MemoryBackend>, _: &(), key: Key) {
    backend.inner().spoil(&key);
}

async fn sqlite() -> (SqliteBackend, TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join(FILE);
    (
        SqliteBackend::open(path)
            .await
            .expect("a new file can be made there"),
        directory,
    )
}

async fn spoil_file(_: &SqliteBackend, directory: &TempDir, key: Key) {
    let path = directory.path().join(FILE);
    spoil::sqlite(&path, &key, spoil::SQLITE[0]).await;
}

async fn spoil_inner_file(_: &Flaky<SqliteBackend>, directory: &TempDir, key: Key) {
    let path = directory.path().join(FILE);
    spoil::sqlite(&path, &key, spoil::SQLITE[0]).await;
}

async fn through_a_pointer() -> (Arc<dyn Backend>, ()) {
    (Arc::new(Box::new(MemoryBackend::default())), ())
}

async fn memory_that_loses_answers() -> (Flaky<MemoryBackend>, ()) {
    (Flaky::new(MemoryBackend::default(), Faults::default()), ())
}

async fn sqlite_that_loses_answers() -> (Flaky<SqliteBackend>, TempDir) {
    let (backend, directory) = sqlite().await;
    (Flaky::new(backend, Faults::default()), directory)
}

const FILE: &str = "installations.sqlite3";

const SUITE: [&str; 8] = [
    include_str!("../src/testing/conformance/checks.rs"),
    include_str!("../src/testing/conformance/commits.rs"),
    include_str!("../src/testing/conformance/names.rs"),
    include_str!("../src/testing/conformance/malformed.rs"),
    include_str!("../src/testing/conformance/queues.rs"),
    include_str!("../src/testing/conformance/races.rs"),
    include_str!("../src/testing/conformance/rows.rs"),
    include_str!("../src/testing/conformance/scans.rs"),
];
