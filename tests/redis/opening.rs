//! Which servers are accepted and which are refused.

use std::process::Command;

use super::*;
use servers::Cluster;

async fn refusal(settings: &[&str]) -> (String, Redis) {
    let redis = Redis::with(settings).await;
    let refused = RedisBackend::open(&redis.url(), RedisOptions::default()).await;
    (
        refused
            .expect_err("not a server to keep tokens in")
            .to_string(),
        redis,
    )
}

#[tokio::test]
async fn a_server_that_evicts_is_refused_unless_that_is_accepted() {
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        let settings = [
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            policy,
        ];
        let (refusal, redis) = refusal(&settings).await;
        assert!(
            refusal.contains(policy) && refusal.contains("noeviction"),
            "{refusal}"
        );
        let options = RedisOptions {
            accept_losing_rows_to_eviction: true,
            ..RedisOptions::default()
        };
        RedisBackend::open(&redis.url(), options)
            .await
            .expect("accepted");
    }
    for policy in ["noeviction", "volatile-lru", "volatile-ttl"] {
        let redis = Redis::with(&[
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            policy,
        ])
        .await;
        open(&redis).await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_persist_is_refused_unless_that_is_accepted() {
    let (refusal, redis) = refusal(&["--appendonly", "no"]).await;
    assert!(refusal.contains("appendonly yes"), "{refusal}");
    let options = RedisOptions {
        accept_losing_rows_on_restart: true,
        ..RedisOptions::default()
    };
    RedisBackend::open(&redis.url(), options)
        .await
        .expect("accepted");
}

#[tokio::test]
async fn a_server_that_loses_its_last_commits_is_refused_unless_that_is_accepted() {
    for setting in ["everysec", "no"] {
        let settings = ["--appendonly", "yes", "--appendfsync", setting];
        let (refusal, redis) = refusal(&settings).await;
        for words in [
            setting,
            "appendfsync always",
            "accept_losing_commits_on_crash",
        ] {
            assert!(refusal.contains(words), "{refusal}");
        }
        let options = RedisOptions {
            accept_losing_commits_on_crash: true,
            ..RedisOptions::default()
        };
        RedisBackend::open(&redis.url(), options)
            .await
            .expect("accepted");
        let url = |value| format!("{}?accept_losing_commits_on_crash={value}", redis.url());
        let accepted = slack_installs::backend::connect(&url("true")).await;
        accepted.expect("accepted by the URL");
        for (value, kind) in [("false", Kind::Misconfigured), ("maybe", Kind::Invalid)] {
            let refused = slack_installs::backend::connect(&url(value)).await;
            assert_eq!(refused.expect_err("refused").kind(), kind);
        }
    }
}

#[tokio::test]
async fn a_server_that_loads_its_data_is_waited_for() {
    let mut redis = Redis::start().await;
    let write = "for i = 1, 5000 do redis.call('SET', 'other:' .. i, i) end";
    let () = redis.run(&["EVAL", write, "0"]).await;
    // Two seconds, during which the server responds every 0.4 s.
    redis.restart_slowly(400).await;
    let info: String = redis.run(&["INFO", "persistence"]).await;
    assert!(info.contains("loading:1"), "{info}");
    open(&redis).await;
}

#[tokio::test]
async fn a_setting_that_changes_later_is_found_by_the_next_check() {
    let redis = Redis::start().await;
    let backend = open(&redis).await;
    backend.check().await.expect("nothing changed");
    let () = redis
        .run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await;
    let refused = backend.check().await.expect_err("it would evict now");
    assert_eq!(
        (
            refused.kind(),
            refused.to_string().contains("maxmemory-policy")
        ),
        (Kind::Misconfigured, true),
        "{refused}"
    );
}

#[tokio::test]
async fn a_replica_is_refused() {
    let master = Redis::start().await;
    let replica_of = format!("127.0.0.1 {}", master.port);
    let (refusal, _replica) = refusal(&["--appendonly", "yes", "--replicaof", &replica_of]).await;
    assert!(refusal.contains("replica"), "{refusal}");
}

#[tokio::test]
async fn the_check_does_without_config_where_it_is_forbidden() {
    let redis = Redis::with(&["--appendonly", "yes", "--rename-command", "CONFIG", ""]).await;
    open(&redis).await;
}

#[tokio::test]
async fn waiting_for_the_disk_needs_a_server_that_can() {
    let redis = Redis::start().await;
    let options = RedisOptions {
        await_fsync: true,
        ..RedisOptions::default()
    };
    let opened = RedisBackend::open(&redis.url(), options).await;
    let info: String = redis.run(&["INFO", "server"]).await;
    let is_old = info.contains("redis_version:7.0");
    match opened {
        Err(refused) if is_old => {
            assert_eq!(
                (refused.kind(), refused.to_string().contains("7.2")),
                (Kind::Misconfigured, true),
                "{refused}"
            );
        }
        opened => {
            opened.expect("Redis 7.2 can");
        }
    }
}

#[tokio::test]
async fn a_server_of_the_wrong_kind_is_refused() {
    let redis = Redis::start().await;
    let refused = RedisBackend::open_cluster(&[&redis.url()], RedisOptions::default()).await;
    let refused = refused.expect_err("it is not a cluster");
    assert_eq!(
        (
            refused.kind(),
            refused.to_string().contains("is not a cluster")
        ),
        (Kind::Invalid, true),
        "{refused:?}"
    );
    let bus_port = server::free_port().to_string();
    let settings = [
        "--appendonly",
        "yes",
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus_port,
    ];
    let (refusal, node) = refusal(&settings).await;
    assert!(refusal.contains("part of a cluster"), "{refusal}");
    // The node serves no slots.
    let refused = RedisBackend::open_cluster(&[&node.url()], RedisOptions::default()).await;
    refused.expect_err("a cluster without slots");
}

#[tokio::test]
async fn nobody_there_and_nonsense_are_told_apart() {
    let port = server::free_port();
    let url = format!("redis://127.0.0.1:{port}");
    let refused = RedisBackend::open(&url, RedisOptions::default()).await;
    let refused = refused.expect_err("connection refused");
    assert_eq!(refused.kind(), Kind::Unavailable, "{refused:?}");
    assert!(refused.to_string().contains(&port.to_string()));
    let braces = RedisOptions {
        prefix: "{a}".into(),
        ..RedisOptions::default()
    };
    let default = RedisOptions::default;
    for (url, options) in [
        ("nonsense", default()),
        ("http://127.0.0.1", default()),
        ("rediss://127.0.0.1/#insecure", default()),
        (url.as_str(), braces),
        (
            url.as_str(),
            RedisOptions {
                prefix: String::new(),
                ..default()
            },
        ),
    ] {
        let refused = RedisBackend::open(url, options)
            .await
            .expect_err("not usable");
        assert_eq!(refused.kind(), Kind::Invalid, "{url}: {refused:?}");
    }
    assert!(RedisBackend::open_cluster(&[], default()).await.is_err());
    assert!(
        RedisBackend::open_sentinel(&[], "redis://mymaster", default())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn credentials_are_in_no_message() {
    let port = server::free_port();
    let url = format!("redis://somebody:canary@127.0.0.1:{port}");
    let refused = RedisBackend::open(&url, RedisOptions::default()).await;
    let refused = refused.expect_err("connection refused");
    assert!(!format!("{refused} {refused:?}").contains("canary"));
    let redis = Redis::start().await;
    let () = redis
        .run(&["ACL", "SETUSER", "somebody", "on", ">canary", "~*", "+@all"])
        .await;
    let url = redis.url().replace("redis://", "redis://somebody:canary@");
    let backend = RedisBackend::open(&url, RedisOptions::default())
        .await
        .expect("allowed");
    assert!(!format!("{backend:?}").contains("canary"));
    let url = redis.url().replace("redis://", "redis://somebody:wrong@");
    let refused = RedisBackend::open(&url, RedisOptions::default())
        .await
        .expect_err("denied");
    assert_eq!(refused.kind(), Kind::Denied, "{refused:?}");
}

/// The list of commands in the documentation of [`RedisBackend`] is sufficient.
#[tokio::test]
async fn a_user_with_the_documented_rights_can_do_everything() {
    let redis = Redis::start().await;
    let rights = "ACL SETUSER app on >secret ~{slack-installs:* +@connection +eval +evalsha +hmget \
                  +hget +hset +hdel +hexists +hlen +hkeys +zadd +zrem +zcard +zscore \
                  +zrangebylex +zrangebyscore +role +info +wait";
    let rights: Vec<_> = rights.split_whitespace().collect();
    let () = redis.run(&rights).await;
    let url = redis.url().replace("redis://", "redis://app:secret@");
    let backend: Arc<dyn Backend> = Arc::new(
        RedisBackend::open(&url, RedisOptions::default())
            .await
            .expect("allowed"),
    );
    let history = History::new("app/T1");
    write_at_once(&history, &[Arc::clone(&backend)], 10, 1).await;
    history.check(&backend).await;
}

#[tokio::test]
async fn tls_is_verified() {
    let files = server::directory();
    let make = |arguments: &str| {
        let mut openssl = Command::new(server::find("openssl", &[], "apt-get install openssl"));
        openssl
            .args(arguments.split_whitespace())
            .current_dir(files.path());
        let made = openssl.output().expect("openssl can be run");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    };
    for authority in ["ours", "theirs"] {
        make(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
             -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
        ));
    }
    make(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis \
         -keyout redis.key -out redis.csr",
    );
    std::fs::write(files.path().join("names"), "subjectAltName=IP:127.0.0.1").expect("our file");
    make(
        "x509 -req -in redis.csr -CA ours.pem -CAkey ours.key -CAcreateserial -days 2 \
         -extfile names -out redis.pem",
    );
    for name in ["redis.key", "redis.pem", "ours.pem"] {
        // The server runs as another user.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(files.path().join(name), everybody).expect("our file");
    }
    let tls_port = server::free_port().to_string();
    let path = |name: &str| files.path().join(name).display().to_string();
    let _redis = Redis::with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        &path("redis.pem"),
        "--tls-key-file",
        &path("redis.key"),
        "--tls-ca-cert-file",
        &path("ours.pem"),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let url = format!("rediss://127.0.0.1:{tls_port}");
    let trusting = |authority: &str| RedisOptions {
        root_certificate: Some(std::fs::read_to_string(path(authority)).expect("made above")),
        ..RedisOptions::default()
    };
    let backend: Arc<dyn Backend> = Arc::new(
        RedisBackend::open(&url, trusting("ours.pem"))
            .await
            .expect("our authority"),
    );
    let history = History::new("app/T1");
    write_at_once(&history, &[Arc::clone(&backend)], 10, 1).await;
    history.check(&backend).await;
    for options in [RedisOptions::default(), trusting("theirs.pem")] {
        let refused = RedisBackend::open(&url, options)
            .await
            .expect_err("untrusted");
        assert_eq!(refused.kind(), Kind::Unavailable, "{refused:?}");
    }
}

/// Every master is checked, not only the one that responds first.
#[tokio::test]
async fn a_cluster_with_one_unsafe_master_is_refused() {
    let cluster = Cluster::start().await;
    let urls = cluster.urls();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let last = cluster
        .master_of(16383, 0)
        .await
        .expect("all slots are served");
    let () = cluster.nodes[last]
        .run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await;
    let refused = RedisBackend::open_cluster(&urls, RedisOptions::default()).await;
    let refused = refused.expect_err("one of three evicts");
    assert_eq!(
        (
            refused.kind(),
            refused.to_string().contains("maxmemory-policy")
        ),
        (Kind::Misconfigured, true),
        "{refused}"
    );
    let () = cluster.nodes[last]
        .run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await;
    RedisBackend::open_cluster(&urls, RedisOptions::default())
        .await
        .expect("all are safe");
    let () = cluster.nodes[last]
        .run(&["CLUSTER", "DELSLOTS", "16383"])
        .await;
    // The other nodes learn of it later, and this node knows it at once.
    until("the cluster is refused", async || {
        let refused = RedisBackend::open_cluster(&urls, RedisOptions::default()).await;
        refused.is_err_and(|error| error.to_string().contains("some slots are not served"))
    })
    .await;
}

#[tokio::test]
async fn a_master_with_fewer_replicas_than_commits_wait_for_is_refused() {
    let redis = Redis::start().await;
    let options = RedisOptions {
        await_replicas: 1,
        ..RedisOptions::default()
    };
    let refused = RedisBackend::open(&redis.url(), options.clone()).await;
    let refused = refused.expect_err("no commit would ever succeed");
    assert_eq!(
        (
            refused.kind(),
            refused
                .to_string()
                .contains("0 replicas connected, but commits wait for 1")
        ),
        (Kind::Misconfigured, true),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("await_replicas"), "{refused}");
    let replica_of = format!("127.0.0.1 {}", redis.port);
    let _replica = Redis::with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--replicaof",
        &replica_of,
    ])
    .await;
    until("the replica is counted", async || {
        RedisBackend::open(&redis.url(), options.clone())
            .await
            .is_ok()
    })
    .await;
}

