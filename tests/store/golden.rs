//! Rows that earlier versions wrote can still be read, also by another implementation.
//!
//! `docs/envelope.md` explains how. Files are only added to `tests/golden/`, never changed.

use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use slack_installs::backend::{
    Backend, Change, Due, Expect, Lane, MemoryBackend, Metadata, Partition, Row, Sealed, Slot,
    Version,
};
use slack_installs::store::{Facts, StateId};
use slack_installs::{
    ClientId, Clock, EncryptedStore, Installation, InstallationStore, LocalKeyProvider, MasterKey,
    StateStore,
};

use crate::support::all_rows;
use crate::support::installs::{With, bot_id, in_org, in_workspace_of, noon, rotating, whole};

#[test]
fn another_implementation_recomputes_the_vectors_and_opens_the_databases() {
    let python = std::env::var_os("SLACK_INSTALLS_PYTHON").unwrap_or_else(|| "python3".into());
    let remedy = "run `scripts/test`, which sets Python up, or name a Python 3 that has the \
                  package `cryptography` in SLACK_INSTALLS_PYTHON";
    let has_cryptography = Command::new(&python)
        .args(["-B", "-c", "import cryptography"])
        .output();
    let has_cryptography = has_cryptography.is_ok_and(|output| output.status.success());
    assert!(
        has_cryptography,
        "{} with `cryptography` is missing: {remedy}",
        python.display()
    );

    let output = Command::new(&python)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["-B", "tests/golden/recompute.py", "src/seal/golden.json"])
        .args(DATABASES)
        .output()
        .expect("the child was just started");
    let (out, err) = (&output.stdout, &output.stderr);
    let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success(), "{out}{err}");
    assert!(
        out.contains("recomputed: 5 vectors, 2 wrapped keys, 11 rows"),
        "{out}"
    );
}

#[tokio::test]
async fn todays_code_reads_what_earlier_versions_wrote() {
    for path in DATABASES {
        let database = read(path);
        let backend = MemoryBackend::default();
        for row in database["rows"].as_array().expect("rows") {
            let text = |name: &str| row[name].as_str().expect("text");
            let partition = Partition::new(text("partition")).expect("a name");
            let put = Change::Put {
                slot: Slot::new(text("slot")).expect("a name"),
                row: Row {
                    version: Version::from_bytes(bytes(text("version")).try_into().expect("16")),
                    metadata: Metadata::new(text("metadata")),
                    sealed: Sealed::from_stored(bytes(text("sealed"))),
                    due: row["due"].as_object().map(|due| Due {
                        lane: Lane::from_stored(due["lane"].as_str().expect("text"))
                            .expect("a lane"),
                        at: seconds_after_1970(due["at"].as_u64().expect("a number")),
                    }),
                },
                expect: Expect::Absent,
            };
            backend
                .commit(&partition, &[put])
                .await
                .expect("the keys are unique");
        }
        let store = open(Arc::new(backend), &database).await;
        for expected in installations() {
            let user = expected.user.as_ref().map(|user| &user.id);
            let fetched = store.fetch(&expected.key(), user).await.expect("it opens");
            assert_eq!(
                whole(&fetched.expect("it is there")),
                whole(&expected),
                "{path}"
            );
        }
        let is_first = store.consume(&STATE, noon()).await.expect("it opens");
        assert!(!is_first, "it is there");
    }
}

/// Today's code writes the same metadata. `src/encrypted/installations/tests.rs` compares the
/// sealed plaintext.
#[tokio::test]
async fn todays_code_writes_the_same_metadata() {
    let golden = read(DATABASES[DATABASES.len() - 1]);
    let written = write(&golden).await;
    let shown = |database: &Value| -> Vec<String> {
        let rows = database["rows"].as_array().expect("rows").iter();
        let rows = rows.filter(|row| {
            !row["partition"]
                .as_str()
                .expect("text")
                .ends_with("keyring")
        });
        rows.map(|row| format!("{} {} {}", row["partition"], row["slot"], row["metadata"]))
            .collect()
    };
    assert_eq!(shown(&written), shown(&golden));
}

