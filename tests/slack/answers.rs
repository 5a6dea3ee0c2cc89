//! Slack's responses, member by member.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};
use slack_installs::secret::{Code, RefreshToken};
use slack_installs::slack::{
    AuthTest, Environment, Error, Issued, Renewed, SlackClient, Transport, TransportError, UserInfo,
};
use slack_installs::{Home, Scopes, UserId};

use super::canned::Canned;
use super::{credentials, token};

const REDIRECT: &str = "https://a.example/cb";

const DATE: &str = "Sat, 21 Nov 2026 12:00:00 GMT";

fn noon() -> SystemTime {
    httpdate::parse_http_date(DATE).expect("a date")
}

fn canned(body: &Value) -> Canned {
    Canned::of(200, &[("date", DATE)], &body.to_string())
}

/// Returns a complete code exchange: a rotating bot and user, and a webhook, in a workspace of an
/// organisation.
pub(crate) fn exchanged() -> Value {
    json!({
        "ok": true,
        "app_id": "A0FAKEAPP01",
        "team": {"id": "T0ALPHA0001", "name": "Alpha"},
        "enterprise": {"id": "E0GRID00001", "name": "Gridline"},
        "is_enterprise_install": false,
        "authed_user": {
            "id": "U0ADMIN0001", "scope": "search:read", "token_type": "user",
            "access_token": "xoxe.xoxp-1-user", "refresh_token": "xoxe-1-user", "expires_in": 600,
        },
        "scope": "chat:write,commands", "token_type": "bot",
        "access_token": "xoxe.xoxb-1-bot", "refresh_token": "xoxe-1-bot", "expires_in": 43200,
        "bot_user_id": "U0BOTA00001",
        "incoming_webhook": {
            "channel": "#general", "channel_id": "C0GENERAL01",
            "configuration_url": "https://alpha.slack.com/services/B0HOOK00001",
            "url": "https://hooks.slack.com/services/T0ALPHA0001/B0HOOK00001/FIXTURE",
        },
    })
}

/// Returns a refresh of a bot's token with every member that Slack may send.
pub(crate) fn renewed() -> Value {
    json!({
        "ok": true,
        "app_id": "A0FAKEAPP01",
        "team": {"id": "T0ALPHA0001", "name": "Alpha"},
        "enterprise": {"id": "E0GRID00001", "name": "Gridline"},
        "is_enterprise_install": false,
        "scope": "chat:write,commands", "token_type": "bot",
        "access_token": "xoxe.xoxb-1-next", "refresh_token": "xoxe-1-next", "expires_in": 43200,
        "bot_user_id": "U0BOTA00001",
    })
}

/// Returns the JSON with one member set or removed. The member is a pointer such as
/// `/authed_user/id`.
fn with(mut body: Value, member: &str, value: Option<Value>) -> Value {
    let (parent, name) = member.rsplit_once('/').expect("a pointer");
    let parent = body.pointer_mut(parent).expect("exists");
    let members = parent.as_object_mut().expect("an object");
    match value {
        Some(value) => drop(members.insert(name.to_owned(), value)),
        None => drop(members.remove(name)),
    }
    body
}

async fn issue(body: &Value) -> Result<Issued, Error> {
    let (app, code) = (credentials(), Code::new("the-code").expect("a code"));
    let slack = canned(body).client();
    slack.oauth_v2_access(&app, &code, REDIRECT).await
}

async fn renew(body: &Value) -> Result<Renewed, Error> {
    let refresh = RefreshToken::new("xoxe-1-old").expect("a token");
    let slack = canned(body).client();
    slack.refresh(&credentials(), &refresh).await
}

fn assert_malformed<T: std::fmt::Debug>(outcome: &Result<T, Error>, what: &str) {
    let is_malformed = matches!(outcome, Err(Error::Malformed { .. }));
    assert!(is_malformed, "{what}: {outcome:?}");
}

