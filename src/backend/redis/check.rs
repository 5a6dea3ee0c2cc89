//! Refuses servers that would lose rows. The error has the cause and the remedy.

use std::collections::HashMap;

use redis::{Cmd, ErrorKind, RedisError, Value};

use super::RedisOptions;
use super::client::{Failure, Node, Router, plaintext};
use crate::backend::{ConnectError, ConnectErrorKind as Kind};

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
        let info = info(&master, &redis::cmd("INFO")).await?;
        check_master(server, &info, options)?;
        let is_member = info.get("cluster_enabled").is_some_and(|it| it == "1");
        match (router.is_cluster(), is_member) {
            (true, true) => check_cluster(&master).await?,
            (false, false) => {}
            (true, false) => return Err(refused(Kind::Invalid, server, NO_CLUSTER)),
            (false, true) => return Err(refused(Kind::Invalid, server, CLUSTER)),
        }
        warn_of_fsync(&master, options).await;
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
                 `maxmemory-policy noeviction`"
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
                "has {found} replicas connected, but commits wait for {needed}; start more \
                 replicas, or lower await_replicas"
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

/// Warns about the default `appendfsync`, which may lose a second of commits, if the setting can be
/// read. It is only a warning, because most installations keep the default.
async fn warn_of_fsync(master: &Node, options: &RedisOptions) {
    if options.await_fsync || options.accept_losing_rows_on_restart {
        return;
    }
    let command = &mut redis::cmd("CONFIG");
    // Many services do not allow this command, so its failure is not an error.
    let Ok(answer) = master.send(command.arg("GET").arg("appendfsync")).await else {
        return;
    };
    if let Ok(pair) = redis::from_redis_value::<Vec<String>>(answer)
        && let [_, setting] = pair.as_slice()
        && setting != "always"
    {
        tracing::warn!(
            server = master.address(),
            appendfsync = setting,
            "Redis may lose the last commits if its machine fails; set `appendfsync always`"
        );
    }
}

/// Returns the lines `name:value` of the response, which has headings that begin with `#`.
async fn info(master: &Node, command: &Cmd) -> Result<HashMap<String, String>, ConnectError> {
    let answer = master.send(command).await;
    let answer = answer.map_err(|failure| failed(master.address(), failure))?;
    let text = match answer {
        Value::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
        Value::VerbatimString { text, .. } => text,
        _ => String::new(),
    };
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs
        .map(|(name, value)| (name.into(), value.trim().into()))
        .collect())
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

const NO_CLUSTER: &str = "is not a cluster; open it with a `redis://` URL, or RedisBackend::open";

const REPLICA: &str = "is a replica; use its master's URL, Sentinel or the cluster";
