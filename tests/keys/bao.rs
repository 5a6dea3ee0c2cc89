//! A real OpenBao server in development mode: unsealed, and in memory.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slack_installs::keys::{VaultAuth, VaultOptions, VaultTransit};
use tempfile::TempDir;

use crate::server::{Server, directory, find, free_port};

/// A server with a transit engine, and one derived key in it.
pub(crate) struct Bao {
    pub(crate) url: String,
    server: Server,
    directory: TempDir,
}

impl Bao {
    pub(crate) async fn start() -> Self {
        let bao = Self::launch(&[]);
        bao.ready().await;
        bao.root("sys/mounts/transit", &json!({"type": "transit"}))
            .await;
        bao.root("transit/keys/slack", &json!({"derived": true}))
            .await;
        bao
    }

    /// Starts a server without an engine. It is ready when [`Bao::ready`] returns.
    pub(crate) fn launch(arguments: &[&str]) -> Self {
        let remedy = "run `scripts/tools servers`";
        let program = find("bao", &["target/tools/venv/bin"], remedy);
        let (port, directory) = (free_port(), directory());
        let mut command = Command::new(program);
        command
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .arg(format!("-dev-root-token-id={ROOT}"))
            .args(arguments)
            .env("HOME", directory.path());
        let server = Server::start(&mut command, &directory.path().join("log"));
        Self {
            url: format!("http://127.0.0.1:{port}"),
            server,
            directory,
        }
    }

    /// Waits until the server is unsealed.
    pub(crate) async fn ready(&self) {
        until("OpenBao is ready", async || {
            let health = reqwest::get(format!("{}/v1/sys/health", self.url)).await;
            health.is_ok_and(|health| health.status() == 200)
        })
        .await;
    }

    /// Makes a call with the root token.
    pub(crate) async fn root(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}/v1/{path}", self.url);
        let call = reqwest::Client::new()
            .post(url)
            .header("X-Vault-Token", ROOT);
        let response = call
            .body(body.to_string())
            .send()
            .await
            .expect("it responds");
        let status = response.status();
        let body = response.bytes().await.expect("it responds");
        assert!(
            status.is_success(),
            "{path}: {status} {}",
            String::from_utf8_lossy(&body)
        );
        serde_json::from_slice(&body).unwrap_or_default()
    }

    /// Returns the URL of a transit key.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}/transit/keys/{name}", self.url)
    }

    /// Returns a provider with this token.
    pub(crate) fn with_token(&self, token: &str) -> VaultTransit {
        self.with(VaultAuth::token(token), VaultOptions::default())
    }

    pub(crate) fn with(&self, auth: VaultAuth, options: VaultOptions) -> VaultTransit {
        VaultTransit::new(&self.key("slack"), auth, options).expect("the URL is valid")
    }

    /// Makes a policy that permits `update` on these paths of the transit engine.
    pub(crate) async fn policy(&self, name: &str, paths: &[&str]) {
        let rule = |path| format!("path \"transit/{path}\" {{ capabilities = [\"update\"] }}\n");
        let rules: String = paths.iter().map(rule).collect();
        let path = format!("sys/policies/acl/{name}");
        self.root(&path, &json!({"policy": rules})).await;
    }

    /// Makes a token that may do all that a provider needs.
    pub(crate) async fn token(&self, options: Value) -> String {
        let all = ["decrypt/slack", "encrypt/slack", "datakey/plaintext/slack"];
        self.policy("all", &all).await;
        let mut options = options;
        options["policies"] = json!(["all"]);
        let made = self.root("auth/token/create", &options).await;
        made["auth"]["client_token"]
            .as_str()
            .expect("a token")
            .to_owned()
    }

    /// Returns what the server knows of a token.
    pub(crate) async fn lookup(&self, token: &str) -> Value {
        self.root("auth/token/lookup", &json!({"token": token}))
            .await["data"]
            .clone()
    }

    pub(crate) async fn seal(&self) {
        self.root("sys/seal", &json!({})).await;
    }

    pub(crate) async fn unseal(&self) {
        let key = self.unseal_key();
        let url = format!("{}/v1/sys/unseal", self.url);
        let body = json!({"key": key}).to_string();
        let call = reqwest::Client::new().post(url).body(body).send().await;
        assert!(call.expect("it responds").status().is_success());
        self.ready().await;
    }

    /// Returns the key from the server's log. The server writes it up to a second after it is ready.
    ///
    /// Blocks, because the clock of a test may be paused.
    fn unseal_key(&self) -> String {
        let log = self.directory.path().join("log");
        let began = Instant::now();
        loop {
            let log = std::fs::read_to_string(&log).expect("the server wrote it");
            let mut lines = log
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            let key = lines.find_map(|line| line.strip_prefix("Unseal Key: "));
            if let Some(key) = key {
                return key.trim().to_owned();
            }
            assert!(began.elapsed() < Duration::from_secs(60), "no key: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the process: it hangs, and its connections stay open. Returns when all its threads
    /// have stopped.
    pub(crate) async fn hang(&self) {
        self.signal("-STOP");
        let tasks = format!("/proc/{}/task", self.server.pid());
        until("all threads have stopped", async || {
            let mut tasks = std::fs::read_dir(&tasks).expect("it runs").flatten();
            tasks.all(|task| {
                let state = std::fs::read_to_string(task.path().join("stat"));
                state.is_ok_and(|state| state.contains(") T "))
            })
        })
        .await;
    }

    /// Lets the process go on.
    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.server.pid().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("`kill` runs").success());
    }

    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).expect("the directory is ours");
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Waits until a condition is true. Panics after a minute.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) const ROOT: &str = "root-canary";
