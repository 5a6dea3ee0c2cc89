//! Refuses servers that would lose rows, with the reason and the remedy.

use std::collections::HashMap;

use redis::{Cmd, ErrorKind, Value};
use thiserror::Error;

use super::RedisOptions;
use super::node::{Failure, Node};
use super::router::Router;
use crate::backend::BoxError;

/// Why a Redis server is not used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RedisOpenError {
    /// The cluster does not serve all its slots.
    #[error(
        "the Redis cluster is not whole ({server} says {state}); see `redis-cli --cluster check`"
    )]
    ClusterNotWhole {
        /// Who says so.
        server: String,
        /// What it says.
        state: String,
    },
    /// The server removes rows when its memory is full.
    #[error(
        "{server} removes rows when its memory is full (maxmemory-policy {policy}); \
         set `maxmemory-policy noeviction`"
    )]
    Evicts {
        /// The server.
        server: String,
        /// Its policy.
        policy: String,
    },
    /// A URL or an option cannot be used.
    #[error("the configuration for Redis cannot be used")]
    Misconfigured(#[source] BoxError),
    /// The driver uses the default crypto provider of the process. There is none, and rustls cannot
    /// choose one: it was built with both, or with neither.
    #[error(
        "rustls cannot choose a crypto provider for `rediss://`: if it was built with both `ring` and \
         `aws-lc-rs`, call `rustls::crypto::ring::default_provider().install_default()` at the \
         start of `main`; if with neither, enable the feature `ring` or `aws-lc-rs` of slack-installs"
    )]
    NoCryptoProvider,
    /// The server does not write its rows to a file.
    #[error("{server} forgets all rows when it is restarted; set `appendonly yes`")]
    NotPersistent {
        /// The server.
        server: String,
    },
    /// The password and the rows would be sent to another machine in the clear.
    #[error(
        "{host} is another machine, and would be spoken to without TLS; use `rediss://`, or set \
         allow_plaintext if the network is safe"
    )]
    Plaintext {
        /// The other machine; behind Sentinel, the name of its master.
        host: String,
    },
    /// The server is a replica, and no master.
    #[error("{server} is a replica; name its master, or use Sentinel or the cluster")]
    Replica {
        /// The server.
        server: String,
    },
    /// Commits are to wait for more replicas than the master has.
    #[error(
        "{server} has {found} replicas connected, and commits are to wait for {needed}; start \
         more, or lower await_replicas"
    )]
    TooFewReplicas {
        /// The server.
        server: String,
        /// How many it has.
        found: u32,
        /// How many are needed.
        needed: u32,
    },
    /// The server is older than what is asked of it.
    #[error("{server} is Redis {found}; at least {needed} is needed")]
    TooOld {
        /// The server.
        server: String,
        /// Its version.
        found: String,
        /// The oldest that will do.
        needed: &'static str,
    },
    /// The server cannot be reached, or does not answer.
    #[error("{server} cannot be reached")]
    Unreachable {
        /// The server, or the first of several.
        server: String,
        /// Why.
        source: BoxError,
    },
    /// The server does not say what must be known of it.
    #[error("{server} does not say its {field} in `INFO`; what it might lose cannot be checked")]
    Unsaid {
        /// The server.
        server: String,
        /// The field of `INFO`.
        field: &'static str,
    },
    /// The server is part of a cluster, or is not.
    #[error(
        "{server} is {}; open it as such",
        if *cluster { "part of a cluster" } else { "no cluster" }
    )]
    WrongKind {
        /// The server.
        server: String,
        /// Whether it is part of one.
        cluster: bool,
    },
}

