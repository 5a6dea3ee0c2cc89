//! Without a crypto provider, every use of TLS returns an error that names the remedy.

#[path = "../../redis.rs"]
mod redis;
#[path = "../../shared.rs"]
mod shared;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sent = shared::send().await.to_string();
    assert!(
        sent.contains("enable the feature `ring` or `aws-lc-rs`"),
        "{sent}"
    );
    redis::names_the_remedy().await;
    reqwest::Client::new();
}
