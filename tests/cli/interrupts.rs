//! Every command is interrupted or killed between its calls to the database, and runs again to its
//! end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slack_installs::LocalKeyProvider;
use slack_installs::backend::connect;
use slack_installs::testing::Rotation;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::every::{All, Case, Does, EVERY, NONE, cleared};
use super::signals::signal;
use super::{House, ago};
use crate::postgres::Postgres;
use crate::server::{Server, directory, find, free_port, unprivileged};
use crate::support::app::{ADA, ALPHA};
use crate::support::checks::until;

/// Passes the bytes between a program and its database on, and counts what the program sends. After
/// a number of calls, the responses are held back, so that the program stops in its middle.
struct Gate {
    port: u16,
    calls: Arc<AtomicUsize>,
    /// After how many calls the gate is closed.
    closes: Arc<AtomicUsize>,
    is_open: Arc<watch::Sender<bool>>,
}

impl Gate {
    async fn before(database: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback has a free port");
        let gate = Self {
            port: listener.local_addr().expect("it is bound").port(),
            calls: Arc::default(),
            closes: Arc::new(AtomicUsize::new(usize::MAX)),
            is_open: Arc::new(watch::Sender::new(true)),
        };
        let (calls, closes) = (Arc::clone(&gate.calls), Arc::clone(&gate.closes));
        let is_open = Arc::clone(&gate.is_open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", database)).await;
                let (mut asked, mut asks) = client.into_split();
                let (mut answered, mut answers) = server.expect("it runs").into_split();
                let (calls, closes) = (Arc::clone(&calls), Arc::clone(&closes));
                let (closing, mut opened) = (Arc::clone(&is_open), is_open.subscribe());
                tokio::spawn(async move {
                    let mut bytes = vec![0; 65_536];
                    while let Ok(length @ 1..) = asked.read(&mut bytes).await {
                        // The database carries the call out, and its response is held back.
                        if calls.fetch_add(1, Ordering::SeqCst) + 1 == closes.load(Ordering::SeqCst)
                        {
                            closing.send_replace(false);
                        }
                        if answers.write_all(&bytes[..length]).await.is_err() {
                            break;
                        }
                    }
                });
                tokio::spawn(async move {
                    let mut bytes = vec![0; 65_536];
                    while let Ok(length @ 1..) = answered.read(&mut bytes).await {
                        let is_open = opened.wait_for(|is_open| *is_open).await.is_ok();
                        if !is_open || asks.write_all(&bytes[..length]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        gate
    }

    /// Closes after this many more calls.
    fn close_after(&self, calls: usize) {
        let closes = self.calls.load(Ordering::SeqCst) + calls;
        self.closes.store(closes, Ordering::SeqCst);
    }

    fn open(&self) {
        self.closes.store(usize::MAX, Ordering::SeqCst);
        self.is_open.send_replace(true);
    }

    /// Runs a command to its end, and returns the number of its calls.
    async fn calls_of(&self, house: &House, arguments: &[&str]) -> usize {
        let before = self.calls.load(Ordering::SeqCst);
        house.run(arguments).await.ends(0);
        self.calls.load(Ordering::SeqCst) - before
    }

    /// Starts a command, and sends it a signal after this many calls. Returns whether that ended
    /// it.
    async fn stop(&self, house: &House, arguments: &[&str], calls: usize, name: &str) -> bool {
        let mut closed = self.is_open.subscribe();
        self.close_after(calls);
        let running = house.command(arguments).spawn().expect("it starts");
        let process = running.id().expect("it runs");
        let mut output = std::pin::pin!(running.wait_with_output());
        tokio::select! {
            output = &mut output => panic!("{arguments:?} is over before call {calls}: {output:?}"),
            closed = closed.wait_for(|is_open| !is_open) => drop(closed.expect("we have it")),
        }
        signal(process, name).await;
        if name == "-INT" {
            self.open();
        }
        let output = output.await.expect("it ends");
        self.open();
        let code = output.status.code();
        let is_stopped = code == if name == "-KILL" { None } else { Some(130) };
        assert!(
            is_stopped || code == Some(0),
            "{arguments:?} at {calls}: {output:?}"
        );
        is_stopped
    }
}

/// A Redis server whose rows can be put back.
struct Redis {
    _server: Server,
    _directory: TempDir,
    port: u16,
}

impl Redis {
    async fn start() -> Self {
        let (directory, port) = (directory(), free_port());
        let mut command = unprivileged(find("redis-server", &[], REMEDY));
        command.current_dir(directory.path());
        command.args(["--port", &port.to_string(), "--appendonly", "yes"]);
        command.args([
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            "noeviction",
        ]);
        let server = Server::start(&mut command, &directory.path().join("log"));
        until("Redis responds", async || {
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self {
            _server: server,
            _directory: directory,
            port,
        }
    }

    /// Copies all keys of one of the server's databases to another one.
    fn copied(&self, from: u8, to: u8) {
        let script = format!(
            "redis.call('SELECT', {to}) redis.call('FLUSHDB') redis.call('SELECT', {from}) \
             for _, key in ipairs(redis.call('KEYS', '*')) do \
             redis.call('COPY', key, key, 'DB', {to}) end return 'copied'"
        );
        let run = std::process::Command::new(find("redis-cli", &[], REMEDY))
            .args(["-p", &self.port.to_string(), "EVAL", &script, "0"])
            .output();
        let out = String::from_utf8(run.expect("it runs").stdout).expect("UTF-8");
        assert_eq!(out.trim(), "copied");
    }
}

const REMEDY: &str = "run `scripts/tools servers`";

/// Stops every command that `is_meant` selects at so many places.
async fn each_runs_again(places: usize, is_meant: fn(Case) -> bool) {
    let redis = Redis::start().await;
    let gate = Gate::before(redis.port).await;
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let backend = connect(&url).await.expect("the server is up");
    let directory = tempfile::tempdir().expect("a directory");
    let local = |master| Arc::new(LocalKeyProvider::new(master)) as Arc<_>;
    let mut house = House::over(directory, backend, &url, local).await;
    house.app.fake.rotate_tokens(Rotation::default());
    house.set(
        "SLACK_INSTALLS_URL",
        Some(&format!("redis://127.0.0.1:{}", gate.port)),
    );
    let all = All::new(house).await;
    redis.copied(0, 1);
    let before = all.house.rows().await;
    let mut cases = 0;
    for case in EVERY.into_iter().filter(|case| is_meant(*case)) {
        cases += 1;
        let arguments = all.confirmed(case);
        prepared(&all.house, &redis, case).await;
        let calls = gate.calls_of(&all.house, &arguments).await;
        for (nth, name) in ["-KILL", "-INT"]
            .into_iter()
            .cycle()
            .take(places)
            .enumerate()
        {
            prepared(&all.house, &redis, case).await;
            let place = calls * (nth + 1) / (places + 1);
            let place = place.max(1);
            let is_stopped = gate.stop(&all.house, &arguments, place, name).await;
            // At last, a change is made, and the log is closed.
            let is_done = case.2 == Does::Changes && place * 5 > calls * 4;
            assert!(is_stopped || is_done, "{name} at {place}: {arguments:?}");
            if case.2 == Does::Reads {
                assert_eq!(all.changed(&before).await, NONE, "{arguments:?}");
            }
            is_done_again(&all, case, place, name).await;
        }
    }
    assert!(cases > 0);
}

/// Puts all rows back. What Slack did cannot be undone, so a refreshed tenant keeps its rows, and a
/// revoked one installs the app again.
async fn prepared(house: &House, redis: &Redis, case: Case) {
    cleared(house);
    if case.0 == "refresh" {
        return house.change_chain(ALPHA, aged).await;
    }
    redis.copied(1, 0);
    if case.0 == "revoke" {
        house.install(ADA).await;
        house.run(&["audit", "baseline", "--yes"]).await.ends(0);
    }
}

/// Makes a pair six hours old. Its lease, which a process that was killed left, has ended.
fn aged(chain: &mut slack_installs::store::Chain) {
    chain.issued_at = ago(6 * 3600);
    if let Some(lease) = &mut chain.lease {
        lease.until = ago(3600);
    }
}

/// Runs the command to its end, and checks what it left.
async fn is_done_again(all: &All, case: Case, place: usize, name: &str) {
    let house = &all.house;
    let arguments = all.confirmed(case);
    if case.0 == "refresh" {
        house.change_chain(ALPHA, aged).await;
    }
    let deletes = [
        "revoke",
        "purge",
        "webhook remove",
        "keys destroy",
        "audit erase",
    ];
    let ran = house.run(&arguments).await;
    // What was deleted before the signal is not found.
    let is_deleted = deletes.contains(&case.0) && ran.code == 3;
    assert!(
        ran.code == 0 || is_deleted,
        "{name} at {place}: {arguments:?} {ran:?}"
    );
    if case.0 == "copy" {
        let rows = house.run_json(&["verify"]).await.json()["opened"].clone();
        let copied = ["verify", "--database", "sqlite:copied"];
        assert_eq!(house.run_json(&copied).await.json()["opened"], rows);
    }
    if case.2 != Does::Changes {
        return;
    }
    if ["revoke", "purge"].contains(&case.0) {
        let ran = house.run_json(&["explain", arguments[1]]).await;
        let is_gone = ran.code == 3 || ran.json()["served_by"].is_null();
        assert!(is_gone, "{name} at {place}: {ran:?}");
    } else if deletes.contains(&case.0) {
        house.run(&arguments).await.ends(3);
    }
    house.run(&["verify"]).await.ends(0);
    let ran = if case.0 == "audit erase" {
        // Records of a tenant that was erased are missing, so a comparison of the rows with the log
        // waits for processes that may live.
        let export = house.run(&["audit", "export"]).await;
        std::fs::write(house.path("export"), export.ends(0)).expect("the directory is ours");
        house.run(&["audit", "verify", "export"]).await
    } else {
        house.run(&["audit", "verify"]).await
    };
    assert_eq!(ran.code, 0, "{name} at {place}: {arguments:?} {ran:?}");
}

#[tokio::test]
async fn a_report_that_is_stopped_anywhere_changes_nothing_and_runs_again() {
    each_runs_again(FEW, |(_, _, does)| does == Does::Reads).await;
}

/// A pager that is not read to its end blocks the program.
#[tokio::test]
async fn an_export_that_nobody_reads_is_interrupted() {
    let (house, _) = super::audits::house().await;
    // More records than a pipe takes.
    for _ in 0..4 {
        super::trial::fill(&house.app.store, 100).await;
        house.run(&["audit", "baseline", "--yes"]).await.ends(0);
    }
    let mut running = house
        .command(&["audit", "export"])
        .spawn()
        .expect("it starts");
    let mut out = running.stdout.take().expect("it is piped");
    out.read_exact(&mut [0; 1000])
        .await
        .expect("it has records");
    signal(running.id().expect("it runs"), "-INT").await;
    let status = tokio::time::timeout(Duration::from_secs(60), running.wait()).await;
    let status = status.expect("it does not wait for its reader");
    assert_eq!(status.expect("a child").code(), Some(130));
}

/// Returns whether a command is about keys or the log.
fn is_of_all(path: &str) -> bool {
    path.starts_with("keys") || path.starts_with("audit")
}

#[tokio::test]
async fn a_change_of_a_tenant_that_is_stopped_anywhere_is_completed_by_another() {
    each_runs_again(FEW, |(path, _, does)| {
        does == Does::Changes && !is_of_all(path)
    })
    .await;
}

#[tokio::test]
async fn a_change_of_keys_or_of_the_log_that_is_stopped_anywhere_is_completed_by_another() {
    each_runs_again(FEW, |(path, _, does)| {
        does == Does::Changes && is_of_all(path)
    })
    .await;
}

#[tokio::test]
async fn a_copy_and_a_migration_that_are_stopped_anywhere_run_again() {
    each_runs_again(FEW, |(path, _, _)| path == "copy").await;
    // Redis has no tables.
    let server = Postgres::start_with(&[]).await;
    let gate = Gate::before(server.port()).await;
    let mut house = House::new().await;
    let mut calls = 0;
    for (nth, name) in ["", "-KILL", "-INT", "-KILL", "-INT"]
        .into_iter()
        .enumerate()
    {
        let database = format!("app{nth}");
        server.database(&database).await;
        let url = crate::postgres::url(gate.port, "postgres", &database);
        house.set("SLACK_INSTALLS_URL", Some(&url));
        if nth == 0 {
            calls = gate.calls_of(&house, &["migrate"]).await;
            continue;
        }
        let stopped = gate.stop(&house, &["migrate"], calls * nth / 5, name);
        assert!(stopped.await, "{nth}");
        house.run(&["migrate"]).await.ends(0);
        let ran = house.run_json(&["migrate"]).await;
        assert_eq!(ran.json()["outcome"], "nothing_to_do", "{nth} {ran:?}");
    }
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn a_change_that_is_stopped_at_each_of_many_places_is_completed_by_another() {
    each_runs_again(41, |(_, _, does)| does == Does::Changes).await;
}

/// The places at which each command is stopped.
const FEW: usize = 6;
