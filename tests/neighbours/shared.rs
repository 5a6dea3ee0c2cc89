//! The checks that each neighbour runs. No server listens on the ports used.
#![allow(dead_code, reason = "each neighbour uses some of the checks")]

use rustls::crypto::CryptoProvider;
use slack_installs::slack::{Environment, HttpTransport, SlackClient, Transport, TransportError};

/// Sends a request over TLS, and returns why it was not sent.
pub async fn send() -> Box<dyn std::error::Error + Send + Sync> {
    drop(SlackClient::new(Environment::commercial()));
    let url = "https://127.0.0.1:1/api/auth.test";
    let request = http::Request::get(url).body(Default::default());
    let sent = HttpTransport::new().send(request.expect("a request")).await;
    match sent {
        Err(TransportError::NotSent(cause)) => cause,
        other => panic!("expected a refused connection: {other:?}"),
    }
}

/// Checks that the client reaches the network without a default provider.
pub async fn slack_is_called_by_tls() {
    let causes = causes(&*send().await);
    assert!(causes.contains("refused"), "{causes}");
    assert!(
        CryptoProvider::get_default().is_none(),
        "this crate installed a default provider"
    );
}

/// Checks that a provider exists. Without one, `rustls::ClientConfig::builder()` panics.
pub fn a_bare_builder_has_a_provider() {
    rustls::ClientConfig::builder();
}

fn causes(mut error: &dyn std::error::Error) -> String {
    let mut causes = error.to_string();
    while let Some(source) = error.source() {
        causes = format!("{causes}: {source}");
        error = source;
    }
    causes
}