#[tokio::test]
async fn everything_that_an_exchange_tells_is_taken_to_its_place() {
    let issued = issue(&exchanged()).await.expect("issued");
    assert_eq!(issued.app_id.as_str(), "A0FAKEAPP01");
    assert_eq!(issued.at, noon());
    let team = issued.home.team().expect("a workspace");
    let org = issued.home.enterprise().expect("an organisation");
    assert_eq!(
        (team.id.as_str(), team.name.as_deref()),
        ("T0ALPHA0001", Some("Alpha"))
    );
    assert_eq!(
        (org.id.as_str(), org.name.as_deref()),
        ("E0GRID00001", Some("Gridline"))
    );
    assert!(!issued.home.is_enterprise_install());
    assert_eq!(issued.authed_user.expect("present").as_str(), "U0ADMIN0001");

    let bot = issued.bot.expect("a bot");
    assert_eq!(bot.user_id.as_str(), "U0BOTA00001");
    assert!(bot.id.is_none(), "an exchange does not return it");
    let secret = bot.grant.refresh_token.expect("it rotates");
    assert_eq!(bot.grant.access_token.expose(), "xoxe.xoxb-1-bot");
    assert_eq!(secret.expose(), "xoxe-1-bot");
    assert_eq!(
        bot.grant.expires_at,
        Some(noon() + Duration::from_secs(43_200))
    );
    assert_eq!(bot.grant.scopes, Scopes::from("chat:write,commands"));

    let user = issued.user.expect("a user");
    assert_eq!(user.id.as_str(), "U0ADMIN0001");
    let secret = user.grant.refresh_token.expect("it rotates");
    assert_eq!(user.grant.access_token.expose(), "xoxe.xoxp-1-user");
    assert_eq!(secret.expose(), "xoxe-1-user");
    assert_eq!(
        user.grant.expires_at,
        Some(noon() + Duration::from_secs(600))
    );
    assert_eq!(user.grant.scopes, Scopes::from("search:read"));

    let webhook = issued.incoming_webhook.expect("a webhook");
    assert_eq!(webhook.channel, "#general");
    assert_eq!(webhook.channel_id, "C0GENERAL01");
    assert_eq!(
        webhook.configuration_url,
        "https://alpha.slack.com/services/B0HOOK00001"
    );
    assert!(webhook.url.expose().ends_with("/FIXTURE"));
}

#[tokio::test]
async fn what_an_exchange_may_leave_out_may_be_left_out() {
    for member in [
        "/authed_user",
        "/authed_user/access_token",
        "/authed_user/expires_in",
        "/authed_user/refresh_token",
        "/authed_user/scope",
        "/enterprise",
        "/enterprise/name",
        "/expires_in",
        "/incoming_webhook",
        "/is_enterprise_install",
        "/refresh_token",
        "/scope",
        "/team/name",
    ] {
        let outcome = issue(&with(exchanged(), member, None)).await;
        assert!(outcome.is_ok(), "{member}: {outcome:?}");
    }
    for member in [
        "/authed_user",
        "/enterprise",
        "/expires_in",
        "/incoming_webhook",
    ] {
        let outcome = issue(&with(exchanged(), member, Some(Value::Null))).await;
        assert!(outcome.is_ok(), "{member}: {outcome:?}");
    }
    let nobody = issue(&with(exchanged(), "/authed_user", None)).await;
    let nobody = nobody.expect("issued");
    assert!(nobody.authed_user.is_none() && nobody.user.is_none() && nobody.bot.is_some());
    let no_token = issue(&with(exchanged(), "/authed_user/access_token", None)).await;
    let no_token = no_token.expect("issued");
    assert!(no_token.authed_user.is_some() && no_token.user.is_none());
    let unscoped = issue(&with(exchanged(), "/scope", None))
        .await
        .expect("issued");
    assert!(unscoped.bot.expect("a bot").grant.scopes.is_empty());
    let mut user_only = with(exchanged(), "/access_token", None);
    for member in [
        "/bot_user_id",
        "/token_type",
        "/scope",
        "/refresh_token",
        "/expires_in",
    ] {
        user_only = with(user_only, member, None);
    }
    let user_only = issue(&user_only).await.expect("issued");
    assert!(user_only.bot.is_none() && user_only.user.is_some());
}

