//! The HTTP client and its timeouts.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::SharedHttpClient;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

/// Returns a client over rustls, with the crypto provider of the feature `ring` or `aws-lc-rs`.
#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
pub(super) fn https() -> SharedHttpClient {
    #[cfg(feature = "ring")]
    let provider = CryptoMode::Ring;
    #[cfg(not(feature = "ring"))]
    let provider = CryptoMode::AwsLc;
    aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(provider))
        .build_https()
}

/// Returns the client, or `None` if there is no crypto provider. The SDK then returns an error that
/// says so.
pub(super) fn https_if_any() -> Option<SharedHttpClient> {
    #[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
    return Some(https());
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    None
}

/// Returns the same client without the SDK's retries, because they repeat writes that may have been
/// applied. Adds timeouts, unless the client has its own.
pub(super) fn without_retries(client: &Client) -> Client {
    let config = client.config();
    let mut timeouts = config
        .timeout_config()
        .cloned()
        .unwrap_or_else(|| TimeoutConfig::builder().build());
    let ours = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(CALL_TIMEOUT)
        .build();
    timeouts.take_defaults_from(&ours);
    let mut builder = config
        .to_builder()
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if config.http_client().is_none() {
        builder.set_http_client(https_if_any());
    }
    Client::from_conf(builder.build())
}

/// DynamoDB responds within about ten milliseconds. A commit of 2 MiB over a slow line may take
/// seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
