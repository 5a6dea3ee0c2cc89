//! Runs the command line as an operator does: the real program, its output and its exit code.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod act;
mod audits;
mod canary;
mod copies;
mod docs;
mod doctor;
mod elsewhere;
mod every;
mod halfway;
mod hostile;
#[cfg(all(feature = "postgres", feature = "redis"))]
mod interrupts;
mod keys;
mod large;
mod look;
mod manifests;
mod pictures;
#[cfg(all(feature = "postgres", feature = "redis"))]
#[allow(dead_code, unreachable_pub)]
#[path = "../support/postgres.rs"]
mod postgres;
mod prompts;
mod refusals;
mod schemas;
#[cfg(all(feature = "postgres", feature = "redis"))]
#[allow(dead_code, unreachable_pub)]
#[path = "../support/server.rs"]
mod server;
#[cfg(all(feature = "postgres", feature = "redis"))]
mod servers;
mod setup;
mod signals;
mod trial;
mod values;
mod wording;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use slack_installs::backend::{
    Backend, Change, Expect, Key, Row, Scope, SqliteBackend, Version, connect,
};
use slack_installs::slack::SlackClient;
use slack_installs::store::{Chain, ChainKey, Credential, RotationStore as _};
use slack_installs::testing::{FakeSlack, Rotation, Who};
use slack_installs::{
    EncryptedStore, InstallConfig, InstallProvider, KeyProvider, LocalKeyProvider, MasterKey,
    RedirectUri, Scopes,
};
use support::app::{App, REDIRECT, credentials, key, world};
use support::checks::until;
use tempfile::TempDir;
use tokio::process::Command;

/// An app with its database, a fake Slack, and the values that the program reads.
pub(crate) struct House {
    pub(crate) app: App,
    pub(crate) directory: TempDir,
    pub(crate) master_key: String,
    pub(crate) values: BTreeMap<String, String>,
}

/// What the program wrote, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Checks the exit code, and returns the standard output.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:?}");
        &self.out
    }
}

impl House {
    /// Waits until Slack has received more than so many calls of this method.
    async fn waits_for(&self, method: &str, calls: usize) {
        let fake = &self.app.fake;
        until("Slack is called", async || fake.calls(method) > calls).await;
    }

    /// Makes an app whose tokens rotate.
    pub(crate) async fn new() -> Self {
        let house = Self::with_keys(|master| Arc::new(LocalKeyProvider::new(master))).await;
        house.app.fake.rotate_tokens(Rotation::default());
        house
    }

    pub(crate) async fn with_keys(
        provider: impl FnOnce(MasterKey) -> Arc<dyn KeyProvider>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("db.sqlite3");
        let backend = SqliteBackend::open(&path).await.expect("a new file");
        let url = format!("sqlite:{}", path.display());
        Self::over(directory, Arc::new(backend), &url, provider).await
    }

