//! Wrapping by a transit key.

use serde_json::json;
use slack_installs::backend::MemoryBackend;
use slack_installs::keys::{KeySetupErrorKind, VaultAuth, VaultOptions, VaultTransit, connect};
use slack_installs::{ClientId, DataKey, EncryptedStore, KeyContext, KeyId, KeyProvider};

use crate::bao::{Bao, ROOT};
use crate::{APP, context, is_changed, is_unavailable, is_unknown, reason};

#[tokio::test]
async fn a_key_that_the_server_makes_or_wraps_is_unwrapped_again() {
    let bao = Bao::start().await;
    let provider = bao.with_token(&bao.token(json!({})).await);
    let (made, wrapped) = provider.generate(&context(1)).await.expect("a key is made");
    let opened = provider
        .unwrap(&wrapped, &context(1))
        .await
        .expect("it opens");
    assert_eq!(made.expose(), opened.expose());

    let key = DataKey::from_bytes([9; 32]);
    let wrapped = provider
        .wrap(&key, &context(2))
        .await
        .expect("it is wrapped");
    let opened = provider
        .unwrap(&wrapped, &context(2))
        .await
        .expect("it opens");
    assert_eq!(opened.expose(), key.expose());
    let is_there = |part: &[u8]| wrapped.windows(part.len()).any(|it| it == part);
    assert!(is_there(b"vault-transit transit/keys/slack") && !is_there(&[9; 32]));
}

#[tokio::test]
async fn a_wrapped_key_opens_only_in_its_own_context() {
    let bao = Bao::start().await;
    let provider = bao.with_token(ROOT);
    let (_, wrapped) = provider.generate(&context(1)).await.expect("a key is made");
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
        let opened = provider.unwrap(&wrapped, &other).await;
        assert!(is_changed(&opened), "{other:?}: {opened:?}");
    }
    let staging = VaultOptions {
        environment: Some("staging".into()),
        ..VaultOptions::default()
    };
    let staging = bao.with(VaultAuth::token(ROOT), staging);
    assert!(is_changed(&staging.unwrap(&wrapped, &own).await));

    for at in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[at] ^= 1;
        let opened = provider.unwrap(&changed, &own).await;
        assert!(
            is_changed(&opened) || is_unknown(&opened),
            "byte {at}: {opened:?}"
        );
    }
    for len in [0, 1, 4, 6, 20, wrapped.len() - 1] {
        let opened = provider.unwrap(&wrapped[..len], &own).await;
        assert!(
            is_changed(&opened) || is_unknown(&opened),
            "{len} bytes: {opened:?}"
        );
    }
}

#[tokio::test]
async fn an_old_version_of_the_transit_key_opens_until_the_minimum_version_excludes_it() {
    let bao = Bao::start().await;
    let provider = bao.with_token(ROOT);
    let (key, old) = provider.generate(&context(1)).await.expect("a key is made");
    bao.root("transit/keys/slack/rotate", &json!({})).await;
    provider
        .unwrap(&old, &context(1))
        .await
        .expect("version 1 still opens");

    let new = provider
        .wrap(&key, &context(1))
        .await
        .expect("it is wrapped again");
    bao.root(
        "transit/keys/slack/config",
        &json!({"min_decryption_version": 2}),
    )
    .await;
    let opened = provider
        .unwrap(&new, &context(1))
        .await
        .expect("version 2 opens");
    assert_eq!(opened.expose(), key.expose());
    let text = reason(provider.unwrap(&old, &context(1)).await);
    assert!(text.contains("min_decryption_version"), "{text}");

    bao.root(
        "transit/keys/slack/config",
        &json!({"min_decryption_version": 1}),
    )
    .await;
    provider
        .unwrap(&old, &context(1))
        .await
        .expect("nothing is lost");
}

#[tokio::test]
async fn a_transit_key_that_is_not_derived_wraps_nothing() {
    let bao = Bao::start().await;
    bao.root("transit/keys/plain", &json!({})).await;
    let auth = VaultAuth::token(ROOT);
    let plain = VaultTransit::new(&bao.key("plain"), auth, VaultOptions::default());
    let plain = plain.expect("the URL is valid");
    let text = reason(plain.generate(&context(1)).await.map(|(key, _)| key));
    assert!(text.contains("derived=true"), "{text}");
    let wrapped = plain.wrap(&DataKey::from_bytes([9; 32]), &context(1)).await;
    assert!(wrapped.is_err());
}

