//! reqwest without TLS, and this crate with its defaults.

#[path = "../../redis.rs"]
mod redis;
#[path = "../../shared.rs"]
mod shared;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    shared::slack_is_called_by_tls().await;
    reqwest::Client::new();
    redis::is_called_by_tls().await;
    rustls::ClientConfig::builder();
}
