//! Tokens that Slack issued and that cannot be stored are revoked, where that harms nobody.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use slack_installs::testing::Rotation;

use super::options;
use super::support::app::{ADA, ALPHA, App, BEN, Browser, installed, user_only, user_scopes};
use super::support::hooked_transport::Rewritten;

/// Returns a provider of this app to which Slack's exchange responses arrive changed.
fn changed(
    app: &App,
    change: impl Fn(&mut Value) + Send + Sync + 'static,
) -> slack_installs::InstallProvider {
    let transport = Rewritten::over(app.fake.transport(), move |path: &str, body: Bytes| {
        if !path.ends_with("oauth.v2.access") {
            return body;
        }
        let mut body: Value = serde_json::from_slice(&body).expect("JSON");
        change(&mut body);
        body.to_string().into()
    });
    app.provider_over(app.store.clone(), transport)
}

#[tokio::test]
async fn what_cannot_be_stored_is_revoked() {
    for is_rotating in [false, true] {
        let changes: [fn(&mut Value); 4] = [
            |body| body["app_id"] = json!(null),
            |body| body["team"] = json!({}),
            |body| body["team"]["id"] = json!("?"),
            |body| body["token_type"] = json!("user"),
        ];
        for unusable in changes {
            let app = App::new().await;
            if is_rotating {
                app.fake.rotate_tokens(Rotation::default());
            }
            let provider = changed(&app, unusable);
            let browser = Browser::default();
            let callback = app.allowed(&browser, user_scopes("search:read"), ADA).await;
            let page = browser.open(&provider, &callback).await;
            assert_eq!(page.status(), StatusCode::BAD_GATEWAY, "{}", page.body());
            assert!(app.fetch(ALPHA, Some(ADA)).await.is_none());
            if is_rotating {
                let secrets = app.fake.secrets();
                let mut refreshes = secrets.iter().filter(|it| it.starts_with("xoxe-1-"));
                assert!(refreshes.all(|it| !app.fake.is_refreshable(it)));
            } else {
                assert!(!app.fake.is_installed(ALPHA));
            }
        }
    }
}

#[tokio::test]
async fn the_token_of_a_stored_installation_is_not_revoked_with_what_cannot_be_stored() {
    let app = App::new().await;
    assert!(installed(&app.install(ADA).await));
    let changes: [fn(&mut Value); 2] = [
        |body| body["app_id"] = json!(null),
        |body| body["team"] = json!({}),
    ];
    for unusable in changes {
        let provider = changed(&app, unusable);
        let browser = Browser::default();
        let callback = app.allowed(&browser, options(), ADA).await;
        let page = browser.open(&provider, &callback).await;
        assert_eq!(page.status(), StatusCode::BAD_GATEWAY, "{}", page.body());
        assert_eq!(app.fake.calls("auth.revoke"), 0);
        assert!(app.fake.is_installed(ALPHA));
    }
}

#[tokio::test]
async fn an_owner_that_the_exchange_does_not_name_is_asked_for() {
    let app = App::new().await;
    let provider = changed(&app, |body| body["bot_user_id"] = json!(null));
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let page = browser.open(&provider, &callback).await;
    assert!(installed(&page), "{}", page.body());
    let bot = app
        .stored(ALPHA, None)
        .await
        .installation
        .bot
        .expect("a bot");
    assert_eq!(bot.user_id, app.fake.bot_user(ALPHA));

    let provider = changed(&app, |body| drop(body["authed_user"]["id"].take()));
    let browser = Browser::default();
    let callback = app.allowed(&browser, user_only("search:read"), BEN).await;
    let page = browser.open(&provider, &callback).await;
    assert!(installed(&page), "{}", page.body());
    let user = app.stored(ALPHA, Some(BEN)).await.installation.user;
    assert_eq!(user.expect("a user").id.as_str(), BEN);
}
