//! AWS KMS, imitated by moto behind a proxy that fails as KMS does.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::{BehaviorVersion, Config, Credentials, Region};
use slack_installs::keys::{AwsKms, KeySetupErrorKind, connect};
use slack_installs::{DataKey, KeyContext, KeyError, KeyId, KeyProvider};
use tokio::time::timeout;

use crate::moto::{Moto, REGION};
use crate::proxy::{Fate, Proxy};
use crate::{context, is_changed, is_unavailable, is_unknown, reason};

/// A key, and a provider that reaches it through a proxy.
pub(crate) struct Bench {
    moto: Moto,
    pub(crate) proxy: Proxy,
    arn: String,
    pub(crate) provider: AwsKms,
}

fn client(url: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new(
            "canary-id",
            "canary-secret",
            None,
            None,
            "test",
        ))
        .endpoint_url(url)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new(REGION));
    Client::from_conf(config.build())
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let moto = Moto::start().await;
        let proxy = Proxy::start(&moto.url).await;
        let arn = made(&moto).await;
        let provider = AwsKms::with_client(&client(&proxy.url), &arn).expect("an ARN");
        Self {
            moto,
            proxy,
            arn,
            provider,
        }
    }

    /// Makes a data key, and returns it wrapped.
    async fn wrapped(&self) -> Vec<u8> {
        let made = self.provider.generate(&context(1)).await;
        made.expect("a key is made").1
    }

    /// Lets all calls fail with this error of KMS.
    fn refuse(&self, status: u16, code: &'static str) {
        let body = format!("{{\"__type\":\"{code}\",\"message\":\"canary\"}}");
        self.proxy
            .decide(move |_| Fate::Answer(status, body.clone()));
    }
}

/// Makes a key, and returns its ARN.
async fn made(moto: &Moto) -> String {
    let made = client(&moto.url)
        .create_key()
        .send()
        .await
        .expect("a key is made");
    made.key_metadata
        .and_then(|key| key.arn)
        .expect("a key has an ARN")
}

/// Unwraps, and fails the test if that takes much longer than the provider's deadline.
async fn unwrap(provider: &AwsKms, wrapped: &[u8]) -> Result<DataKey, KeyError> {
    let unwrapped = timeout(
        Duration::from_secs(20),
        provider.unwrap(wrapped, &context(1)),
    )
    .await;
    unwrapped.expect("the provider has a deadline")
}

#[tokio::test]
async fn a_key_is_made_and_opened_with_one_call_each() {
    let bench = Bench::new().await;
    let (made, wrapped) = bench
        .provider
        .generate(&context(1))
        .await
        .expect("a key is made");
    let opened = unwrap(&bench.provider, &wrapped).await.expect("it opens");
    assert_eq!(made.expose(), opened.expose());
    assert_eq!(bench.proxy.operations(), ["GenerateDataKey", "Decrypt"]);

    let again = bench
        .provider
        .wrap(&made, &context(2))
        .await
        .expect("it is wrapped again");
    let opened = bench
        .provider
        .unwrap(&again, &context(2))
        .await
        .expect("it opens");
    assert_eq!(opened.expose(), made.expose());
    let calls = bench.proxy.operations();
    assert_eq!(calls, ["GenerateDataKey", "Decrypt", "Encrypt", "Decrypt"]);
    assert!(!again.windows(32).any(|part| part == made.expose()));
}

#[tokio::test]
async fn each_call_names_the_key_and_the_context() {
    let bench = Bench::new().await;
    let provider = bench.provider.clone().with_environment("staging");
    let arn = bench.arn.clone();
    bench.proxy.decide(move |request| {
        let body = String::from_utf8_lossy(&request.body);
        let expected = [
            format!("\"KeyId\":\"{arn}\""),
            "\"purpose\":\"slack-installs data key\"".into(),
            "\"app\":\"100000000001.200000000002\"".into(),
            format!("\"key-id\":\"{}\"", "07".repeat(16)),
            "\"epoch\":\"1\"".into(),
            "\"environment\":\"staging\"".into(),
        ];
        let is_complete = expected.iter().all(|part| body.contains(part));
        if is_complete {
            Fate::Pass
        } else {
            Fate::Answer(
                400,
                format!("{{\"__type\":\"ValidationException\",\"m\":{body:?}}}"),
            )
        }
    });
    let (key, wrapped) = provider.generate(&context(1)).await.expect("it names all");
    unwrap(&provider, &wrapped).await.expect("it names all");
    provider
        .wrap(&key, &context(1))
        .await
        .expect("it names all");
    assert!(is_changed(
        &bench_without(&bench).unwrap(&wrapped, &context(1)).await
    ));
}

/// Returns a provider of another environment, without the proxy.
fn bench_without(bench: &Bench) -> AwsKms {
    AwsKms::with_client(&client(&bench.moto.url), &bench.arn).expect("an ARN")
}

