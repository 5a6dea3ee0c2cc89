//! Deliveries as frames of Socket Mode.

use slack_installs::request::{Kind, SocketModeConnection, VerifiedRequest};

use super::*;

/// Returns the request that the product reads from this frame.
fn received(fake: &FakeSlack, frame: String) -> Option<VerifiedRequest> {
    let connection = SocketModeConnection::opened_with_app_token(fake.app_id());
    connection
        .receive(frame.into())
        .expect("a frame of Slack's")
}

fn frame(fake: &FakeSlack, delivery: &Delivery) -> Value {
    serde_json::from_str(&fake.socket_frame(delivery)).expect("JSON")
}

#[test]
fn each_kind_of_delivery_is_a_frame_that_the_app_reads() {
    let fake = FakeSlack::in_process(World::default());
    install(&fake, "commands", "", ADA);
    let deliveries = [
        (
            fake.slash_command(ADA, "/hello", "a=b&c"),
            "slash_commands",
            true,
        ),
        (
            fake.event("T0ALPHA0001", json!({ "type": "app_mention" })),
            "events_api",
            false,
        ),
        (fake.app_uninstalled("T0ALPHA0001"), "events_api", false),
        (fake.block_action(ADA, "go"), "interactive", false),
        (fake.shortcut(ADA, "open"), "interactive", false),
        (fake.view_submission(ADA, "form"), "interactive", true),
    ];
    for (delivery, kind, accepts) in deliveries {
        let shown = frame(&fake, &delivery);
        assert_eq!(shown["type"], kind);
        assert_eq!(shown["accepts_response_payload"], accepts, "{kind}");
        let request = received(&fake, fake.socket_frame(&delivery)).expect("a request");
        assert!(request.envelope_id().is_some());
        if let Some(json) = delivery.json() {
            assert_eq!(&shown["payload"], json);
        }
    }
    let command = fake.slash_command(ADA, "/hello", "a=b&c");
    let shown = frame(&fake, &command);
    assert_eq!(shown["payload"]["text"], "a=b&c");
    assert_eq!(shown["payload"]["is_enterprise_install"], "false");
    let request = received(&fake, shown.to_string()).expect("a request");
    assert_eq!(request.kind(), &Kind::SlashCommand);
    assert_ne!(
        shown["envelope_id"],
        frame(&fake, &command)["envelope_id"],
        "each frame has its own"
    );
}

#[test]
fn a_repeated_event_says_so_in_its_envelope() {
    let fake = FakeSlack::in_process(World::default());
    let event = || fake.event("T0ALPHA0001", json!({ "type": "app_mention" }));
    let first = frame(&fake, &event());
    assert_eq!(
        (&first["retry_attempt"], &first["retry_reason"]),
        (&json!(0), &json!(""))
    );
    let again = frame(&fake, &event().retry(2, "http_timeout"));
    assert_eq!(
        (&again["retry_attempt"], &again["retry_reason"]),
        (&json!(2), &json!("timeout"))
    );
}

#[test]
fn hello_and_disconnect_carry_no_request() {
    let fake = FakeSlack::in_process(World::default());
    for frame in [fake.socket_hello(), fake.socket_disconnect("warning")] {
        assert!(received(&fake, frame).is_none());
    }
    let disconnect = fake.socket_disconnect("refresh_requested");
    assert!(disconnect.contains("refresh_requested"));
}

#[test]
fn what_slack_sends_only_over_http_has_no_frame() {
    let fake = FakeSlack::in_process(World::default());
    for delivery in [
        fake.url_verification("x"),
        fake.ssl_check(),
        fake.slash_command(ADA, "/x", "")
            .with_body("text/plain", "x"),
    ] {
        let run = std::panic::AssertUnwindSafe(|| fake.socket_frame(&delivery));
        assert!(std::panic::catch_unwind(run).is_err());
    }
}