/// Returns the error's text.
fn error_of<T: std::fmt::Debug>(outcome: Result<T, Error>, what: &str) -> String {
    assert_malformed(&outcome, what);
    outcome.expect_err("malformed").to_string()
}

#[tokio::test]
async fn an_exchange_that_cannot_be_kept_names_the_field() {
    for (member, named) in [
        ("/app_id", "`app_id`"),
        ("/team", "`team.id`"),
        ("/team/id", "`team.id`"),
    ] {
        for value in odd_values() {
            if member == "/team" && value.as_ref().is_some_and(Value::is_object) {
                continue;
            }
            let what = format!("{member} {value:?}");
            let error = error_of(issue(&with(exchanged(), member, value)).await, &what);
            assert!(error.contains(named), "{what}: {error}");
        }
    }
    for (member, value, named) in [
        ("/access_token", json!("xoxc-session"), "`access_token`"),
        ("/access_token", json!("two words"), "`access_token`"),
        ("/access_token", json!(["xoxb-1"]), "`access_token`"),
        ("/access_token", json!(7), "`access_token`"),
        ("/app_id", json!("T0ALPHA0001"), "`app_id`"),
        (
            "/authed_user/access_token",
            json!("xoxd-session"),
            "`authed_user.access_token`",
        ),
        (
            "/authed_user/access_token",
            json!({}),
            "`authed_user.access_token`",
        ),
        (
            "/authed_user/token_type",
            json!("bot"),
            "`authed_user.token_type`",
        ),
        (
            "/authed_user/token_type",
            json!("granular_bot"),
            "`authed_user.token_type`",
        ),
        ("/team/id", json!("E0GRID00001"), "`team.id`"),
        ("/token_type", json!("user"), "`token_type`"),
    ] {
        let what = format!("{member} {value}");
        let error = error_of(issue(&with(exchanged(), member, Some(value))).await, &what);
        assert!(error.contains(named), "{what}: {error}");
        assert!(!error.contains("xox"), "{error}");
    }
    let org_wide = with(exchanged(), "/is_enterprise_install", Some(json!(true)));
    for enterprise in [json!(null), json!({}), json!({"id": "T0ALPHA0001"})] {
        let nowhere = with(org_wide.clone(), "/enterprise", Some(enterprise));
        let error = error_of(issue(&nowhere).await, "org-wide in no organisation");
        assert!(error.contains("`enterprise.id`"), "{error}");
    }
}

/// Returns what Slack may send in place of an optional member: nothing, `null`, something empty,
/// and something of a form that nobody knows.
fn odd_values() -> Vec<Option<Value>> {
    let odd = [
        json!(null),
        json!(""),
        json!([]),
        json!({}),
        json!("?"),
        json!("some_future_value"),
        json!(["?", null, 7, {}]),
        json!({"id": null, "name": 7, "url": "", "some_future_member": [{}]}),
        json!(-1),
        json!(1.5),
        json!(7),
        json!(true),
        json!(false),
    ];
    let values = odd.into_iter().map(Some);
    std::iter::once(None).chain(values).collect()
}

/// Answers `auth.test` with the owner of the token, and any other call with this response.
#[derive(Clone, Debug)]
struct Owners(Value);

#[async_trait]
impl Transport for Owners {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let token = request.headers()["authorization"].to_str();
        let body = match (request.uri().path(), token.expect("visible ASCII")) {
            ("/api/auth.test", "Bearer xoxe.xoxb-1-bot") => {
                json!({"ok": true, "user_id": "U0BOTA00001"})
            }
            ("/api/auth.test", "Bearer xoxe.xoxp-1-user") => {
                json!({"ok": true, "user_id": "U0ADMIN0001"})
            }
            _ => self.0.clone(),
        };
        Ok(Response::new(body.to_string().into()))
    }
}

