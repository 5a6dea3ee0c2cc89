//! Postgres servers and PgBouncer as child processes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::server::{Server, directory, find, free_port, unprivileged};

/// A Postgres server with its own directory, and without passwords.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    directory: TempDir,
    port: u16,
    settings: Vec<String>,
}

impl Postgres {
    /// Starts a fast server that loses its data if the machine crashes.
    pub async fn start() -> Self {
        Self::start_with(&FAST).await
    }

    /// Starts a server with these settings.
    pub async fn start_with(settings: &[&str]) -> Self {
        let directory = directory();
        copy(&template(), &data(&directory));
        Self::run(
            directory,
            settings.iter().map(|&setting| setting.to_owned()).collect(),
        )
        .await
    }

    /// Starts a standby that follows this server.
    pub async fn standby(&self) -> Self {
        let directory = directory();
        let port = self.port.to_string();
        let mut backup = unprivileged(program("pg_basebackup"));
        backup.args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &port,
            "-c",
            "fast",
        ]);
        run(backup
            .args(["--no-sync", "-X", "stream", "-R", "-D"])
            .arg(data(&directory)));
        Self::run(directory, self.settings.clone()).await
    }

    async fn run(directory: TempDir, settings: Vec<String>) -> Self {
        let port = free_port();
        let server = start(&directory, port, &settings);
        let postgres = Self {
            server,
            directory,
            port,
            settings,
        };
        postgres.ready().await;
        postgres
    }

    /// Kills the server and its children at once.
    pub fn kill(&mut self) {
        let pid = self.server.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.expect("the server runs");
        self.server.kill();
        // Some children may have ended already.
        let _ = Command::new("kill")
            .arg("-KILL")
            .args(children.split_whitespace())
            .output();
    }

    /// Starts the server again, with the same directory and port.
    pub async fn restart(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        // The server starts only after the last child of the previous server has ended.
        while Instant::now() < deadline {
            self.server = start(&self.directory, self.port, &self.settings);
            if self.answers().await {
                return;
            }
        }
        panic!("Postgres did not start again:\n{}", self.log());
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, role: &str, database: &str) -> String {
        url(self.port, role, database)
    }

    /// Creates a database, so that a test has it to itself. Returns the superuser's URL.
    pub async fn database(&self, name: &str) -> String {
        execute(
            &self.url("postgres", "postgres"),
            &format!("CREATE DATABASE {name}"),
        )
        .await;
        self.url("postgres", name)
    }

    async fn ready(&self) {
        assert!(
            self.answers().await,
            "Postgres did not start:\n{}",
            self.log()
        );
    }

    /// Waits until the server accepts connections. Returns `false` if the server ends or takes too
    /// long.
    async fn answers(&self) -> bool {
        let options: PgConnectOptions = self
            .url("postgres", "postgres")
            .parse()
            .expect("our own URL");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && self.server.is_running() {
            if options.connect().await.is_ok() {
                return true;
            }
            tokio::time::sleep(PAUSE).await;
        }
        false
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The server ends its children and removes its shared memory.
        let quit = Command::new("kill")
            .args(["-QUIT", &self.server.pid().to_string()])
            .status();
        if quit.is_ok_and(|status| status.success()) {
            self.server.wait();
        }
    }
}

/// PgBouncer in front of a server: 3 connections to it for each role and database, assigned by
/// transaction.
#[derive(Debug)]
pub struct PgBouncer {
    _server: Server,
    _directory: TempDir,
    port: u16,
}

impl PgBouncer {
    pub async fn start(upstream: u16) -> Self {
        Self::start_with(upstream, "").await
    }

