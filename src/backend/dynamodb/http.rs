//! The timeouts of calls, and no retries.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;

use crate::aws;

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
        builder.set_http_client(aws::https_if_any());
    }
    Client::from_conf(builder.build())
}

/// DynamoDB responds within about ten milliseconds. A commit of 2 MiB over a slow line may take
/// seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