/// 192.0.2.1 is reserved for documentation, so no machine has it.
#[tokio::test]
async fn another_machine_is_not_spoken_to_without_tls_unless_that_is_allowed() {
    let options = || RedisOptions {
        connect_timeout: Duration::from_millis(100),
        ..RedisOptions::default()
    };
    let url = "redis://somebody:canary@192.0.2.1:6379";
    let local = "redis://127.0.0.1:26379";
    for refused in [
        RedisBackend::open(url, options()).await,
        RedisBackend::open_cluster(&[url], options()).await,
        RedisBackend::open_sentinel(&["redis://192.0.2.1"], "redis://mymaster", options()).await,
        RedisBackend::open_sentinel(&[local], "redis://:canary@mymaster", options()).await,
    ] {
        let refused = refused.expect_err("in the clear");
        let text = format!("{refused} {refused:?}");
        assert_eq!(refused.kind(), Kind::Tls, "{refused:?}");
        assert!(text.contains("allow_plaintext") && !text.contains("canary"));
    }
    let allowed = RedisOptions {
        allow_plaintext: true,
        ..options()
    };
    for refused in [
        RedisBackend::open(url, allowed).await,
        RedisBackend::open("rediss://192.0.2.1:6379", options()).await,
    ] {
        let refused = refused.expect_err("no connection");
        assert_eq!(refused.kind(), Kind::Unavailable, "{refused:?}");
    }
}

