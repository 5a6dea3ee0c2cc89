//! Codes, their exchange, and the installations that result.

use super::*;

#[tokio::test]
async fn an_install_over_http_yields_a_token_that_works() -> Checked {
    let fake = FakeSlack::start().await?;
    let page = over_http(&fake, get(&authorize(&fake, "commands,chat:write", ""))).await?;
    assert_eq!(page.status(), StatusCode::OK);
    let page = text(&page);
    assert!(page.contains("id=\"allow\"") && page.contains("id=\"cancel\""));
    assert!(page.contains("ada in Alpha Robotics"));
    assert!(page.contains("<li>chat:write</li>"));

    let pressed = over_http(
        &fake,
        post(&fake, "oauth/v2/authorize", &press(&page, "allow")),
    )
    .await?;
    assert_eq!(pressed.status(), StatusCode::FOUND);
    let callback = location(&pressed)?;
    assert_eq!(param(&callback, "state").as_deref(), Some("state-1"));
    assert_eq!(callback.path(), "/slack/oauth_redirect");

    let code = param(&callback, "code").ok_or("no code")?;
    let answer = json_of(&over_http(&fake, exchange(&fake, &code)).await?)?;
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["app_id"], fake.app_id().as_str());
    assert_eq!(answer["token_type"], "bot");
    assert_eq!(answer["scope"], "chat:write,commands");
    assert_eq!(
        answer["team"],
        json!({ "id": "T0ALPHA0001", "name": "Alpha Robotics" })
    );
    assert_eq!(answer["enterprise"], Value::Null);
    assert_eq!(answer["is_enterprise_install"], false);
    assert_eq!(answer["authed_user"], json!({ "id": "U0ADMIN0001" }));

    let token = answer["access_token"].as_str().ok_or("no token")?;
    assert!(token.starts_with("xoxb-"));
    let response = over_http(&fake, api(&fake, "auth.test", Some(token), "")).await?;
    assert_eq!(response.headers()["x-oauth-scopes"], "chat:write,commands");
    let who = json_of(&response)?;
    assert_eq!(who["team_id"], "T0ALPHA0001");
    assert_eq!(who["user_id"], answer["bot_user_id"]);
    assert!(who["bot_id"].as_str().is_some_and(|id| id.starts_with('B')));
    Ok(())
}

#[test]
fn an_org_admin_installs_for_the_whole_organisation() {
    let fake = FakeSlack::in_process(grid());
    let answer = install(&fake, "users:read,team:read", "", olga());
    assert_eq!(answer["is_enterprise_install"], true);
    assert_eq!(answer["team"], Value::Null);
    assert_eq!(
        answer["enterprise"],
        json!({ "id": "E0GRID00001", "name": "Gridline Org" })
    );
    let token = answer["access_token"].as_str().expect("a token");
    let who = ask(&fake, "auth.test", Some(token), "");
    assert_eq!(who["is_enterprise_install"], true);
    assert_eq!(who["enterprise_id"], "E0GRID00001");
    assert_eq!(who["url"], "https://gridline-org.enterprise.slack.com/");
    let team = ask(&fake, "team.info", Some(token), "team=T0GRID00012");
    assert_eq!(team["team"]["name"], "Gridline Support");
    let elsewhere = ask(&fake, "team.info", Some(token), "team=T0ALPHA0001");
    assert_eq!(elsewhere["error"], "team_not_found");

    let barred = authorize(&fake, "bot", "");
    let refusal = ConsentError::Refused("scope_not_allowed_on_enterprise");
    assert_eq!(fake.allow(&barred, olga()), Err(refusal));
}

#[test]
fn a_user_only_install_has_no_bot() {
    let fake = FakeSlack::in_process(World::default());
    let answer = install(&fake, "", "search:read.public", ADA);
    for absent in ["access_token", "bot_user_id", "scope", "token_type"] {
        assert_eq!(answer.get(absent), None, "{absent}");
    }
    let user = &answer["authed_user"];
    assert_eq!(user["token_type"], "user");
    assert_eq!(user["scope"], "search:read.public");
    let token = user["access_token"].as_str().expect("a token");
    assert!(token.starts_with("xoxp-"));
    let who = ask(&fake, "auth.test", Some(token), "");
    assert_eq!(
        (&who["user_id"], &who["user"]),
        (&json!(ADA), &json!("ada"))
    );
    assert_eq!(who.get("bot_id"), None);
}

#[test]
fn an_incoming_webhook_comes_with_its_scope_only() {
    let fake = FakeSlack::in_process(World::default());
    assert_eq!(
        install(&fake, "commands", "", ADA).get("incoming_webhook"),
        None
    );
    let answer = install(&fake, "incoming-webhook", "", ADA);
    let hook = &answer["incoming_webhook"];
    let url = Url::parse(hook["url"].as_str().expect("text")).expect("a URL");
    assert_eq!(url.origin(), fake.environment().base().origin());
    assert!(url.path().starts_with("/services/T0ALPHA0001/B0"));
    assert!(hook["channel"].is_string() && hook["configuration_url"].is_string());
    assert_eq!(hook["channel_id"], "C0GENERAL01");
}

