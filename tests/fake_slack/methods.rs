//! The methods of the Web API that the fake serves, and the log of the calls.

use super::*;

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
