//! Opens a Redis backend by a URL `redis://…`, `rediss://…` or `cluster:…`.

use async_trait::async_trait;

use super::{RedisBackend, RedisOptions};
use crate::backend::connect::{ByUrl, ConnectError, invalid, take_parameter};

#[async_trait]
impl ByUrl for RedisBackend {
    const EXAMPLES: &str = "`redis://host:6379`, `rediss://user:password@host:6379` or \
                            `cluster:redis://host:6379,redis://host:6379`";

    async fn by_url(url: &str) -> Result<Self, ConnectError> {
        let mut options = RedisOptions::default();
        let is_cluster = url.starts_with("cluster:");
        let mut nodes = Vec::new();
        for node in url.trim_start_matches("cluster:").split(',') {
            let (node, prefix) = take_parameter(node, "prefix");
            options.prefix = prefix.unwrap_or(options.prefix);
            let (node, accepts) = take_parameter(&node, ACCEPT);
            if let Some(accepts) = accepts {
                options.accept_losing_commits_on_crash = accepts.parse().map_err(|_| {
                    invalid(format!(
                        "the value of `?{ACCEPT}=` must be `true` or `false`"
                    ))
                })?;
            }
            nodes.push(node);
        }
        if is_cluster {
            let nodes: Vec<_> = nodes.iter().map(String::as_str).collect();
            Self::open_cluster(&nodes, options).await
        } else {
            Self::open(&nodes.join(","), options).await
        }
    }
}

const ACCEPT: &str = "accept_losing_commits_on_crash";
