//! The responses that a test sets, and the recorded arguments.

use super::*;

#[test]
fn any_method_can_get_a_response_and_its_arguments_are_recorded() {
    let fake = FakeSlack::in_process(World::default());
    let token = bot_token(&install(&fake, "chat:write", "", ADA));
    fake.respond("chat.postMessage", json!({ "ts": "1.2" }));
    let posted = ask(
        &fake,
        "chat.postMessage",
        Some(&token),
        "channel=C1&text=hello&token=x",
    );
    assert_eq!(posted, json!({ "ok": true, "ts": "1.2" }));
    let blocks = json!({ "channel": "C2", "blocks": [{ "type": "divider" }], "unfurl": false });
    let as_json = Request::post(fake.environment().api_url("chat.postMessage").as_str())
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {token}"))
        .body(Bytes::from(blocks.to_string()))
        .expect("a request");
    assert_eq!(in_process(&fake, &as_json)["ok"], true);

    let calls: Vec<_> = fake
        .call_log()
        .into_iter()
        .filter(|call| call.method == "chat.postMessage")
        .collect();
    assert_eq!(calls[0].args, json!({ "channel": "C1", "text": "hello" }));
    assert_eq!(calls[1].args, blocks);
    assert_eq!(calls[1].outcome, Outcome::Ok);
    let tenant = calls[1].tenant.as_ref().map(|tenant| tenant.id());
    assert_eq!(tenant, Some("T0ALPHA0001"));
    assert_eq!(
        ask(&fake, "chat.update", Some(&token), "")["error"],
        "unknown_method"
    );
}

#[test]
fn recorded_arguments_hold_no_token_code_or_secret() {
    let fake = FakeSlack::in_process(World::default());
    let answer = install(&fake, "commands", "", ADA);
    let (id, secret) = (fake.client_id(), fake.client_secret());
    let names = ["assertion", "client_secret", "code", "code_verifier"];
    let names = names.into_iter().chain(["refresh_token", "token"]);
    let fields = names.map(|name| (name, secret.expose()));
    let body = form(fields.chain([("client_id", id.as_str()), ("test", "1")]));
    ask(&fake, "auth.revoke", Some(&bot_token(&answer)), &body);
    let log = fake.call_log();
    assert_eq!(log[0].args, json!({ "redirect_uri": REDIRECT }));
    assert_eq!(log[1].args, json!({ "client_id": id, "test": "1" }));
    assert_secret_free(&fake, &format!("{log:?}"));
}

#[test]
fn a_response_can_depend_on_the_call_and_the_function_may_call_the_fake() {
    let fake = FakeSlack::in_process(World::default());
    let token = bot_token(&install(&fake, "channels:read", "", ADA));
    let same = fake.clone();
    fake.respond_with("conversations.info", move |call| {
        assert_eq!(call.outcome, Outcome::Pending);
        json!({ "channel": call.args["channel"], "calls": same.calls("conversations.info") })
    });
    for nth in 1..=2 {
        let answer = ask(&fake, "conversations.info", Some(&token), "channel=C7");
        assert_eq!(answer, json!({ "ok": true, "channel": "C7", "calls": nth }));
    }
}

#[test]
fn a_response_needs_a_live_token_unless_the_method_needs_none() {
    let fake = FakeSlack::in_process(World::default());
    let token = bot_token(&install(&fake, "chat:write", "", ADA));
    fake.respond("chat.postMessage", json!({}));
    let error = |token: Option<&str>| ask(&fake, "chat.postMessage", token, "")["error"].clone();
    assert_eq!(error(Some(&token)), Value::Null);
    assert_eq!(error(None), "not_authed");
    assert_eq!(error(Some("xoxb-unknown")), "invalid_auth");
    fake.uninstall("T0ALPHA0001");
    assert_eq!(error(Some(&token)), "account_inactive");

    fake.respond("apps.connections.open", json!({ "url": "wss://x" }));
    let opened = ask(&fake, "apps.connections.open", Some("xapp-1"), "");
    assert_eq!(opened, json!({ "ok": true, "url": "wss://x" }));
}

#[test]
fn a_response_replaces_the_fakes_own_and_can_be_an_error() {
    let fake = FakeSlack::in_process(World::default());
    let token = bot_token(&install(&fake, "commands", "", ADA));
    fake.respond("auth.test", json!({ "error": "org_login_required" }));
    let answer = ask(&fake, "auth.test", Some(&token), "");
    assert_eq!(
        answer,
        json!({ "ok": false, "error": "org_login_required" })
    );
    let outcome = fake.call_log().pop().map(|call| call.outcome);
    let error = Outcome::Error("org_login_required".to_owned());
    assert_eq!(outcome, Some(error));
    fake.respond("auth.test", json!({ "user_id": "U1" }));
    let answer = ask(&fake, "auth.test", Some(&token), "");
    assert_eq!(answer, json!({ "ok": true, "user_id": "U1" }));
    fake.inject("auth.test", Fault::error("fatal_error"));
    let answer = ask(&fake, "auth.test", Some(&token), "");
    assert_eq!(answer["error"], "fatal_error", "a fault comes first");
}

#[test]
#[should_panic(expected = "Slack's are JSON objects")]
fn a_response_that_is_no_object_is_refused_at_once() {
    let fake = FakeSlack::in_process(World::default());
    fake.respond("chat.postMessage", json!("ok"));
}
