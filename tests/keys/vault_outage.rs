//! Vault is sealed, dead, or hangs.

use std::time::Duration;

use slack_installs::{DataKey, KeyError, KeyProvider};
use tokio::time::timeout;

use crate::bao::{Bao, ROOT};
use crate::{context, is_unavailable};

/// Unwraps, and fails the test if that takes much longer than the provider's deadline.
async fn unwrap(provider: &impl KeyProvider, wrapped: &[u8]) -> Result<DataKey, KeyError> {
    let unwrapped = timeout(
        Duration::from_secs(20),
        provider.unwrap(wrapped, &context(1)),
    )
    .await;
    unwrapped.expect("the provider has a deadline")
}

#[tokio::test]
async fn a_sealed_server_is_named_and_serves_again_when_it_is_unsealed() {
    let bao = Bao::start().await;
    let provider = bao.with_token(ROOT);
    let (_, wrapped) = provider.generate(&context(1)).await.expect("a key is made");
    bao.seal().await;
    match unwrap(&provider, &wrapped).await {
        Err(KeyError::Unavailable(cause)) => assert!(cause.to_string().contains("unseal it")),
        other => panic!("{other:?}"),
    }
    bao.unseal().await;
    unwrap(&provider, &wrapped).await.expect("nothing is lost");
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_and_serves_again_when_it_goes_on() {
    let bao = Bao::start().await;
    let provider = bao.with_token(ROOT);
    let (_, wrapped) = provider.generate(&context(1)).await.expect("a key is made");
    bao.hang().await;
    let hung = unwrap(&provider, &wrapped).await;
    assert!(is_unavailable(&hung), "{hung:?}");
    bao.go_on();
    unwrap(&provider, &wrapped).await.expect("nothing is lost");
}

#[tokio::test]
async fn a_server_that_was_killed_is_unavailable_and_its_token_is_not_shown() {
    let mut bao = Bao::start().await;
    let provider = bao.with_token(ROOT);
    let (_, wrapped) = provider.generate(&context(1)).await.expect("a key is made");
    bao.kill();
    let dead = unwrap(&provider, &wrapped).await;
    assert!(is_unavailable(&dead), "{dead:?}");
    assert!(!format!("{dead:?} {provider:?}").contains(ROOT), "{dead:?}");
}