#[test]
fn a_reinstall_keeps_the_bots_token_and_adds_scopes() {
    let fake = FakeSlack::in_process(grid());
    let first = install(&fake, "commands", "chat:write", ADA);
    let second = install(&fake, "chat:write", "search:read.public", "U0MEMBER002");
    assert_eq!(first["access_token"], second["access_token"]);
    assert_eq!(first["bot_user_id"], second["bot_user_id"]);
    assert_eq!(second["scope"], "chat:write,commands");
    let token = |answer: &Value| answer["authed_user"]["access_token"].clone();
    assert_ne!(
        token(&first),
        token(&second),
        "each user has their own token"
    );
    assert_eq!(second["authed_user"]["scope"], "search:read.public");
    let third = install(&fake, "", "search:read.public", ADA);
    assert_eq!(token(&third), token(&first));
    assert_eq!(
        third["authed_user"]["scope"],
        "chat:write,search:read.public"
    );
}

#[test]
fn withheld_scopes_are_not_granted() {
    let fake = FakeSlack::in_process(World::default());
    fake.withhold("chat:write");
    assert_eq!(
        install(&fake, "chat:write,commands", "", ADA)["scope"],
        "commands"
    );
}

#[test]
fn a_code_works_once_and_for_ten_minutes() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let fake = FakeSlack::in_process(World::default().with_clock(Clock::from_fn(move || start)));
    let url = authorize(&fake, "commands", "");
    let callback = fake.allow(&url, ADA).expect("allowed");
    assert_eq!(exchanged(&fake, &callback)["ok"], true);
    assert_eq!(exchanged(&fake, &callback)["error"], "invalid_code");

    let (late, later) = (fake.allow(&url, ADA), fake.allow(&url, ADA));
    fake.advance(Duration::from_secs(599));
    assert_eq!(exchanged(&fake, &late.expect("allowed"))["ok"], true);
    fake.advance(Duration::from_secs(1));
    assert_eq!(
        exchanged(&fake, &later.expect("allowed"))["error"],
        "invalid_code"
    );
}

#[test]
fn an_exchange_must_repeat_the_redirect_uri_exactly() {
    let fake = FakeSlack::in_process(World::default().with_redirect_url(REDIRECT));
    let exchange_with = |code: &str, redirect_uri: Option<&str>| {
        let pairs = [("code", Some(code)), ("redirect_uri", redirect_uri)];
        let pairs = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        ask_as_app(&fake, &form(pairs))["error"].clone()
    };
    let code = |url: &Url| param(&fake.allow(url, ADA).expect("allowed"), "code").expect("a code");
    let named = code(&authorize(&fake, "commands", ""));
    for wrong in [
        None,
        Some("http://localhost:3000/slack/oauth_redirect/"),
        Some(""),
    ] {
        assert_eq!(
            exchange_with(&named, wrong),
            "bad_redirect_uri",
            "{wrong:?}"
        );
    }
    assert_eq!(
        exchange_with(&named, Some(REDIRECT)),
        Value::Null,
        "a refused exchange keeps the code"
    );

    let mut silent = fake.environment().authorize_url();
    silent
        .query_pairs_mut()
        .append_pair("client_id", fake.client_id().as_str())
        .append_pair("scope", "commands");
    assert_eq!(
        exchange_with(&code(&silent), Some("https://x.example/")),
        "bad_redirect_uri"
    );
    assert_eq!(exchange_with(&code(&silent), Some(REDIRECT)), Value::Null);
    assert_eq!(exchange_with(&code(&silent), None), Value::Null);
}

#[test]
fn an_exchange_needs_the_apps_credentials_in_either_form() {
    let fake = FakeSlack::in_process(World::default());
    let (id, secret) = (fake.client_id(), fake.client_secret());
    let (id, secret) = (id.as_str(), secret.expose());
    let try_form = |id: &str, secret: &str| {
        let callback = fake
            .allow(&authorize(&fake, "commands", ""), ADA)
            .expect("allowed");
        let code = param(&callback, "code").expect("a code");
        let fields = [
            ("client_id", id),
            ("client_secret", secret),
            ("code", &code),
            ("redirect_uri", REDIRECT),
        ];
        ask(&fake, "oauth.v2.access", None, &form(fields))["error"].clone()
    };
    assert_eq!(try_form(id, secret), Value::Null);
    assert_eq!(try_form(id, "wrong"), "bad_client_secret");
    assert_eq!(try_form("1.2", secret), "invalid_client_id");
    assert_eq!(try_form("", ""), "invalid_client_id");

    let grant = |kind: &str| ask_as_app(&fake, &form([("grant_type", kind)]))["error"].clone();
    assert_eq!(grant("password"), "invalid_grant_type");
    assert_eq!(grant("refresh_token"), "invalid_refresh_token");
    assert_eq!(grant("authorization_code"), "invalid_code");
}