#[tokio::test]
async fn a_missing_key_engine_or_namespace_is_named() {
    let bao = Bao::start().await;
    let open = |url: String, namespace: Option<&str>| {
        let options = VaultOptions {
            namespace: namespace.map(Into::into),
            ..VaultOptions::default()
        };
        VaultTransit::new(&url, VaultAuth::token(ROOT), options).expect("the URL is valid")
    };
    for (provider, expected) in [
        (
            open(bao.key("nobody"), None),
            "no transit key `transit/keys/nobody`",
        ),
        (
            open(format!("{}/a/b/keys/slack", bao.url), None),
            "no transit engine at `a/b`",
        ),
        (
            open(bao.key("slack"), Some("elsewhere")),
            "check the mount, the namespace",
        ),
    ] {
        let text = reason(provider.generate(&context(1)).await.map(|(key, _)| key));
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_key_of_another_transit_key_is_unknown_without_a_call() {
    let bao = Bao::start().await;
    let (_, wrapped) = bao
        .with_token(ROOT)
        .generate(&context(1))
        .await
        .expect("a key is made");
    let elsewhere = "https://127.0.0.1:1/transit/keys/other";
    let other = VaultTransit::new(elsewhere, VaultAuth::token(ROOT), VaultOptions::default());
    let text = reason(
        other
            .expect("the URL is valid")
            .unwrap(&wrapped, &context(1))
            .await,
    );
    assert!(
        text.contains("`vault-transit transit/keys/slack`"),
        "{text}"
    );
}

#[tokio::test]
async fn a_store_opens_by_a_key_url_and_a_token_in_a_file() {
    let bao = Bao::start().await;
    let token = bao.file("token", &format!("{}\n", bao.token(json!({})).await));
    let url = format!(
        "vault:{}?token-file={}&environment=test",
        bao.key("slack"),
        token.display()
    );
    let keys = connect(&url).await.expect("the URL is valid");
    let app = ClientId::new(APP).expect("two numbers");
    let store = EncryptedStore::open(MemoryBackend::default(), keys, app).await;
    store.expect("the keyring is made");
}

#[tokio::test]
async fn urls_that_are_not_safe_or_not_complete_are_refused_and_not_shown() {
    let key = "transit/keys/slack";
    for url in [
        format!("vault:http://canary.example.com/{key}?token-file=/t"),
        format!("vault:https://canary:canary@h/{key}?token-file=/t"),
        format!("vault:canary://h/{key}?token-file=/t"),
        "vault:https://h/keys/canary?token-file=/t".into(),
        "vault:https://h/transit/canary?token-file=/t".into(),
        "vault:https://h/transit/keys/canary/more?token-file=/t".into(),
        format!("vault:https://h/{key}?token-file=/canary&role-id=canary"),
        format!("vault:https://h/{key}?secret-id-file=/canary"),
        format!("vault:https://h/{key}?token=canary"),
        format!("vault:https://h/{key}?token-file=/t&allow-plain-http=canary"),
        format!("vault:https://h/{key}?token-file=/t&namespace=can%0Aary"),
    ] {
        let refused = connect(&url).await.expect_err("the URL cannot be used");
        assert_eq!(
            refused.kind(),
            KeySetupErrorKind::Invalid,
            "{url}: {refused}"
        );
        let text = format!("{refused} {refused:?}");
        assert!(!text.contains("canary") && !text.contains("ary?"), "{text}");
    }
    let plain = format!("vault:http://vault.example.com/{key}?token-file=/t&allow-plain-http=true");
    connect(&plain).await.expect("it is allowed");
}

#[tokio::test]
async fn a_certificate_authority_of_a_file_is_trusted_instead_of_mozillas() {
    let bao = Bao::launch(&["-dev-tls"]);
    let url = bao.url.replace("http:", "https:") + "/transit/keys/slack";
    let log = || std::fs::read_to_string(bao.path("log")).expect("the server writes it");
    crate::bao::until("the server listens", async || {
        log().contains("VAULT_CACERT") || log().contains("BAO_CACERT")
    })
    .await;
    let log = log();
    let line = log
        .lines()
        .find(|line| line.contains("_CACERT="))
        .expect("the log has the path");
    let ca = line.split(['\'', '"']).nth(1).expect("the path is quoted");
    let open = |ca_file: Option<&str>| {
        let options = VaultOptions {
            ca_file: ca_file.map(Into::into),
            ..VaultOptions::default()
        };
        VaultTransit::new(&url, VaultAuth::token(ROOT), options).expect("the file is PEM")
    };
    let refused = open(Some(ca))
        .generate(&context(1))
        .await
        .map(|(key, _)| key);
    assert!(
        reason(refused).contains("no transit engine"),
        "the server was reached"
    );
    let refused = open(None).generate(&context(1)).await.map(|(key, _)| key);
    assert!(is_unavailable(&refused), "{refused:?}");
}
