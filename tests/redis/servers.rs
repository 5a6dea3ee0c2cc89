//! Real Redis servers: a single one, a master behind sentinels, and a cluster of six nodes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, RedisError, Value};
use slack_installs::backend::{RedisBackend, RedisOptions, Version};
use tempfile::TempDir;

use crate::server::{Server, directory, find, free_port, unprivileged};

/// One server with its own data directory.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) port: u16,
    arguments: Vec<String>,
    server: Server,
    directory: TempDir,
}

impl Redis {
    /// Starts a server that is safe to store rows in.
    pub(crate) async fn start() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    /// Starts a server with these settings and otherwise Redis's defaults, but without snapshots.
    pub(crate) async fn with(settings: &[&str]) -> Self {
        let redis = Self::launch(settings);
        redis.ready().await;
        redis
    }

    fn launch(settings: &[&str]) -> Self {
        let port = free_port();
        let directory = directory();
        let mut arguments = vec!["--port".to_owned(), port.to_string()];
        arguments.extend(["--bind", "127.0.0.1", "--save", "", "--dir"].map(str::to_owned));
        arguments.push(directory.path().display().to_string());
        arguments.extend(settings.iter().map(|&setting| setting.to_owned()));
        let server = run(&arguments, directory.path());
        Self {
            port,
            arguments,
            server,
            directory,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Kills the process, as a power failure would. The directory is kept.
    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts the server again with the data that it has written.
    pub(crate) async fn restart(&mut self) {
        self.server.kill();
        self.server = run(&self.arguments, self.directory.path());
        self.ready().await;
    }

    /// Starts the server again, so that it takes this time to load each command. Returns when it
    /// responds.
    pub(crate) async fn restart_slowly(&mut self, micros: u32) {
        self.server.kill();
        let mut arguments = self.arguments.clone();
        arguments.extend(["--key-load-delay".to_owned(), micros.to_string()]);
        self.server = run(&arguments, self.directory.path());
        until("Redis responds", async || {
            self.try_run::<String>(&["INFO"]).await.is_ok()
        })
        .await;
    }

    /// Runs a command as an administrator on a new connection.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_run(command)
            .await
            .unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    pub(crate) async fn try_run<T: FromRedisValue>(
        &self,
        command: &[&str],
    ) -> Result<T, RedisError> {
        let client = redis::Client::open(self.url()).expect("the URL is well formed");
        // Longer than any command of a test takes, even on a busy machine.
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let mut request = redis::cmd(command[0]);
        for argument in &command[1..] {
            request.arg(argument);
        }
        request.query_async(&mut connection).await
    }

    /// Returns the number of keys.
    pub(crate) async fn keys(&self) -> u64 {
        self.run(&["DBSIZE"]).await
    }

    /// Returns `master` or `slave`, or `None` if the server does not respond.
    pub(crate) async fn role(&self) -> Option<String> {
        let role: Result<Vec<Value>, _> = self.try_run(&["ROLE"]).await;
        redis::from_redis_value_ref(role.ok()?.first()?).ok()
    }

    async fn ready(&self) {
        let log = self.directory.path().join("log");
        until("Redis answers", async || {
            let answers =
                matches!(self.try_run::<String>(&["PING"]).await, Ok(pong) if pong == "PONG");
            if !answers && let Ok(log) = std::fs::read_to_string(&log) {
                assert!(!log.contains("Fatal") && !log.contains("FATAL"), "{log}");
            }
            answers
        })
        .await;
    }
}

fn run(arguments: &[String], directory: &Path) -> Server {
    let program = find("redis-server", &[], REMEDY);
    let mut command = unprivileged(program);
    command.args(arguments).current_dir(directory);
    Server::start(&mut command, &directory.join("log"))
}

/// Opens a new server, or the external server that `SLACK_INSTALLS_TEST_REDIS_URL` names. On the
/// external server a random prefix separates the runs.
pub(crate) async fn alone() -> (RedisBackend, Option<Redis>) {
    if let Ok(url) = std::env::var("SLACK_INSTALLS_TEST_REDIS_URL") {
        let run = u128::from_be_bytes(*Version::mint().as_bytes());
        let options = RedisOptions {
            prefix: format!("test-{run:032x}"),
            ..RedisOptions::default()
        };
        let backend = RedisBackend::open(&url, options).await;
        let backend = backend.expect("the server named by SLACK_INSTALLS_TEST_REDIS_URL");
        return (backend, None);
    }
    let redis = Redis::start().await;
    let backend = RedisBackend::open(&redis.url(), RedisOptions::default()).await;
    (backend.expect("a safe server"), Some(redis))
}

/// Returns the URL of the server that [`alone`] opened.
pub(crate) fn urls(server: Option<&Redis>) -> Vec<String> {
    let elsewhere = || std::env::var("SLACK_INSTALLS_TEST_REDIS_URL").expect("it is set");
    vec![server.map_or_else(elsewhere, Redis::url)]
}

/// A cluster of three masters with one replica each.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Redis>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let bus_ports: Vec<_> = (0..6).map(|_| free_port().to_string()).collect();
        let nodes: Vec<_> = bus_ports
            .iter()
            .map(|bus_port| {
                Redis::launch(&[
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    "always",
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    bus_port,
                    // This setting determines how long a failover takes.
                    "--cluster-node-timeout",
                    "1000",
                    "--repl-diskless-sync-delay",
                    "0",
                ])
            })
            .collect();
        for node in &nodes {
            node.ready().await;
        }
        let mut create = Command::new(find("redis-cli", &[], REMEDY));
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
        create
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .stdout(Stdio::null());
        let created = create.status().expect("redis-cli can be run");
        assert!(created.success(), "redis-cli makes a cluster");
        let cluster = Self { nodes };
        cluster.whole().await;
        cluster
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    pub(crate) async fn open(&self, options: RedisOptions) -> RedisBackend {
        let urls = self.urls();
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        RedisBackend::open_cluster(&urls, options)
            .await
            .expect("a whole cluster")
    }

    /// Waits until every node reports that all slots are served, and every replica is up to date.
    pub(crate) async fn whole(&self) {
        until("the cluster is whole", async || {
            for node in &self.nodes {
                let Ok(info) = node.try_run::<String>(&["CLUSTER", "INFO"]).await else {
                    return false;
                };
                let Ok(replication) = node.try_run::<String>(&["INFO", "replication"]).await else {
                    return false;
                };
                let linked = replication.contains("role:master")
                    && replication.contains("state=online")
                    || replication.contains("master_link_status:up");
                if !info.contains("cluster_state:ok") || !linked {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Returns the index in `nodes` of the master of a slot, as the node `asked` reports it.
    pub(crate) async fn master_of(&self, slot: u16, asked: usize) -> Option<usize> {
        let ranges: Vec<Vec<Value>> = self.nodes[asked]
            .try_run(&["CLUSTER", "SLOTS"])
            .await
            .ok()?;
        let number = |value: &Value| redis::from_redis_value_ref::<u16>(value).ok();
        let range = ranges
            .iter()
            .find(|range| number(&range[0]) <= Some(slot) && Some(slot) <= number(&range[1]))?;
        let Value::Array(master) = &range[2] else {
            return None;
        };
        let port = number(&master[1])?;
        self.nodes.iter().position(|node| node.port == port)
    }
}

/// A master, a replica and three sentinels.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    sentinels: Vec<(u16, Server, TempDir)>,
}

impl Watched {
    pub(crate) async fn start() -> Self {
        let safe = [
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let master = Redis::with(&safe).await;
        let replica_of = format!("127.0.0.1 {}", master.port);
        let mut settings = safe.to_vec();
        settings.extend(["--replicaof", &replica_of]);
        let replica = Redis::with(&settings).await;
        let sentinels = (0..3).map(|_| sentinel(master.port)).collect();
        let watched = Self {
            master,
            replica,
            sentinels,
        };
        until(
            "the sentinels know each other and the replica",
            async || {
                for (port, ..) in &watched.sentinels {
                    let sentinel = watched.ask_sentinel(*port, "MASTER").await;
                    let sentinel: Vec<String> = sentinel.unwrap_or_default();
                    let says = |field: &str, value: &str| {
                        sentinel
                            .chunks(2)
                            .any(|pair| pair[0] == field && pair[1] == value)
                    };
                    if !says("num-slaves", "1") || !says("num-other-sentinels", "2") {
                        return false;
                    }
                }
                let link: Result<String, _> =
                    watched.replica.try_run(&["INFO", "replication"]).await;
                link.is_ok_and(|link| link.contains("master_link_status:up"))
            },
        )
        .await;
        watched
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.sentinels
            .iter()
            .map(|(port, ..)| format!("redis://127.0.0.1:{port}"))
            .collect()
    }

    /// Makes Sentinel promote the replica, as if Sentinel had detected that the master is dead.
    pub(crate) async fn fail_over(&self) {
        until("the replica is promoted", async || {
            // Sentinel refuses while it considers the replica unhealthy, or while a failover is in
            // progress.
            let _: Result<Value, _> = self.ask_sentinel(self.sentinels[0].0, "FAILOVER").await;
            self.replica.role().await == Some("master".to_owned())
        })
        .await;
    }

    async fn ask_sentinel<T: FromRedisValue>(
        &self,
        port: u16,
        question: &str,
    ) -> Result<T, RedisError> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("SENTINEL")
            .arg(question)
            .arg(MASTER)
            .query_async(&mut connection)
            .await
    }
}

fn sentinel(master: u16) -> (u16, Server, TempDir) {
    let (port, directory) = (free_port(), directory());
    let file = directory.path().join("sentinel.conf");
    // The tests decide when a master is dead. On a busy machine a server may not respond for
    // seconds. With a lower value each such pause would start another failover or delay the next
    // one.
    let settings = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {MASTER} 600000\n\
         sentinel failover-timeout {MASTER} 5000\n",
        directory.path().display()
    );
    std::fs::write(&file, settings).expect("the directory can be written");
    // The sentinel runs as another user and writes its state to this file.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&file, everybody).expect("the file is ours");
    let arguments = [file.display().to_string(), "--sentinel".to_owned()];
    let server = run(&arguments, directory.path());
    (port, server, directory)
}

/// Polls until `holds` returns true, and panics after a minute.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(
            Instant::now() < deadline,
            "timed out while waiting until {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The name of the master in Sentinel's configuration.
pub(crate) const MASTER: &str = "mymaster";

/// Far longer than any step takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const REMEDY: &str = "run `scripts/tools servers`, or `apt-get install redis-server`";
