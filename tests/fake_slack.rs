//! The fake Slack behaves as Slack's documentation says, over HTTP and in the process.

use std::io;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use ring::hmac;
use serde_json::{Value, json};
use slack_installs::Clock;
use slack_installs::slack::{Transport as _, TransportError};
use slack_installs::testing::{
    ConsentError, Delivery, FakeSlack, Fault, Org, Outcome, Person, Who, Workspace, World,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use url::{Url, form_urlencoded};

type Checked = Result<(), Box<dyn std::error::Error>>;

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

#[tokio::test]
async fn cancel_over_http_sends_the_browser_back_with_access_denied() -> Checked {
    let fake = FakeSlack::start().await?;
    let url = authorize(&fake, "commands", "");
    let page = text(&over_http(&fake, get(&url)).await?);
    let answer = post(&fake, "oauth/v2/authorize", &press(&page, "cancel"));
    let callback = location(&over_http(&fake, answer).await?)?;
    assert_eq!(callback, fake.cancel(&url)?);
    assert_eq!(callback.query(), Some("error=access_denied&state=state-1"));
    Ok(())
}

#[test]
fn the_page_escapes_what_others_wrote() {
    let evil = "<script>alert('\"1\"')</script>";
    let world = World::empty().with_app_name(evil).with_workspace(
        Workspace::new("T1", evil)
            .with_person(Person::admin("U1", evil))
            .with_person(Person::member("U2", evil)),
    );
    let fake = FakeSlack::in_process(world);
    let mut url = authorize(&fake, "commands", "");
    url.query_pairs_mut().append_pair("team", evil);
    let mut with_state = url.clone();
    let pairs = url.query_pairs().filter(|(name, _)| name != "state");
    with_state
        .query_pairs_mut()
        .clear()
        .extend_pairs(pairs)
        .append_pair("state", evil);
    let page = text(&fake.handle(&get(&with_state)).expect("a response"));
    assert!(page.contains("&lt;script&gt;alert(&#39;&quot;1&quot;&#39;)&lt;/script&gt;"));
    assert!(!page.contains("<script") && !page.contains("\"1\""));
}

#[test]
fn the_page_offers_every_place_and_preselects_the_hinted_one() {
    let fake = FakeSlack::in_process(grid());
    let mut url = authorize(&fake, "commands", "");
    url.query_pairs_mut().append_pair("team", "T0GRID00012");
    let page = text(&fake.handle(&get(&url)).expect("a response"));
    assert!(page.contains("value=\"W0ORGADM001@T0GRID00012\" selected"));
    assert!(page.contains("value=\"W0ORGADM001@E0GRID00001\">olga in all of Gridline Org"));
    assert!(page.contains("value=\"U0ADMIN0001@T0ALPHA0001\">"));
    assert!(
        !page.contains("U0MEMBER001@E0GRID00001"),
        "a member cannot install org-wide"
    );
    assert!(
        !page.contains("U0GONE00001"),
        "a deactivated user cannot install"
    );

    let callback = fake.handle(&post(
        &fake,
        "oauth/v2/authorize",
        &press_as(&page, "allow", "W0ORGADM001@T0GRID00012"),
    ));
    let callback = location(&callback.expect("a response")).expect("a callback");
    let answer = exchanged(&fake, &callback);
    assert_eq!(answer["team"]["id"], "T0GRID00012");
    assert_eq!(answer["enterprise"]["id"], "E0GRID00001");
    assert_eq!(answer["is_enterprise_install"], false);
}

#[test]
fn a_request_that_slack_refuses_never_reaches_the_redirect_url() {
    let fake = FakeSlack::in_process(World::default().with_redirect_url(REDIRECT));
    let url = |pairs: &[(&str, &str)]| {
        let mut url = fake.environment().authorize_url();
        url.query_pairs_mut().extend_pairs(pairs);
        url
    };
    let client_id = fake.client_id();
    let id = ("client_id", client_id.as_str());
    let scope = ("scope", "commands");
    let (fragment, sibling) = (format!("{REDIRECT}#x"), format!("{REDIRECT}_evil"));
    let refused = [
        (vec![scope], "invalid_client_id"),
        (vec![("client_id", "1.2"), scope], "invalid_client_id"),
        (vec![id], "invalid_scope"),
        (vec![id, ("scope", "Commands!")], "invalid_scope"),
        (
            vec![id, scope, ("redirect_uri", "http://localhost:9/elsewhere")],
            "bad_redirect_uri",
        ),
        (
            vec![id, scope, ("redirect_uri", &fragment)],
            "bad_redirect_uri",
        ),
        (
            vec![id, scope, ("redirect_uri", &sibling)],
            "bad_redirect_uri",
        ),
        (
            vec![id, scope, ("redirect_uri", "not a url")],
            "bad_redirect_uri",
        ),
    ];
    for (pairs, code) in refused {
        let url = url(&pairs);
        assert_eq!(
            fake.allow(&url, ADA),
            Err(ConsentError::Refused(code)),
            "{pairs:?}"
        );
        assert_eq!(
            fake.cancel(&url),
            Err(ConsentError::Refused(code)),
            "{pairs:?}"
        );
        let page = fake.handle(&get(&url)).expect("a response");
        assert_eq!(page.status(), StatusCode::BAD_REQUEST);
        assert!(text(&page).contains(code));
    }
    for allowed in [REDIRECT.to_owned(), format!("{REDIRECT}/sub")] {
        let url = url(&[id, scope, ("redirect_uri", &allowed)]);
        assert!(fake.allow(&url, ADA).is_ok(), "{allowed}");
    }
    let implied = fake
        .allow(&url(&[id, scope]), ADA)
        .expect("the first configured URL");
    assert!(implied.as_str().starts_with(REDIRECT));
}

#[test]
fn without_configured_redirect_urls_plain_http_is_for_loopback_only() {
    let fake = FakeSlack::in_process(World::default());
    let allow = |redirect_uri: &str| {
        let redirect_uri = Url::parse(redirect_uri).expect("a URL");
        fake.unsolicited(&redirect_uri, "commands", ADA)
    };
    assert!(allow("https://app.example.com/x").is_ok());
    assert!(allow("http://127.0.0.1:1/x").is_ok());
    assert_eq!(
        allow("http://app.example.com/x"),
        Err(ConsentError::Refused("bad_redirect_uri"))
    );
}

#[test]
fn only_who_belongs_there_can_install() {
    let fake = FakeSlack::in_process(grid());
    let url = authorize(&fake, "commands", "");
    let refused = [
        Who::user("U0NOBODY001"),
        Who::user("U0GONE00001"),
        Who::user("U0STRANGER1"),
        Who::user(ADA).at("T0GRID00011"),
        Who::user("U0MEMBER001").at("E0GRID00001"),
    ];
    for who in refused {
        let why = fake.allow(&url, who.clone());
        assert_eq!(why, Err(ConsentError::NotAllowed), "{who:?}");
    }
    assert!(fake.allow(&url, "U0MEMBER001").is_ok());
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
    let url = hook["url"].as_str().expect("a URL");
    assert!(url.starts_with("https://hooks.slack.com/services/T0ALPHA0001/B0"));
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

#[test]
fn a_token_counts_in_the_header_or_the_body_never_in_the_query() {
    let fake = FakeSlack::in_process(World::default());
    let token = bot_token(&install(&fake, "commands", "", ADA));
    assert_eq!(ask(&fake, "auth.test", Some(&token), "")["ok"], true);
    assert_eq!(
        ask(&fake, "auth.test", None, &form([("token", &*token)]))["ok"],
        true
    );
    let body = Bytes::from(json!({ "token": token }).to_string());
    let as_json = Request::post(fake.environment().api_url("auth.test").as_str())
        .header("content-type", "application/json; charset=utf-8")
        .body(body)
        .expect("a request");
    assert_eq!(in_process(&fake, &as_json)["ok"], true);
    let mut url = fake.environment().api_url("auth.test");
    url.query_pairs_mut().append_pair("token", &token);
    assert_eq!(in_process(&fake, &get(&url))["error"], "not_authed");
    assert_eq!(ask(&fake, "auth.test", None, "")["error"], "not_authed");
    assert_eq!(
        ask(&fake, "auth.test", Some("xoxb-unknown"), "")["error"],
        "invalid_auth"
    );
}

#[test]
fn calls_that_slack_cannot_read_are_answered_with_its_codes() {
    let fake = FakeSlack::in_process(World::default());
    assert_eq!(
        ask(&fake, "chat.postMessage", None, "")["error"],
        "unknown_method"
    );
    let post = |content_type: &str, body: &'static str| {
        let request = Request::post(fake.environment().api_url("auth.test").as_str())
            .header("content-type", content_type)
            .body(Bytes::from_static(body.as_bytes()));
        in_process(&fake, &request.expect("a request"))
    };
    assert_eq!(post("application/json", "{")["error"], "invalid_json");
    assert_eq!(post("application/json", "[]")["error"], "json_not_object");
    assert_eq!(post("text/plain", "x")["error"], "invalid_post_type");
    let warned = post("application/x-www-form-urlencoded; charset=utf-8", "a=b");
    assert_eq!(warned["warning"], "superfluous_charset");
}

#[test]
fn users_info_shows_each_kind_of_person_as_slack_does() {
    let fake = FakeSlack::in_process(grid());
    let token = bot_token(&install(&fake, "users:read", "", ADA));
    let user = |token: &str, id: &str| ask(&fake, "users.info", Some(token), &format!("user={id}"));
    let ada = user(&token, ADA)["user"].clone();
    assert_eq!(
        (&ada["is_admin"], &ada["is_owner"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(ada["team_id"], "T0ALPHA0001");
    let owner = user(&token, "U0OWNER0001")["user"].clone();
    assert_eq!(
        (&owner["is_admin"], &owner["is_owner"]),
        (&json!(true), &json!(true))
    );
    let guest = user(&token, "U0GUEST0001")["user"].clone();
    assert_eq!(guest["is_restricted"], true);
    let gone = user(&token, "U0GONE00001")["user"].clone();
    assert_eq!(
        (&gone["deleted"], gone.get("is_admin")),
        (&json!(true), None)
    );
    let stranger = user(&token, "U0STRANGER1")["user"].clone();
    assert_eq!(stranger["team_id"], "T0XTERN0009");
    assert_eq!(stranger["is_stranger"], true);
    assert_eq!(
        user(&token, "U0MEMBER001")["error"],
        "user_not_found",
        "the user belongs to another workspace"
    );
    assert_eq!(user(&token, "U0NOBODY001")["error"], "user_not_found");

    let org = bot_token(&install(&fake, "users:read", "", olga()));
    let olga = user(&org, "W0ORGADM001")["user"].clone();
    assert_eq!(
        olga["is_admin"], false,
        "an organisation's admin is not automatically a workspace's admin"
    );
    assert_eq!(olga["enterprise_user"]["is_admin"], true);
    assert_eq!(
        olga["enterprise_user"]["teams"],
        json!(["T0GRID00011", "T0GRID00012"])
    );
}

#[test]
fn a_call_without_its_scope_says_which_one_is_missing() {
    let fake = FakeSlack::in_process(World::default());
    let token = bot_token(&install(&fake, "commands", "", ADA));
    for (method, scope) in [("users.info", "users:read"), ("team.info", "team:read")] {
        let answer = ask(&fake, method, Some(&token), "user=U0ADMIN0001");
        assert_eq!(answer["error"], "missing_scope");
        assert_eq!(
            (&answer["needed"], &answer["provided"]),
            (&json!(scope), &json!("commands"))
        );
    }
}

#[test]
fn revoking_the_last_token_uninstalls_the_app() {
    let fake = FakeSlack::in_process(World::default());
    let answer = install(&fake, "commands", "chat:write", ADA);
    let bot = bot_token(&answer);
    let user = answer["authed_user"]["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();

    let trial = ask(&fake, "auth.revoke", Some(&bot), "test=1");
    assert_eq!(trial, json!({ "ok": true, "revoked": false }));
    let revoked = ask(&fake, "auth.revoke", Some(&bot), "");
    assert_eq!(revoked, json!({ "ok": true, "revoked": true }));
    assert_eq!(
        ask(&fake, "auth.test", Some(&bot), "")["error"],
        "account_inactive"
    );
    assert!(
        fake.is_installed("T0ALPHA0001"),
        "the user's token is still valid"
    );
    assert_eq!(ask(&fake, "auth.revoke", Some(&user), "")["revoked"], true);
    assert_eq!(
        ask(&fake, "auth.test", Some(&user), "")["error"],
        "token_revoked"
    );
    assert!(!fake.is_installed("T0ALPHA0001"));

    let told = fake.take_events();
    assert_eq!(
        kinds(&told),
        ["tokens_revoked", "tokens_revoked", "app_uninstalled"]
    );
    let bot_user = fake.bot_user("T0ALPHA0001");
    assert_eq!(
        inner(&told[0])["tokens"],
        json!({ "bot": [bot_user], "oauth": [] })
    );
    assert_eq!(
        inner(&told[1])["tokens"],
        json!({ "bot": [], "oauth": [ADA] })
    );
    assert!(fake.take_events().is_empty(), "each event is sent once");
}

#[test]
fn apps_uninstall_ends_every_token_of_that_tenant_only() {
    let fake = FakeSlack::in_process(grid());
    let answer = install(&fake, "commands", "chat:write", ADA);
    let other = bot_token(&install(&fake, "commands", "", "U0MEMBER001"));
    let bot = bot_token(&answer);
    let (id, secret) = (fake.client_id(), fake.client_secret());
    let body = |secret: &str| form([("client_id", id.as_str()), ("client_secret", secret)]);
    let refused = ask(&fake, "apps.uninstall", Some(&bot), &body("wrong"));
    assert_eq!(refused["error"], "bad_client_secret");
    assert!(fake.is_installed("T0ALPHA0001"));
    let done = ask(&fake, "apps.uninstall", Some(&bot), &body(secret.expose()));
    assert_eq!(done, json!({ "ok": true, "uninstalled": true }));
    assert_eq!(
        ask(&fake, "auth.test", Some(&bot), "")["error"],
        "account_inactive"
    );
    assert!(fake.user_token("T0ALPHA0001", ADA).is_none());
    let user = answer["authed_user"]["access_token"].as_str();
    assert_eq!(ask(&fake, "auth.test", user, "")["error"], "token_revoked");
    assert_eq!(ask(&fake, "auth.test", Some(&other), "")["ok"], true);
    assert_eq!(
        kinds(&fake.take_events()),
        ["tokens_revoked", "app_uninstalled"]
    );

    let again = install(&fake, "chat:write", "", ADA);
    assert_ne!(
        again["access_token"], answer["access_token"],
        "the old token stays dead"
    );
    assert_eq!(again["bot_user_id"], answer["bot_user_id"]);
    assert_eq!(
        again["scope"], "chat:write",
        "the old scopes are not granted"
    );
}

#[test]
fn people_uninstall_and_withdraw_too() {
    let fake = FakeSlack::in_process(World::default());
    assert!(!fake.uninstall("T0ALPHA0001"));
    install(&fake, "commands", "chat:write", ADA);
    assert!(fake.revoke_user("T0ALPHA0001", ADA));
    assert!(!fake.revoke_user("T0ALPHA0001", ADA));
    assert!(fake.bot_token("T0ALPHA0001").is_some());
    assert!(fake.uninstall("T0ALPHA0001"));
    assert!(fake.bot_token("T0ALPHA0001").is_none());
}

#[test]
fn who_is_deactivated_loses_their_tokens_and_the_bot_stays() {
    let fake = FakeSlack::in_process(World::default());
    let answer = install(&fake, "commands", "chat:write", ADA);
    fake.add_person("T0ALPHA0001", Person::deactivated(ADA, "ada"));
    let user = answer["authed_user"]["access_token"].as_str();
    assert_eq!(ask(&fake, "auth.test", user, "")["error"], "token_revoked");
    assert_eq!(
        ask(&fake, "auth.test", Some(&bot_token(&answer)), "")["ok"],
        true
    );
    assert_eq!(kinds(&fake.take_events()), ["tokens_revoked"]);
    let again = fake.allow(&authorize(&fake, "commands", ""), ADA);
    assert_eq!(again, Err(ConsentError::NotAllowed));
}

#[test]
fn workspaces_can_be_added_while_it_runs() {
    let fake = FakeSlack::in_process(World::empty());
    let page = fake
        .handle(&get(&authorize(&fake, "commands", "")))
        .expect("a response");
    assert!(
        text(&page).contains("value=\"allow\" disabled"),
        "no user could allow it"
    );
    let bravo = Workspace::new("T0BRAVO0002", "Bravo").with_person(Person::owner("U0B", "bea"));
    fake.add_workspace(bravo);
    assert_eq!(
        install(&fake, "commands", "", "U0B")["team"]["name"],
        "Bravo"
    );
    fake.add_person("T0BRAVO0002", Person::member("U0C", "cy"));
    assert!(fake.allow(&authorize(&fake, "commands", ""), "U0C").is_ok());
}

#[test]
fn calls_are_counted_by_method_and_by_token_and_logged_without_secrets() {
    let fake = FakeSlack::in_process(grid());
    let ada = bot_token(&install(&fake, "commands", "", ADA));
    let olga = bot_token(&install(&fake, "commands", "", olga()));
    ask(&fake, "auth.test", Some(&ada), "");
    ask(&fake, "auth.test", Some(&ada), "");
    ask(&fake, "auth.test", Some(&olga), "");
    ask(&fake, "auth.test", Some("xoxb-unknown"), "");
    assert_eq!(fake.calls("auth.test"), 4);
    assert_eq!(fake.calls("oauth.v2.access"), 2);
    assert_eq!(fake.calls("auth.revoke"), 0);
    assert_eq!(fake.calls_with("auth.test", &ada), 2);
    assert_eq!(fake.calls_with("auth.test", &olga), 1);
    assert_eq!(fake.calls_with("auth.test", "xoxb-unknown"), 0);

    let log = fake.call_log();
    let tenants: Vec<_> = log
        .iter()
        .map(|c| c.tenant.as_ref().map_or("-", |k| k.id()))
        .collect();
    let (alpha, grid) = ("T0ALPHA0001", "E0GRID00001");
    assert_eq!(tenants, [alpha, grid, alpha, alpha, grid, "-"]);
    assert_eq!(log[0].user.as_ref().map(|user| user.as_str()), Some(ADA));
    assert_eq!(
        (log[2].token, log[4].token, log[5].token),
        (Some(1), Some(2), None)
    );
    assert_eq!(log[2].outcome, Outcome::Ok);
    assert_eq!(log[5].outcome, Outcome::Error("invalid_auth".to_owned()));
    ask(&fake, &ada, None, "");
    assert_secret_free(&fake, &format!("{:?}", fake.call_log()));
}

#[test]
fn no_debug_shows_a_secret() {
    let fake = FakeSlack::in_process(World::default());
    install(&fake, "incoming-webhook", "chat:write", ADA);
    let command = fake.slash_command(ADA, "/hello", "");
    let click = fake.block_action(ADA, "go");
    let seen = format!("{fake:?} {:?} {command:?} {click:?}", fake.transport());
    assert!(
        fake.secrets().len() > 8,
        "the codes, tokens, tickets and secrets are known"
    );
    assert_secret_free(&fake, &seen);
}

#[tokio::test]
async fn faults_before_the_effect_leave_everything_as_it_was() -> Checked {
    let fake = FakeSlack::start().await?;
    let callback = fake.allow(&authorize(&fake, "commands", ""), ADA)?;
    let code = param(&callback, "code").ok_or("no code")?;
    let try_it = || over_http(&fake, exchange(&fake, &code));

    fake.inject("oauth.v2.access", Fault::error("internal_error"));
    fake.inject(
        "oauth.v2.access",
        Fault::rate_limited(Duration::from_secs(30)).times(2),
    );
    fake.inject("oauth.v2.access", Fault::unavailable());
    fake.inject("oauth.v2.access", Fault::lost());
    assert_eq!(json_of(&try_it().await?)?["error"], "internal_error");
    for _ in 0..2 {
        let limited = try_it().await?;
        assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(limited.headers()["retry-after"], "30");
    }
    let unavailable = try_it().await?;
    assert_eq!(unavailable.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(unavailable.headers()["content-type"], "text/html");
    assert!(try_it().await.is_err(), "the connection was closed");
    assert!(!fake.is_installed("T0ALPHA0001"));
    assert_eq!(
        json_of(&try_it().await?)?["ok"],
        true,
        "the code was not spent"
    );

    let outcomes: Vec<_> = fake
        .call_log()
        .into_iter()
        .map(|call| call.outcome)
        .collect();
    let error = Outcome::Error("internal_error".to_owned());
    let (limited, unavailable) = (Outcome::Status(429), Outcome::Status(503));
    let expected = [
        error,
        limited.clone(),
        limited,
        unavailable,
        Outcome::Lost,
        Outcome::Ok,
    ];
    assert_eq!(outcomes, expected);
    Ok(())
}

#[tokio::test]
async fn a_fault_after_the_effect_hides_what_has_happened() -> Checked {
    let fake = FakeSlack::start().await?;
    let callback = fake.allow(&authorize(&fake, "commands", ""), ADA)?;
    let code = param(&callback, "code").ok_or("no code")?;
    fake.inject("oauth.v2.access", Fault::lost().after_effect());
    assert!(over_http(&fake, exchange(&fake, &code)).await.is_err());
    assert!(fake.is_installed("T0ALPHA0001"));
    let again = json_of(&over_http(&fake, exchange(&fake, &code)).await?)?;
    assert_eq!(again["error"], "invalid_code");
    Ok(())
}

#[tokio::test]
async fn in_process_a_lost_answer_is_lost_and_a_foreign_host_is_not_reached() -> Checked {
    let fake = FakeSlack::in_process(World::default());
    let transport = fake.transport();
    fake.inject("auth.test", Fault::lost());
    let lost = transport.send(api(&fake, "auth.test", None, "")).await;
    assert!(matches!(lost, Err(TransportError::Lost(_))));
    let answer = transport.send(api(&fake, "auth.test", None, "")).await?;
    assert_eq!(json_of(&answer)?["error"], "not_authed");
    let elsewhere = Request::get("https://slack.com/api/auth.test").body(Bytes::new())?;
    let refused = transport.send(elsewhere).await;
    assert!(matches!(refused, Err(TransportError::NotSent(_))));
    assert_eq!(fake.calls("auth.test"), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_delay_before_the_effect_differs_from_one_after_it() -> Checked {
    let second = Duration::from_secs(1);
    for (fault, installed_meanwhile) in [
        (Fault::delay(second), false),
        (Fault::delay(second).after_effect(), true),
    ] {
        let fake = FakeSlack::in_process(World::default());
        let callback = fake.allow(&authorize(&fake, "commands", ""), ADA)?;
        let code = param(&callback, "code").ok_or("no code")?;
        fake.inject("oauth.v2.access", fault);
        let (transport, request) = (fake.transport(), exchange(&fake, &code));
        let start = tokio::time::Instant::now();
        let call = tokio::spawn(async move { transport.send(request).await });
        tokio::time::sleep(second / 2).await;
        assert_eq!(fake.is_installed("T0ALPHA0001"), installed_meanwhile);
        assert_eq!(json_of(&call.await??)?["ok"], true);
        assert_eq!(start.elapsed(), second);
    }
    Ok(())
}

#[test]
fn faults_can_last_and_can_be_called_off() {
    let fake = FakeSlack::in_process(World::default());
    fake.inject("auth.test", Fault::error("fatal_error").always());
    for _ in 0..3 {
        assert_eq!(ask(&fake, "auth.test", None, "")["error"], "fatal_error");
    }
    assert_eq!(
        ask(&fake, "auth.revoke", None, "")["error"],
        "not_authed",
        "the fault is for another method"
    );
    fake.clear_faults();
    assert_eq!(ask(&fake, "auth.test", None, "")["error"], "not_authed");
}

#[test]
fn every_answer_carries_the_time_of_slacks_own_clock() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let fake = FakeSlack::in_process(World::default().with_clock(Clock::from_fn(move || start)));
    let date = |fake: &FakeSlack| {
        let answer = fake
            .handle(&api(fake, "auth.test", None, ""))
            .expect("a response");
        let date = answer.headers()["date"].to_str().expect("ASCII");
        httpdate::parse_http_date(date).expect("a date")
    };
    assert_eq!(date(&fake), start);
    let clock = fake.clock();
    fake.advance(Duration::from_secs(3600));
    assert_eq!(date(&fake), start + Duration::from_secs(3600));
    assert_eq!(clock.now(), start + Duration::from_secs(3600));
    let event = fake.app_uninstalled("T0ALPHA0001");
    assert_eq!(event.json().expect("JSON")["event_time"], 1_790_003_600);
}

#[test]
fn one_seed_makes_one_world() {
    let run = |seed| {
        let fake = FakeSlack::in_process(World::default().with_seed(seed));
        let token = bot_token(&install(&fake, "commands", "", ADA));
        (token, fake.secrets())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let unseeded = || FakeSlack::in_process(World::default()).secrets();
    assert_ne!(unseeded(), unseeded());
}

#[test]
fn deliveries_are_signed_as_slack_signs() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let fake = FakeSlack::in_process(World::default().with_clock(Clock::from_fn(move || start)));
    let url = Url::parse("http://127.0.0.1:9/slack/events").expect("a URL");
    let secret = fake.signing_secret();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let is_signed = |delivery: &Delivery| {
        let request = delivery.request(&url);
        let timestamp = request.headers()["x-slack-request-timestamp"]
            .to_str()
            .expect("ASCII");
        let signature = request.headers()["x-slack-signature"]
            .to_str()
            .expect("ASCII");
        let base = [format!("v0:{timestamp}:").as_bytes(), request.body()].concat();
        let hex = signature.strip_prefix("v0=").expect("a version");
        let bytes = (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16));
        let tag: Vec<u8> = bytes.map(|byte| byte.expect("hex")).collect();
        hmac::verify(&key, &base, &tag).is_ok()
    };
    let command = fake.slash_command(ADA, "/hello", "world & more");
    assert!(is_signed(&command));
    assert!(is_signed(&fake.block_action(ADA, "go")));
    assert!(is_signed(&fake.app_uninstalled("T0ALPHA0001")));
    let edited = command.clone().with_field("team_id", "T0BRAVO0002");
    assert!(is_signed(&edited) && field(&edited, "team_id").as_deref() == Some("T0BRAVO0002"));
    let raw = command.clone().with_body("text/plain", "anything");
    assert!(is_signed(&raw) && &raw.body()[..] == b"anything");
    let old = command.sent_at(start - Duration::from_secs(301));
    let request = old.request(&url);
    assert_eq!(request.headers()["x-slack-request-timestamp"], "1789999699");
    assert!(is_signed(&old));
    let retried = old.retry(2, "http_timeout").request(&url);
    assert_eq!(retried.headers()["x-slack-retry-num"], "2");
    assert_eq!(retried.headers()["x-slack-retry-reason"], "http_timeout");
}

#[test]
fn a_slash_command_says_whose_installation_it_is_for() {
    let fake = FakeSlack::in_process(grid());
    install(&fake, "commands", "", ADA);
    let alone = fake.slash_command(ADA, "/hello", "a=b&c");
    let expected = [
        ("team_id", Some("T0ALPHA0001")),
        ("team_domain", Some("alpha-robotics")),
        ("user_id", Some(ADA)),
        ("command", Some("/hello")),
        ("text", Some("a=b&c")),
        ("api_app_id", Some(fake.app_id().as_str())),
        ("is_enterprise_install", Some("false")),
        ("enterprise_id", None),
    ]
    .map(|(name, value)| (name, value.map(str::to_owned)));
    for (name, value) in expected {
        assert_eq!(field(&alone, name), value, "{name}");
    }
    let flag = || {
        let command = fake.slash_command("U0MEMBER001", "/hello", "");
        assert_eq!(field(&command, "team_id").as_deref(), Some("T0GRID00011"));
        assert_eq!(
            field(&command, "enterprise_id").as_deref(),
            Some("E0GRID00001")
        );
        field(&command, "is_enterprise_install")
    };
    assert_eq!(flag().as_deref(), Some("false"), "nothing is installed");
    install(&fake, "commands", "", olga());
    assert_eq!(
        flag().as_deref(),
        Some("true"),
        "only the org-wide installation exists"
    );
    install(&fake, "commands", "", "U0MEMBER001");
    assert_eq!(
        flag().as_deref(),
        Some("false"),
        "the workspace's own installation comes first"
    );
}

#[test]
fn events_carry_the_authorization_of_the_installation_that_gets_them() {
    let fake = FakeSlack::in_process(grid());
    let mention = || {
        fake.event(
            "T0GRID00011",
            json!({ "type": "app_mention", "text": "hi" }),
        )
    };
    install(&fake, "app_mentions:read", "", olga());
    let event = mention();
    let body = event.json().expect("JSON");
    assert_eq!(body["team_id"], "T0GRID00011");
    assert_eq!(body["enterprise_id"], "E0GRID00001");
    assert_eq!(body["api_app_id"], fake.app_id().as_str());
    assert_eq!(body["event"]["text"], "hi");
    assert!(body["event"]["event_ts"].is_string());
    let authorization = json!([{
        "enterprise_id": "E0GRID00001",
        "team_id": null,
        "user_id": fake.bot_user("E0GRID00001"),
        "is_bot": true,
        "is_enterprise_install": true,
    }]);
    assert_eq!(body["authorizations"], authorization);
    install(&fake, "app_mentions:read", "", "U0MEMBER001");
    let own = mention();
    let own = &own.json().expect("JSON")["authorizations"][0];
    assert_eq!(
        (&own["team_id"], &own["is_enterprise_install"]),
        (&json!("T0GRID00011"), &json!(false))
    );
    assert_ne!(
        mention().json().map(|b| &b["event_id"]),
        mention().json().map(|b| &b["event_id"])
    );
}

#[test]
fn lifecycle_events_have_the_documented_shape() {
    let fake = FakeSlack::in_process(grid());
    let workspace = fake.app_uninstalled("T0ALPHA0001");
    let body = workspace
        .json()
        .and_then(Value::as_object)
        .expect("an object");
    let names: Vec<_> = body.keys().map(String::as_str).collect();
    let expected = [
        "api_app_id",
        "event",
        "event_id",
        "event_time",
        "team_id",
        "token",
        "type",
    ];
    assert_eq!(names, expected);
    assert_eq!(body["event"], json!({ "type": "app_uninstalled" }));
    assert_eq!(body["type"], "event_callback");

    let org = fake.tokens_revoked("E0GRID00001", &["W0ORGADM001"], &["U0BOTG00003"]);
    let body = org.json().expect("JSON");
    assert_eq!(
        body.get("team_id"),
        None,
        "an org-wide token names no workspace"
    );
    assert_eq!(body["enterprise_id"], "E0GRID00001");
    let tokens = json!({ "oauth": ["W0ORGADM001"], "bot": ["U0BOTG00003"] });
    assert_eq!(
        body["event"],
        json!({ "type": "tokens_revoked", "tokens": tokens })
    );
    let inside = fake.app_uninstalled("T0GRID00011");
    let inside = inside.json().expect("JSON");
    assert_eq!(
        (&inside["team_id"], &inside["enterprise_id"]),
        (&json!("T0GRID00011"), &json!("E0GRID00001"))
    );
    let stale = fake
        .app_uninstalled("T0ALPHA0001")
        .edit(|body| body["event_time"] = json!(1));
    assert_eq!(stale.json().expect("JSON")["event_time"], 1);
}

#[test]
fn interactive_payloads_name_the_tenant_where_slack_names_it() {
    let fake = FakeSlack::in_process(grid());
    install(&fake, "commands", "", ADA);
    install(&fake, "commands", "", olga());
    let olga_at_work = || Who::user("W0ORGADM001").at("T0GRID00012");
    let payload = |delivery: Delivery| {
        let text = field(&delivery, "payload").expect("a payload");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let own = payload(fake.block_action(ADA, "go"));
    assert_eq!(own["type"], "block_actions");
    assert_eq!(
        own["team"],
        json!({ "id": "T0ALPHA0001", "domain": "alpha-robotics" })
    );
    assert_eq!(
        (&own["enterprise"], &own["is_enterprise_install"]),
        (&Value::Null, &json!(false))
    );
    assert_eq!(own["actions"][0]["action_id"], "go");
    let org_wide = payload(fake.block_action(olga_at_work(), "go"));
    assert_eq!(org_wide["team"], Value::Null);
    assert_eq!(org_wide["enterprise"]["id"], "E0GRID00001");
    assert_eq!(org_wide["user"]["team_id"], "T0GRID00012");
    let view = payload(fake.view_submission(olga_at_work(), "form"));
    assert_eq!(view["view"]["app_installed_team_id"], "E0GRID00001");
    assert_eq!(view["view"]["team_id"], "T0GRID00012");
    let shortcut = payload(fake.shortcut(ADA, "open"));
    assert_eq!(
        (shortcut.get("api_app_id"), &shortcut["callback_id"]),
        (None, &json!("open"))
    );
    let message = payload(fake.message_shortcut(ADA, "save"));
    assert_eq!(
        (message["user"].get("team_id"), &message["type"]),
        (None, &json!("message_action"))
    );
    let outsider = payload(fake.block_action("U0STRANGER1", "go"));
    assert_eq!(outsider["user"]["team_id"], "T0XTERN0009");
}

#[test]
fn a_workspace_that_joins_an_org_keeps_its_id_and_tokens() {
    let fake = FakeSlack::in_process(grid());
    let token = bot_token(&install(&fake, "commands", "", ADA));
    assert_eq!(
        ask(&fake, "auth.test", Some(&token), "").get("enterprise_id"),
        None
    );
    fake.join_org("T0ALPHA0001", "E0GRID00001");
    let who = ask(&fake, "auth.test", Some(&token), "");
    assert_eq!(
        (&who["team_id"], &who["enterprise_id"]),
        (&json!("T0ALPHA0001"), &json!("E0GRID00001"))
    );
    let command = fake.slash_command(ADA, "/hello", "");
    assert_eq!(
        field(&command, "enterprise_id").as_deref(),
        Some("E0GRID00001")
    );
    assert_eq!(
        field(&command, "is_enterprise_install").as_deref(),
        Some("false")
    );
}

#[test]
fn an_install_started_at_slack_has_a_code_and_no_state() -> Checked {
    let fake = FakeSlack::in_process(World::default());
    let callback = fake.unsolicited(&REDIRECT.parse()?, "commands", ADA)?;
    assert_eq!(param(&callback, "state").as_deref(), Some(""));
    assert_eq!(exchanged(&fake, &callback)["ok"], true);
    let mut url = authorize(&fake, "commands", "");
    let kept: Vec<_> = url
        .query_pairs()
        .into_owned()
        .filter(|(name, _)| name != "state")
        .collect();
    url.query_pairs_mut().clear().extend_pairs(kept);
    assert_eq!(param(&fake.allow(&url, ADA)?, "state"), None);
    Ok(())
}

#[tokio::test]
async fn deliveries_reach_an_app_on_loopback_and_nobody_else() -> Checked {
    let fake = FakeSlack::start().await?;
    let app = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = Url::parse(&format!("http://{}/slack/events", app.local_addr()?))?;
    let served = tokio::spawn(async move {
        let (mut stream, _) = app.accept().await?;
        let mut heard = Vec::new();
        while !heard.ends_with(b"text=world") {
            stream.read_buf(&mut heard).await?;
        }
        let answer =
            b"HTTP/1.1 302 Found\r\nlocation: https://example.com/\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await?;
        io::Result::Ok(String::from_utf8_lossy(&heard).into_owned())
    });
    let delivery = fake
        .slash_command(ADA, "/hello", "")
        .with_body(FORM, "text=world");
    let answer = fake.deliver(&url, &delivery).await?;
    assert_eq!(
        answer.status(),
        StatusCode::FOUND,
        "the redirect is not followed"
    );
    assert_eq!(text(&answer), "ok");
    let heard = served.await??;
    assert!(heard.starts_with("POST /slack/events HTTP/1.1"));
    assert!(heard.contains("x-slack-signature: v0="));

    for elsewhere in [
        "http://example.com/",
        "https://127.0.0.1/",
        "http://10.0.0.1/",
    ] {
        let refused = fake.deliver(&elsewhere.parse()?, &delivery).await;
        let kind = refused.expect_err("not on this machine").kind();
        assert_eq!(kind, io::ErrorKind::InvalidInput, "{elsewhere}");
    }
    let unheard = fake.deliver(&url, &delivery).await;
    let kind = unheard.expect_err("connection refused").kind();
    assert_ne!(kind, io::ErrorKind::InvalidInput);
    Ok(())
}

#[tokio::test]
async fn what_an_app_posts_to_a_response_url_is_kept() -> Checked {
    let fake = FakeSlack::start().await?;
    let command = fake.slash_command(ADA, "/hello", "");
    let response_url: Url = field(&command, "response_url").ok_or("no URL")?.parse()?;
    assert_eq!(response_url.origin(), fake.environment().base().origin());
    let reply = json!({ "text": "hello" });
    let request = Request::post(response_url.as_str())
        .header("content-type", "application/json")
        .body(Bytes::from(reply.to_string()))?;
    assert_eq!(over_http(&fake, request).await?.status(), StatusCode::OK);
    assert_eq!(fake.replies(), [reply]);
    Ok(())
}

#[tokio::test]
async fn the_server_ends_with_its_last_handle() -> Checked {
    let fake = FakeSlack::start().await?;
    let base = fake.environment().base().clone();
    let address = (
        base.host_str().ok_or("no host")?.to_owned(),
        base.port().ok_or("no port")?,
    );
    let clone = fake.clone();
    drop(fake);
    tokio::net::TcpStream::connect(address.clone()).await?;
    drop(clone);
    for _ in 0..100 {
        if tokio::net::TcpStream::connect(address.clone())
            .await
            .is_err()
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("it still listens".into())
}

#[tokio::test]
async fn over_http_unknown_paths_and_huge_bodies_are_refused() -> Checked {
    let fake = FakeSlack::start().await?;
    let lost = get(&fake.environment().base().join("nowhere")?);
    assert_eq!(
        over_http(&fake, lost).await?.status(),
        StatusCode::NOT_FOUND
    );
    let put = Request::put(fake.environment().api_url("auth.test").as_str()).body(Bytes::new())?;
    assert_eq!(over_http(&fake, put).await?.status(), StatusCode::NOT_FOUND);
    let huge = post(&fake, "api/auth.test", &"x".repeat(2 * 1024 * 1024));
    assert!(over_http(&fake, huge).await.is_err());
    assert_eq!(fake.calls("auth.test"), 0);
    Ok(())
}

/// A world with the workspace Alpha Robotics, which has people of every kind, and an organisation
/// of two workspaces.
fn grid() -> World {
    let alpha = Workspace::new("T0ALPHA0001", "Alpha Robotics")
        .with_person(Person::admin(ADA, "ada"))
        .with_person(Person::member("U0MEMBER002", "mia"))
        .with_person(Person::owner("U0OWNER0001", "oz"))
        .with_person(Person::guest("U0GUEST0001", "gus"))
        .with_person(Person::deactivated("U0GONE00001", "gone"))
        .with_person(Person::stranger("U0STRANGER1", "xavier", "T0XTERN0009"));
    let org = Org::new("E0GRID00001", "Gridline Org")
        .with_workspace(
            Workspace::new("T0GRID00011", "Gridline Sales")
                .with_person(Person::member("U0MEMBER001", "max")),
        )
        .with_workspace(Workspace::new("T0GRID00012", "Gridline Support"))
        .with_person(Person::org_admin("W0ORGADM001", "olga"));
    World::empty().with_workspace(alpha).with_org(org)
}

fn olga() -> Who {
    Who::user("W0ORGADM001").at("E0GRID00001")
}

fn authorize(fake: &FakeSlack, scope: &str, user_scope: &str) -> Url {
    let mut url = fake.environment().authorize_url();
    url.query_pairs_mut()
        .append_pair("client_id", fake.client_id().as_str())
        .append_pair("scope", scope)
        .append_pair("user_scope", user_scope)
        .append_pair("redirect_uri", REDIRECT)
        .append_pair("state", "state-1");
    url
}

fn install(fake: &FakeSlack, scope: &str, user_scope: &str, who: impl Into<Who>) -> Value {
    let callback = fake
        .allow(&authorize(fake, scope, user_scope), who)
        .expect("allowed");
    let answer = exchanged(fake, &callback);
    assert_eq!(answer["ok"], true, "{:?}", answer["error"]);
    answer
}

fn exchanged(fake: &FakeSlack, callback: &Url) -> Value {
    let code = param(callback, "code").expect("a code");
    in_process(fake, &exchange(fake, &code))
}

fn exchange(fake: &FakeSlack, code: &str) -> Request<Bytes> {
    as_app(fake, &form([("code", code), ("redirect_uri", REDIRECT)]))
}

fn ask_as_app(fake: &FakeSlack, form: &str) -> Value {
    in_process(fake, &as_app(fake, form))
}

/// Returns a request of `oauth.v2.access` with HTTP Basic.
fn as_app(fake: &FakeSlack, form: &str) -> Request<Bytes> {
    let secret = fake.client_secret();
    let basic = STANDARD.encode(format!("{}:{}", fake.client_id(), secret.expose()));
    let mut request = post(fake, "api/oauth.v2.access", form);
    let value = format!("Basic {basic}").parse().expect("a header");
    request.headers_mut().insert("authorization", value);
    request
}

fn api(fake: &FakeSlack, method: &str, token: Option<&str>, form: &str) -> Request<Bytes> {
    let mut request = post(fake, &format!("api/{method}"), form);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", value);
    }
    request
}

fn ask(fake: &FakeSlack, method: &str, token: Option<&str>, form: &str) -> Value {
    in_process(fake, &api(fake, method, token, form))
}

fn get(url: &Url) -> Request<Bytes> {
    Request::get(url.as_str())
        .body(Bytes::new())
        .expect("a request")
}

fn post(fake: &FakeSlack, path: &str, form: &str) -> Request<Bytes> {
    let url = fake.environment().base().join(path).expect("a URL");
    Request::post(url.as_str())
        .header("content-type", FORM)
        .body(Bytes::copy_from_slice(form.as_bytes()))
        .expect("a request")
}

async fn over_http(fake: &FakeSlack, request: Request<Bytes>) -> io::Result<Response<Bytes>> {
    fake.send(request).await
}

fn in_process(fake: &FakeSlack, request: &Request<Bytes>) -> Value {
    json_of(&fake.handle(request).expect("a response")).expect("JSON")
}

fn json_of(response: &Response<Bytes>) -> serde_json::Result<Value> {
    serde_json::from_slice(response.body())
}

fn text(response: &Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

fn location(response: &Response<Bytes>) -> Result<Url, Box<dyn std::error::Error>> {
    Ok(response
        .headers()
        .get("location")
        .ok_or("no redirect")?
        .to_str()?
        .parse()?)
}

fn param(url: &Url, name: &str) -> Option<String> {
    url.query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn form<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

fn field(delivery: &Delivery, name: &str) -> Option<String> {
    let body = delivery.body();
    let mut fields = form_urlencoded::parse(&body);
    fields
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn bot_token(answer: &Value) -> String {
    answer["access_token"]
        .as_str()
        .expect("a bot token")
        .to_owned()
}

fn inner(delivery: &Delivery) -> &Value {
    &delivery.json().expect("an event")["event"]
}

fn kinds(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries
        .iter()
        .filter_map(|delivery| inner(delivery)["type"].as_str())
        .collect()
}

fn assert_secret_free(fake: &FakeSlack, seen: &str) {
    for secret in fake.secrets() {
        assert!(!seen.contains(&secret), "a secret is shown");
    }
}

/// Returns the form that a browser sends when the user presses this button and changes nothing
/// else.
fn press(page: &str, answer: &str) -> String {
    press_as(page, answer, "")
}

/// Does the same as [`press`], with this choice in the list of people and places.
fn press_as(page: &str, answer: &str, who: &str) -> String {
    let inputs = page.split("<input type=\"hidden\" name=\"").skip(1);
    let mut fields: Vec<_> = inputs
        .filter_map(|input| {
            let (name, rest) = input.split_once("\" value=\"")?;
            let (value, _) = rest.split_once('"')?;
            Some((name, value))
        })
        .collect();
    fields.push(("answer", answer));
    fields.extend((!who.is_empty()).then_some(("who", who)));
    form(fields)
}

const ADA: &str = "U0ADMIN0001";
const FORM: &str = "application/x-www-form-urlencoded";
const REDIRECT: &str = "http://localhost:3000/slack/oauth_redirect";

#[tokio::test]
async fn a_fault_of_no_times_strikes_nothing() {
    let fake = FakeSlack::in_process(World::default());
    fake.inject("auth.test", Fault::unavailable().times(0));
    let url = fake.environment().api_url("auth.test");
    for _ in 0..2 {
        let request = Request::post(url.as_str()).body(Bytes::new());
        let answer = fake.transport().send(request.expect("a request")).await;
        assert_eq!(answer.expect("a response").status(), 200);
    }
}

#[test]
fn a_repetition_keeps_the_time_that_was_set() {
    let fake = FakeSlack::in_process(World::default());
    let at = std::time::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let command = fake.slash_command("U0ADMIN0001", "/x", "").sent_at(at);
    let url = "https://bot.example.com/".parse().expect("a URL");
    let again = command.retry(1, "http_timeout").request(&url);
    assert_eq!(again.headers()["x-slack-request-timestamp"], "1790000000");
}
