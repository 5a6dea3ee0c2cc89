//! Refuses servers that would lose rows. The error has the cause and the remedy.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, Value};
use tokio::time::{Instant, sleep};

use super::RedisOptions;
use super::client::{Failure, Node, Router, plaintext};
use crate::backend::{ConnectError, ConnectErrorKind as Kind};
use crate::wording::counted;

/// Checks every master.
pub(super) async fn check(
    router: &Router,
    server: &str,
    options: &RedisOptions,
) -> Result<(), ConnectError> {
    let masters = router.masters().await.map_err(|failure| match failure {
        Failure::Refused(error) if is_cluster_disabled(&error) => {
            refused(Kind::Invalid, server, NO_CLUSTER)
        }
        failure => failed(server, failure),
    })?;
    for master in masters {
        let server = master.address();
        let info = info_when_loaded(&master).await?;
        check_master(server, &info, options)?;
        let is_member = info.get("cluster_enabled").is_some_and(|it| it == "1");
        match (router.is_cluster(), is_member) {
            (true, true) => check_cluster(&master).await?,
            (false, false) => {}
            (true, false) => return Err(refused(Kind::Invalid, server, NO_CLUSTER)),
            (false, true) => return Err(refused(Kind::Invalid, server, CLUSTER)),
        }
        check_fsync(&master, options).await?;
    }
    Ok(())
}

fn check_master(
    server: &str,
    info: &HashMap<String, String>,
    options: &RedisOptions,
) -> Result<(), ConnectError> {
    let refuse = |text: String| Err(refused(Kind::Misconfigured, server, &text));
    let said = |field| said(server, info, field);
    let found = said("redis_version")?;
    let (needed, oldest) = if options.await_fsync {
        ("7.2 (for await_fsync)", (7, 2))
    } else {
        ("7.0", (7, 0))
    };
    if version(found) < Some(oldest) {
        return refuse(format!("is Redis {found}; upgrade it to {needed} or later"));
    }
    if said("role")? != "master" {
        return Err(refused(Kind::ReadOnly, server, REPLICA));
    }
    if !options.accept_losing_rows_to_eviction {
        let policy = said("maxmemory_policy")?;
        // The volatile policies only remove keys that expire, and our keys never expire.
        if policy != "noeviction" && !policy.starts_with("volatile-") {
            return refuse(format!(
                "removes rows when its memory is full (maxmemory-policy {policy}); set \
                 `maxmemory-policy noeviction` in its configuration, and at once with `redis-cli \
                 CONFIG SET maxmemory-policy noeviction`"
            ));
        }
    }
    if !options.accept_losing_rows_on_restart && said("aof_enabled")? != "1" {
        return refuse("forgets all rows when it is restarted; set `appendonly yes`".into());
    }
    let needed = options.await_replicas;
    if needed > 0 {
        let found = said("connected_slaves")?.parse().unwrap_or(0);
        if found < needed {
            return refuse(format!(
                "has {} connected, but commits wait for {needed}; start more replicas, or lower \
                 await_replicas",
                counted(found, "replica")
            ));
        }
    }
    Ok(())
}

async fn check_cluster(master: &Node) -> Result<(), ConnectError> {
    let info = info(master, redis::cmd("CLUSTER").arg("INFO")).await?;
    let state = said(master.address(), &info, "cluster_state")?;
    if state == "ok" {
        return Ok(());
    }
    let text = format!(
        "says cluster_state:{state}, so some slots are not served; repair the Redis cluster (see \
         `redis-cli --cluster check`)"
    );
    Err(refused(Kind::Unavailable, master.address(), &text))
}

/// Refuses a server that does not write each commit to the disk before its response, if the setting
/// can be read.
async fn check_fsync(master: &Node, options: &RedisOptions) -> Result<(), ConnectError> {
    if options.await_fsync
        || options.accept_losing_rows_on_restart
        || options.accept_losing_commits_on_crash
    {
        return Ok(());
    }
    let command = &mut redis::cmd("CONFIG");
    let server = master.address();
    let answer = master.send(command.arg("GET").arg("appendfsync")).await;
    let pair = answer.ok().and_then(|answer| {
        let pair = redis::from_redis_value::<Vec<String>>(answer);
        pair.ok()
    });
    match pair.as_deref() {
        Some([_, setting]) if setting == "always" => Ok(()),
        Some([_, setting]) => {
            let text = format!(
                "loses its last commits if its process or its machine fails (appendfsync \
                 {setting}), and with them the only valid refresh tokens; set `appendfsync \
                 always`, or accept the loss with \
                 RedisOptions::accept_losing_commits_on_crash or \
                 `?accept_losing_commits_on_crash=true`, for example if no token rotates"
            );
            Err(refused(Kind::Misconfigured, server, &text))
        }
        // Many services do not allow this command.
        _ => {
            tracing::warn!(
                server,
                "cannot read the setting appendfsync of Redis; it should be `always`, otherwise \
                 the last commits are lost if the server fails"
            );
            Ok(())
        }
    }
}