fn owners(body: Value) -> SlackClient {
    SlackClient::with_transport(Environment::commercial(), Owners(body))
}

/// Returns the responses with each optional member in each odd form, and the member's name.
fn oddities(whole: &Value, members: &[&str]) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for member in members {
        for value in odd_values() {
            let what = format!("{member} {value:?}");
            all.push((what, with(whole.clone(), member, value)));
        }
    }
    // The members of every response, which are normally absent.
    for member in [
        "error",
        "needed",
        "warning",
        "response_metadata",
        "some_future_member",
    ] {
        for value in odd_values().into_iter().flatten() {
            let mut body = whole.clone();
            body[member] = value.clone();
            all.push((format!("/{member} {value}"), body));
        }
    }
    all
}

#[tokio::test]
async fn each_optional_member_of_an_exchange_may_be_absent_null_empty_or_unknown() {
    let members = [
        "/authed_user",
        "/authed_user/expires_in",
        "/authed_user/id",
        "/authed_user/refresh_token",
        "/authed_user/scope",
        "/authed_user/token_type",
        "/bot_user_id",
        "/enterprise/name",
        "/expires_in",
        "/incoming_webhook",
        "/incoming_webhook/channel",
        "/incoming_webhook/channel_id",
        "/incoming_webhook/configuration_url",
        "/incoming_webhook/url",
        "/is_enterprise_install",
        "/refresh_token",
        "/scope",
        "/team/name",
        "/token_type",
    ];
    let (app, code) = (credentials(), Code::new("the-code").expect("a code"));
    for (what, body) in oddities(&exchanged(), &members) {
        let issued = owners(body).oauth_v2_access(&app, &code, REDIRECT).await;
        let issued = issued.unwrap_or_else(|error| panic!("{what}: {error}"));
        let bot = issued.bot.unwrap_or_else(|| panic!("{what}: no bot"));
        assert_eq!(bot.user_id.as_str(), "U0BOTA00001", "{what}");
        assert_eq!(bot.grant.access_token.expose(), "xoxe.xoxb-1-bot", "{what}");
        let (had_user, has_user) = (!what.starts_with("/authed_user "), issued.user.is_some());
        assert_eq!(has_user, had_user, "{what}");
        let owner = issued.user.map(|user| user.id.as_str().to_owned());
        assert_eq!(
            owner.as_deref(),
            had_user.then_some("U0ADMIN0001"),
            "{what}"
        );
        let has_url = !what.starts_with("/incoming_webhook/url ");
        if what.starts_with("/incoming_webhook/") && has_url {
            assert!(issued.incoming_webhook.is_some(), "{what}");
        }
        // A token that can be refreshed also ends.
        assert!(
            bot.grant.refresh_token.is_none() || bot.grant.expires_at.is_some(),
            "{what}"
        );
    }
    // For a workspace, the organisation is for information only.
    for (what, body) in oddities(&exchanged(), &["/enterprise", "/enterprise/id"]) {
        let issued = owners(body).oauth_v2_access(&app, &code, REDIRECT).await;
        let issued = issued.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(issued.home.key().id(), "T0ALPHA0001", "{what}");
    }
    // One of the two tokens may be absent.
    for value in [None, Some(json!(null)), Some(json!(""))] {
        let body = with(exchanged(), "/access_token", value.clone());
        let issued = owners(body).oauth_v2_access(&app, &code, REDIRECT).await;
        let issued = issued.expect("issued");
        assert!(issued.bot.is_none() && issued.user.is_some());
        let body = with(exchanged(), "/authed_user/access_token", value);
        let issued = owners(body).oauth_v2_access(&app, &code, REDIRECT).await;
        let issued = issued.expect("issued");
        assert!(issued.bot.is_some() && issued.user.is_none());
    }
}

