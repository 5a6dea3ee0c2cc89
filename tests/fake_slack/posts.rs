//! Messages to `response_url`s and incoming webhooks.

use super::*;

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

#[test]
fn a_response_url_works_five_times_and_for_half_an_hour() {
    let fake = FakeSlack::in_process(World::default());
    let issue = || {
        let command = fake.slash_command(ADA, "/hello", "");
        field(&command, "response_url").expect("a URL")
    };
    let (often, late) = (issue(), issue());
    let say = |url: &str| {
        let response = fake.handle(&message(url, &json!({ "text": "hi" })));
        let response = response.expect("a response");
        (response.status(), text(&response))
    };
    for _ in 0..5 {
        assert_eq!(say(&often), (StatusCode::OK, "ok".to_owned()));
    }
    let (status, body) = say(&often);
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("used_url"), "{body}");
    fake.advance(Duration::from_secs(30 * 60 - 1));
    assert_eq!(say(&late).0, StatusCode::OK);
    fake.advance(Duration::from_secs(1));
    let (status, body) = say(&late);
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("expired_url"), "{body}");
    let unknown = fake.environment().base().join("responses/T1/x");
    let unknown = unknown.expect("a URL");
    assert_eq!(say(unknown.as_str()).0, StatusCode::NOT_FOUND);
    assert_eq!(fake.replies().len(), 6, "refused posts are not kept");
}

#[tokio::test]
async fn what_an_app_posts_to_its_webhook_is_kept_with_its_tenant() -> Checked {
    let fake = FakeSlack::start_with(grid()).await?;
    let ada = webhook(&install(&fake, "incoming-webhook", "", ADA));
    let olga = webhook(&install(&fake, "incoming-webhook", "", olga()));
    let hello = json!({ "text": "hello" });
    let sent = over_http(&fake, message(&olga, &hello)).await?;
    assert_eq!((sent.status(), &*text(&sent)), (StatusCode::OK, "ok"));
    let old_form = form([("payload", r#"{"text":"in a form"}"#)]);
    let old_form = Request::post(&ada)
        .header("content-type", FORM)
        .body(Bytes::from(old_form))?;
    assert_eq!(over_http(&fake, old_form).await?.status(), StatusCode::OK);

    let posts = fake.webhook_posts();
    let seen: Vec<_> = posts
        .iter()
        .map(|post| (post.tenant.id(), post.user.as_str(), &post.body["text"]))
        .collect();
    let expected = [
        ("E0GRID00001", "W0ORGADM001", &json!("hello")),
        ("T0ALPHA0001", ADA, &json!("in a form")),
    ];
    assert_eq!(seen, expected);
    assert_eq!(posts[0].channel_id, "C0GENERAL01");
    assert!(!format!("{posts:?}").contains("hello"));
    assert_secret_free(&fake, &format!("{posts:?}"));
    Ok(())
}

#[test]
fn a_webhook_ends_with_the_bot_and_refuses_what_is_no_message() {
    let fake = FakeSlack::in_process(grid());
    let answer = install(&fake, "incoming-webhook", "chat:write", ADA);
    let (ada, bot) = (webhook(&answer), bot_token(&answer));
    let other = webhook(&install(&fake, "incoming-webhook", "", "U0MEMBER001"));
    let say = |url: &str, body: Value| {
        let response = fake.handle(&message(url, &body)).expect("a response");
        (response.status().as_u16(), text(&response))
    };
    let hello = || json!({ "text": "hello" });
    assert_eq!(say(&ada, json!("hello")), (400, "invalid_payload".into()));
    fake.revoke_user("T0ALPHA0001", ADA);
    assert_eq!(say(&ada, hello()).0, 200, "it belongs to the bot");
    assert_eq!(ask(&fake, "auth.revoke", Some(&bot), "")["revoked"], true);
    assert_eq!(say(&ada, hello()), (404, "no_service".into()));
    assert_eq!(say(&other, hello()).0, 200);
    fake.uninstall("T0GRID00011");
    assert_eq!(say(&other, hello()).0, 404);
    install(&fake, "incoming-webhook", "", ADA);
    assert_eq!(say(&ada, hello()).0, 404, "a reinstall issues another one");
    assert_eq!(fake.webhook_posts().len(), 2);
}

fn webhook(answer: &Value) -> String {
    let url = answer["incoming_webhook"]["url"].as_str();
    url.expect("a webhook").to_owned()
}

fn message(url: &str, body: &Value) -> Request<Bytes> {
    Request::post(url)
        .header("content-type", "application/json")
        .body(Bytes::from(body.to_string()))
        .expect("a request")
}
