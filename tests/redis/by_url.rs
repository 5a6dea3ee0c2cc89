//! Opening by a URL, as `backend::connect` does.

use slack_installs::backend::connect;

use super::*;
use servers::Cluster;

#[tokio::test]
async fn a_url_chooses_the_prefix() {
    let redis = Redis::start().await;
    let backend = connect(&format!("{}?prefix=of-the-app", redis.url())).await;
    let backend = backend.expect("a safe server");
    commit_one(&*backend).await;
    let keys: Vec<String> = redis.run(&["KEYS", "*"]).await;
    all_have_the_prefix(&keys);
}

#[tokio::test]
async fn a_url_of_a_cluster_chooses_the_prefix() {
    let cluster = Cluster::start().await;
    let url = format!("cluster:{}?prefix=of-the-app", cluster.urls().join(","));
    let backend = connect(&url).await.expect("a safe cluster");
    commit_one(&*backend).await;
    let mut keys = Vec::new();
    for node in &cluster.nodes {
        let more: Vec<String> = node.run(&["KEYS", "*"]).await;
        keys.extend(more);
    }
    all_have_the_prefix(&keys);
}

#[tokio::test]
async fn a_url_with_a_prefix_that_cannot_be_is_refused_with_the_remedy() {
    for name in ["", "a%20b", "%7Ba%7D", "%C3%A4"] {
        for start in [
            "redis://127.0.0.1:1",
            "cluster:redis://127.0.0.1:1,redis://127.0.0.1:2",
        ] {
            let refused = connect(&format!("{start}?prefix={name}")).await;
            let refused = refused.expect_err("not a prefix");
            assert_eq!(refused.kind(), Kind::Invalid, "{name}: {refused}");
            assert!(refused.to_string().contains("`?prefix=`"), "{refused}");
        }
    }
}

#[track_caller]
fn all_have_the_prefix(keys: &[String]) {
    assert!(!keys.is_empty());
    let has_it = |key: &String| key.starts_with("{of-the-app:");
    assert!(keys.iter().all(has_it), "{keys:?}");
}

async fn commit_one(backend: &dyn Backend) {
    let row = random_row(&mut Random(1));
    let change = put(&slot("bot"), &row, Expect::Absent);
    let committed = backend.commit(&partition("app/T1"), &change).await;
    committed.expect("an empty slot");
}