#[tokio::test]
async fn each_optional_member_of_a_refresh_may_be_absent_null_empty_or_unknown() {
    let whole = with(renewed(), "/user_id", Some(json!(null)));
    let whole = with(whole, "/authed_user", Some(json!({"id": "U0ADMIN0001"})));
    let members = [
        "/authed_user",
        "/authed_user/id",
        "/bot_user_id",
        "/enterprise",
        "/enterprise/id",
        "/enterprise/name",
        "/expires_in",
        "/is_enterprise_install",
        "/scope",
        "/team",
        "/team/id",
        "/team/name",
        "/token_type",
        "/user_id",
    ];
    for (what, body) in oddities(&whole, &members) {
        let pair = renew(&body).await;
        let pair = pair.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!pair.is_user && pair.user_id.is_none(), "{what}");
        assert_eq!(
            pair.grant.access_token.expose(),
            "xoxe.xoxb-1-next",
            "{what}"
        );
        assert!(pair.grant.refresh_token.is_some(), "{what}");
        assert!(pair.grant.expires_at.is_some(), "{what}");
    }
}

#[tokio::test]
async fn a_users_refresh_is_read_at_the_top_level_and_inside_authed_user() {
    let fields = json!({
        "access_token": "xoxe.xoxp-1-next", "refresh_token": "xoxe-1-next", "expires_in": 43200,
        "scope": "search:read", "token_type": "user",
    });
    let place = json!({
        "ok": true, "app_id": "A0FAKEAPP01", "team": {"id": "T0ALPHA0001"}, "enterprise": null,
    });
    let mut top = place.clone();
    top.as_object_mut()
        .expect("an object")
        .extend(fields.as_object().expect("one").clone());
    let mut named = top.clone();
    named["authed_user"] = json!({"id": "U0ADMIN0001"});
    top["user_id"] = json!("U0ADMIN0001");
    let mut nested = place;
    nested["authed_user"] = fields;
    nested["authed_user"]["id"] = json!("U0ADMIN0001");
    let mut both = nested.clone();
    for (member, value) in [("access_token", json!(null)), ("token_type", json!("bot"))] {
        both[member] = value;
    }
    let mut untyped = nested.clone();
    untyped["authed_user"]["token_type"] = json!(null);
    for body in [top, named, nested, both, untyped] {
        let pair = renew(&body)
            .await
            .unwrap_or_else(|error| panic!("{body}: {error}"));
        assert!(pair.is_user, "{body}");
        assert_eq!(
            pair.user_id.expect("present").as_str(),
            "U0ADMIN0001",
            "{body}"
        );
        assert_eq!(
            pair.grant.access_token.expose(),
            "xoxe.xoxp-1-next",
            "{body}"
        );
        assert_eq!(
            pair.grant.refresh_token.expect("a pair").expose(),
            "xoxe-1-next"
        );
        assert_eq!(
            pair.grant.expires_at,
            Some(noon() + Duration::from_secs(43_200))
        );
        assert_eq!(pair.grant.scopes, Scopes::from("search:read"));
    }
}

#[tokio::test]
async fn a_bot_may_be_called_granular() {
    let body = with(exchanged(), "/token_type", Some(json!("granular_bot")));
    assert!(issue(&body).await.expect("issued").bot.is_some());
    let body = with(renewed(), "/token_type", Some(json!("granular_bot")));
    assert!(!renew(&body).await.expect("renewed").is_user);
}

#[tokio::test]
async fn only_the_flag_makes_an_installation_org_wide_and_a_team_beside_it_is_dropped() {
    let org_wide = with(exchanged(), "/is_enterprise_install", Some(json!(true)));
    let home = issue(&org_wide).await.expect("issued").home;
    let Home::Org(org) = &home else {
        panic!("{home:?}");
    };
    assert_eq!(org.name.as_deref(), Some("Gridline"));
    assert!(home.team().is_none());
    for flag in [None, Some(json!(false))] {
        let body = with(exchanged(), "/is_enterprise_install", flag);
        let home = issue(&body).await.expect("issued").home;
        assert!(home.team().is_some() && !home.is_enterprise_install());
    }
}

