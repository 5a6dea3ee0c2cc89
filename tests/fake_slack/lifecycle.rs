//! Uninstallation, revocation, and changes of the workspaces.

use super::*;

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