    /// Makes an app in this database.
    pub(crate) async fn over(
        directory: TempDir,
        backend: Arc<dyn Backend>,
        url: &str,
        provider: impl FnOnce(MasterKey) -> Arc<dyn KeyProvider>,
    ) -> Self {
        let fake = FakeSlack::start_with(world()).await.expect("a free port");
        let master = MasterKey::generate();
        let master_key = master.to_base64().to_string();
        let store = EncryptedStore::open(backend, provider(master), fake.client_id()).await;
        let store = store.expect("opens");
        let slack = SlackClient::new(fake.environment());
        let config = InstallConfig::new(
            credentials(&fake),
            RedirectUri::new(REDIRECT).expect("a redirect URL"),
            Scopes::from("incoming-webhook,commands,chat:write"),
        );
        let provider = InstallProvider::new(config, slack.clone(), store.clone(), store.clone());
        let key_file = directory.path().join("key");
        std::fs::write(&key_file, &master_key).expect("the directory is ours");
        let values = [
            ("SLACK_CLIENT_ID", fake.client_id().to_string()),
            (
                "SLACK_CLIENT_SECRET",
                fake.client_secret().expose().to_owned(),
            ),
            ("SLACK_URL", fake.environment().base().to_string()),
            ("SLACK_INSTALLS_URL", url.to_owned()),
            (
                "SLACK_INSTALLS_MASTER_KEY_FILE",
                key_file.display().to_string(),
            ),
        ];
        Self {
            app: App {
                fake,
                slack,
                store,
                provider: provider.expect("the configuration works"),
            },
            directory,
            master_key,
            values: values.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    /// Installs the app for this person, or in this organisation.
    pub(crate) async fn install(&self, who: impl Into<Who>) {
        let page = self.app.install(who).await;
        assert!(support::app::installed(&page), "{}", page.body());
    }

    /// Makes a bot's pair six hours old, because a new one is not replaced at once.
    pub(crate) async fn age(&self, tenant: &str) {
        self.change_chain(tenant, |chain| chain.issued_at = ago(6 * 3600))
            .await;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sets a value, or removes it.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) {
        self.values.remove(name);
        if let Some(value) = value {
            self.values.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Returns the program with these arguments and the app's values, without a terminal.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slack-installs"));
        command
            .args(arguments)
            .env_clear()
            .envs(&self.values)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().await;
        let output = output.expect("the program starts");
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// Runs a command twice, for people and as JSON. Returns the JSON.
    pub(crate) async fn run_json(&self, arguments: &[&str]) -> Ran {
        self.run(&[arguments, &["--format", "json"]].concat()).await
    }

    /// Returns all rows, to compare their versions.
    pub(crate) async fn rows(&self) -> BTreeMap<String, Version> {
        let backend = self.app.store.backend();
        let page = backend.scan(&Scope::Everything, None, 1000).await;
        let page = page.expect("the database is up");
        assert!(page.next.is_none(), "one page");
        let rows = page.rows.into_iter();
        rows.map(|(key, row)| (key.to_string(), row.version))
            .collect()
    }

    /// Changes a bot's chain.
    pub(crate) async fn change_chain(&self, tenant: &str, change: impl Fn(&mut Chain) + Sync) {
        let chain = ChainKey {
            credential: Credential::Bot,
            tenant: key(tenant),
        };
        let mut decide = |chain: Option<&Chain>| {
            let mut next = chain.cloned()?;
            change(&mut next);
            Some(next)
        };
        let stored = self.app.store.update(&chain, None, &mut decide).await;
        assert!(stored.expect("the database is up").is_some());
    }

    /// Damages a row, so that it does not open.
    pub(crate) async fn damage(&self, tenant: &str, slot: &str) {
        self.replace(tenant, slot, |row| Row {
            version: Version::mint(),
            ..row
        })
        .await;
    }

    pub(crate) async fn replace(&self, tenant: &str, slot: &str, change: impl Fn(Row) -> Row) {
        let backend = self.app.store.backend();
        let (key, row) = self.row(tenant, slot).await;
        let put = Change::Put {
            slot: key.slot.clone(),
            row: change(row),
            expect: Expect::Any,
        };
        backend
            .commit(&key.partition, &[put])
            .await
            .expect("the database is up");
    }

    pub(crate) async fn row(&self, tenant: &str, slot: &str) -> (Key, Row) {
        let backend = self.app.store.backend();
        let mut from = None;
        loop {
            let page = backend.scan(&Scope::Everything, from, 1000).await;
            let page = page.expect("the database is up");
            let is_it = |key: &Key| key.partition.name() == tenant && key.slot.as_str() == slot;
            if let Some(found) = page.rows.into_iter().find(|(key, _)| is_it(key)) {
                return found;
            }
            from = page.next;
            assert!(from.is_some(), "the row is stored");
        }
    }
}

/// Returns the words of the findings, or the names of the checks that are not ok.
pub(crate) fn kinds(report: &Value, list: &str, name: &str) -> Vec<String> {
    let items = report[list].as_array().expect("a list");
    let bad = items.iter().filter(|it| it["grade"] != "ok");
    let mut kinds: Vec<_> = bad
        .map(|it| it[name].as_str().expect("a word").to_owned())
        .collect();
    kinds.sort();
    kinds
}

pub(crate) async fn open_sqlite(path: &std::path::Path) -> Arc<dyn Backend> {
    let url = format!("sqlite:{}", path.display());
    connect(&url).await.expect("the file is a database")
}

pub(crate) fn ago(seconds: u64) -> SystemTime {
    slack_installs::Clock::default().now() - std::time::Duration::from_secs(seconds)
}