#[tokio::test]
async fn a_tokens_end_is_taken_as_slack_says_it() {
    let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    for (seconds, expected) in [
        (json!(0), noon()),
        (json!(1), noon() + Duration::from_secs(1)),
        (json!(43_201), noon() + Duration::from_secs(43_201)),
        (json!(1_000_000), noon() + Duration::from_secs(1_000_000)),
        (json!(u64::MAX), latest),
    ] {
        let body = with(exchanged(), "/expires_in", Some(seconds.clone()));
        let bot = issue(&body).await.expect("issued").bot.expect("a bot");
        assert_eq!(bot.grant.expires_at, Some(expected), "{seconds}");
        let body = with(renewed(), "/expires_in", Some(seconds.clone()));
        let pair = renew(&body).await.expect("renewed");
        assert_eq!(pair.grant.expires_at, Some(expected), "{seconds}");
    }
}

#[tokio::test]
async fn of_an_exchange_a_refresh_token_and_an_end_are_taken_each_for_itself() {
    // Slack's documentation says how long a token lives that can be refreshed.
    let unsaid = issue(&with(exchanged(), "/expires_in", None)).await;
    let grant = unsaid.expect("issued").bot.expect("a bot").grant;
    assert_eq!(grant.expires_at, Some(noon() + Duration::from_secs(43_200)));
    assert!(grant.refresh_token.is_some());
    let endless = with(exchanged(), "/expires_in", None);
    let endless = issue(&with(endless, "/refresh_token", None)).await;
    let grant = endless.expect("issued").bot.expect("a bot").grant;
    assert!(grant.expires_at.is_none() && grant.refresh_token.is_none());
    let single = issue(&with(exchanged(), "/refresh_token", None)).await;
    let grant = single.expect("issued").bot.expect("a bot").grant;
    assert!(grant.expires_at.is_some() && grant.refresh_token.is_none());
}

#[tokio::test]
async fn everything_that_a_refresh_tells_is_taken_to_its_place() {
    let pair = renew(&renewed()).await.expect("renewed");
    assert_eq!(pair.app_id.as_str(), "A0FAKEAPP01");
    assert_eq!(pair.enterprise_id.expect("present").as_str(), "E0GRID00001");
    assert_eq!(pair.team_id.expect("present").as_str(), "T0ALPHA0001");
    assert!(pair.user_id.is_none() && !pair.is_user);
    assert_eq!(pair.at, noon());
    let secret = pair.grant.refresh_token.expect("a pair");
    assert_eq!(pair.grant.access_token.expose(), "xoxe.xoxb-1-next");
    assert_eq!(secret.expose(), "xoxe-1-next");
    assert_eq!(pair.grant.scopes, Scopes::from("chat:write,commands"));

    let user = with(renewed(), "/token_type", Some(json!("user")));
    let user = with(user, "/user_id", Some(json!("U0ADMIN0001")));
    let pair = renew(&user).await.expect("renewed");
    assert_eq!(pair.user_id.expect("present").as_str(), "U0ADMIN0001");
    assert!(pair.is_user);
}

#[tokio::test]
async fn a_refresh_may_leave_out_where_it_is_from_and_nothing_of_the_pair() {
    for member in ["/team", "/enterprise", "/scope", "/bot_user_id"] {
        let outcome = renew(&with(renewed(), member, None)).await;
        assert!(outcome.is_ok(), "{member}: {outcome:?}");
    }
    for (member, value) in [
        ("/access_token", json!("xoxc-session")),
        ("/app_id", json!("T0ALPHA0001")),
    ] {
        let what = format!("{member} {value}");
        assert_malformed(&renew(&with(renewed(), member, Some(value))).await, &what);
    }
    for member in ["/app_id", "/access_token", "/refresh_token"] {
        for value in [None, Some(json!(null)), Some(json!("")), Some(json!([]))] {
            let error = error_of(renew(&with(renewed(), member, value)).await, member);
            assert!(error.contains(&format!("`{}`", &member[1..])), "{error}");
        }
    }
}

