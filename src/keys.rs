//! Key providers: where the key is that wraps the data keys.
//!
//! [`connect`] opens a provider by its URL. `docs/keys.md` in the repository has the set-up of each
//! provider, its permissions, and the order of a rollout.

use std::sync::Arc;

use crate::seal::KeyProvider;

#[cfg(feature = "aws-kms")]
mod aws_kms;
#[cfg(any(feature = "aws-kms", feature = "vault"))]
mod binding;
mod error;
mod forms;
mod lines;
mod master;
mod providers;
mod source;
mod url;
#[cfg(feature = "vault")]
mod vault;

#[cfg(feature = "aws-kms")]
pub use aws_kms::AwsKms;
pub use error::{KeySetupError, KeySetupErrorKind};
pub(crate) use lines::master_keys;
pub(crate) use master::MasterKeys;
pub use providers::KeyProviders;
pub(crate) use source::Source;
#[cfg(feature = "vault")]
pub use vault::{VaultAuth, VaultOptions, VaultTransit};

/// Opens the key provider at this URL:
///
/// | URL | the key that wraps data keys |
/// |---|---|
/// | `key-file:/run/secrets/master-key` | a master key in a file |
/// | `key-fd:3` | a master key that is read from a file descriptor: a pipe, or a file |
/// | `key-command:/usr/bin/pass?arg=show&arg=slack` | a master key that a program writes to its output. No shell runs it. It has 10 s, or `timeout=SECONDS` |
/// | `key-env:NAME` | a master key in an environment variable |
/// | `aws-secret:NAME` | a master key in AWS Secrets Manager, by name or ARN; `region=…`, `endpoint=…` (feature `aws-secret`) |
/// | `aws-kms:arn:aws:kms:…:key/…` | a key in AWS KMS; `environment=…`, `endpoint=…` (feature `aws-kms`) |
/// | `vault:https://host:8200/transit/keys/NAME` | a transit key of OpenBao or HashiCorp Vault (feature `vault`); `docs/keys.md` has its options |
///
/// Options are query parameters. A character such as a space, `?`, `&` or `%` is written as `%20`.
///
/// A text with a master key may have several lines: the first key is the primary, and the others
/// are retired. Empty lines and lines that begin with `#` are ignored. If a data key needs another
/// master key, then a file, a command or a secret is read again, at most every 10 s. So a running
/// process finds a master key that was added.
///
/// Several URLs, separated by spaces, are several providers: the first one wraps, and the others
/// only unwrap. Use that to change the provider.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("key").display().to_string();
/// # std::fs::write(&path, "11".repeat(32))?;
/// # use slack_installs::backend::MemoryBackend;
/// # use slack_installs::{ClientId, EncryptedStore};
/// # let app = ClientId::new("100000000001.200000000002")?;
/// let keys = slack_installs::keys::connect(&format!("key-file:{path}")).await?;
/// let store = EncryptedStore::open(MemoryBackend::default(), keys, app).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`KeySetupError`]. Its text has the remedy, and never the URL or a key.
pub async fn connect(urls: &str) -> Result<Arc<dyn KeyProvider>, KeySetupError> {
    let mut urls = urls.split_whitespace();
    let primary = forms::open(urls.next().unwrap_or_default()).await?;
    let mut retired = Vec::new();
    for url in urls {
        retired.push(forms::open(url).await?);
    }
    if retired.is_empty() {
        return Ok(primary);
    }
    let providers = KeyProviders::new(primary);
    let providers = retired
        .into_iter()
        .fold(providers, KeyProviders::with_retired);
    Ok(Arc::new(providers))
}
