//! Tokens and AppRole.

use serde_json::{Value, json};
use slack_installs::KeyProvider;
use slack_installs::keys::{VaultAuth, VaultOptions};

use crate::bao::{Bao, ROOT, until};
use crate::{context, reason};

/// Makes an AppRole, and returns its role id and a secret id.
async fn app_role(bao: &Bao, role: Value) -> (String, String) {
    bao.root("sys/auth/approle", &json!({"type": "approle"}))
        .await;
    bao.token(json!({})).await;
    bao.root("auth/approle/role/app", &role).await;
    let id = json!({"role_id": "the-role"});
    bao.root("auth/approle/role/app/role-id", &id).await;
    let made = bao
        .root("auth/approle/role/app/secret-id", &json!({}))
        .await;
    let secret = made["data"]["secret_id"].as_str().expect("a secret id");
    ("the-role".into(), secret.into())
}

/// Returns the accessors of all tokens except the root token.
async fn tokens(bao: &Bao) -> Vec<String> {
    let url = format!("{}/v1/auth/token/accessors?list=true", bao.url);
    let call = reqwest::Client::new()
        .get(url)
        .header("X-Vault-Token", ROOT);
    let body = call
        .send()
        .await
        .expect("it responds")
        .bytes()
        .await
        .expect("it responds");
    let listed: Value = serde_json::from_slice(&body).expect("JSON");
    let mut accessors = Vec::new();
    for accessor in listed["data"]["keys"].as_array().into_iter().flatten() {
        let accessor = accessor.as_str().expect("a text");
        let path = "auth/token/lookup-accessor";
        let found = bao.root(path, &json!({"accessor": accessor})).await;
        if found["data"]["path"] == "auth/approle/login" {
            accessors.push(accessor.to_owned());
        }
    }
    accessors
}

#[tokio::test]
async fn a_denied_path_and_a_token_that_ended_are_told_apart() {
    let bao = Bao::start().await;
    let (_, wrapped) = bao
        .with_token(ROOT)
        .generate(&context(1))
        .await
        .expect("a key is made");
    bao.policy("encrypts", &["encrypt/slack", "datakey/plaintext/slack"])
        .await;
    let made = bao
        .root("auth/token/create", &json!({"policies": ["encrypts"]}))
        .await;
    let denied = made["auth"]["client_token"].as_str().expect("a token");
    let provider = bao.with_token(denied);
    let text = reason(provider.unwrap(&wrapped, &context(1)).await);
    assert!(
        text.contains("the policy of the token denies `transit/decrypt/slack`"),
        "{text}"
    );
    let text = reason(provider.generate(&context(1)).await.map(|(key, _)| key));
    assert!(
        text.contains("`transit/decrypt/slack`"),
        "a key is not used before it opened: {text}"
    );

    let token = bao.token(json!({})).await;
    let provider = bao.with_token(&token);
    provider
        .unwrap(&wrapped, &context(1))
        .await
        .expect("the token is valid");
    bao.root("auth/token/revoke", &json!({"token": token}))
        .await;
    let refused = provider.unwrap(&wrapped, &context(1)).await;
    let shown = format!("{refused:?} {provider:?}");
    assert!(!shown.contains(&token), "{shown}");
    let text = reason(refused);
    assert!(text.contains("it has expired or was revoked"), "{text}");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let bao = Bao::start().await;
    let token = bao.token(json!({"period": "4s"})).await;
    let provider = bao.with_token(&token);
    let (_, wrapped) = provider.generate(&context(1)).await.expect("a key is made");
    let issued = bao.lookup(&token).await["expire_time"].clone();
    until("the token is renewed", async || {
        bao.lookup(&token).await["expire_time"] != issued
    })
    .await;
    let renewed = bao.lookup(&token).await["expire_time"].clone();
    until("the token is renewed again", async || {
        bao.lookup(&token).await["expire_time"] != renewed
    })
    .await;
    provider
        .unwrap(&wrapped, &context(1))
        .await
        .expect("the token is valid");
}

#[tokio::test]
async fn a_token_that_ended_is_read_again_from_its_file() {
    let bao = Bao::start().await;
    let old = bao.token(json!({})).await;
    let file = bao.file("token", &old);
    let provider = bao.with(VaultAuth::token_file(file), VaultOptions::default());
    let (_, wrapped) = provider.generate(&context(1)).await.expect("a key is made");
    bao.root("auth/token/revoke", &json!({"token": old})).await;
    bao.file("token", &bao.token(json!({})).await);
    provider
        .unwrap(&wrapped, &context(1))
        .await
        .expect("the file has another token");
}

#[tokio::test]
async fn an_app_role_logs_in_again_if_its_token_was_revoked() {
    let bao = Bao::start().await;
    let (role, secret) = app_role(&bao, json!({"token_policies": "all"})).await;
    let auth = VaultAuth::app_role(role, &secret);
    let provider = bao.with(auth, VaultOptions::default());
    let (_, wrapped) = provider.generate(&context(1)).await.expect("it logs in");
    provider
        .unwrap(&wrapped, &context(1))
        .await
        .expect("the token is used again");
    let first = tokens(&bao).await;
    assert_eq!(first.len(), 1, "one login serves all calls");
    bao.root("auth/token/revoke-accessor", &json!({"accessor": first[0]}))
        .await;
    provider
        .unwrap(&wrapped, &context(1))
        .await
        .expect("it logs in again");
    let second = tokens(&bao).await;
    assert!(second.len() == 1 && second != first, "{second:?}");
    let shown = format!("{provider:?}");
    assert!(!shown.contains(&secret), "{shown}");
}

#[tokio::test]
async fn an_app_role_logs_in_again_when_its_token_cannot_be_renewed_further() {
    let bao = Bao::start().await;
    let role = json!({"token_policies": "all", "token_ttl": "3s", "token_max_ttl": "4s"});
    let (role, secret) = app_role(&bao, role).await;
    let file = bao.file("secret-id", &secret);
    let auth = VaultAuth::app_role_file(role, file);
    let provider = bao.with(auth, VaultOptions::default());
    provider.generate(&context(1)).await.expect("it logs in");
    let first = tokens(&bao).await;
    until(
        "there is another token, although nobody called",
        async || {
            tokens(&bao)
                .await
                .iter()
                .any(|token| !first.contains(token))
        },
    )
    .await;
}

#[tokio::test]
async fn a_policy_that_denies_an_app_role_costs_no_further_login() {
    let bao = Bao::start().await;
    let (role, secret) = app_role(&bao, json!({"token_policies": "default"})).await;
    let provider = bao.with(VaultAuth::app_role(role, secret), VaultOptions::default());
    for _ in 0..3 {
        let text = reason(provider.generate(&context(1)).await.map(|(key, _)| key));
        assert!(text.contains("the policy of the token denies"), "{text}");
    }
    assert_eq!(tokens(&bao).await.len(), 1, "a secret id may have few uses");
}

#[tokio::test]
async fn a_wrong_secret_id_is_refused_and_not_shown() {
    let bao = Bao::start().await;
    let (role, _) = app_role(&bao, json!({"token_policies": "all"})).await;
    let auth = VaultAuth::app_role(role, "secret-\"canary");
    let provider = bao.with(auth, VaultOptions::default());
    let refused = provider.generate(&context(1)).await.map(|(key, _)| key);
    assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
    let text = reason(refused);
    assert!(
        text.contains("check the role id and the secret id"),
        "{text}"
    );
    let missing = VaultAuth::app_role_file("role", "/nowhere");
    let missing = bao.with(missing, VaultOptions::default());
    assert!(missing.generate(&context(1)).await.is_err());
}
