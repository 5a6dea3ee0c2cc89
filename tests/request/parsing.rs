use std::collections::BTreeMap;

use serde_json::{Value, json};
use slack_installs::request::{Kind, Malformed};

use super::*;

fn refused(request: Result<VerifiedRequest, VerifyError>) -> Malformed {
    match request {
        Err(VerifyError::Malformed(malformed)) => malformed,
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn a_repeated_form_field_is_refused() {
    for body in [
        "command=%2Fx&team_id=T1&team_id=T2",
        "command=%2Fx&team_id=T1&team%5Fid=T1",
        "payload=%7B%7D&payload=%7B%7D",
        "command=%2Fx&text=a&text=b",
        "ssl_check=1&ssl_check=1",
    ] {
        assert_eq!(refused(verify(FORM, body)), Malformed::Repeated, "{body}");
    }
}

#[test]
fn a_repeated_json_key_that_is_read_is_refused() {
    let kind = r#""type":"event_callback""#;
    for rest in [
        r#""event":{"type":"message"},"team_id":"T1","team_id":"T2""#,
        r#""event":{"type":"message"},"team_id":"T1","team\u005fid":"T2""#,
        r#""event":{"type":"message"},"authorizations":[],"authorizations":[{"team_id":"T1"}]"#,
        r#""event":{"type":"message"},"authorizations":[{"team_id":"T1","team_id":"T2"}]"#,
        r#""event":{"type":"message","type":"app_uninstalled"},"team_id":"T1""#,
        r#""event":{"type":"message","user":"U1","user":"U2"},"team_id":"T1""#,
        r#""type":"app_rate_limited","team_id":"T1""#,
        r#""event":{"type":"message"},"api_app_id":"A1","api_app_id":"A2""#,
    ] {
        let body = format!("{{{kind},{rest}}}");
        assert_eq!(refused(verify(JSON, &body)), Malformed::Repeated, "{body}");
    }
    for (kind, rest) in [
        (
            "view_submission",
            r#""view":{"app_installed_team_id":"T1","app_installed_team_id":"T2"}"#,
        ),
        (
            "view_submission",
            r#""view":{"app_installed_team_id":"T1"},"view":{}"#,
        ),
        ("shortcut", r#""team":{"id":"T1","id":"T2"}"#),
        ("shortcut", r#""user":{"id":"U1","id":"U2"}"#),
        ("shortcut", r#""enterprise":{"id":"E1"},"enterprise":null"#),
        (
            "shortcut",
            r#""is_enterprise_install":false,"is_enterprise_install":true"#,
        ),
    ] {
        let payload = format!(r#"{{"type":"{kind}",{rest}}}"#);
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("payload", &payload)
            .finish();
        let repeated = Malformed::Repeated;
        assert_eq!(refused(verify(FORM, form)), repeated, "{payload}");
        let frame = format!(r#"{{"envelope_id":"1","type":"interactive","payload":{payload}}}"#);
        let received = connection().receive(frame.into());
        assert_eq!(received.err(), Some(repeated.into()), "{payload}");
    }
    let frame = r#"{"envelope_id":"1","type":"interactive","payload":{},"payload":{}}"#;
    assert_eq!(
        connection().receive(frame.into()).err(),
        Some(Malformed::Repeated.into())
    );
}

#[test]
fn a_repeated_json_key_that_nobody_reads_is_left_alone() {
    let event = r#""event":{"type":"message","text":"a","text":"b"}"#;
    let body = format!(r#"{{"type":"event_callback",{event},"x":1,"x":2,"team_id":"T1"}}"#);
    assert_eq!(tenant_of(verify(JSON, body)), "T1");
}

#[test]
fn a_key_of_an_unexpected_shape_matters_only_where_it_is_read() {
    let body = json!({"type": "event_callback", "event": {"type": "message"}, "team_id": "T1",
        "view": "new", "team": "new", "user": 1, "message": [], "enterprise": true});
    assert_eq!(tenant_of(verify_event(&body)), "T1");
}

#[test]
fn text_that_looks_like_a_payload_stays_text() {
    let request =
        verify(FORM, fixture("slash_command__text_contains_payload.form")).expect("accepted");
    let fields: BTreeMap<String, String> = request.payload().expect("fields");
    assert!(fields["text"].starts_with(r#"payload={"type":"view_submission""#));
    assert_eq!(word(request.tenant()), "T0ALPHA0001");
}

#[test]
fn a_form_with_both_a_command_and_a_payload_is_refused() {
    assert_eq!(
        refused(verify(FORM, "command=%2Fx&payload=%7B%7D")),
        Malformed::Form
    );
}

#[test]
fn no_json_body_can_be_read_as_a_form_nor_a_form_as_json() {
    let mut sly = json!({"type": "event_callback", "team_id": "T1", "event": {"type": "message",
        "text": "&command=%2Fx&team_id=T2&user_id=U2&a="}});
    for file in ["event__app_mention.json", "event__url_verification.json"] {
        assert_eq!(
            refused(verify(FORM, fixture(file))),
            Malformed::Form,
            "{file}"
        );
    }
    assert_eq!(refused(verify(FORM, sly.to_string())), Malformed::Form);
    sly["event"]["text"] = json!("&payload=%7B%22type%22:%22shortcut%22%7D&a=");
    assert_eq!(refused(verify(FORM, sly.to_string())), Malformed::Form);
    assert_eq!(refused(verify(FORM, "{}=")), Malformed::Form);
    for file in [
        "slash_command__workspace.form",
        "interactive__view_closed.form",
        "ssl_check.form",
    ] {
        assert_eq!(
            refused(verify(JSON, fixture(file))),
            Malformed::Json,
            "{file}"
        );
    }
}

#[test]
fn malformed_forms_are_refused() {
    let many: Vec<String> = (0..65).map(|at| format!("a{at}=")).collect();
    for body in [
        "",
        "&",
        "a",
        "a=1&",
        "&a=1",
        "a=1&&b=2",
        "a=%",
        "a=%2",
        "a=%zz",
        "a=%ff",
        "a=%C3%28",
        "a=\u{0}",
        "a= b",
        "a=ä",
        "a=\"b\"",
        "command=%2Fx\r\n",
        &many.join("&"),
    ] {
        assert_eq!(refused(verify(FORM, body)), Malformed::Form, "{body:?}");
    }
}

#[test]
fn malformed_json_is_refused() {
    for body in [
        &b""[..],
        b" ",
        b"null",
        b"true",
        b"1",
        b"\"a\"",
        b"[]",
        b"[{}]",
        b"{",
        b"{}{}",
        b"{},",
        b"\xef\xbb\xbf{}",
        b"{\"a\":\"\xff\"}",
        b"{\"a\":NaN}",
        b"{'a':1}",
        b"{\"a\":\"\x00\"}",
        b"[\"T1\",\"T2\"]",
        b"{\"a\":\"\\ud800\"}x",
    ] {
        assert_eq!(refused(verify(JSON, body)), Malformed::Json, "{body:?}");
        let mut form = b"payload=".to_vec();
        form.extend(
            body.iter()
                .flat_map(|byte| format!("%{byte:02X}").into_bytes()),
        );
        assert!(
            matches!(
                refused(verify(FORM, form)),
                Malformed::Json | Malformed::Form
            ),
            "{body:?}"
        );
    }
}

#[test]
fn deep_nesting_is_no_danger() {
    for (open, close) in [
        ("[", "]"),
        (r#"{"a":"#, "}"),
        (r#"{"event":"#, "}"),
        (r#"{"view":"#, "}"),
    ] {
        for depth in [100, 100_000] {
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            for body in [
                format!(r#"{{"x":{nested}}}"#),
                format!(r#"{{"event":{nested},"type":"event_callback"}}"#),
                format!(r#"{{"type":"event_callback","event":{{"type":"message","x":{nested}}}}}"#),
                format!(
                    r#"{{"type":"event_callback","event":{{"type":"message","x":{}"#,
                    open.repeat(depth)
                ),
            ] {
                let request = verify(JSON, body);
                if let Ok(request) = request {
                    assert!(depth > 100 || request.payload::<Value>().is_ok());
                }
            }
        }
    }
}

#[test]
fn only_json_and_forms_are_read() {
    let body = fixture("slash_command__workspace.form");
    for (content_type, taken) in [
        ("application/x-www-form-urlencoded", true),
        ("Application/X-WWW-Form-Urlencoded", true),
        ("application/x-www-form-urlencoded; charset=utf-8", true),
        ("application/x-www-form-urlencoded ;charset=utf-8", true),
        ("application/x-www-form-urlencodedx", false),
        ("multipart/form-data; boundary=x", false),
        ("text/plain", false),
        ("", false),
    ] {
        let outcome = verify(content_type, &body).err();
        let expected = (!taken).then_some(VerifyError::UnsupportedMediaType);
        assert_eq!(outcome, expected, "{content_type}");
    }
    let mut headers = signed(FORM, &body);
    headers.append("content-type", HeaderValue::from_static(JSON));
    let outcome = verifier().verify(&headers, body.clone());
    assert_eq!(outcome.err(), Some(VerifyError::UnsupportedMediaType));
    headers.remove("content-type");
    let outcome = verifier().verify(&headers, body);
    assert_eq!(outcome.err(), Some(VerifyError::UnsupportedMediaType));
}

#[test]
fn an_event_without_a_plausible_type_is_accepted_as_an_unknown_kind() {
    for event in [
        json!(null),
        json!([]),
        json!("message"),
        json!({}),
        json!({"type": null}),
        json!({"type": ""}),
        json!({"type": 1}),
        json!({"type": "a b"}),
        json!({"type": "a\u{0}"}),
        json!({"type": "a".repeat(65)}),
        json!({"event": {}}),
        json!({"event": "message"}),
        json!({"event": {"event": {"type": "message"}}}),
    ] {
        let body = json!({"type": "event_callback", "team_id": "T1", "event": event});
        let request = verify_event(&body).expect("accepted");
        assert_eq!(request.kind(), &Kind::Unknown, "{body}");
        assert_eq!((request.tenant(), request.user()), (None, None), "{body}");
    }
}

#[test]
fn url_verification_gives_its_challenge_and_needs_one() {
    let request = verify(JSON, fixture("event__url_verification.json")).expect("accepted");
    let Kind::UrlVerification { challenge } = request.kind() else {
        panic!("{request:?}")
    };
    assert_eq!(
        &**challenge,
        "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
    );
    for challenge in [json!(null), json!(1), json!(""), json!(["a"])] {
        let body = json!({"type": "url_verification", "challenge": challenge});
        assert_eq!(refused(verify_event(&body)), Malformed::Field("challenge"));
    }
}

#[test]
fn an_event_tells_its_id_time_and_retry() {
    let body = fixture("event__app_mention.json");
    let mut headers = signed(JSON, &body);
    let request = verifier().verify(&headers, body.clone()).expect("accepted");
    assert_eq!(request.event_id(), Some("Ev0FIX00001"));
    assert_eq!(
        request.event_time(),
        Some(UNIX_EPOCH + Duration::from_secs(NOW))
    );
    assert_eq!(request.event_type(), Some("app_mention"));
    assert_eq!(request.app_id().map(|id| id.as_str()), Some("A0FAKEAPP01"));
    assert_eq!(
        (
            request.retry_num(),
            request.envelope_id(),
            request.trigger_id()
        ),
        (None, None, None)
    );
    assert_eq!(request.body(), &body);
    for (value, number) in [
        ("2", Some(2)),
        ("x", None),
        ("-1", None),
        ("99999999999", None),
    ] {
        headers.insert("x-slack-retry-num", HeaderValue::from_static(value));
        let request = verifier().verify(&headers, body.clone()).expect("accepted");
        assert_eq!(request.retry_num(), number);
    }
    for (name, retry) in [
        ("socket__events_api.json", None),
        ("socket__events_api_retry.json", Some(1)),
    ] {
        let request = connection()
            .receive(fixture(name))
            .expect("accepted")
            .expect("a request");
        assert_eq!(
            (request.retry_num(), request.event_id()),
            (retry, Some("Ev0FIX00060"))
        );
        assert!(
            request
                .envelope_id()
                .is_some_and(|id| id.starts_with("11111111-2222"))
        );
    }
    let with = |key: &str, value: Value| {
        let mut body: Value = serde_json::from_slice(&body).expect("JSON");
        body[key] = value;
        verify_event(&body)
    };
    for bad in [
        json!("a".repeat(10_000)),
        json!("a\u{0}b"),
        json!(1),
        json!({}),
    ] {
        let request = with("event_id", bad.clone()).expect("accepted");
        assert_eq!(request.event_id(), None);
        let request = with("trigger_id", bad.clone()).expect("accepted");
        assert_eq!(request.trigger_id(), None);
        let request = with("api_app_id", bad).expect("accepted");
        assert_eq!(request.app_id(), None);
    }
    for bad in [json!("1790000000"), json!(-1), json!(1.5), json!({})] {
        let request = with("event_time", bad).expect("accepted");
        assert_eq!(request.event_time(), None);
    }
    assert!(with("event_time", json!(u64::MAX)).is_ok_and(|it| it.event_time().is_some()));
}

#[test]
fn a_form_has_sixty_four_fields_at_most() {
    let form = |fields: usize| {
        let more: String = (1..fields).map(|at| format!("&x{at}=1")).collect();
        verify(FORM, format!("command=%2Fhello{more}"))
    };
    assert_eq!(form(64).expect("accepted").kind(), &Kind::SlashCommand);
    assert_eq!(refused(form(65)), Malformed::Form);
}

#[test]
fn a_host_reads_its_payload_from_every_kind_of_body() {
    #[derive(serde::Deserialize)]
    struct Command {
        command: String,
        text: Option<String>,
        thread_ts: Option<String>,
    }
    let http = verify(FORM, fixture("slash_command__workspace.form")).expect("accepted");
    let frame = connection()
        .receive(fixture("socket__slash_commands.json"))
        .expect("accepted");
    for request in [http, frame.expect("a request")] {
        let command: Command = request.payload().expect("a command");
        assert_eq!(command.command, "/fixture");
        assert_eq!(
            (command.text.as_deref(), command.thread_ts),
            (Some("status"), None)
        );
        assert_eq!(request.trigger_id(), Some("1000000001.2000000002.fixture"));
    }
    let spaced = verify(FORM, fixture("slash_command__org_wide.form")).expect("accepted");
    let fields: Value = spaced.payload().expect("fields");
    assert_eq!(fields["enterprise_name"], "Gridline Org");
    let view = verify(FORM, fixture("interactive__view_submission.form")).expect("accepted");
    let payload: Value = view.payload().expect("JSON");
    let expected = fixture("interactive__view_submission.json");
    assert_eq!(
        payload,
        serde_json::from_slice::<Value>(&expected).expect("JSON")
    );
    let event = verify(JSON, fixture("event__app_mention.json")).expect("accepted");
    let payload: Value = event.payload().expect("JSON");
    assert_eq!(payload["event"]["channel"], "C0GENERAL01");
}

#[test]
fn neither_debug_nor_an_error_repeats_the_body() {
    let mut shown = String::new();
    for file in [
        "event__function_executed.json",
        "event__url_verification.json",
        "interactive__block_actions__workflow_function.form",
        "slash_command__workspace.form",
    ] {
        let request = verify(content_type(file), fixture(file)).expect("accepted");
        shown += &format!("{request:?} {:#?}", request.kind());
        let wrong = request.payload::<Vec<u8>>().expect_err("no array");
        shown += &format!("{wrong} {wrong:?}");
    }
    for body in [
        r#"{"type":"event_callback","team_id":"xoxb-canary"}"#,
        r#"{"type":"event_callback","event":{"type":"xoxb canary"}}"#,
        r#"{"api_app_id":"xoxb-canary"}"#,
        r#"{"type":xoxb-canary}"#,
        r#"{"team_id":"xoxb-canary","team_id":"xoxb-canary"}"#,
    ] {
        match verify(JSON, body) {
            Ok(request) => shown += &format!("{request:?} {:#?}", request.kind()),
            Err(error) => shown += &format!("{error} {error:?}"),
        }
    }
    for canary in [
        "canary",
        "xwfp",
        "hooks.slack.com",
        "fixture",
        "FIXTURE",
        "3eZbrw1a",
        "sync_ticket",
    ] {
        assert!(!shown.contains(canary), "{canary} in {shown}");
    }
    assert!(
        shown.contains("T0ALPHA0001") && shown.contains("slash_command"),
        "{shown}"
    );
}

#[test]
fn frames_that_are_not_slacks_are_refused() {
    for frame in [
        "",
        "[]",
        "{}",
        r#"{"type":1}"#,
        r#"{"type":"events_api"}"#,
        r#"{"type":"events_api","envelope_id":"1"}"#,
        r#"{"type":"events_api","envelope_id":"1","payload":null}"#,
        r#"{"type":"events_api","envelope_id":"1","payload":[]}"#,
        r#"{"type":"events_api","envelope_id":1,"payload":{}}"#,
        r#"{"type":"events_api","envelope_id":"a b","payload":{}}"#,
        r#"{"type":"events_api","payload":{}}"#,
    ] {
        let received = connection().receive(frame.into());
        assert!(
            matches!(received, Err(VerifyError::Malformed(_))),
            "{frame}"
        );
    }
    let payload = r#"{"team_id":"T1","team":{"id":"T1"}}"#;
    let frame = format!(r#"{{"type":"something_new","envelope_id":"1","payload":{payload}}}"#);
    let request = connection()
        .receive(frame.into())
        .expect("accepted")
        .expect("a request");
    assert_eq!((request.kind(), request.tenant()), (&Kind::Unknown, None));
}

#[test]
fn a_body_of_http_is_no_frame() {
    for file in [
        "event__app_mention.json",
        "slash_command__workspace.form",
        "interactive__view_closed.form",
    ] {
        let received = connection().receive(fixture(file));
        assert!(!matches!(received, Ok(Some(_))), "{file}");
    }
}