/// Checks every master.
pub(super) async fn check(
    router: &Router,
    server: &str,
    options: &RedisOptions,
) -> Result<(), RedisOpenError> {
    let masters = router.masters().await.map_err(|failure| match failure {
        Failure::Refused(error) if is_cluster_disabled(&error) => RedisOpenError::WrongKind {
            server: server.into(),
            cluster: false,
        },
        failure => unreachable(server, failure),
    })?;
    for master in masters {
        let info = info(&master, &redis::cmd("INFO")).await?;
        check_master(master.address(), &info, options)?;
        let is_cluster = matches!(router, Router::Cluster(_));
        if (info.get("cluster_enabled").is_some_and(|it| it == "1")) != is_cluster {
            let server = master.address().into();
            return Err(RedisOpenError::WrongKind {
                server,
                cluster: !is_cluster,
            });
        }
        if is_cluster {
            check_cluster(&master).await?;
        }
        warn_of_fsync(&master, options).await;
    }
    Ok(())
}

fn check_master(
    server: &str,
    info: &HashMap<String, String>,
    options: &RedisOptions,
) -> Result<(), RedisOpenError> {
    let said = |field| {
        let unsaid = || RedisOpenError::Unsaid {
            server: server.into(),
            field,
        };
        info.get(field).map(String::as_str).ok_or_else(unsaid)
    };
    let server = String::from(server);
    let found = said("redis_version")?;
    let (needed, oldest) = match options.await_fsync {
        true => ("7.2, for await_fsync,", (7, 2)),
        false => ("7.0", (7, 0)),
    };
    if version(found) < Some(oldest) {
        return Err(RedisOpenError::TooOld {
            server,
            found: found.into(),
            needed,
        });
    }
    if said("role")? != "master" {
        return Err(RedisOpenError::Replica { server });
    }
    if !options.accept_losing_rows_to_eviction {
        let policy = said("maxmemory_policy")?;
        // The volatile policies remove only keys that expire, and ours never do.
        if policy != "noeviction" && !policy.starts_with("volatile-") {
            return Err(RedisOpenError::Evicts {
                server,
                policy: policy.into(),
            });
        }
    }
    if !options.accept_losing_rows_on_restart && said("aof_enabled")? != "1" {
        return Err(RedisOpenError::NotPersistent { server });
    }
    let needed = options.await_replicas;
    if needed > 0 {
        let found = said("connected_slaves")?.parse().unwrap_or(0);
        if found < needed {
            return Err(RedisOpenError::TooFewReplicas {
                server,
                found,
                needed,
            });
        }
    }
    Ok(())
}

async fn check_cluster(master: &Node) -> Result<(), RedisOpenError> {
    let info = info(master, redis::cmd("CLUSTER").arg("INFO")).await?;
    let server = || master.address().into();
    match info.get("cluster_state") {
        Some(state) if state == "ok" => Ok(()),
        Some(state) => {
            let state = format!("cluster_state:{state}");
            Err(RedisOpenError::ClusterNotWhole {
                server: server(),
                state,
            })
        }
        None => Err(RedisOpenError::Unsaid {
            server: server(),
            field: "cluster_state",
        }),
    }
}

/// Most installations keep the default, which may lose a second; where it can be seen, it is said.
async fn warn_of_fsync(master: &Node, options: &RedisOptions) {
    if options.await_fsync || options.accept_losing_rows_on_restart {
        return;
    }
    let command = &mut redis::cmd("CONFIG");
    // Many services do not allow this command, so no answer is no reason to refuse.
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

/// Lines of `name:value`, under headings that begin with `#`.
async fn info(master: &Node, command: &Cmd) -> Result<HashMap<String, String>, RedisOpenError> {
    let answer = master.send(command).await;
    let answer = answer.map_err(|failure| unreachable(master.address(), failure))?;
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

fn unreachable(server: &str, failure: Failure) -> RedisOpenError {
    let server = server.into();
    match failure {
        Failure::Plaintext { host } => RedisOpenError::Plaintext { host },
        Failure::Replica => RedisOpenError::Replica { server },
        failure => RedisOpenError::Unreachable {
            server,
            source: failure.into(),
        },
    }
}

fn is_cluster_disabled(error: &redis::RedisError) -> bool {
    let disabled = |detail: &str| detail.contains("cluster support disabled");
    matches!(error.kind(), ErrorKind::Server(_)) && error.detail().is_some_and(disabled)
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}