/// Returns the master's `INFO`. While the server loads its data, waits for [`LOADING`] at most,
/// because it does not report its settings correctly before.
async fn info_when_loaded(master: &Node) -> Result<HashMap<String, String>, ConnectError> {
    let give_up = Instant::now() + LOADING;
    loop {
        let answer = master.send(&redis::cmd("INFO")).await;
        let is_loading = match &answer {
            Ok(answer) => lines(answer).get("loading").is_some_and(|it| it != "0"),
            Err(Failure::Refused(error)) => error.code() == Some("LOADING"),
            Err(_) => false,
        };
        if !is_loading {
            let answer = answer.map_err(|failure| failed(master.address(), failure))?;
            return Ok(lines(&answer));
        }
        if Instant::now() >= give_up {
            let text = "is loading its data from the disk; try again when it is ready";
            return Err(refused(Kind::Unavailable, master.address(), text));
        }
        sleep(LOADING_PAUSE).await;
    }
}

/// Returns the lines `name:value` of the response, which has headings that begin with `#`.
async fn info(master: &Node, command: &Cmd) -> Result<HashMap<String, String>, ConnectError> {
    let answer = master.send(command).await;
    let answer = answer.map_err(|failure| failed(master.address(), failure))?;
    Ok(lines(&answer))
}

fn lines(answer: &Value) -> HashMap<String, String> {
    let text = match answer {
        Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    };
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| (name.into(), value.trim().into()))
        .collect()
}

fn said<'a>(
    server: &str,
    info: &'a HashMap<String, String>,
    field: &str,
) -> Result<&'a str, ConnectError> {
    info.get(field).map(String::as_str).ok_or_else(|| {
        let text = format!(
            "does not report {field} in `INFO`, so it may lose rows; use a server that does"
        );
        refused(Kind::Misconfigured, server, &text)
    })
}

fn failed(server: &str, failure: Failure) -> ConnectError {
    match failure {
        Failure::Plaintext { host } => plaintext(&host),
        Failure::Replica => refused(Kind::ReadOnly, server, REPLICA),
        Failure::Refused(error) | Failure::Unreachable(error) if is_denied(&error) => {
            let text = "refused the user, the password or a command; check the URL, and that the \
                        user has the commands that the documentation of `RedisBackend` lists";
            refused(Kind::Denied, server, text).with_source(error)
        }
        failure => refused(
            Kind::Unavailable,
            server,
            "cannot be reached; check the URL, the network and the server",
        )
        .with_source(failure),
    }
}

/// Returns an error about the server. `text` continues a sentence that begins with its address.
fn refused(kind: Kind, server: &str, text: &str) -> ConnectError {
    ConnectError::new(kind, format!("{server} {text}"))
}

fn is_denied(error: &RedisError) -> bool {
    let denied = |code| DENIED.contains(&code);
    error.kind() == ErrorKind::AuthenticationFailed || error.code().is_some_and(denied)
}

fn is_cluster_disabled(error: &RedisError) -> bool {
    let disabled = |detail: &str| detail.contains("cluster support disabled");
    matches!(error.kind(), ErrorKind::Server(_)) && error.detail().is_some_and(disabled)
}

/// Returns the first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

const CLUSTER: &str =
    "is part of a cluster; open it with a `cluster:` URL, or RedisBackend::open_cluster";

const DENIED: [&str; 3] = ["NOAUTH", "NOPERM", "WRONGPASS"];

/// How long opening waits for a server that loads its data: some gigabytes.
const LOADING: Duration = Duration::from_secs(10);

const LOADING_PAUSE: Duration = Duration::from_millis(100);

const NO_CLUSTER: &str = "is not a cluster; open it with a `redis://` URL, or RedisBackend::open";

const REPLICA: &str = "is a replica; use its master's URL, Sentinel or the cluster";