async fn test(body: &Value) -> Result<AuthTest, Error> {
    canned(body).client().auth_test(&token()).await
}

#[tokio::test]
async fn auth_test_tells_what_it_can_and_an_unknown_form_of_id_is_absent() {
    let full = json!({
        "ok": true, "url": "https://alpha.slack.com/", "team_id": "T0ALPHA0001",
        "user_id": "U0BOTA00001", "bot_id": "B0BOT000001", "enterprise_id": "E0GRID00001",
    });
    let told = test(&full).await.expect("known");
    assert_eq!(told.url.as_deref(), Some("https://alpha.slack.com/"));
    assert_eq!(told.team_id.expect("present").as_str(), "T0ALPHA0001");
    assert_eq!(told.user_id.expect("present").as_str(), "U0BOTA00001");
    assert_eq!(told.bot_id.expect("present").as_str(), "B0BOT000001");
    assert_eq!(told.enterprise_id.expect("present").as_str(), "E0GRID00001");

    let nothing = test(&json!({"ok": true})).await.expect("known");
    assert!(nothing.url.is_none() && nothing.team_id.is_none() && nothing.user_id.is_none());
    assert!(nothing.bot_id.is_none() && nothing.enterprise_id.is_none());
    // For an org-wide token Slack may send the organisation's id as `team_id`.
    let org_wide = with(full, "/team_id", Some(json!("E0GRID00001")));
    assert!(test(&org_wide).await.expect("known").team_id.is_none());
}

#[tokio::test]
async fn each_member_of_auth_test_may_be_absent_null_empty_or_unknown() {
    let whole = json!({
        "ok": true, "url": "https://alpha.slack.com/", "team_id": "T0ALPHA0001",
        "user_id": "U0BOTA00001", "bot_id": "B0BOT000001", "enterprise_id": "E0GRID00001",
    });
    let members = ["/url", "/team_id", "/user_id", "/bot_id", "/enterprise_id"];
    for (what, body) in oddities(&whole, &members) {
        let told = test(&body).await;
        let told = told.unwrap_or_else(|error| panic!("{what}: {error}"));
        let known = [
            told.url.is_some(),
            told.team_id.is_some(),
            told.user_id.is_some(),
            told.bot_id.is_some(),
            told.enterprise_id.is_some(),
        ];
        let others = members.iter().zip(known);
        let mut others = others.filter(|(member, _)| !what.starts_with(*member));
        assert!(others.all(|(_, is_known)| is_known), "{what}");
    }
}

async fn person(user: Value) -> Result<UserInfo, Error> {
    let slack = canned(&json!({"ok": true, "user": user})).client();
    let ada = UserId::new("U0ADMIN0001").expect("an id");
    slack.users_info(&token(), &ada).await
}

#[tokio::test]
async fn each_flag_of_a_person_counts_by_itself() {
    // The tuple is: deleted, admin, admin of the organisation, outsider.
    let flags = async |user: Value| {
        let person = person(user).await.expect("known");
        (
            person.is_deleted,
            person.is_admin,
            person.is_org_admin,
            person.is_outsider,
        )
    };
    let nobody = (false, false, false, false);
    assert_eq!(flags(json!({"id": "U0ADMIN0001"})).await, nobody);
    for (flag, expected) in [
        ("deleted", (true, false, false, false)),
        ("is_admin", (false, true, false, false)),
        ("is_owner", (false, true, false, false)),
        ("is_primary_owner", (false, true, false, false)),
        ("is_restricted", (false, false, false, true)),
        ("is_ultra_restricted", (false, false, false, true)),
        ("is_stranger", (false, false, false, true)),
        ("is_bot", nobody),
    ] {
        assert_eq!(flags(json!({flag: true})).await, expected, "{flag}");
        assert_eq!(flags(json!({flag: false})).await, nobody, "{flag}");
    }
    for flag in ["is_admin", "is_owner", "is_primary_owner"] {
        let of_org = json!({"enterprise_user": {flag: true}});
        assert_eq!(flags(of_org).await, (false, false, true, false), "{flag}");
    }
}

