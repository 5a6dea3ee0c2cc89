//! Properties that hold for every input: the tenant equals the oracle's, and nothing panics.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::*;

/// Computes `(enterprise, team, flag)` by a second implementation of Slack's rules. It works on
/// whole JSON values, in the order of the documented rules, without the types of the crate.
mod oracle {
    use super::*;

    type Ids = Option<(Option<String>, Option<String>, bool)>;

    fn at(payload: &Value, path: &str) -> Option<String> {
        let pointer = format!("/{}", path.replace('.', "/"));
        payload
            .pointer(&pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    }

    fn is_true(payload: &Value, path: &str) -> bool {
        let pointer = format!("/{}", path.replace('.', "/"));
        matches!(
            payload.pointer(&pointer).map(Value::to_string).as_deref(),
            Some("true" | "\"true\"")
        )
    }

    /// Returns the tenant of an object with these two ids.
    fn pair(enterprise: Option<String>, team: Option<String>, flag: bool) -> Ids {
        let Some(team) = team else {
            return (flag && enterprise.is_some()).then_some((enterprise, None, true));
        };
        if !team.starts_with('E') {
            return Some((enterprise, Some(team), flag));
        }
        let contradicts = enterprise.is_some_and(|enterprise| enterprise != team);
        (!contradicts).then_some((Some(team), None, true))
    }

    pub(super) fn event(body: &Value) -> Ids {
        let (enterprise, team) = (
            at(body, "authorizations.0.enterprise_id"),
            at(body, "authorizations.0.team_id"),
        );
        let flag = is_true(body, "authorizations.0.is_enterprise_install");
        if team.is_some() {
            return pair(enterprise, team, flag);
        }
        let shared = is_true(body, "is_ext_shared_channel");
        let context = pair(
            at(body, "context_enterprise_id"),
            at(body, "context_team_id"),
            flag,
        );
        let outer = pair(at(body, "enterprise_id"), at(body, "team_id"), flag);
        let fallback = context.or(if shared { None } else { outer });
        match (&enterprise, &fallback) {
            (None, _) => fallback,
            (Some(_), Some((named, _, _))) if *named == enterprise => fallback,
            (Some(_), _) => pair(enterprise, None, flag),
        }
    }

    pub(super) fn lifecycle(body: &Value) -> Ids {
        match event(body) {
            Some((Some(enterprise), _, true)) => Some((Some(enterprise), None, true)),
            Some(ids) => Some(ids),
            None => at(body, "enterprise_id").map(|enterprise| (Some(enterprise), None, true)),
        }
    }

    pub(super) fn team_access(body: &Value) -> Ids {
        let enterprise =
            at(body, "authorizations.0.enterprise_id").or_else(|| at(body, "enterprise_id"));
        enterprise.map(|enterprise| (Some(enterprise), None, true))
    }

    pub(super) fn command(body: &Value) -> Ids {
        pair(
            at(body, "enterprise_id"),
            at(body, "team_id"),
            is_true(body, "is_enterprise_install"),
        )
    }

    pub(super) fn interactive(payload: &Value) -> Ids {
        let (flag, org) = (
            is_true(payload, "is_enterprise_install"),
            at(payload, "enterprise.id"),
        );
        let (team, user_team) = (at(payload, "team.id"), at(payload, "user.team_id"));
        let workspace = |id: Option<String>| id.filter(|id| id.starts_with('T'));
        let kind = payload["type"].as_str().expect("a text");
        let is_clicked = ["block_actions", "block_suggestion"].contains(&kind);
        let our_message = match at(payload, "message.app_id") {
            Some(posted_by) => at(payload, "api_app_id") == Some(posted_by),
            None => {
                at(payload, "message.bot_id").is_some()
                    && at(payload, "container.type").as_deref() != Some("message_attachment")
            }
        };
        let posted_from = at(payload, "message.team");
        let org_form = flag && team.is_none();

        let installed = at(payload, "view.app_installed_team_id");
        if kind == "a_new_kind" {
            let named = [&installed, &team, &user_team, &posted_from];
            let named: Vec<&String> = named.into_iter().flatten().collect();
            if posted_from.is_none() || named.iter().any(|id| *id != named[0]) {
                return None;
            }
        }
        if installed.is_none() && org_form && org.is_some() {
            return Some((org, workspace(user_team), true));
        }
        let owner = posted_from.clone().filter(|_| is_clicked && our_message);
        if installed.is_none() && is_clicked && owner.is_none() && posted_from.is_some() {
            let clicked_in = team.clone().or_else(|| user_team.clone());
            if posted_from != clicked_in {
                return None;
            }
        }
        let Some(home) = installed.or(owner).or_else(|| team.clone()) else {
            return workspace(user_team).map(|team| (None, Some(team), flag));
        };
        if home.starts_with('E') {
            let in_use = workspace(team)
                .or_else(|| workspace(user_team))
                .filter(|_| org.as_ref() == Some(&home));
            return Some((Some(home), in_use, true));
        }
        let enterprise = if org_form {
            org
        } else if team.as_ref() != Some(&home) {
            None
        } else if let Some(said) = at(payload, "team.enterprise_id") {
            Some(said)
        } else {
            org.filter(|_| user_team == team || payload["type"] == "message_action")
        };
        Some((enterprise, Some(home), flag))
    }
}

/// Generates one of a few similar ids, or null.
fn id(ids: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop_oneof![2 => Just(Value::Null), 5 => select(ids).prop_map(Value::from)]
}

fn team() -> impl Strategy<Value = Value> {
    id(&["T1", "T12", "T2", "T1", "T12", "E1"])
}

fn enterprise() -> impl Strategy<Value = Value> {
    id(&["E1", "E12"])
}

fn flag() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!(false),
        json!(true),
        json!("true"),
        json!("false"),
    ])
}