    /// Starts PgBouncer with one more line in its settings.
    pub async fn start_with(upstream: u16, setting: &str) -> Self {
        let (directory, port) = (directory(), free_port());
        let path = |name: &str| directory.path().join(name).display().to_string();
        let roles = "\"postgres\" \"\"\n\"app\" \"\"\n";
        std::fs::write(path("roles"), roles).expect("the directory is ours");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={upstream}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 3\nmax_client_conn = 200\nserver_login_retry = 1\n{setting}\n",
            path("roles"),
        );
        std::fs::write(path("ini"), settings).expect("the directory is ours");
        let program = find("pgbouncer", &["/usr/sbin"], "apt-get install pgbouncer");
        let server = Server::start(
            unprivileged(program).arg(path("ini")),
            Path::new(&path("log")),
        );
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let log = std::fs::read_to_string(path("log")).unwrap_or_default();
            assert!(
                Instant::now() < deadline && server.is_running(),
                "PgBouncer:\n{log}"
            );
            tokio::time::sleep(PAUSE).await;
        }
        Self {
            _server: server,
            _directory: directory,
            port,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, role: &str, database: &str) -> String {
        url(self.port, role, database)
    }
}

pub fn url(port: u16, role: &str, database: &str) -> String {
    format!("postgres://{role}@127.0.0.1:{port}/{database}")
}

pub async fn connection(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("our own URL");
    // PgBouncer rejects this parameter.
    options
        .extra_float_digits(None)
        .connect()
        .await
        .expect("the server is up")
}

/// Runs one or more statements.
pub async fn execute(url: &str, statements: &str) {
    let mut connection = connection(url).await;
    let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
    statements
        .execute(&mut connection)
        .await
        .expect("the statement is valid");
}

pub async fn fetch(url: &str, query: &str) -> Vec<PgRow> {
    let query = sqlx::raw_sql(AssertSqlSafe(query.to_owned()));
    query
        .fetch_all(&mut connection(url).await)
        .await
        .expect("the query is valid")
}

fn start(directory: &TempDir, port: u16, settings: &[String]) -> Server {
    let mut command = unprivileged(program("postgres"));
    command
        .arg("-D")
        .arg(data(directory))
        .args(["-p", &port.to_string()]);
    command.args([
        "-c",
        "unix_socket_directories=",
        "-c",
        "listen_addresses=127.0.0.1",
    ]);
    command.args(settings.iter().flat_map(|setting| ["-c", setting]));
    Server::start(&mut command, &directory.path().join("log"))
}

/// Returns a data directory to copy, because creating one takes seconds and each test's process
/// needs one.
fn template() -> PathBuf {
    let version = Command::new(program("postgres")).arg("--version").output();
    let version = String::from_utf8(version.expect("it was just found").stdout);
    let version = version
        .expect("a version is text")
        .replace(|c| !char::is_alphanumeric(c), "-");
    let template = Path::new(env!("CARGO_TARGET_TMPDIR")).join(version);
    if !template.is_dir() {
        let fresh = directory();
        let mut command = unprivileged(program("initdb"));
        command.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        run(command
            .args(["--no-instructions", "-U", "postgres", "-D"])
            .arg(data(&fresh)));
        // Other processes create it too. The rename makes sure that the directory is complete.
        let beside =
            TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo created the directory");
        run(Command::new("cp")
            .arg("-R")
            .arg(data(&fresh))
            .arg(data(&beside)));
        if std::fs::rename(data(&beside), &template).is_err() {
            assert!(template.is_dir(), "another process created the template");
        }
    }
    template
}

/// Copies a data directory. The copy belongs to the server's user.
fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-R").arg(from).arg(to));
    let parent = to.parent().expect("the path has a parent");
    let mut reference = std::ffi::OsString::from("--reference=");
    reference.push(parent);
    run(Command::new("chown").arg("-R").arg(reference).arg(to));
    run(Command::new("chmod").arg("700").arg(to));
}

fn data(directory: &TempDir) -> PathBuf {
    directory.path().join("data")
}

/// Returns the path of a Postgres program. Debian has a directory for each version.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut versions: Vec<_> = versions
        .flatten()
        .map(|version| version.path().join("bin").display().to_string())
        .collect();
    versions.sort();
    let newest: Vec<_> = versions.iter().rev().map(String::as_str).collect();
    find(name, &newest, "apt-get install postgresql")
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program can be started");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const FAST: [&str; 2] = ["fsync=off", "full_page_writes=off"];

/// How long a server may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(10);
