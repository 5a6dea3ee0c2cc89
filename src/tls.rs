//! Chooses TLS's crypto provider. This crate never installs a default one for the process.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use thiserror::Error;

/// Returns the provider of the feature `ring` or `aws-lc-rs`. If neither is enabled, returns the
/// provider that rustls would use: the default of the process, or else the only one that rustls
/// was built with.
pub(crate) fn provider() -> Result<Arc<CryptoProvider>, NoProvider> {
    #[cfg(feature = "ring")]
    let chosen = Some(rustls::crypto::ring::default_provider());
    #[cfg(all(feature = "aws-lc-rs", not(feature = "ring")))]
    let chosen = Some(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    let chosen = None;
    chosen
        .map(Arc::new)
        .or_else(|| CryptoProvider::get_default().cloned())
        .or_else(|| only(built_in()).map(Arc::new))
        .ok_or(NoProvider)
}

/// No feature of this crate selects a provider, and rustls cannot choose one.
#[derive(Clone, Copy, Debug, Error)]
#[error(
    "TLS has no crypto provider: enable the feature `ring` or `aws-lc-rs` of slack-installs, or \
     install a default provider of rustls at the start of `main`"
)]
pub(crate) struct NoProvider;

/// Returns whether `rustls::ClientConfig::builder()` finds a provider. Without one it panics, and
/// drivers call it.
#[cfg(feature = "redis")]
pub(crate) fn rustls_finds_a_provider() -> bool {
    CryptoProvider::get_default().is_some() || only(built_in()).is_some()
}

/// Returns the provider, if exactly one is given.
fn only<T>(providers: [Option<T>; 2]) -> Option<T> {
    match providers {
        [Some(provider), None] | [None, Some(provider)] => Some(provider),
        _ => None,
    }
}

/// Returns the providers that rustls was built with, by this crate's features or by another's.
///
/// rustls has no function that reports this. If rustls has a module `ring` or `aws_lc_rs`, the glob
/// import imports it, and it hides this file's module of the same name.
fn built_in() -> [Option<CryptoProvider>; 2] {
    #[allow(unused_imports, reason = "rustls may have neither of the two modules")]
    use rustls::crypto::*;
    #[allow(
        clippy::useless_conversion,
        reason = "rustls' own functions return no `Option`"
    )]
    [
        ring::default_provider().into(),
        aws_lc_rs::default_provider().into(),
    ]
}

#[allow(dead_code, reason = "not used if rustls has a module of this name")]
mod ring {
    pub(super) fn default_provider() -> Option<rustls::crypto::CryptoProvider> {
        None
    }
}

#[allow(dead_code, reason = "not used if rustls has a module of this name")]
mod aws_lc_rs {
    pub(super) fn default_provider() -> Option<rustls::crypto::CryptoProvider> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_chosen_only_if_there_is_no_other() {
        assert_eq!(only([Some(1), None]), Some(1));
        assert_eq!(only([None, Some(2)]), Some(2));
        assert_eq!(only([Some(1), Some(2)]), None);
        assert_eq!(only::<u8>([None, None]), None);
    }

    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    #[test]
    fn the_providers_that_rustls_was_built_with_are_seen() {
        let [ring, aws_lc_rs] = built_in();
        assert!(ring.is_some() && aws_lc_rs.is_none());
    }
}
