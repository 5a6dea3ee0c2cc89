//! reqwest with aws-lc-rs, as it has it by default; this crate with ring, as it has it by default.
//! rustls then has two providers, and chooses none.

#[path = "../../redis.rs"]
mod redis;
#[path = "../../shared.rs"]
mod shared;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    shared::slack_is_called_by_tls().await;
    reqwest::Client::new();
    redis::names_the_remedy().await;

    // The message of a panic that is expected.
    std::panic::set_hook(Box::new(|_| ()));
    std::panic::catch_unwind(rustls::ClientConfig::builder).expect_err("rustls cannot choose");
    drop(std::panic::take_hook());

    // The remedy.
    let provider = rustls::crypto::ring::default_provider();
    provider.install_default().expect("it is the first one");
    redis::is_called_by_tls().await;
    rustls::ClientConfig::builder();
}
