use super::*;
use crate::seal::{KeyId, LocalKeyProvider, MasterKey, wrapped};

/// Unwraps nothing: every call returns this error.
#[derive(Debug)]
struct Fails(fn() -> KeyError);

#[async_trait]
impl KeyProvider for Fails {
    async fn wrap(&self, _: &DataKey, _: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        Err((self.0)())
    }

    async fn unwrap(&self, _: &[u8], _: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        Err((self.0)())
    }
}

fn context() -> KeyContext<'static> {
    KeyContext {
        app: "1.2",
        key_id: KeyId::from_bytes([1; 16]),
        epoch: 1,
    }
}

fn local() -> LocalKeyProvider {
    LocalKeyProvider::new(MasterKey::generate())
}

fn unknown() -> KeyError {
    KeyError::UnknownKey {
        reason: "on purpose".into(),
    }
}

fn unavailable() -> KeyError {
    KeyError::Unavailable("on purpose".into())
}

#[tokio::test]
async fn a_retired_provider_unwraps_and_never_wraps() {
    let old = Arc::new(local());
    let (key, by_old) = old.generate(&context()).await.expect("it is local");
    let providers = KeyProviders::new(local()).with_retired(Arc::clone(&old));
    let unwrapped = providers
        .unwrap(&by_old, &context())
        .await
        .expect("the old one has the key");
    assert_eq!(unwrapped.expose(), key.expose());
    let (_, new) = providers.generate(&context()).await.expect("it is local");
    assert!(matches!(
        old.unwrap(&new, &context()).await,
        Err(KeyError::UnknownKey { .. })
    ));
    let new = providers.wrap(&key, &context()).await.expect("it is local");
    assert!(matches!(
        old.unwrap(&new, &context()).await,
        Err(KeyError::UnknownKey { .. })
    ));
}

#[tokio::test]
async fn the_provider_that_has_the_key_decides_the_error() {
    let old = Arc::new(local());
    let (_, mut by_old) = old.generate(&context()).await.expect("it is local");
    *by_old.last_mut().expect("it has bytes") ^= 1;
    let providers = KeyProviders::new(local())
        .with_retired(Fails(unknown))
        .with_retired(old);
    let refused = providers.unwrap(&by_old, &context()).await;
    assert!(matches!(refused, Err(KeyError::Changed)), "{refused:?}");

    let providers = KeyProviders::new(local()).with_retired(Fails(unavailable));
    let refused = providers.unwrap(&by_old, &context()).await;
    assert!(
        matches!(refused, Err(KeyError::Unavailable(_))),
        "{refused:?}"
    );
    let providers = KeyProviders::new(Fails(unavailable)).with_retired(local());
    let refused = providers.unwrap(&by_old, &context()).await;
    assert!(
        matches!(refused, Err(KeyError::Unavailable(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_key_of_a_provider_that_the_process_does_not_have_is_unknown_and_not_damaged() {
    let bytes = wrapped::named("aws-kms arn:aws:kms:x", b"ciphertext");
    let refused = local().unwrap(&bytes, &context()).await;
    let Err(KeyError::UnknownKey { reason }) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("`aws-kms arn:aws:kms:x`"), "{reason}");
}
