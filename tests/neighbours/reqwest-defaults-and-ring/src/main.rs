//! reqwest with its default aws-lc-rs, and this crate with its default ring. rustls then finds two
//! providers and chooses neither.

#[path = "../../redis.rs"]
mod redis;
#[path = "../../shared.rs"]
mod shared;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    shared::slack_is_called_by_tls().await;
    reqwest::Client::new();
    redis::names_the_remedy().await;

    // Hides the message of the expected panic.
    std::panic::set_hook(Box::new(|_| ()));
    std::panic::catch_unwind(rustls::ClientConfig::builder).expect_err("rustls cannot choose");
    drop(std::panic::take_hook());

    // The remedy: install one provider as the default.
    let provider = rustls::crypto::ring::default_provider();
    provider.install_default().expect("none was set");
    redis::is_called_by_tls().await;
    rustls::ClientConfig::builder();
}