/// With `--nocapture` this prints the next golden database, for use after a form has changed.
/// `recompute.py` then reports what its `plaintext` should be.
#[tokio::test]
async fn a_golden_database_made_today_has_the_rows_of_the_newest_one() {
    let golden = json!({
        "app": "100000000001.200000000002",
        "master_key": "22".repeat(32),
    });
    let database = write(&golden).await;
    println!(
        "{}",
        serde_json::to_string_pretty(&database).expect("it is JSON")
    );
    let newest = DATABASES.last().expect("there is one");
    let newest = std::fs::read_to_string(newest).expect("the golden file is in the repository");
    let newest: Value = serde_json::from_str(&newest).expect("it is JSON");
    let rows = |database: &Value| database["rows"].as_array().map(Vec::len);
    assert!(rows(&database).is_some_and(|rows| rows > 0));
    assert_eq!(rows(&database), rows(&newest));
}

/// Every golden database, the newest last.
const DATABASES: [&str; 1] = ["tests/golden/database-1.json"];

const STATE: StateId = StateId([0xab; 32]);

/// The installations in the golden databases.
fn installations() -> Vec<Installation> {
    let mut workspace = in_workspace_of("E0GRID00001", "T0ALPHA0001")
        .with_bot("xoxe.xoxb-1-golden")
        .with_user("U0ADMIN0001", "xoxp-golden")
        .with_webhook(
            "C0ALPHA0001",
            "https://hooks.slack.com/services/T0ALPHA0001/B1/golden",
        );
    workspace.url = Some("https://alpha.slack.com/".to_owned());
    workspace.metadata = Some("plan=\"gold\" \u{e9}".to_owned());
    let bot = workspace.bot.as_mut().expect("it was just set");
    bot.id = Some(bot_id("B0ALPHA0001"));
    bot.grant = rotating("xoxe.xoxb-1-golden", "xoxe-1-golden");
    let mut org = in_org("E0GRID00001", None).with_user("W0ADMIN0001", "xoxe.xoxp-1-golden");
    org.user.as_mut().expect("it was just set").grant =
        rotating("xoxe.xoxp-1-golden", "xoxe-1-golden");
    vec![
        workspace,
        org,
        in_org("E0BETA00001", None).with_bot("xoxb-golden"),
    ]
}

async fn open(backend: Arc<dyn Backend>, database: &Value) -> EncryptedStore<Arc<dyn Backend>> {
    let text = |name: &str| database[name].as_str().expect("text");
    let key = MasterKey::parse(text("master_key")).expect("64 hex digits");
    let app = ClientId::new(text("app")).expect("a client id");
    let opened = EncryptedStore::open(backend, LocalKeyProvider::new(key), app).await;
    opened
        .expect("the master key fits")
        .with_clock(Clock::from_fn(noon))
}

/// Returns a database as today's code writes it, with a retired data key.
async fn write(like: &Value) -> Value {
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    let store = open(Arc::clone(&backend), like).await;
    for (number, mut installation) in installations().into_iter().enumerate() {
        if number == 1 {
            store.rotate_data_key().await.expect("rotated");
        }
        let url = installation.url.take();
        let bot_id = installation.bot.as_mut().and_then(|bot| bot.id.take());
        let revision = store.store(&installation).await.expect("stored");
        let facts = Facts { bot_id, url };
        assert!(
            store
                .note(&installation.key(), revision, &facts)
                .await
                .expect("noted")
        );
    }
    let expires_at = noon() + std::time::Duration::from_secs(600);
    let is_first = store.consume(&STATE, expires_at).await;
    assert!(is_first.expect("available"));
    let rows = all_rows(&*backend).await.into_iter().map(|(key, row)| {
        json!({
            "partition": key.partition.as_str(),
            "slot": key.slot.as_str(),
            "version": hex(row.version.as_bytes()),
            "metadata": row.metadata.as_str(),
            "sealed": hex(row.sealed.as_bytes()),
            "due": row.due.map(|due| {
                let at = due.at.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
                json!({ "lane": due.lane.as_str(), "at": at.as_secs() })
            }),
            "plaintext": null,
        })
    });
    let rows: Vec<_> = rows.collect();
    json!({ "app": like["app"], "master_key": like["master_key"], "rows": rows })
}

fn read(path: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(path).expect("the golden file is in the repository");
    serde_json::from_str(&text).expect("the golden file is JSON")
}

fn seconds_after_1970(seconds: u64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits"))
        .collect()
}
