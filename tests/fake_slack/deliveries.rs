//! Signed events, commands and interactions.

use ring::hmac;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

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

#[test]
fn a_repetition_keeps_the_time_that_was_set() {
    let fake = FakeSlack::in_process(World::default());
    let at = std::time::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let command = fake.slash_command("U0ADMIN0001", "/x", "").sent_at(at);
    let url = "https://bot.example.com/".parse().expect("a URL");
    let again = command.retry(1, "http_timeout").request(&url);
    assert_eq!(again.headers()["x-slack-request-timestamp"], "1790000000");
}

#[test]
fn an_event_on_behalf_of_a_person_names_them_and_not_the_bot() {
    let fake = FakeSlack::in_process(grid());
    let event = |team: &str, user: &str| {
        let event = json!({ "type": "reaction_added", "user": "U0CAROL0001" });
        let delivery = fake.event_on_behalf_of(team, user, event);
        delivery.json().expect("an event").clone()
    };
    install(&fake, "", "reactions:read", ADA);
    let body = event("T0ALPHA0001", ADA);
    assert_eq!(body["event"]["user"], "U0CAROL0001", "the actor is another");
    let authorization = json!([{
        "enterprise_id": null,
        "team_id": "T0ALPHA0001",
        "user_id": ADA,
        "is_bot": false,
        "is_enterprise_install": false,
    }]);
    assert_eq!(body["authorizations"], authorization);

    install(&fake, "", "reactions:read", olga());
    install(&fake, "commands", "", "U0MEMBER001");
    let org_wide = event("T0GRID00011", "W0ORGADM001");
    let org_wide = &org_wide["authorizations"][0];
    assert_eq!(
        (&org_wide["team_id"], &org_wide["is_enterprise_install"]),
        (&Value::Null, &json!(true)),
        "only the org-wide installation has her token"
    );
    install(
        &fake,
        "",
        "reactions:read",
        Who::user("W0ORGADM001").at("T0GRID00011"),
    );
    let own = event("T0GRID00011", "W0ORGADM001");
    assert_eq!(own["authorizations"][0]["team_id"], "T0GRID00011");
    assert_eq!(own["authorizations"][0]["enterprise_id"], "E0GRID00001");
}