#[tokio::test]
async fn where_a_person_is_from_is_told_with_them() {
    let ada = person(json!({
        "team_id": "T0ALPHA0001",
        "enterprise_user": {
            "enterprise_id": "E0GRID00001", "teams": ["T0GRID00011", "no id", "T0GRID00012"],
        },
    }));
    let ada = ada.await.expect("known");
    assert_eq!(ada.team_id.expect("present").as_str(), "T0ALPHA0001");
    assert_eq!(ada.enterprise_id.expect("present").as_str(), "E0GRID00001");
    let teams: Vec<_> = ada.teams.iter().map(|team| team.as_str()).collect();
    assert_eq!(teams, ["T0GRID00011", "T0GRID00012"]);
    let unknown = person(json!({"team_id": "?", "enterprise_user": {"enterprise_id": "?"}}));
    let unknown = unknown.await.expect("known");
    assert!(unknown.team_id.is_none() && unknown.enterprise_id.is_none());
    assert_malformed(&person(json!(null)).await, "nobody");
}

#[tokio::test]
async fn each_member_of_a_person_may_be_absent_null_empty_or_unknown_and_makes_no_admin() {
    let whole = json!({
        "ok": true,
        "user": {
            "team_id": "T0ALPHA0001", "deleted": false, "is_admin": false, "is_owner": false,
            "is_primary_owner": false, "is_restricted": false, "is_ultra_restricted": false,
            "is_stranger": false,
            "enterprise_user": {
                "enterprise_id": "E0GRID00001", "is_admin": false, "is_owner": false,
                "is_primary_owner": false, "teams": ["T0GRID00011"],
            },
        },
    });
    let members = [
        "/user/team_id",
        "/user/deleted",
        "/user/is_admin",
        "/user/is_owner",
        "/user/is_primary_owner",
        "/user/is_restricted",
        "/user/is_ultra_restricted",
        "/user/is_stranger",
        "/user/enterprise_user",
        "/user/enterprise_user/enterprise_id",
        "/user/enterprise_user/is_admin",
        "/user/enterprise_user/is_owner",
        "/user/enterprise_user/is_primary_owner",
        "/user/enterprise_user/teams",
    ];
    let ada = UserId::new("U0ADMIN0001").expect("an id");
    for (what, body) in oddities(&whole, &members) {
        let person = canned(&body).client().users_info(&token(), &ada).await;
        let person = person.unwrap_or_else(|error| panic!("{what}: {error}"));
        let is_true = what.ends_with("Some(Bool(true))");
        assert!(!person.is_admin || is_true, "{what}");
        assert!(!person.is_org_admin || is_true, "{what}");
    }
    // A flag that denies something counts if it may be set.
    for flag in [
        "deleted",
        "is_restricted",
        "is_ultra_restricted",
        "is_stranger",
    ] {
        for (value, denies) in [
            (json!(null), false),
            (json!(""), false),
            (json!("false"), false),
            (json!("true"), true),
            (json!("yes"), true),
            (json!(1), true),
        ] {
            let mut body = whole.clone();
            body["user"][flag] = value.clone();
            let person = canned(&body).client().users_info(&token(), &ada).await;
            let person = person.expect("known");
            assert_eq!(
                person.is_deleted || person.is_outsider,
                denies,
                "{flag} {value}"
            );
        }
    }
}
