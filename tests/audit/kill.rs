//! Processes that are killed while they read tokens. The database is a file.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use slack_installs::audit::{Audit, AuditOptions, Ending, Filter, VerifyOptions, records, verify};
use slack_installs::backend::SqliteBackend;
use slack_installs::store::AuditContext;
use slack_installs::{ClientId, EncryptedStore, InstallationStore as _};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::log::key;
use crate::support::installs::{with_both, workspace_key};
use crate::support::providers::master_key;
use slack_installs::LocalKeyProvider;

type FileStore = EncryptedStore<SqliteBackend>;

async fn opened(path: &Path) -> FileStore {
    let backend = SqliteBackend::open(path).await.expect("the file opens");
    let app = ClientId::new("1.2").expect("an id");
    let store = EncryptedStore::open(backend, LocalKeyProvider::new(master_key()), app).await;
    store.expect("the master key fits")
}

/// Reads tokens until it is killed. Prints the number and the time of each token that it received.
/// It is not a test: the tests below start it.
#[tokio::test]
async fn a_process_that_reads() {
    let Some(path) = std::env::var_os("AUDIT_KILL") else {
        return;
    };
    let is_strict = std::env::var_os("AUDIT_STRICT").is_some();
    let store = opened(Path::new(&path)).await;
    let options = AuditOptions::default().signed_by(key());
    let options = if is_strict { options.strict() } else { options };
    let audit = Audit::open(Arc::new(store.clone()), options)
        .await
        .expect("opens");
    let run = audit.current_run().expect("it runs");
    let store = store.with_witness(audit);
    let installation = with_both("T1", "xoxb-1", "U1", "xoxp-1");
    store.store(&installation).await.expect("stored");
    let readers = (0..4).map(|reader| {
        let store = store.clone();
        async move {
            for nth in 0.. {
                let name = format!("{run}-{reader}-{nth}");
                let tenant = workspace_key("T1");
                let fetch = store.fetch(&tenant, None);
                let fetched = AuditContext::actor(&name).scope(fetch).await;
                fetched.expect("fetched").expect("installed");
                let time = millis(SystemTime::now());
                let mut out = std::io::stdout().lock();
                writeln!(out, "got {name} {time}").expect("written");
                out.flush().expect("written");
                if !is_strict {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    futures_util::future::join_all(readers).await;
}

fn millis(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).expect("later").as_millis()
}

/// Starts a process, kills it after so long, and returns what it received and when, and when it
/// was killed.
async fn killed(path: &Path, is_strict: bool, after: Duration) -> (Vec<(String, u128)>, u128) {
    let program = std::env::current_exe().expect("the test binary has a path");
    let mut command = Command::new(program);
    command
        .args(["--exact", "kill::a_process_that_reads", "--nocapture"])
        .env("AUDIT_KILL", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if is_strict {
        command.env("AUDIT_STRICT", "1");
    }
    let mut process = command.spawn().expect("it starts");
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let mut received = Vec::new();
    let first = loop {
        match lines.next_line().await.expect("text") {
            Some(line) if line.contains("got ") => break line,
            Some(_) => {}
            // On a busy machine, its first record can be late: then it has received nothing.
            None if is_strict => return (Vec::new(), 0),
            None => panic!("the process ended before it read"),
        }
    };
    received.push(first);
    let collect = async {
        while let Ok(Some(line)) = lines.next_line().await {
            received.push(line);
        }
    };
    let kill = async {
        tokio::time::sleep(after).await;
        let at = millis(SystemTime::now());
        // SIGKILL.
        process.kill().await.expect("killed");
        at
    };
    let ((), at) = tokio::join!(collect, kill);
    let received = received.iter().filter_map(|line| {
        let words: Vec<_> = line.split("got ").nth(1)?.split(' ').collect();
        // The last line can be cut.
        let [name, time] = words[..] else { return None };
        Some((name.to_owned(), time.parse().ok()?))
    });
    (received.collect(), at)
}

/// Returns the actors of all reads in the log, which must verify and say that its runs have no end.
async fn logged(path: &Path) -> Vec<String> {
    let store = opened(path).await;
    let options = VerifyOptions {
        keys: vec![key().verifying_key(UNIX_EPOCH, None)],
        ..VerifyOptions::default()
    };
    let report = verify(&store, &options).await.expect("the file is read");
    assert_eq!(report.findings, []);
    assert!(
        report
            .runs
            .iter()
            .all(|run| run.ending == Ending::Open && run.lost == 0)
    );
    let records: Vec<_> = records(&store, Filter::default())
        .try_collect()
        .await
        .expect("read");
    let reads = records.into_iter().filter(|it| it.public.event == "open");
    let details = reads.filter_map(|it| it.detail);
    details.filter_map(|it| it.actor).collect()
}

/// Kills so many processes one after the other, which write one log.
async fn strictly_killed(times: u64, first: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.sqlite3");
    let mut received = Vec::new();
    for nth in first..first + times {
        // Moments that differ, and are the same in each run of the test.
        let after = Duration::from_millis(nth * 7919 % 223);
        received.extend(killed(&path, true, after).await.0);
    }
    let logged: HashSet<_> = logged(&path).await.into_iter().collect();
    let mut missing = received.iter().filter(|(name, _)| !logged.contains(name));
    assert_eq!(missing.next(), None);
    assert!(!received.is_empty());
}

#[tokio::test]
async fn in_strict_mode_a_killed_process_has_received_no_token_without_a_record() {
    strictly_killed(8, 0).await;
}

/// Each process reads what the killed ones before it wrote, so 200 in one log would take long.
#[tokio::test]
#[ignore = "takes minutes"]
async fn in_strict_mode_200_killed_processes_have_received_no_token_without_a_record() {
    for log in 0..20 {
        strictly_killed(10, log * 10).await;
    }
}

/// What is missing is at the end, and the log says that it has no end.
async fn killed_by_default(after: Duration) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.sqlite3");
    let (tokens, at) = killed(&path, false, after).await;
    let logged: HashSet<_> = logged(&path).await.into_iter().collect();
    let bound = Duration::from_secs(5).as_millis();
    let old = tokens.iter().filter(|(_, time)| time + bound < at);
    let old: Vec<_> = old.collect();
    assert!(!old.is_empty() && old.len() < tokens.len());
    let mut missing = old.iter().filter(|(name, _)| !logged.contains(name));
    assert_eq!(missing.next(), None);
}

#[tokio::test]
async fn by_default_a_killed_process_loses_only_the_records_of_its_last_seconds() {
    killed_by_default(Duration::from_secs(8)).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn by_default_200_killed_processes_lose_only_the_records_of_their_last_seconds() {
    let kills = (0..200_u64).map(|nth| {
        let after = Duration::from_millis(6500 + nth * 7919 % 2500);
        async move { tokio::spawn(killed_by_default(after)).await }
    });
    let mut kills = stream::iter(kills).buffer_unordered(10);
    while let Some(killed) = kills.next().await {
        killed.expect("no panic");
    }
}
