//! Commands against real servers.

use slack_installs::InstallationStore as _;
use slack_installs::backend::connect;
use slack_installs::{EncryptedStore, LocalKeyProvider, MasterKey};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};

use super::copies::{count, killed_twice};
use super::refusals::all_end;
use super::trial::fill;
use super::{House, kinds, open_sqlite};
use crate::postgres::Postgres;
use crate::server::{Server, directory, find, free_port, unprivileged};
use crate::support::app::{ADA, ALPHA};
use crate::support::checks::until;
use crate::support::installs::{With as _, in_workspace};

#[tokio::test]
async fn doctor_finds_a_redis_that_evicts() {
    let mut house = House::new().await;
    let directory = directory();
    let port = free_port();
    let program = find("redis-server", &[], "run `scripts/tools servers`");
    let mut command = unprivileged(program);
    command.current_dir(directory.path()).args([
        "--port",
        &port.to_string(),
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--maxmemory-policy",
        "allkeys-lru",
    ]);
    let _server = Server::start(&mut command, &directory.path().join("log"));
    until("Redis responds", async || {
        let connected = tokio::net::TcpStream::connect(("127.0.0.1", port));
        connected.await.is_ok()
    })
    .await;
    house.install(ADA).await;
    let file = house.values["SLACK_INSTALLS_URL"].clone();
    let url = format!("redis://127.0.0.1:{port}");
    house.set("SLACK_INSTALLS_URL", Some(&url));
    let ran = house.run_json(&["doctor"]).await;
    ran.ends(1);
    assert_eq!(kinds(&ran.json(), "checks", "name"), ["database"]);
    assert!(
        ran.out.contains("set `maxmemory-policy noeviction`"),
        "{ran:?}"
    );
    all_end(&house, 5, &["removes rows when its memory is full"]).await;
    // The command that the text names mends it.
    let command = ran.out.split('`').find(|it| it.starts_with("redis-cli "));
    let words = command.expect("a command").split_whitespace().skip(1);
    let mended = std::process::Command::new(find("redis-cli", &[], "run `scripts/tools servers`"))
        .args(["-p", &port.to_string()])
        .args(words)
        .output();
    assert!(mended.expect("it runs").status.success());
    all_end(&house, 4, &["no data keys yet for this app"]).await;
    house.set("FILE", Some(&file));
    let copy = ["copy", "env:FILE", "env:SLACK_INSTALLS_URL"];
    house.run(&copy).await.ends(0);
    house.run(&["doctor"]).await.ends(0);
    house.run(&["explain", ALPHA]).await.ends(0);
}

#[tokio::test]
async fn rows_move_from_postgres_to_a_file_and_back_and_the_tables_are_migrated() {
    let mut house = House::new().await;
    let server = Postgres::start_with(&[]).await;
    let (one, two) = (server.database("one").await, server.database("two").await);
    house.set("SLACK_INSTALLS_URL", Some(&one));
    house.set("TWO", Some(&two));
    // Reading creates no table.
    house.run(&["stats"]).await.ends(5);
    let ran = house.run_json(&["migrate", "--dry-run"]).await;
    assert_eq!(ran.json()["outcome"], "would_migrate", "{ran:?}");
    house.run(&["stats"]).await.ends(5);
    house.run(&["migrate"]).await.ends(0);

    let key = MasterKey::parse(&house.master_key).expect("a key");
    let backend = connect(&one).await.expect("the server is up");
    let app = house.app.fake.client_id();
    let store = EncryptedStore::open(backend, LocalKeyProvider::new(key), app).await;
    let store = store.expect("opens");
    for n in 0..20 {
        let tenant = in_workspace(&format!("T0COPY{n:05}")).with_bot("xoxb-1");
        store.store(&tenant).await.expect("stored");
    }
    let verified = house.run_json(&["verify"]).await;
    let rows = verified.json()["opened"].clone();
    for copy in [
        ["copy", "env:SLACK_INSTALLS_URL", "sqlite:backup"],
        ["copy", "sqlite:backup", "env:TWO"],
    ] {
        let ran = house.run_json(&copy).await;
        ran.ends(0);
        assert_eq!(ran.json()["rows"], rows);
        let verify = ["verify", "--database", copy[2]];
        let verified = house.run_json(&verify).await;
        assert_eq!(verified.json()["opened"], rows, "{verified:?}");
    }
    let ran = house
        .run(&["explain", "T0COPY00007", "--database", "env:TWO"])
        .await;
    ran.ends(0);
    // The tenant of the file is in none of them.
    house.install(ADA).await;
    house.run(&["explain", ALPHA]).await.ends(3);
}

