//! Data keys that a key in AWS KMS wraps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Region;
use aws_sdk_kms::primitives::Blob;
use zeroize::Zeroizing;

use self::arn::KeyArn;
use self::refusal::{key_error, other_key};
use super::binding;
use super::error::KeySetupError;
use super::url::KeyUrl;
use crate::aws;
use crate::seal::{DataKey, KeyContext, KeyError, KeyProvider, wrapped};

mod arn;
mod refusal;

/// Wraps data keys under a symmetric key in AWS KMS, which never leaves KMS.
///
/// The encryption context of each call has the purpose, the app, the data key's id and its epoch.
/// KMS binds the wrapped key to it, and shows it in CloudTrail. The app needs only `kms:Decrypt`.
/// Only the process that makes data keys needs `kms:GenerateDataKey`, and `kms:Encrypt` to wrap
/// them again. `docs/keys.md` in the repository has the policies.
///
/// A call is repeated with jitter for at most 2 s, if KMS throttles or cannot be reached.
///
/// Tested against an emulator (moto). It was not tried against AWS itself.
///
/// ```no_run
/// # async fn open() -> Result<(), slack_installs::keys::KeySetupError> {
/// use slack_installs::keys::AwsKms;
///
/// let arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
/// let provider = AwsKms::connect(arn).await?.with_environment("production");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AwsKms {
    client: Client,
    key: KeyArn,
    environment: Option<String>,
}

impl AwsKms {
    /// Makes a provider with the credentials that the environment has. The region is the key's. It
    /// makes no call to KMS.
    ///
    /// # Errors
    ///
    /// [`KeySetupError`], if the text is not a key's ARN. An alias is refused, because it can be
    /// changed to another key.
    pub async fn connect(arn: &str) -> Result<Self, KeySetupError> {
        Self::at(arn, None).await
    }

    /// Makes a provider with your own client. Its region, retries and timeouts are replaced.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn with_client(client: &Client, arn: &str) -> Result<Self, KeySetupError> {
        let key = KeyArn::parse(arn)?;
        Ok(Self {
            client: bounded(client, key.region()),
            key,
            environment: None,
        })
    }

    /// Binds wrapped keys to the name of your environment too, such as `staging`. A policy can then
    /// permit only the keys of one environment.
    #[must_use]
    pub fn with_environment(mut self, environment: impl Into<String>) -> Self {
        self.environment = Some(environment.into());
        self
    }

    async fn at(arn: &str, endpoint: Option<&str>) -> Result<Self, KeySetupError> {
        let key = KeyArn::parse(arn)?;
        let config = aws::config(endpoint, Some(key.region())).await;
        Self::with_client(&Client::new(&config), arn)
    }

    fn context(&self, context: &KeyContext<'_>) -> HashMap<String, String> {
        let pairs = binding::pairs(context, self.environment.as_deref()).into_iter();
        pairs
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// Returns the name in front of wrapped keys. The replicas of a multi-Region key have the same.
    fn name(&self) -> String {
        format!("aws-kms {}", self.key.stable())
    }

    /// Checks that KMS used the key that it was called with.
    fn must_be_ours(&self, used: Option<&str>) -> Result<(), KeyError> {
        if used == Some(self.key.as_str()) {
            Ok(())
        } else {
            Err(other_key(&self.key))
        }
    }

    /// Returns the ciphertext, if this key wrapped it.
    fn ciphertext<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], KeyError> {
        let (name, ciphertext) = wrapped::parse(bytes).unwrap_or(("another provider", b""));
        if name == self.name() {
            let is_plausible = (1..=LONGEST_CIPHERTEXT).contains(&ciphertext.len());
            return is_plausible.then_some(ciphertext).ok_or(KeyError::Changed);
        }
        Err(KeyError::UnknownKey {
            reason: format!(
                "the data key is wrapped by {}, but this process has the KMS key `{}`: add the \
                 other one as a retired provider",
                wrapped::shown(name),
                self.key.as_str()
            ),
        })
    }
}

