//! Several key providers, while one replaces another.

use std::sync::Arc;

use async_trait::async_trait;

use crate::seal::{DataKey, KeyContext, KeyError, KeyProvider};

/// One key provider that wraps, and retired ones that only unwrap.
///
/// Use it to change from one provider to another: make the new one the primary, and add the old one
/// as retired, until all data keys are wrapped by the new one.
///
/// A provider that does not have a key must return [`KeyError::UnknownKey`] or
/// [`KeyError::Changed`]. The next one is then tried. The providers of this crate find that out
/// without a call to a key service.
///
/// ```
/// use slack_installs::keys::KeyProviders;
/// use slack_installs::{LocalKeyProvider, MasterKey};
///
/// let (new, old) = (MasterKey::generate(), MasterKey::generate());
/// let providers = KeyProviders::new(LocalKeyProvider::new(new))
///     .with_retired(LocalKeyProvider::new(old));
/// ```
#[derive(Debug)]
pub struct KeyProviders {
    primary: Arc<dyn KeyProvider>,
    retired: Vec<Arc<dyn KeyProvider>>,
}

impl KeyProviders {
    /// Makes a provider that wraps by this one.
    #[must_use]
    pub fn new(primary: impl KeyProvider) -> Self {
        Self {
            primary: Arc::new(primary),
            retired: Vec::new(),
        }
    }

    /// Adds a retired provider, which only unwraps.
    #[must_use]
    pub fn with_retired(mut self, provider: impl KeyProvider) -> Self {
        self.retired.push(Arc::new(provider));
        self
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl KeyProvider for KeyProviders {
    async fn generate(&self, context: &KeyContext<'_>) -> Result<(DataKey, Vec<u8>), KeyError> {
        self.primary.generate(context).await
    }

    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        self.primary.wrap(key, context).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        let mut refused = match self.primary.unwrap(wrapped, context).await {
            Err(error @ (KeyError::UnknownKey { .. } | KeyError::Changed)) => error,
            other => return other,
        };
        for provider in &self.retired {
            match provider.unwrap(wrapped, context).await {
                // The provider that has the key says more than those that do not have it.
                Err(KeyError::Changed) => refused = KeyError::Changed,
                Err(KeyError::UnknownKey { .. }) => {}
                other => return other,
            }
        }
        Err(refused)
    }
}

#[cfg(test)]
mod tests;
