//! Master keys in AWS Secrets Manager, imitated by moto.

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_secretsmanager::primitives::Blob;
use slack_installs::keys::{KeySetupError, KeySetupErrorKind, connect};
use slack_installs::{KeyProvider, LocalKeyProvider, MasterKey};

use crate::moto::{Moto, REGION};
use crate::proxy::{Fate, Proxy};
use crate::{context, is_unknown};

fn client(moto: &Moto) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .endpoint_url(&moto.url)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new(REGION));
    Client::from_conf(config.build())
}

/// Makes a secret with a first version.
async fn secret(moto: &Moto, name: &str, text: &str) {
    let call = client(moto).create_secret().name(name).secret_string(text);
    call.send().await.expect("the name is new");
}

async fn change(moto: &Moto, name: &str, text: &str) {
    let call = client(moto)
        .put_secret_value()
        .secret_id(name)
        .secret_string(text);
    call.send().await.expect("the secret exists");
}

fn url(endpoint: &str, name: &str) -> String {
    format!("aws-secret:{name}?region={REGION}&endpoint={endpoint}")
}

fn key(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

/// Returns a data key that this master key wrapped.
async fn wrapped_by(byte: u8) -> Vec<u8> {
    let master = MasterKey::parse(&key(byte)).expect("64 hex digits");
    let made = LocalKeyProvider::new(master).generate(&context(1)).await;
    made.expect("a local provider works").1
}

async fn refused(url: &str) -> KeySetupError {
    connect(url)
        .await
        .map(|_| ())
        .expect_err("the secret cannot be used")
}

#[tokio::test]
async fn the_current_version_is_the_primary_and_the_previous_one_is_retired() {
    let moto = Moto::start().await;
    secret(&moto, "slack/master", &key(1)).await;
    let one = connect(&url(&moto.url, "slack/master"))
        .await
        .expect("it has a key");
    one.unwrap(&wrapped_by(1).await, &context(1))
        .await
        .expect("it is the first key");

    change(&moto, "slack/master", &key(2)).await;
    let two = connect(&url(&moto.url, "slack/master"))
        .await
        .expect("it has two keys");
    for byte in [1, 2] {
        let opened = two.unwrap(&wrapped_by(byte).await, &context(1)).await;
        assert!(opened.is_ok(), "key {byte}: {opened:?}");
    }
    assert!(is_unknown(
        &two.unwrap(&wrapped_by(3).await, &context(1)).await
    ));
    let (_, wrapped) = two
        .generate(&context(1))
        .await
        .expect("a local provider works");
    let current = LocalKeyProvider::new(MasterKey::parse(&key(2)).expect("64 hex digits"));
    current
        .unwrap(&wrapped, &context(1))
        .await
        .expect("the current version wraps");
}

#[tokio::test]
async fn a_placeholder_as_previous_version_does_no_harm() {
    let moto = Moto::start().await;
    secret(&moto, "master", "to be set").await;
    let no_key = refused(&url(&moto.url, "master")).await;
    assert_eq!(no_key.kind(), KeySetupErrorKind::Invalid);
    assert!(!format!("{no_key:?}").contains("to be set"));
    change(&moto, "master", &key(1)).await;
    connect(&url(&moto.url, "master"))
        .await
        .expect("the current version is a key");
}

#[tokio::test]
async fn a_secret_may_be_bytes_or_several_lines() {
    let moto = Moto::start().await;
    let text = format!("{}\n{}\n", key(2), key(1));
    let bytes = Blob::new(text.as_bytes());
    let made = client(&moto)
        .create_secret()
        .name("master")
        .secret_binary(bytes)
        .send()
        .await;
    let arn = made.expect("the name is new").arn.expect("it has an ARN");
    let by_arn = format!("aws-secret:{arn}?endpoint={}", moto.url);
    let keys = connect(&by_arn).await.expect("it has keys");
    keys.unwrap(&wrapped_by(1).await, &context(1))
        .await
        .expect("it is the second line");
}

#[tokio::test]
async fn a_missing_denied_or_unavailable_secret_is_told_apart() {
    let moto = Moto::start().await;
    let missing = refused(&url(&moto.url, "nobody")).await;
    assert_eq!(missing.kind(), KeySetupErrorKind::Unreadable);
    assert!(
        missing.to_string().contains("does not have the secret"),
        "{missing}"
    );

    let proxy = Proxy::start(&moto.url).await;
    let body = "{\"__type\":\"AccessDeniedException\",\"Message\":\"no\"}";
    proxy.decide(move |_| Fate::Answer(400, body.into()));
    let denied = refused(&url(&proxy.url, "master")).await;
    assert_eq!(denied.kind(), KeySetupErrorKind::Unreadable);
    assert!(
        denied.to_string().contains("secretsmanager:GetSecretValue"),
        "{denied}"
    );

    let torn = "{\"SecretString\":\"canary\",\"x";
    proxy.decide(move |_| Fate::Answer(200, torn.into()));
    let torn = refused(&url(&proxy.url, "master")).await;
    assert!(!format!("{torn:?}").contains("canary"), "{torn:?}");

    proxy.decide(|_| Fate::Cut);
    let away = refused(&url(&proxy.url, "master")).await;
    assert_eq!(away.kind(), KeySetupErrorKind::Unavailable);
}