#[tokio::test]
async fn a_wrapped_key_opens_only_in_its_own_context_and_unchanged() {
    let bench = Bench::new().await;
    let wrapped = bench.wrapped().await;
    let own = context(1);
    let others = [
        KeyContext { app: "1.2", ..own },
        KeyContext {
            key_id: KeyId::from_bytes([8; 16]),
            ..own
        },
        KeyContext { epoch: 2, ..own },
    ];
    for other in others {
        let opened = bench.provider.unwrap(&wrapped, &other).await;
        assert!(is_changed(&opened), "{other:?}: {opened:?}");
    }
    // moto's own ciphertext begins with the id of the key. What it says if that is changed is
    // not what AWS says.
    let end = wrapped.len();
    for at in (0..90).chain(end - 44..end) {
        let mut changed = wrapped.clone();
        changed[at] ^= 1;
        let opened = bench.provider.unwrap(&changed, &own).await;
        assert!(
            is_changed(&opened) || is_unknown(&opened),
            "byte {at}: {opened:?}"
        );
    }
    let header = wrapped.len() - 96;
    for len in [0, 4, 6, header] {
        let opened = bench.provider.unwrap(&wrapped[..len], &own).await;
        assert!(
            is_changed(&opened) || is_unknown(&opened),
            "{len} bytes: {opened:?}"
        );
    }
    let mut long = wrapped.clone();
    long.resize(header + 6145, 0);
    assert!(is_changed(&bench.provider.unwrap(&long, &own).await));
}

#[tokio::test]
async fn a_key_of_another_kms_key_is_unknown_without_a_call() {
    let bench = Bench::new().await;
    let other = AwsKms::with_client(&client(&bench.proxy.url), &made(&bench.moto).await);
    let wrapped = bench.wrapped().await;
    bench.proxy.decide(|_| Fate::Pass);
    let text = reason(unwrap(&other.expect("an ARN"), &wrapped).await);
    assert!(
        text.contains(&bench.arn) && text.contains("as a retired provider"),
        "{text}"
    );
    assert_eq!(bench.proxy.operations(), [""; 0]);
}

#[tokio::test]
async fn what_kms_refuses_concerns_one_key_and_is_not_repeated() {
    let bench = Bench::new().await;
    let wrapped = bench.wrapped().await;
    for (code, expected) in [
        ("DisabledException", "aws kms enable-key"),
        ("KMSInvalidStateException", "aws kms cancel-key-deletion"),
        ("AccessDeniedException", "AWS denies `kms:Decrypt`"),
        ("InvalidKeyUsageException", "ENCRYPT_DECRYPT"),
        (
            "ExpiredTokenException",
            "AWS does not accept the credentials",
        ),
        (
            "UnrecognizedClientException",
            "AWS does not accept the credentials",
        ),
        ("IncorrectKeyException", "another KMS key"),
        ("NotFoundException", "does not exist"),
    ] {
        bench.refuse(400, code);
        let refused = unwrap(&bench.provider, &wrapped).await;
        let is_no_key = matches!(code, "IncorrectKeyException" | "NotFoundException");
        assert_eq!(is_unknown(&refused), is_no_key, "{code}: {refused:?}");
        let text = reason(refused);
        assert!(
            text.contains(expected) && text.contains(&bench.arn)
                || code.contains("Token")
                || code.contains("Client"),
            "{code}: {text}"
        );
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(bench.proxy.operations(), ["Decrypt"], "{code}");
    }
    bench.refuse(400, "InvalidCiphertextException");
    assert!(is_changed(&unwrap(&bench.provider, &wrapped).await));
    bench.proxy.decide(|_| Fate::Pass);
    unwrap(&bench.provider, &wrapped)
        .await
        .expect("nothing is lost");
}

#[tokio::test]
async fn a_call_that_is_throttled_or_cut_is_repeated() {
    let bench = Bench::new().await;
    let wrapped = bench.wrapped().await;
    let body = |code: &str| format!("{{\"__type\":\"{code}\"}}");
    for first in [
        Fate::Answer(400, body("ThrottlingException")),
        Fate::Answer(500, body("KMSInternalException")),
        Fate::Answer(500, body("KeyUnavailableException")),
        Fate::Answer(503, body("DependencyTimeoutException")),
        Fate::Answer(502, "<html>".into()),
        Fate::Cut,
        Fate::CutAfterwards,
        Fate::Silence,
    ] {
        let fate = first.clone();
        bench.proxy.decide(move |request| match request.nth {
            1 => fate.clone(),
            _ => Fate::Pass,
        });
        let opened = unwrap(&bench.provider, &wrapped).await;
        assert!(opened.is_ok(), "{first:?}: {opened:?}");
        assert_eq!(bench.proxy.operations().len(), 2, "{first:?}");
    }
}

