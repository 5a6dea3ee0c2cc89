//! reqwest and rustls with aws-lc-rs, reqwest's default, and this crate with aws-lc-rs too.

#[path = "../../redis.rs"]
mod redis;
#[path = "../../shared.rs"]
mod shared;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    shared::slack_is_called_by_tls().await;
    redis::is_called_by_tls().await;
    reqwest::Client::new();
    shared::a_bare_builder_has_a_provider();
}
