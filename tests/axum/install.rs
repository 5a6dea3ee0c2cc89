//! A browser of the fake Slack runs the flow from the install page to the callback over HTTP.

use axum::Router;
use http::StatusCode;
use slack_installs::testing::{FakeSlack, InstallError};
use url::Url;

use super::router;
use crate::support::app::{ADA, ALPHA, App};

/// Serves this router's install page on a free port and returns its URL.
async fn serve(router: Router) -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    let page = format!("http://{address}/slack/install");
    page.parse().expect("a URL")
}

async fn install(fake: &FakeSlack, page: &Url, who: &str) -> Result<StatusCode, InstallError> {
    let response = fake.install(page, who).await?;
    Ok(response.status())
}

#[tokio::test]
async fn one_call_installs_an_app_whose_redirect_url_is_on_another_host() {
    let app = App::new().await;
    let page = serve(router(&app)).await;
    let status = install(&app.fake, &page, ADA).await.expect("a response");
    assert_eq!(status, StatusCode::OK);
    let fetched = app.fetch(ALPHA, None).await.expect("it is stored");
    let stored = fetched.installation.bot.expect("a bot").grant.access_token;
    let issued = app.fake.bot_token(ALPHA).expect("it is installed");
    assert_eq!(stored.expose(), issued.expose());
}

#[tokio::test]
async fn a_person_whom_slack_refuses_installs_nothing() {
    let app = App::new().await;
    let page = serve(router(&app)).await;
    let error = install(&app.fake, &page, "U0NOBODY001").await;
    assert!(matches!(error, Err(InstallError::Consent(_))), "{error:?}");
    assert!(app.fetch(ALPHA, None).await.is_none());
}

#[tokio::test]
async fn a_page_that_does_not_lead_to_slack_is_named_with_its_status() {
    let app = App::new().await;
    let mut page = serve(router(&app)).await;
    page.set_path("/instal");
    let error = install(&app.fake, &page, ADA)
        .await
        .expect_err("no such page");
    assert!(error.to_string().contains("404"), "{error}");
}