#[tokio::test]
async fn a_service_that_stays_away_is_given_up_and_serves_again() {
    let bench = Bench::new().await;
    let wrapped = bench.wrapped().await;
    for fate in [
        Fate::Silence,
        Fate::Cut,
        Fate::Answer(400, "{\"__type\":\"ThrottlingException\"}".into()),
        Fate::Answer(500, "{\"__type\":\"canary\"}".into()),
    ] {
        let all = fate.clone();
        bench.proxy.decide(move |_| all.clone());
        let given_up = unwrap(&bench.provider, &wrapped).await;
        assert!(is_unavailable(&given_up), "{fate:?}: {given_up:?}");
        if let Fate::Silence = fate {
            // Each attempt waits for 0.9 s, and the whole call ends after 2 s.
            let attempts = bench.proxy.operations().len();
            assert!((1..=3).contains(&attempts), "{attempts}");
        }
        let made = timeout(
            Duration::from_secs(20),
            bench.provider.generate(&context(1)),
        )
        .await;
        assert!(
            matches!(made, Ok(Err(KeyError::Unavailable(_)))),
            "{fate:?}"
        );
    }
    bench.proxy.decide(|_| Fate::Pass);
    unwrap(&bench.provider, &wrapped)
        .await
        .expect("nothing is lost");
}

#[tokio::test]
async fn a_response_for_another_key_or_without_a_key_is_refused() {
    let bench = Bench::new().await;
    let wrapped = bench.wrapped().await;
    let other = made(&bench.moto).await;
    let plaintext = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    let body = format!("{{\"KeyId\":\"{other}\",\"Plaintext\":\"{plaintext}\"}}");
    bench.proxy.decide(move |_| Fate::Answer(200, body.clone()));
    let text = reason(unwrap(&bench.provider, &wrapped).await);
    assert!(text.contains("another key"), "{text}");

    let arn = &bench.arn;
    for plaintext in ["", "CQkJ", &format!("CQkJ{plaintext}")] {
        let body = format!("{{\"KeyId\":\"{arn}\",\"Plaintext\":\"{plaintext}\"}}");
        bench.proxy.decide(move |_| Fate::Answer(200, body.clone()));
        let short = unwrap(&bench.provider, &wrapped).await;
        assert!(is_changed(&short), "{plaintext}: {short:?}");
    }
}

#[tokio::test]
async fn a_rotated_kms_key_opens_what_its_old_material_wrapped() {
    let bench = Bench::new().await;
    let (key, wrapped) = bench
        .provider
        .generate(&context(1))
        .await
        .expect("a key is made");
    let rotated = client(&bench.moto.url)
        .rotate_key_on_demand()
        .key_id(&bench.arn)
        .send()
        .await;
    rotated.expect("the key is rotated");
    let opened = unwrap(&bench.provider, &wrapped).await.expect("it opens");
    assert_eq!(opened.expose(), key.expose());
}

#[tokio::test]
async fn no_text_has_a_key_or_a_credential() {
    let bench = Bench::new().await;
    let wrapped = bench.wrapped().await;
    bench.refuse(400, "ThrottlingException");
    let refused = unwrap(&bench.provider, &wrapped).await;
    let shown = format!("{:?} {refused:?}", bench.provider);
    assert!(!shown.contains("canary-secret"), "{shown}");
    let torn = format!(
        "{{\"KeyId\":\"{}\",\"Plaintext\":\"canary-plaintext\", \"x",
        bench.arn
    );
    bench.proxy.decide(move |_| Fate::Answer(200, torn.clone()));
    let refused = unwrap(&bench.provider, &wrapped).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    let made = bench.provider.generate(&context(1)).await;
    let shown = format!("{refused:?} {made:?}");
    assert!(!shown.contains("canary-plaintext"), "{shown}");
}

#[tokio::test]
async fn a_provider_opens_by_its_url_and_an_alias_is_refused() {
    let moto = Moto::start().await;
    let arn = made(&moto).await;
    let url = format!("aws-kms:{arn}?endpoint={}&environment=test", moto.url);
    let keys: Arc<dyn KeyProvider> = connect(&url).await.expect("the URL is valid");
    let (_, wrapped) = keys.generate(&context(1)).await.expect("a key is made");
    keys.unwrap(&wrapped, &context(1)).await.expect("it opens");

    let alias = "aws-kms:arn:aws:kms:eu-central-1:111122223333:alias/slack";
    let refused = connect(alias).await.expect_err("an alias can be changed");
    assert_eq!(refused.kind(), KeySetupErrorKind::Invalid);
    assert!(
        refused.to_string().contains("aws kms describe-key"),
        "{refused}"
    );
}