fn authorizations() -> impl Strategy<Value = Value> {
    let one = (team(), enterprise(), flag()).prop_map(|(team, enterprise, flag)| {
        json!({"team_id": team, "enterprise_id": enterprise, "is_enterprise_install": flag})
    });
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        one.prop_map(|one| json!([one]))
    ]
}

fn event(event_type: &'static [&'static str]) -> impl Strategy<Value = Value> {
    (
        select(event_type),
        authorizations(),
        team(),
        enterprise(),
        team(),
        enterprise(),
        flag(),
    )
        .prop_map(
            |(
                event_type,
                authorizations,
                team,
                enterprise,
                context_team,
                context_enterprise,
                shared,
            )| {
                json!({
                    "type": "event_callback",
                    "event": {"type": event_type},
                    "authorizations": authorizations,
                    "team_id": team,
                    "enterprise_id": enterprise,
                    "context_team_id": context_team,
                    "context_enterprise_id": context_enterprise,
                    "is_ext_shared_channel": shared,
                })
            },
        )
}

fn interactive() -> impl Strategy<Value = Value> {
    let kinds = &[
        "a_new_kind",
        "block_actions",
        "block_suggestion",
        "dialog_submission",
        "interactive_message",
        "message_action",
        "shortcut",
        "view_closed",
        "view_submission",
    ];
    let app = || id(&["A1", "A12"]);
    let bot = || id(&["B1"]);
    let message = (app(), bot(), team())
        .prop_map(|(app, bot, team)| json!({"app_id": app, "bot_id": bot, "team": team}));
    let container = || id(&["message", "message_attachment"]);
    (
        (select(kinds), app(), flag(), enterprise()),
        (team(), enterprise(), team(), team()),
        (message, container()),
    )
        .prop_map(
            |(
                (kind, app, flag, org),
                (team, teams_org, users_team, installed),
                (message, container),
            )| {
                json!({
                    "type": kind,
                    "api_app_id": app,
                    "is_enterprise_install": flag,
                    "enterprise": {"id": org},
                    "team": {"id": team, "enterprise_id": teams_org},
                    "user": {"id": "U1", "team_id": users_team},
                    "view": {"app_installed_team_id": installed},
                    "message": message,
                    "container": {"type": container},
                })
            },
        )
}

