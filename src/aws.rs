//! The HTTP client, and the configuration, of clients for AWS.

#[cfg(feature = "dynamodb")]
use aws_sdk_dynamodb::config as sdk;
#[cfg(all(
    feature = "aws-kms",
    not(any(feature = "aws-secret", feature = "dynamodb"))
))]
use aws_sdk_kms::config as sdk;
#[cfg(all(feature = "aws-secret", not(feature = "dynamodb")))]
use aws_sdk_secretsmanager::config as sdk;

use aws_config::{BehaviorVersion, SdkConfig};
#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use sdk::{Credentials, Region, SharedHttpClient};

/// Returns a client over rustls, with the crypto provider of the feature `ring` or `aws-lc-rs`.
#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
pub(crate) fn https() -> SharedHttpClient {
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
pub(crate) fn https_if_any() -> Option<SharedHttpClient> {
    #[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
    return Some(https());
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    None
}

/// Loads the configuration and the credentials' sources that the environment names. With an
/// endpoint, region and credentials are optional.
pub(crate) async fn config(endpoint: Option<&str>, region: Option<&str>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    let http_client = match endpoint {
        Some(endpoint) if endpoint.starts_with("http://") => {
            Some(aws_smithy_http_client::Builder::new().build_http())
        }
        _ => https_if_any(),
    };
    if let Some(http_client) = http_client {
        loader = loader.http_client(http_client);
    }
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
        // An emulator requires credentials, and accepts any.
        if std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
            let any = Credentials::new("emulator", "emulator", None, None, "emulator");
            loader = loader
                .credentials_provider(any)
                .region(Region::new("us-east-1"));
        }
    }
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    loader.load().await
}