#[tokio::test]
async fn a_wrong_password_and_a_role_that_only_reads_are_said_so() {
    let mut house = House::new().await;
    house.install(ADA).await;
    let rules = directory();
    let rules = rules.path().join("pg_hba.conf");
    let lines = "host all guest 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
    std::fs::write(&rules, lines).expect("the directory is ours");
    let server = Postgres::start_with(&[&format!("hba_file={}", rules.display())]).await;
    let url = server.database("app").await;
    house.set("TARGET", Some(&url));
    house
        .run(&["copy", "env:SLACK_INSTALLS_URL", "env:TARGET"])
        .await
        .ends(0);
    let roles = "CREATE ROLE guest LOGIN PASSWORD 'right'; CREATE ROLE reader LOGIN; \
                 GRANT SELECT ON slack_rows, slack_schema TO reader";
    crate::postgres::execute(&url, roles).await;
    let guest = server.url("guest:wrong", "app");
    house.set("SLACK_INSTALLS_URL", Some(&guest));
    all_end(&house, 5, &["refused the user or the password"]).await;

    // A role that may only read is enough for a report.
    let reader = server.url("reader", "app");
    house.set("SLACK_INSTALLS_URL", Some(&reader));
    for arguments in [
        &["doctor"][..],
        &["explain", ALPHA],
        &["list"],
        &["stats"],
        &["verify"],
        &["keys", "list"],
        &["freeze", ALPHA, "--reason", "r", "--dry-run"],
    ] {
        house.run(arguments).await.ends(0);
    }
    let ran = house
        .run(&["freeze", ALPHA, "--reason", "r", "--yes"])
        .await;
    assert!(ran.err.contains("permission denied"), "{ran:?}");
    ran.ends(5);

    // Tables that do not exist, and a server that does not respond.
    let empty = server.database("empty").await;
    house.set("SLACK_INSTALLS_URL", Some(&empty));
    all_end(&house, 5, &["slack-installs migrate"]).await;
    house.set(
        "SLACK_INSTALLS_URL",
        Some(&format!("postgres://a@127.0.0.1:{}/d", free_port())),
    );
    let ran = house.run(&["stats"]).await;
    ran.ends(5);
    assert!(ran.err.contains("check its address"), "{ran:?}");
}

async fn moves(tenants: usize) {
    let mut house = House::new().await;
    let server = Postgres::start_with(&[]).await;
    let (one, two) = (server.database("one").await, server.database("two").await);
    house.set("ONE", Some(&one));
    house.set("TWO", Some(&two));
    fill(&house.app.store, tenants).await;
    house.install(ADA).await;
    let first = ["copy", "env:SLACK_INSTALLS_URL", "env:ONE"];
    house.run(&first).await.ends(0);
    house.set("SLACK_INSTALLS_URL", Some(&one));
    let rows = house.run_json(&["verify"]).await.json()["opened"].clone();
    assert_eq!(rows, count(&**house.app.store.backend()).await);

    let backup = open_sqlite(&house.path("backup")).await;
    let two = connect(&two).await.expect("the server is up");
    for (copy, target) in [
        (["copy", "env:ONE", "sqlite:backup"], &backup),
        (["copy", "sqlite:backup", "env:TWO"], &two),
    ] {
        killed_twice(&house, &copy, &**target).await;
        let ran = house.run_json(&copy).await;
        ran.ends(0);
        let report = ran.json();
        assert_eq!(
            (&report["rows"], &report["is_finished"]),
            (&rows, &true.into())
        );
        assert!(report["present"].as_u64() >= Some(40), "{report}");
        let ran = house.run_json(&["verify", "--database", copy[2]]).await;
        ran.ends(0);
        assert_eq!(ran.json()["opened"], rows, "{ran:?}");
    }
    let stats = async |database: &str| {
        let ran = house.run_json(&["stats", "--database", database]).await;
        ran.ends(0);
        ran.out
    };
    let counts = stats("env:ONE").await;
    assert_eq!(counts, stats("sqlite:backup").await);
    assert_eq!(counts, stats("env:TWO").await);
    let explain = ["explain", ALPHA, "--database", "env:TWO"];
    house.run(&explain).await.ends(0);

    // One byte of the file changes.
    let (place, row) = house.row(ALPHA, "bot").await;
    drop(backup);
    let options = SqliteConnectOptions::new().filename(house.path("backup"));
    let mut connection = options.connect().await.expect("the file is a database");
    let whole = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)");
    connection.execute(whole).await.expect("nobody reads");
    drop(connection);
    let mut bytes = std::fs::read(house.path("backup")).expect("the file is ours");
    let sealed = &row.sealed.as_bytes()[row.sealed.as_bytes().len() - 24..];
    let mut places = bytes.windows(sealed.len()).enumerate();
    let found = places
        .find(|(_, window)| *window == sealed)
        .expect("the row is there")
        .0;
    bytes[found + 3] ^= 0x10;
    std::fs::write(house.path("flipped"), bytes).expect("the directory is ours");
    let verify = ["verify", "--database", "sqlite:flipped"];
    let ran = house.run(&verify).await;
    assert!(
        ran.ends(8).contains(&format!("damaged: {place}")),
        "{ran:?}"
    );
    let ran = house.run_json(&verify).await;
    assert_eq!(
        ran.json()["damaged"],
        serde_json::json!([place.to_string()])
    );
}

#[tokio::test]
async fn rows_move_from_postgres_to_a_file_and_back_though_each_copy_is_killed_twice() {
    moves(200).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn rows_of_10_000_tenants_move_from_postgres_to_a_file_and_back() {
    moves(10_000).await;
}
