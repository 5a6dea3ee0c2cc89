//! Scopes that the app requests now, and that a tenant has not granted.

use futures_util::TryStreamExt as _;
use slack_installs::store::Figures;
use slack_installs::testing::Who;
use slack_installs::{Authorization, NewConsent, Scopes, SlackApp, SlackAppBuilder};

use crate::support::app::{ADA, ALPHA, App, BRAVO, OLGA, ORG, REDIRECT, SALES, credentials, key};

fn builder(app: &App, scopes: &str) -> SlackAppBuilder {
    SlackApp::builder()
        .credentials(credentials(&app.fake))
        .signing_secret(app.fake.signing_secret())
        .redirect_uri(REDIRECT)
        .scopes(scopes)
        .slack(app.slack.clone())
        .clock(app.fake.clock())
        .store(app.store.clone())
}

/// Returns the front of the app after an update that requests one more scope.
async fn updated(app: &App) -> SlackApp {
    let scopes = "commands,chat:write,users:read,files:write";
    let front = builder(app, scopes).build().await;
    front.expect("nothing is missing")
}

/// Returns what a handler gets for a command of this person.
async fn command(front: &SlackApp, app: &App, who: impl Into<Who>) -> Authorization {
    let delivery = app.fake.slash_command(who, "/x", "");
    let now = app.fake.clock().now();
    let url = url::Url::parse("https://bot.example.com/slack/command").expect("a URL");
    let (head, body) = delivery.sent_at(now).request(&url).into_parts();
    let verified = front.verifier().verify(&head.headers, body);
    let admitted = front.serve(verified.expect("signed")).await;
    admitted.expect("installed").authorization
}

#[tokio::test]
async fn a_handler_learns_which_scopes_are_missing_and_gets_the_tenants_own_link() {
    let app = App::new().await;
    app.install(ADA).await;
    app.install(Who::user(OLGA).at(ORG)).await;
    let front = updated(&app).await;
    let install = "https://bot.example.com/slack/install?team=";
    let gil = Who::user("U0GRIDUSR02").at(SALES);
    for (who, link) in [(Who::user(ADA).at(ALPHA), ALPHA), (gil, SALES)] {
        let auth = command(&front, &app, who).await;
        let needed = Scopes::from("files:write,chat:write,files:read");
        let missing = auth.missing_scopes(&needed).expect("two are missing");
        assert_eq!(missing.scopes, Scopes::from("files:read,files:write"));
        let url = missing.install_url.expect("the front has a link");
        let links = [format!("{install}{link}"), format!("{install}{ORG}")];
        // The scopes of an org-wide installation come from a new org-wide installation.
        let expected = &links[usize::from(link == SALES)];
        assert_eq!(url.as_str(), expected);
        assert_eq!(auth.missing_scopes(&Scopes::from("chat:write")), None);
        // Nobody has connected an account.
        let missing = auth.missing_user_scopes(&Scopes::from("search:read"));
        let missing = missing.expect("there is no token");
        assert_eq!(missing.scopes, Scopes::from("search:read"));
        assert_eq!(auth.missing_user_scopes(&Scopes::default()), None);
    }
}

#[tokio::test]
async fn the_tenants_that_must_consent_again_are_listed_with_their_links_until_they_do() {
    let app = App::new().await;
    app.install(ADA).await;
    let front = updated(&app).await;
    let browser = crate::support::app::Browser::default();
    let reinstall = async |who: &str| {
        let started = front.provider().start_response(Default::default()).await;
        browser.keep_cookies(&started);
        let authorize = crate::support::app::location(&started);
        let callback = app.fake.allow(&authorize, who).expect("allowed");
        let page = browser.open(front.provider(), &callback).await;
        assert!(crate::support::app::installed(&page), "{}", page.body());
    };
    // Bravo installs the updated app, and so has all scopes.
    reinstall("U0BRAVO0001").await;
    assert!(app.fetch(BRAVO, None).await.is_some());
    let listed: Vec<NewConsent> = front.needing_consent().try_collect().await.expect("up");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].key, key(ALPHA));
    assert_eq!(listed[0].missing, Scopes::from("files:write"));
    let link = format!("https://bot.example.com/slack/install?team={ALPHA}");
    assert_eq!(listed[0].install_url.as_str(), link);
    let drift = async || -> usize {
        let figures: Figures = front.observe().await.expect("up");
        figures.scope_drift
    };
    assert_eq!(drift().await, 1);
    reinstall(ADA).await;
    let listed: Vec<NewConsent> = front.needing_consent().try_collect().await.expect("up");
    assert_eq!(listed, []);
    assert_eq!(drift().await, 0);
}

#[tokio::test]
async fn a_response_of_slack_shows_which_scopes_were_lost_or_gained_since_they_were_stored() {
    let app = App::new().await;
    app.install(ADA).await;
    let front = updated(&app).await;
    let auth = command(&front, &app, Who::user(ADA).at(ALPHA)).await;
    let response = |scopes: &str| {
        let scopes = scopes.parse().expect("ASCII");
        http::HeaderMap::from_iter([(http::HeaderName::from_static("x-oauth-scopes"), scopes)])
    };
    // Slack's own form has no spaces; a proxy may add some.
    for same in [
        "commands,chat:write,users:read",
        "users:read, chat:write, commands",
    ] {
        assert_eq!(auth.scope_drift(&response(same)), None, "{same}");
    }
    let drift = auth.scope_drift(&response("commands,users:read,files:write"));
    let drift = drift.expect("they differ");
    assert_eq!(drift.lost, Scopes::from("chat:write"));
    assert_eq!(drift.gained, Scopes::from("files:write"));
    assert_eq!(auth.scope_drift(&http::HeaderMap::new()), None);
    // Nobody has connected an account.
    assert_eq!(auth.user_scope_drift(&response("search:read")), None);
}
