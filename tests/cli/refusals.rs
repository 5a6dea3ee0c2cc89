//! Databases and keys that cannot be read: each command says so, and creates nothing.

use slack_installs::MasterKey;

use super::House;
use crate::support::app::{ADA, ALPHA};

/// Every command that only reads the database, and for the others their dry run.
pub(crate) const READS: [&[&str]; 20] = [
    &["explain", ALPHA],
    &["show", ALPHA],
    &["list"],
    &["stats"],
    &["verify"],
    &["keys", "list"],
    &["keys", "add", "--dry-run"],
    &["keys", "reseal", "--dry-run"],
    &["keys", "rewrap", "--dry-run"],
    &["audit", "tail"],
    &["audit", "verify"],
    &["audit", "export"],
    &["audit", "erase", ALPHA, "--dry-run"],
    &["refresh", ALPHA, "--dry-run"],
    &["freeze", ALPHA, "--reason", "r", "--dry-run"],
    &["revoke", ALPHA, "--reason", "r", "--dry-run"],
    &["purge", ALPHA, "--reason", "r", "--dry-run"],
    &["reconcile", "--dry-run"],
    &["webhook", "remove", ALPHA, "--channel", "C1", "--dry-run"],
    &["copy", "env:SLACK_INSTALLS_URL", "sqlite:target.sqlite3"],
];

/// Runs each command, and checks its exit code, and that its text has these words and no text of a
/// lower level.
pub(crate) async fn all_end(house: &House, code: i32, words: &[&str]) {
    for arguments in READS {
        let ran = house.run(arguments).await;
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (code, ""),
            "{arguments:?} {ran:?}"
        );
        for word in words {
            assert!(ran.err.contains(word), "{arguments:?} {word} {ran:?}");
        }
        assert!(!ran.err.contains("malformed"), "{arguments:?} {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
        let json = house.run_json(arguments).await;
        let error: serde_json::Value = serde_json::from_str(&json.err).expect("JSON");
        assert_eq!(error["error"]["code"], code, "{arguments:?} {json:?}");
        assert!(!house.path("target.sqlite3").exists(), "{arguments:?}");
    }
}

/// Returns the line of `doctor` about this part, and the next one, which is its remedy.
async fn diagnosed(house: &House, name: &str) -> String {
    let ran = house.run(&["doctor"]).await;
    let mut lines = ran.ends(1).lines();
    let line = lines.find(|line| line.starts_with(&format!("failure {name}: ")));
    let line = line.unwrap_or_else(|| panic!("{ran:?}"));
    format!("{line}\n{}", lines.next().unwrap_or_default())
}

#[tokio::test]
async fn a_file_that_does_not_exist_is_said_so_and_is_not_created() {
    let mut house = House::new().await;
    house.set("SLACK_INSTALLS_URL", Some("sqlite:new.sqlite3"));
    let words = [
        "new.sqlite3 does not exist or cannot be opened",
        "check the path",
    ];
    all_end(&house, 5, &words).await;
    assert!(
        diagnosed(&house, "database")
            .await
            .contains("slack-installs migrate")
    );
    assert!(!house.path("new.sqlite3").exists());
}

#[tokio::test]
async fn a_file_without_tables_names_the_command_that_creates_them() {
    let mut house = House::new().await;
    std::fs::write(house.path("new.sqlite3"), "").expect("the directory is ours");
    house.set("SLACK_INSTALLS_URL", Some("sqlite:new.sqlite3"));
    all_end(&house, 5, &["run `slack-installs migrate`"]).await;
    assert!(
        diagnosed(&house, "database")
            .await
            .contains("slack-installs migrate")
    );
    let bytes = std::fs::read(house.path("new.sqlite3")).expect("the file is ours");
    assert!(bytes.is_empty());
}

#[tokio::test]
async fn a_database_without_the_apps_rows_is_said_so_and_gets_no_data_key() {
    let mut house = House::new().await;
    house.install(ADA).await;
    let words = [
        "no data keys yet for this app",
        "check the client id and the database",
    ];
    // Tables that were just created, and those of another app.
    let client_id = house.values["SLACK_CLIENT_ID"].clone();
    house.set("SLACK_CLIENT_ID", Some("1.2"));
    let before = house.rows().await;
    all_end(&house, 4, &words).await;
    assert!(
        diagnosed(&house, "database")
            .await
            .contains("no data keys yet")
    );
    assert_eq!(house.rows().await, before);
    house.set("SLACK_CLIENT_ID", Some(&client_id));
    house.set("SLACK_INSTALLS_URL", Some("sqlite:new.sqlite3"));
    house.run(&["migrate"]).await.ends(0);
    all_end(&house, 4, &words).await;
    assert!(!diagnosed(&house, "database").await.contains("server"));
}

#[tokio::test]
async fn a_file_of_another_program_is_not_touched() {
    let mut house = House::new().await;
    std::fs::write(house.path("other"), "not a database, but a text\n").expect("ours");
    house.set("SLACK_INSTALLS_URL", Some("sqlite:other"));
    all_end(&house, 5, &["is not a database of slack-installs"]).await;
    house.run(&["migrate"]).await.ends(5);
}

#[tokio::test]
async fn a_url_that_has_no_known_form_is_usage() {
    let mut house = House::new().await;
    for url in ["mysql://h/d", "sqlite:", "installations.sqlite3"] {
        house.set("SLACK_INSTALLS_URL", Some(url));
        all_end(&house, 2, &["database URL"]).await;
        house.run(&["migrate"]).await.ends(2);
    }
}

#[tokio::test]
async fn a_wrong_master_key_is_said_so_and_changes_nothing() {
    let house = House::new().await;
    house.install(ADA).await;
    let before = house.rows().await;
    let wrong = MasterKey::generate().to_base64().to_string();
    std::fs::write(house.path("key"), wrong).expect("the directory is ours");
    all_end(&house, 6, &["the data key cannot be used"]).await;
    assert!(
        diagnosed(&house, "keys")
            .await
            .contains("the data key cannot be used")
    );
    std::fs::write(house.path("key"), "short").expect("the directory is ours");
    all_end(&house, 6, &["key"]).await;
    assert_eq!(house.rows().await, before);
}
