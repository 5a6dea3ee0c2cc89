//! Guarantees of a database in a file.

use std::fs;
use std::future::{Future, poll_fn};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::task::Poll;
use std::time::{Duration, UNIX_EPOCH};

use slack_installs::backend::{
    Backend, Change, ConnectErrorKind as Kind, Error, Expect, Metadata, Partition, Row, Scope,
    Sealed, Slot, SqliteBackend, Version,
};
use slack_installs::secret::{AccessToken, RefreshToken};
use slack_installs::{
    AppId, Bot, BotId, ClientId, Delete, EncryptedStore, Enterprise, EnterpriseId, Grant, Home,
    Installation, InstallationStore, LocalKeyProvider, MasterKey, Scopes, Team, TeamId, User,
    UserId,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row as _};
use tempfile::TempDir;

use queues::{refresh_at, refreshes, scanned};

#[allow(dead_code, unreachable_pub)]
#[path = "support/queues.rs"]
mod queues;

#[cfg(unix)]
#[tokio::test]
async fn the_file_and_what_stands_beside_it_are_the_owners_alone() {
    let (backend, file) = fresh().await;
    put(&backend, "bot", r#"{"n":1}"#).await;
    assert_eq!(
        file.modes(),
        [("", 0o600), ("-shm", 0o600), ("-wal", 0o600)]
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_others_can_read_is_closed_to_them() {
    use std::os::unix::fs::PermissionsExt;

    let (backend, file) = fresh().await;
    let written = put(&backend, "bot", r#"{"n":1}"#).await;
    backend.close().await.expect("no other process has it open");
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644)).expect("the file is ours");

    let backend = SqliteBackend::open(&file.path)
        .await
        .expect("a valid database");
    assert_eq!(read(&backend, "bot").await, Some(written));
    put(&backend, "bot", r#"{"n":2}"#).await;
    assert_eq!(
        file.modes(),
        [("", 0o600), ("-shm", 0o600), ("-wal", 0o600)]
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_leads_to_the_file_and_to_what_stands_beside_it() {
    let (backend, file) = fresh().await;
    let written = put(&backend, "bot", r#"{"n":1}"#).await;
    let link = file.directory.path().join("link.sqlite3");
    std::os::unix::fs::symlink(&file.path, &link).expect("the directory takes links");

    let linked = SqliteBackend::open(&link)
        .await
        .expect("a link to a valid database");
    assert_eq!(read(&linked, "bot").await, Some(written));
    let second = put(&linked, "bot", r#"{"n":2}"#).await;
    assert_eq!(read(&backend, "bot").await, Some(second));
    assert!(!file.directory.path().join("link.sqlite3-wal").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_openers_at_once_share_one_new_file() {
    let file = File::new();
    let openers: Vec<_> = (0..32)
        .map(|_| tokio::spawn(SqliteBackend::open(file.path.clone())))
        .collect();
    let mut backends = Vec::new();
    for opener in openers {
        let opened = opener.await.expect("opening does not panic");
        backends.push(opened.expect("a new file can be made there"));
    }
    let mut standing = None;
    for backend in &backends {
        assert_eq!(read(backend, "bot").await, standing);
        standing = Some(put(backend, "bot", r#"{"n":1}"#).await);
    }
}

#[tokio::test]
async fn four_processes_at_once_share_one_new_file() {
    let file = File::new();
    let children: Vec<_> = (0..4)
        .map(|at| child("put", &file.path, &at.to_string()))
        .collect();
    for mut child in children {
        await_line(&mut child, "put");
        assert!(child.wait().expect("the child started").success());
    }
    let backend = SqliteBackend::open(&file.path)
        .await
        .expect("a valid database");
    for at in 0..4 {
        assert!(read(&backend, &format!("slot{at}")).await.is_some());
    }
}

#[tokio::test]
async fn one_of_many_wins_though_they_come_by_different_connections() {
    let (first, file) = fresh().await;
    let second = SqliteBackend::open(&file.path)
        .await
        .expect("a valid database");
    for _ in 0..20 {
        let (one, other) = (row(r#"{"n":1}"#), row(r#"{"n":2}"#));
        let (one_put, other_put) = (
            [change("bot", &one, Expect::Absent)],
            [change("bot", &other, Expect::Absent)],
        );
        let partition = partition();
        let outcomes = tokio::join!(
            first.commit(&partition, &one_put),
            second.commit(&partition, &other_put)
        );
        let winner = match outcomes {
            (Ok(()), Err(Error::Conflict)) => one,
            (Err(Error::Conflict), Ok(())) => other,
            outcomes => panic!("expected one winner and one conflict: {outcomes:?}"),
        };
        assert_eq!(read(&first, "bot").await.as_ref(), Some(&winner));
        assert_eq!(read(&second, "bot").await.as_ref(), Some(&winner));
        second
            .commit(&partition, &[Change::Clear])
            .await
            .expect("rows may be cleared");
    }
}

#[tokio::test]
async fn rows_stand_after_reopening() {
    let (backend, file) = fresh().await;
    let written = put(&backend, "bot", r#"{ "n" : 1 }"#).await;
    backend.close().await.expect("no other process has it open");
    let backend = SqliteBackend::open(&file.path)
        .await
        .expect("a valid database");
    assert_eq!(read(&backend, "bot").await, Some(written));
}

#[tokio::test]
async fn rows_stand_after_a_drop_without_closing() {
    let (backend, file) = fresh().await;
    let written = put(&backend, "bot", r#"{"n":1}"#).await;
    drop(backend);
    let backend = SqliteBackend::open(&file.path)
        .await
        .expect("a valid database");
    assert_eq!(read(&backend, "bot").await, Some(written));
}

#[tokio::test]
async fn a_writer_that_is_killed_leaves_whole_commits() {
    let file = File::new();
    for (round, commits) in [1, 4, 9, 13, 22].into_iter().enumerate() {
        let mut writer = child("write", &file.path, &round.to_string());
        let mut last = String::new();
        for _ in 0..commits {
            last = await_line(&mut writer, "wrote ");
        }
        writer.kill().expect("the child started");
        writer.wait().expect("the child started");

        let backend = SqliteBackend::open(&file.path)
            .await
            .expect("a valid database");
        let rows = backend
            .read(&partition(), &batch())
            .await
            .expect("a valid database");
        let numbers: Vec<u64> = rows
            .iter()
            .map(|row| {
                let row = row.as_ref().expect("every commit puts every row");
                let json: serde_json::Value =
                    serde_json::from_str(row.metadata.as_str()).expect("we wrote it");
                json["n"].as_u64().expect("we wrote it")
            })
            .collect();
        assert!(
            numbers.windows(2).all(|pair| pair[0] == pair[1]),
            "rows of different commits: {numbers:?}"
        );
        let answered: u64 = last.parse().expect("the child prints numbers");
        assert!(
            numbers[0] >= answered,
            "{} is stored, {answered} was acknowledged",
            numbers[0]
        );
        put(&backend, "other", r#"{"n":1}"#).await;
    }
}

/// If the disk is full, SQLite rolls back by itself without notifying the driver.
#[cfg(unix)]
#[tokio::test]
async fn a_full_disk_fails_one_commit_and_not_the_next() {
    let file = File::new();
    let mut child = child_with_a_full_disk("fill", &file.path);
    await_line(&mut child, "recovered");
    assert!(child.wait().expect("the child started").success());
}

/// Not a test of its own: the other tests run this in a child process.
#[tokio::test]
async fn child_process() {
    let Some(task) = std::env::var_os(CHILD_TASK) else {
        return;
    };
    let variable = |name| std::env::var(name).expect("the parent sets it");
    let backend = SqliteBackend::open(variable(CHILD_FILE))
        .await
        .expect("the parent chose it");
    let argument = variable(CHILD_ARGUMENT);
    if task == "put" {
        put(&backend, &format!("slot{argument}"), r#"{"n":1}"#).await;
        println!("\nput");
        return;
    }
    if task == "fill" {
        let mut large = row(r#"{"n":1}"#);
        large.sealed = sealed(&vec![7; 4 << 20]);
        let large = [change("large", &large, Expect::Absent)];
        for _ in 0..2 {
            let outcome = backend.commit(&partition(), &large).await;
            assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
            assert_eq!(read(&backend, "large").await, None);
            put(&backend, "small", r#"{"n":1}"#).await;
        }
        println!("\nrecovered");
        return;
    }
    let round: u64 = argument.parse().expect("the parent sets it");
    for number in round * 1_000_000.. {
        let row = || row(&format!(r#"{{"n":{number}}}"#));
        let mut changes: Vec<_> = batch()
            .into_iter()
            .map(|slot| Change::Put {
                slot,
                row: row(),
                expect: Expect::Any,
            })
            .collect();
        if number % 2 == 0 {
            changes.push(Change::Clear);
        }
        backend
            .commit(&partition(), &changes)
            .await
            .expect("any rows may be put");
        println!("\nwrote {number}");
    }
}

/// The commit is dropped at each point where it waits.
#[tokio::test]
async fn a_dropped_commit_is_done_or_not_done_and_holds_nobody_up() {
    let (backend, file) = fresh().await;
    let bystander = SqliteBackend::open(&file.path)
        .await
        .expect("a valid database");
    let slots = batch();
    let mut standing: Vec<Option<Row>> = vec![None; slots.len()];
    let (mut done, mut undone) = (0, 0);
    for times in (0..20).cycle().take(100) {
        let rows: Vec<_> = slots.iter().map(|_| row(r#"{"n":1}"#)).collect();
        let changes: Vec<_> = slots
            .iter()
            .zip(&rows)
            .map(|(slot, row)| change(slot.as_str(), row, Expect::Any))
            .collect();
        waits(backend.commit(&partition(), &changes), times).await;

        // Waits until the other connection has finished.
        put(&bystander, "other", r#"{"n":1}"#).await;
        let rows: Vec<_> = rows.into_iter().map(Some).collect();
        let found = backend
            .read(&partition(), &slots)
            .await
            .expect("reads do not wait");
        if found == rows {
            done += 1;
        } else {
            assert!(
                found == standing,
                "neither the old rows nor the new after {times} waits"
            );
            undone += 1;
        }
        standing = found;
        put(&backend, "other", r#"{"n":2}"#).await;
    }
    assert!(done > 10 && undone > 10, "{done} done, {undone} undone");
}

#[tokio::test]
async fn a_lock_that_others_hold_makes_commits_unavailable_and_not_reads() {
    let (backend, file) = fresh().await;
    let written = put(&backend, "bot", r#"{"n":1}"#).await;
    let mut other = connect(&file.path).await;
    other
        .execute("BEGIN IMMEDIATE")
        .await
        .expect("the lock is free");

    let change = [change("bot", &row(r#"{"n":2}"#), Expect::Any)];
    let outcome = backend.commit(&partition(), &change).await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    assert_eq!(read(&backend, "bot").await, Some(written));

    other.execute("ROLLBACK").await.expect("we hold the lock");
    backend
        .commit(&partition(), &change)
        .await
        .expect("the lock is free");
}

#[tokio::test]
async fn a_closed_backend_is_unavailable() {
    let (backend, _file) = fresh().await;
    backend.close().await.expect("no other process has it open");
    let bot = [Slot::new("bot").expect("a plain name")];
    let outcome = backend.read(&partition(), &bot).await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    let outcome = backend.commit(&partition(), &[Change::Clear]).await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
}

#[tokio::test]
async fn deleted_bytes_are_gone_from_the_disk_after_closing() {
    let (backend, file) = fresh().await;
    let marker = b"once sealed, now deleted";
    let secret: Vec<u8> = marker.iter().copied().cycle().take(20_000).collect();
    for at in 0..40 {
        let mut row = row(&format!(r#"{{"marked":"visible and now deleted {at}"}}"#));
        row.sealed = sealed(&secret[..secret.len() / (at % 7 + 1)]);
        let put = [change(&format!("slot{at}"), &row, Expect::Absent)];
        backend
            .commit(&partition(), &put)
            .await
            .expect("the slot is empty");
    }
    put(&backend, "slot1", r#"{"n":"overwritten"}"#).await;
    let delete = Change::Delete {
        slot: Slot::new("slot2").expect("a plain name"),
        only: None,
    };
    backend
        .commit(&partition(), &[delete])
        .await
        .expect("deletes are allowed");
    let keep = row(r#"{"n":"kept"}"#);
    let clear = [Change::Clear, change("bot", &keep, Expect::Any)];
    backend
        .commit(&partition(), &clear)
        .await
        .expect("rows may be cleared");
    assert!(
        file.contains(marker),
        "the log contains the marker until the checkpoint"
    );

    backend.close().await.expect("no other process has it open");
    assert!(file.contains(b"kept"));
    assert!(!file.contains(marker));
    assert!(!file.contains(b"now deleted"));
}

#[tokio::test]
async fn the_view_shows_each_token_to_an_operator() {
    let (backend, file) = fresh().await;
    let provider = LocalKeyProvider::new(MasterKey::generate());
    let app = ClientId::new("100000000001.200000000002").expect("a plain id");
    let store = EncryptedStore::open(backend, provider, app)
        .await
        .expect("the file is new");
    let alpha = alpha();
    store.store(&alpha).await.expect("a valid database");
    let mut again = installation(alpha.home.clone());
    again.user = Some(user("U0ANNA0001"));
    store.store(&again).await.expect("a valid database");
    let org = Enterprise {
        id: id(EnterpriseId::new("E0BIG00001")),
        name: None,
    };
    store
        .store(&installation(Home::Org(org)))
        .await
        .expect("a valid database");

    let expected = [
        "E0BIG00001 - - - 1 2023-11-14 22:13:20 - - -",
        "E0BIG00001 T0ALPHA0001 - B0BOT00001 0 2023-11-14 22:13:20 U0BOT00001 \
         chat:write,commands 2023-11-15 10:13:20",
        "E0BIG00001 T0ALPHA0001 U0ADMIN0001 - 0 2023-11-14 22:13:20 - search:read -",
        "E0BIG00001 T0ALPHA0001 U0ANNA0001 - 0 2023-11-14 22:13:20 - search:read -",
    ];
    assert_eq!(view(&file.path).await, expected);

    store
        .delete(&alpha.key(), &Delete::all())
        .await
        .expect("a valid database");
    assert_eq!(view(&file.path).await.len(), 1);

    // The view ignores a row with foreign metadata, and still shows the others.
    put(store.backend(), "install", "not JSON").await;
    assert_eq!(view(&file.path).await.len(), 1);
}

#[tokio::test]
async fn a_row_whose_name_is_not_of_our_form_is_named_by_a_scan() {
    let (backend, file) = fresh().await;
    put(&backend, "bot", r#"{"n":1}"#).await;
    let mut other = connect(&file.path).await;
    other
        .execute("UPDATE slack_rows SET slot = 'two words'")
        .await
        .expect("the table exists");
    let page = scanned(&backend, 10).await.expect("a scan goes on");
    let name = format!("{} two words", partition());
    assert_eq!((page.rows.len(), page.malformed), (0, vec![name]));
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (backend, file) = fresh().await;
    backend.close().await.expect("no other process has it open");
    let mut other = connect(&file.path).await;
    other
        .execute("PRAGMA user_version = 7")
        .await
        .expect("a valid database");
    other.close().await.expect("a valid database");
    let before = fs::read(&file.path).expect("the file exists");

    let error = SqliteBackend::open(&file.path)
        .await
        .expect_err("version 7 is not of this crate");
    assert_eq!(
        (error.kind(), error.to_string().contains("schema 7")),
        (Kind::Newer, true),
        "{error:?}"
    );
    assert!(error.to_string().contains("schema 7"), "{error}");
    assert!(fs::read(&file.path).expect("the file exists") == before);
}

#[tokio::test]
async fn a_database_of_others_is_refused_and_left_alone() {
    let file = File::new();
    let mut other = SqliteConnectOptions::new()
        .filename(&file.path)
        .create_if_missing(true)
        .connect()
        .await
        .expect("a new file can be made there");
    other
        .execute("CREATE TABLE slack_rows (theirs)")
        .await
        .expect("the file is new");
    other.close().await.expect("a valid database");
    refused_as_foreign(&file.path).await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let file = File::new();
    for garbage in [
        &b"x"[..],
        &[0x5a; 100],
        &[0; 4096],
        &b"SQLite format 3\0".repeat(300),
    ] {
        fs::write(&file.path, garbage).expect("the directory exists");
        refused_as_foreign(&file.path).await;
    }
}

#[tokio::test]
async fn an_empty_file_is_as_good_as_none() {
    let file = File::new();
    fs::write(&file.path, b"").expect("the directory exists");
    let backend = SqliteBackend::open(&file.path)
        .await
        .expect("the file is empty");
    put(&backend, "bot", r#"{"n":1}"#).await;
}

#[tokio::test]
async fn a_path_that_cannot_be_a_file_is_refused_with_the_reason() {
    let file = File::new();
    let directory = file.directory.path();

    let error = SqliteBackend::open(directory)
        .await
        .expect_err("it is a directory");
    assert_eq!(
        (error.kind(), error.to_string().contains("regular file")),
        (Kind::Invalid, true),
        "{error:?}"
    );

    let orphan = directory.join("missing/installations.sqlite3");
    let error = SqliteBackend::open(&orphan)
        .await
        .expect_err("its directory is missing");
    assert_eq!(error.kind(), Kind::Invalid, "{error:?}");
    assert!(
        error.to_string().contains("missing/installations.sqlite3"),
        "{error}"
    );
    assert!(!orphan.exists());

    let error = SqliteBackend::open(":memory:")
        .await
        .expect_err("that is no file");
    assert!(error.to_string().contains("MemoryBackend"), "{error}");
    assert!(!Path::new(":memory:").exists());
}

#[tokio::test]
async fn debug_shows_the_path_and_no_row() {
    let (backend, file) = fresh().await;
    put(&backend, "bot", r#"{"name":"Alpha"}"#).await;
    let shown = format!("{backend:?}");
    assert!(shown.contains(&file.path.display().to_string()), "{shown}");
    assert!(!shown.contains("Alpha"), "{shown}");
}

/// A path for a database in a temporary directory, which is deleted on drop.
struct File {
    directory: TempDir,
    path: PathBuf,
}

impl File {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let real = directory.path().canonicalize().expect("it was just made");
        Self {
            path: real.join("installations.sqlite3"),
            directory,
        }
    }

    /// Returns the suffix and the mode of each file of the database.
    #[cfg(unix)]
    fn modes(&self) -> Vec<(&'static str, u32)> {
        use std::os::unix::fs::PermissionsExt;

        let there = |suffix: &&str| self.beside(suffix).exists();
        let mode = |suffix| {
            let metadata = fs::metadata(self.beside(suffix)).expect("exists");
            (suffix, metadata.permissions().mode() & 0o777)
        };
        SUFFIXES.into_iter().filter(there).map(mode).collect()
    }

    /// Returns whether any file of the directory contains these bytes. Another process searches,
    /// because closing a file here would drop the locks that SQLite holds on it in this process.
    fn contains(&self, wanted: &[u8]) -> bool {
        let wanted = std::str::from_utf8(wanted).expect("the marker is a text");
        Command::new("grep")
            .args([
                "--recursive",
                "--binary-files=text",
                "--quiet",
                "--fixed-strings",
                wanted,
            ])
            .arg(self.directory.path())
            .status()
            .expect("grep is on the PATH")
            .success()
    }

    #[cfg(unix)]
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }
}

async fn fresh() -> (SqliteBackend, File) {
    let file = File::new();
    (
        SqliteBackend::open(&file.path)
            .await
            .expect("a new file can be made there"),
        file,
    )
}

#[tokio::test]
async fn the_schema_and_the_queries_of_the_guide_are_those_of_the_database() {
    let (_backend, file) = fresh().await;
    let mut connection = connect(&file.path).await;
    let guide = include_str!("../docs/storage.md").split("```sql\n").skip(1);
    let blocks = guide.map(|block| block.split("\n```").next().expect("its end"));
    let (schema, queries): (Vec<_>, Vec<_>) =
        blocks.partition(|block| block.starts_with("CREATE TABLE"));
    let table: String = connection
        .fetch_one("SELECT sql FROM sqlite_schema WHERE name = 'slack_rows'")
        .await
        .expect("the table exists")
        .get(0);
    // The second one is the table of Postgres.
    assert_eq!(schema[0], format!("{table};"));
    assert_eq!(schema.len(), 2);
    assert_eq!(queries.len(), 4);
    for query in queries {
        let rows = sqlx::query(query).fetch_all(&mut connection).await;
        assert!(rows.is_ok(), "{query}: {rows:?}");
    }
}

async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.connect().await.expect("a valid database")
}

async fn refused_as_foreign(path: &Path) {
    let before = fs::read(path).expect("the file exists");
    let error = SqliteBackend::open(path)
        .await
        .expect_err("the file is not ours");
    assert_eq!(error.kind(), Kind::Foreign, "{error:?}");
    assert!(fs::read(path).expect("the file exists") == before);
}

/// Returns the lines of the view, without the columns that are the same in all lines.
async fn view(path: &Path) -> Vec<String> {
    let mut connection = connect(path).await;
    let rows = sqlx::query(
        "SELECT concat_ws(' ', coalesce(enterprise_id, '-'), coalesce(team_id, '-'),
           coalesce(user_id, '-'), coalesce(bot_id, '-'), is_enterprise_install, installed_at,
           coalesce(bot_user_id, '-'), coalesce(scopes, '-'), coalesce(expires_at, '-'))
         FROM slack_installations
         WHERE client_id = '100000000001.200000000002' AND app_id = 'A0APP00001'
         ORDER BY team_id, user_id",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the view works");
    rows.iter().map(|row| row.get(0)).collect()
}

fn alpha() -> Installation {
    let mut alpha = installation(Home::Workspace {
        enterprise: Some(Enterprise {
            id: id(EnterpriseId::new("E0BIG00001")),
            name: None,
        }),
        team: Team {
            id: id(TeamId::new("T0ALPHA0001")),
            name: Some("Alpha \"1\"".into()),
        },
    });
    alpha.bot = Some(Bot {
        user_id: id(UserId::new("U0BOT00001")),
        id: Some(id(BotId::new("B0BOT00001"))),
        grant: Grant {
            access_token: id(AccessToken::new("xoxe.xoxb-1-not-a-token")),
            refresh_token: Some(id(RefreshToken::new("xoxe-1-not-a-token"))),
            expires_at: Some(UNIX_EPOCH + Duration::from_secs(INSTALLED_AT + 12 * 3600)),
            scopes: Scopes::from("chat:write,commands"),
        },
    });
    alpha.user = Some(user("U0ADMIN0001"));
    alpha
}

fn installation(home: Home) -> Installation {
    let installed_at = UNIX_EPOCH + Duration::from_secs(INSTALLED_AT);
    Installation::new(id(AppId::new("A0APP00001")), home, installed_at)
}

fn user(name: &str) -> User {
    let grant = Grant {
        access_token: id(AccessToken::new("xoxp-1-not-a-token")),
        refresh_token: None,
        expires_at: None,
        scopes: Scopes::from("search:read"),
    };
    User {
        id: id(UserId::new(name)),
        grant,
    }
}

fn id<T, E: std::fmt::Debug>(checked: Result<T, E>) -> T {
    checked.expect("the tests use plain ids and tokens")
}

/// Starts this test binary as a child process for one task.
fn child(task: &str, path: &Path, argument: &str) -> Child {
    let this = std::env::current_exe().expect("a running program has a path");
    start(&mut Command::new(this), task, path, argument)
}

/// Does the same, with a limit of one megabyte for each file, as on a full disk.
#[cfg(unix)]
fn child_with_a_full_disk(task: &str, path: &Path) -> Child {
    let this = std::env::current_exe().expect("a running program has a path");
    let limited = r#"trap "" XFSZ; ulimit -f 2048; exec "$0" "$@""#;
    start(
        Command::new("sh").args(["-c", limited]).arg(this),
        task,
        path,
        "",
    )
}

fn start(program: &mut Command, task: &str, path: &Path, argument: &str) -> Child {
    program
        .args(["--exact", "child_process", "--nocapture"])
        .env(CHILD_TASK, task)
        .env(CHILD_FILE, path)
        .env(CHILD_ARGUMENT, argument)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be run again")
}

/// Returns the rest of the child's next line that has this prefix.
fn await_line(child: &mut Child, beginning: &str) -> String {
    let stdout = child.stdout.as_mut().expect("the child's output is a pipe");
    // Reads with a buffer of one byte, so that no byte is read ahead and lost.
    for line in BufReader::with_capacity(1, stdout).lines() {
        if let Some(rest) = line.expect("the child prints text").strip_prefix(beginning) {
            return rest.into();
        }
    }
    panic!("the child ended before it printed {beginning:?}");
}

/// Polls the future until it has waited this many times or is done, and then drops it.
async fn waits(future: impl Future<Output = Result<(), Error>>, mut times: usize) {
    let mut future = pin!(future);
    poll_fn(|context| match (future.as_mut().poll(context), times) {
        (Poll::Ready(outcome), _) => Poll::Ready(outcome),
        (Poll::Pending, 0) => Poll::Ready(Ok(())),
        (Poll::Pending, _) => {
            times -= 1;
            Poll::Pending
        }
    })
    .await
    .expect("any rows may be put")
}

async fn put(backend: &SqliteBackend, slot: &str, metadata: &str) -> Row {
    let row = row(metadata);
    let put = [change(slot, &row, Expect::Any)];
    backend
        .commit(&partition(), &put)
        .await
        .expect("any row may be put");
    row
}

async fn read(backend: &SqliteBackend, slot: &str) -> Option<Row> {
    let slots = [Slot::new(slot).expect("a plain name")];
    backend
        .read(&partition(), &slots)
        .await
        .expect("a valid database")
        .remove(0)
}

fn change(slot: &str, row: &Row, expect: Expect) -> Change {
    Change::Put {
        slot: Slot::new(slot).expect("a plain name"),
        row: row.clone(),
        expect,
    }
}

fn batch() -> Vec<Slot> {
    (0..10)
        .map(|at| Slot::new(format!("user/U{at}")).expect("a plain name"))
        .collect()
}

fn partition() -> Partition {
    Partition::new("100000000001.200000000002/T0OTHER0001").expect("a plain name")
}

fn row(metadata: &str) -> Row {
    let (version, metadata) = (Version::mint(), Metadata::new(metadata));
    Row {
        version,
        metadata,
        sealed: sealed(&[7; 40]),
        due: None,
    }
}

/// Returns bytes in the form of an envelope that no key opens.
fn sealed(content: &[u8]) -> Sealed {
    let mut bytes = b"SLE1".to_vec();
    bytes.resize(100, 0);
    bytes.extend_from_slice(content);
    Sealed::from_stored(bytes)
}

#[tokio::test]
async fn a_log_that_cannot_be_emptied_is_told_to_whoever_closes() {
    let (backend, file) = fresh().await;
    let written = put(&backend, "bot", r#"{"n":1}"#).await;
    let mut other = connect(&file.path).await;
    other.execute("BEGIN").await.expect("no lock is held");
    other
        .fetch_all("SELECT * FROM slack_rows")
        .await
        .expect("a valid database");
    put(&backend, "user/U1", r#"{"n":2}"#).await;
    let closed = backend.close().await;
    assert!(matches!(closed, Err(Error::Unavailable(_))), "{closed:?}");
    drop(other);
    let backend = SqliteBackend::open(&file.path)
        .await
        .expect("a valid database");
    assert_eq!(
        read(&backend, "bot").await,
        Some(written),
        "nothing is lost"
    );
    backend.close().await.expect("no reader is left");
}

#[tokio::test]
async fn a_page_has_a_thousand_rows_at_most() {
    let (backend, _file) = fresh().await;
    let puts: Vec<_> = (0..1001)
        .map(|nth| change(&format!("user/U{nth}"), &row("{}"), Expect::Absent))
        .collect();
    backend.commit(&partition(), &puts).await.expect("new rows");
    let page = scanned(&backend, usize::MAX).await.expect("a page");
    assert_eq!(page.rows.len(), 1000);
    let page = backend.scan(&Scope::Everything, page.next, usize::MAX);
    let page = page.await.expect("a page");
    assert_eq!((page.rows.len(), page.next), (1, None));
}

#[tokio::test]
async fn malformed_rows_are_skipped_and_named() {
    let (backend, file) = fresh().await;
    let partition = Partition::new("app/T1").expect("a plain name");
    for slot in ["user/U1", "user/U2", "user/U3"] {
        let due = Row {
            due: refresh_at(UNIX_EPOCH),
            ..row("{}")
        };
        let put = [change(slot, &due, Expect::Absent)];
        backend.commit(&partition, &put).await.expect("new rows");
    }
    let mut other = connect(&file.path).await;
    other
        .execute(
            "PRAGMA ignore_check_constraints = on; \
             UPDATE slack_rows SET version = x'00' WHERE slot = 'user/U2'; \
             INSERT INTO slack_rows VALUES \
               ('app/{malformed}', 'bot', x'00', '', x'00', 'refresh', 0), \
               (CAST(x'6170702fff' AS TEXT), 'bot', x'00', '', x'00', 'refresh', 0), \
               ('app/T1', 'lane', zeroblob(16), '', x'00', 'unknown', 0), \
               ('app/T1', 'time', zeroblob(16), '', x'00', 'refresh', NULL)",
        )
        .await
        .expect("no lock is held");
    for limit in [1, 2, 10] {
        let mut from = None;
        let (mut rows, mut malformed) = (Vec::new(), Vec::new());
        loop {
            let page = backend.due(&refreshes(), UNIX_EPOCH, from, limit).await;
            let page = page.expect("a valid database");
            rows.extend(page.rows.into_iter().map(|(key, _)| key.slot.to_string()));
            malformed.extend(page.malformed);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(rows, ["user/U1", "user/U3"]);
        malformed.sort_unstable();
        assert_eq!(
            malformed,
            ["app/T1 user/U2", "app/{malformed} bot", "app/\u{fffd} bot"]
        );
    }
    let mut page = scanned(&backend, 10).await.expect("a scan goes on");
    page.malformed.sort_unstable();
    assert_eq!(page.rows.len(), 2);
    let named = [
        "app/T1 lane",
        "app/T1 time",
        "app/T1 user/U2",
        "app/{malformed} bot",
        "app/\u{fffd} bot",
    ];
    assert_eq!(page.malformed, named);
}

const CHILD_ARGUMENT: &str = "SLACK_INSTALLS_TEST_CHILD_ARGUMENT";
const CHILD_FILE: &str = "SLACK_INSTALLS_TEST_CHILD_FILE";
const CHILD_TASK: &str = "SLACK_INSTALLS_TEST_CHILD_TASK";

/// 2023-11-14T22:13:20Z.
const INSTALLED_AT: u64 = 1_700_000_000;

#[cfg(unix)]
const SUFFIXES: [&str; 4] = ["", "-journal", "-shm", "-wal"];