/// Opens a provider by its key URL.
pub(super) async fn by_url(mut url: KeyUrl) -> Result<Arc<dyn KeyProvider>, KeySetupError> {
    let (environment, endpoint) = (url.take("environment")?, url.take("endpoint")?);
    url.finish(&["endpoint", "environment"])?;
    let mut provider = AwsKms::at(&url.place, endpoint.as_ref().map(|it| it.as_str())).await?;
    provider.environment = environment.map(|environment| environment.to_string());
    Ok(Arc::new(provider))
}

/// Returns the same client with our deadline. Each call can be repeated: a data key that was made
/// twice is used once.
fn bounded(client: &Client, region: &str) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(ATTEMPT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(DEADLINE)
        .build();
    let retries = RetryConfig::standard()
        .with_max_attempts(ATTEMPTS)
        .with_initial_backoff(FIRST_PAUSE)
        .with_max_backoff(ATTEMPT);
    let mut builder = client
        .config()
        .to_builder()
        .region(Region::new(region.to_owned()))
        .timeout_config(timeouts)
        .retry_config(retries);
    if client.config().http_client().is_none() {
        builder.set_http_client(aws::https_if_any());
    }
    Client::from_conf(builder.build())
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl KeyProvider for AwsKms {
    async fn generate(&self, context: &KeyContext<'_>) -> Result<(DataKey, Vec<u8>), KeyError> {
        let call = self.client.generate_data_key().key_id(self.key.as_str());
        let call = call.number_of_bytes(32);
        let made = call
            .set_encryption_context(Some(self.context(context)))
            .send()
            .await;
        let made = made.map_err(|error| key_error(error, &self.key, "kms:GenerateDataKey"))?;
        self.must_be_ours(made.key_id.as_deref())?;
        let wrapped = made.ciphertext_blob.unwrap_or_else(|| Blob::new([]));
        let wrapped = wrapped::named(&self.name(), wrapped.as_ref());
        Ok((data_key(made.plaintext)?, wrapped))
    }

    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        let call = self.client.encrypt().key_id(self.key.as_str());
        let call = call.plaintext(Blob::new(key.expose().as_slice()));
        let made = call
            .set_encryption_context(Some(self.context(context)))
            .send()
            .await;
        let made = made.map_err(|error| key_error(error, &self.key, "kms:Encrypt"))?;
        self.must_be_ours(made.key_id.as_deref())?;
        let wrapped = made.ciphertext_blob.unwrap_or_else(|| Blob::new([]));
        Ok(wrapped::named(&self.name(), wrapped.as_ref()))
    }

    async fn unwrap(&self, bytes: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        let ciphertext = self.ciphertext(bytes)?;
        let call = self.client.decrypt().key_id(self.key.as_str());
        let call = call.ciphertext_blob(Blob::new(ciphertext));
        let opened = call
            .set_encryption_context(Some(self.context(context)))
            .send()
            .await;
        let opened = opened.map_err(|error| key_error(error, &self.key, "kms:Decrypt"))?;
        self.must_be_ours(opened.key_id.as_deref())?;
        data_key(opened.plaintext)
    }
}

/// Returns the plaintext as a data key, and wipes it. The copies in the SDK are not ours.
fn data_key(plaintext: Option<Blob>) -> Result<DataKey, KeyError> {
    let bytes = Zeroizing::new(plaintext.map(Blob::into_inner).unwrap_or_default());
    let key = <&[u8; 32]>::try_from(&bytes[..]).map_err(|_| KeyError::Changed)?;
    Ok(DataKey::from_bytes(*key))
}

/// KMS does not accept a longer one.
const LONGEST_CIPHERTEXT: usize = 6144;

/// The time for a whole call. A person may wait for it in Slack.
const DEADLINE: Duration = Duration::from_secs(2);

/// The time for one attempt. KMS usually responds within about 20 ms.
const ATTEMPT: Duration = Duration::from_millis(900);

/// More than fit into the deadline if each one times out.
const ATTEMPTS: u32 = 6;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