fn ids(request: &VerifiedRequest) -> Option<(Option<String>, Option<String>, bool)> {
    request.tenant().map(|tenant| {
        (
            tenant.enterprise().map(ToString::to_string),
            tenant.team().map(ToString::to_string),
            tenant.is_enterprise_install(),
        )
    })
}

fn any_fixture() -> impl Strategy<Value = (&'static str, Bytes)> {
    select(vec![
        "event__app_mention.json",
        "event__function_executed.json",
        "event__message__slack_connect_sender_outside.json",
        "event__team_access_granted__docs_nested_oddity.json",
        "interactive__block_actions__workflow_function.form",
        "interactive__view_submission__org_wide_installed_E.form",
        "slash_command__org_wide.form",
        "ssl_check.form",
    ])
    .prop_map(|file| (content_type(file), fixture(file)))
}

/// Deletes, inserts, copies or reverses bytes anywhere in the body.
fn mutate(body: &[u8], edits: &[(u8, Index, Index, Vec<u8>)]) -> Vec<u8> {
    let mut body = body.to_vec();
    for (how, one, other, bytes) in edits {
        let (one, other) = (one.index(body.len() + 1), other.index(body.len() + 1));
        let (from, to) = (one.min(other), one.max(other));
        match how % 4 {
            0 => drop(body.drain(from..to)),
            1 => drop(body.splice(from..from, bytes.iter().copied())),
            2 => {
                let copy = body[from..to].to_vec();
                drop(body.splice(to..to, copy));
            }
            _ => body[from..to].reverse(),
        }
        body.truncate(64 * 1024);
    }
    body
}