/// Only the credentials of the first URL would be used.
#[tokio::test]
async fn urls_that_differ_in_more_than_the_place_are_refused() {
    let one = "redis://somebody:one@127.0.0.1:7000";
    for other in [
        "redis://somebody:other@127.0.0.1:7001",
        "redis://one@127.0.0.1:7001",
        "rediss://somebody:one@127.0.0.1:7001",
    ] {
        let default = RedisOptions::default;
        for refused in [
            RedisBackend::open_cluster(&[one, other], default()).await,
            RedisBackend::open_sentinel(&[one, other], "redis://mymaster", default()).await,
        ] {
            let refused = refused.expect_err("not usable");
            assert_eq!(refused.kind(), Kind::Invalid, "{other}: {refused:?}");
        }
    }
}

/// Such a node was removed from the cluster, or was cut off before it learned of the cluster.
#[tokio::test]
async fn a_node_that_knows_nothing_of_the_cluster_blanks_no_map() {
    let cluster = Cluster::start().await;
    let bus_port = server::free_port().to_string();
    let stray = Redis::with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus_port,
    ])
    .await;
    let (stray_url, url) = (stray.url(), cluster.nodes[0].url());
    // The pause makes the other node respond first.
    let () = cluster.nodes[0].run(&["CLIENT", "PAUSE", "500"]).await;
    let options = RedisOptions::default();
    let backend = RedisBackend::open_cluster(&[&stray_url, &url], options).await;
    let backend = backend.expect("one node knows");
    assert_eq!(
        read_one(&backend, &partition("app/T1"), &slot("bot")).await,
        None
    );
}
