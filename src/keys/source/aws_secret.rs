//! A master key in AWS Secrets Manager.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Builder;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use zeroize::Zeroizing;

use crate::aws;
use crate::keys::error::{KeySetupError, KeySetupErrorKind, invalid, unreadable};
use crate::keys::lines::master_keys;

/// A secret, by its name or ARN.
#[derive(Clone, Debug)]
pub(crate) struct AwsSecret {
    client: Client,
    id: String,
}

impl AwsSecret {
    /// If the id is an ARN, its region is used.
    pub(in crate::keys) async fn new(
        id: &str,
        region: Option<&str>,
        endpoint: Option<&str>,
    ) -> Self {
        let of_arn = id
            .strip_prefix("arn:")
            .and_then(|arn| arn.split(':').nth(2));
        let config = aws::config(endpoint, region.or(of_arn)).await;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(ATTEMPT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(DEADLINE)
            .build();
        let config = Builder::from(&config)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
        Self {
            client: Client::from_conf(config.build()),
            id: id.to_owned(),
        }
    }

    /// Reads the current version, and below it the previous one, if there is one. So the current
    /// one is the primary master key, and the previous one is retired.
    pub(super) async fn read(&self) -> Result<Zeroizing<String>, KeySetupError> {
        let current = self.version("AWSCURRENT").await?.ok_or_else(|| {
            unreadable(
                "AWS Secrets Manager does not have the secret: check its name, account and region",
            )
        })?;
        let Some(previous) = self.version("AWSPREVIOUS").await? else {
            return Ok(current);
        };
        // The first version of a secret is often a placeholder.
        if master_keys(&previous).is_err() {
            tracing::warn!("the previous version of the secret is no master key, and is not used");
            return Ok(current);
        }
        let mut both = Zeroizing::new(String::with_capacity(current.len() + previous.len() + 1));
        for text in [&current, "\n", &previous] {
            both.push_str(text);
        }
        Ok(both)
    }

    /// Reads one version. Returns `None` if the secret does not have it.
    async fn version(&self, stage: &str) -> Result<Option<Zeroizing<String>>, KeySetupError> {
        let call = self.client.get_secret_value().secret_id(&self.id);
        let found = match call.version_stage(stage).send().await {
            Ok(found) => found,
            Err(error) => return missing(error),
        };
        let text = found.secret_string.map(Zeroizing::new).or_else(|| {
            let bytes = Zeroizing::new(found.secret_binary?.into_inner());
            let text = std::str::from_utf8(&bytes).ok()?;
            Some(Zeroizing::new(text.to_owned()))
        });
        let text = text.ok_or_else(|| {
            invalid("the secret in AWS Secrets Manager is not text: store the master key as text")
        });
        text.map(Some)
    }
}

/// Returns `None` if the secret, or its version, does not exist.
fn missing<T>(sdk: SdkError<GetSecretValueError>) -> Result<Option<T>, KeySetupError> {
    let (kind, text) = match sdk.as_service_error().and_then(|error| error.code()) {
        Some("ResourceNotFoundException") => return Ok(None),
        Some("AccessDeniedException" | "AccessDenied") => (
            KeySetupErrorKind::Unreadable,
            "AWS denies `secretsmanager:GetSecretValue` on the secret with the master key: permit \
             it in the policy of the process's role, and `kms:Decrypt` on the secret's own key",
        ),
        Some("DecryptionFailure" | "InvalidRequestException" | "InvalidParameterException") => (
            KeySetupErrorKind::Unreadable,
            "AWS Secrets Manager cannot return the secret with the master key: its deletion may be \
             pending, or its key disabled",
        ),
        Some(code) if CREDENTIALS.contains(&code) => (
            KeySetupErrorKind::Unreadable,
            "AWS does not accept the credentials of this process: check their source, and the \
             machine's clock",
        ),
        _ => (
            KeySetupErrorKind::Unavailable,
            "AWS Secrets Manager, or the source of the credentials, is unavailable",
        ),
    };
    // Without the response: its `Debug` would show the body, which may hold the key.
    let error = KeySetupError::new(kind, text);
    Err(match sdk.into_source() {
        Ok(source) => error.with_source(source),
        Err(_) => error,
    })
}

const CREDENTIALS: [&str; 4] = [
    "UnrecognizedClientException",
    "ExpiredTokenException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
];

/// The time for one version, at the start of the app.
const DEADLINE: Duration = Duration::from_secs(10);

const ATTEMPT: Duration = Duration::from_secs(3);

const ATTEMPTS: u32 = 4;