fn exercise(request: Result<VerifiedRequest, VerifyError>) {
    match request {
        Err(error) => assert!(error.status().is_client_error()),
        Ok(request) => {
            // Whatever the request is, its tenant has candidates and reading the payload does not
            // panic.
            let shown = format!("{request:?}");
            assert!(shown.len() < 1000, "{shown}");
            let _ = request.payload::<Value>();
            assert!(
                request
                    .tenant()
                    .is_none_or(|tenant| !tenant.candidates().is_empty())
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn events_follow_the_rules(body in event(&["message", "app_uninstalled_team"])) {
        let request = verify_event(&body).expect("accepted");
        prop_assert_eq!(ids(&request), oracle::event(&body));
    }

    #[test]
    fn lifecycle_events_follow_the_rules(
        body in event(&["app_uninstalled", "tokens_revoked", "grid_migration_finished"]),
    ) {
        let request = verify_event(&body).expect("accepted");
        prop_assert_eq!(ids(&request), oracle::lifecycle(&body));
    }

    #[test]
    fn team_access_events_follow_the_rules(
        body in event(&["team_access_granted", "team_access_revoked"]),
    ) {
        let request = verify_event(&body).expect("accepted");
        prop_assert_eq!(ids(&request), oracle::team_access(&body));
    }

    #[test]
    fn interactive_payloads_follow_the_rules(payload in interactive()) {
        let request = verify_interactive(&payload).expect("accepted");
        prop_assert_eq!(ids(&request), oracle::interactive(&payload));
        let frame = json!({"envelope_id": "1", "type": "interactive", "payload": payload});
        let stranger = AppId::new(payload["api_app_id"].as_str().unwrap_or("A1")).expect("id");
        let connection = SocketModeConnection::opened_with_app_token(stranger);
        let received = connection.receive(frame.to_string().into()).expect("accepted").expect("one");
        prop_assert_eq!(ids(&received), ids(&request));
    }

    #[test]
    fn slash_commands_follow_the_rules(team in team(), enterprise in enterprise(), flag in flag()) {
        let body = json!({
            "team_id": team, "enterprise_id": enterprise, "is_enterprise_install": flag
        });
        let mut form = url::form_urlencoded::Serializer::new("command=%2Fx".to_owned());
        for (key, value) in body.as_object().expect("an object") {
            match value {
                Value::Null => {}
                Value::String(text) => drop(form.append_pair(key, text)),
                other => drop(form.append_pair(key, &other.to_string())),
            }
        }
        let request = verify(FORM, form.finish()).expect("accepted");
        prop_assert_eq!(ids(&request), oracle::command(&body));
        let frame = json!({"envelope_id": "1", "type": "slash_commands", "payload": body});
        let received = connection().receive(frame.to_string().into()).expect("accepted").expect("one");
        prop_assert_eq!(ids(&received), ids(&request));
    }

}

proptest! {
    #[test]
    fn no_signed_bytes_do_harm(body in vec(any::<u8>(), 0..2000), form in any::<bool>()) {
        exercise(verify(if form { FORM } else { JSON }, &body));
        let _ = connection().receive(body.into());
    }

    #[test]
    fn no_signed_text_does_harm(text in r#"[{}\[\]":,\\utrefnals0-9TEU_%&=+\x00é ]{0,200}"#) {
        exercise(verify(FORM, &text));
        exercise(verify(JSON, &text));
        exercise(verify(FORM, format!("payload={text}")));
        let event = r#""type":"event_callback","event":{"type":"a"}"#;
        exercise(verify(JSON, format!("{{{event},{text}}}")));
        let _ = connection().receive(text.into_bytes().into());
    }

    #[test]
    fn no_mutation_of_a_request_does_harm_and_unsigned_it_is_refused(
        (content_type, body) in any_fixture(),
        edits in vec(any::<(u8, Index, Index, Vec<u8>)>(), 1..6),
    ) {
        let mutant = mutate(&body, &edits);
        exercise(verify(content_type, &mutant));
        let outcome = verifier().verify(&signed(content_type, &body), mutant.clone().into());
        prop_assert_eq!(outcome.is_ok(), mutant == body);
        let _ = connection().receive(mutant.into());
    }

    #[test]
    fn no_header_does_harm(name in select(vec![
        "content-type", "x-slack-signature", "x-slack-request-timestamp", "x-slack-retry-num",
    ]), value in vec(any::<u8>(), 0..100)) {
        let body = fixture("slash_command__workspace.form");
        let mut headers = signed(FORM, &body);
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let same = headers.get(name) == Some(&value);
            headers.insert(name, value);
            let outcome = verifier().verify(&headers, body);
            let is_unsigned = ["content-type", "x-slack-retry-num"].contains(&name);
            prop_assert!(same || outcome.is_err() || is_unsigned);
        }
    }

    #[test]
    fn one_wrong_value_anywhere_is_an_error_or_leaves_the_tenant(
        file in select(vec![
            "event__message__org_wide_install.json",
            "event__message__slack_connect_sender_outside.json",
            "event__tokens_revoked__bot.json",
            "event__app_rate_limited.json",
        ]),
        at in any::<Index>(),
        value in select(vec![
            json!(null), json!(0), json!(-1), json!(1e300), json!(true), json!([]), json!({}),
            json!("\u{0}"), json!("T".repeat(10_000)), json!("T1\u{0}"), json!("<b>T1</b>"),
        ]),
    ) {
        let whole: Value = serde_json::from_slice(&fixture(file)).expect("JSON");
        let good = verify_event(&whole).expect("accepted");
        let good = good.tenant().cloned();
        let mut body = whole.clone();
        let keys: Vec<String> = whole.as_object().expect("an object").keys().cloned().collect();
        body[at.get(&keys)] = value;
        if let Ok(request) = verify_event(&body) {
            // A null counts as an absent id. The request may then name less, but never another
            // tenant.
            let same_company = request.tenant().is_none_or(|tenant| {
                let good = good.as_ref().expect("a tenant");
                tenant.team().is_none_or(|team| good.team().is_none_or(|ours| ours == team))
                    && (tenant.enterprise().is_none() || tenant.enterprise() == good.enterprise())
            });
            prop_assert!(same_company, "{}", body);
        }
    }
}
