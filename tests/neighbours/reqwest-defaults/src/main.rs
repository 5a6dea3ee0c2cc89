//! reqwest and rustls with aws-lc-rs, as reqwest has it by default; this crate with it too.

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
