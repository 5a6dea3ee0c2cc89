use std::collections::BTreeSet;
use std::fmt::Write as _;

use ring::digest;
use serde_json::Value;
use slack_installs::request::{VerifiedRequest, Verifier};

use super::*;

/// Every inbound fixture: its file, kind, tenant, and actor.
const TABLE: &[(&str, &str, &str, &str)] = &[
    (
        "event__app_mention.json",
        "event app_mention",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "event__app_mention__empty_authorizations.json",
        "event app_mention",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "event__app_mention__other_workspace.json",
        "event app_mention",
        "T0BRAVO0002",
        "U0BUSER0004",
    ),
    (
        "event__app_rate_limited.json",
        "app_rate_limited",
        "T0ALPHA0001",
        "-",
    ),
    (
        "event__app_uninstalled.json",
        "event app_uninstalled",
        "T0ALPHA0001",
        "-",
    ),
    (
        "event__app_uninstalled__docs_minimal.json",
        "event app_uninstalled",
        "T0ALPHA0001",
        "-",
    ),
    (
        "event__app_uninstalled__stale_before_reinstall.json",
        "event app_uninstalled",
        "T0ALPHA0001",
        "-",
    ),
    (
        "event__app_uninstalled__workspace_inside_org.json",
        "event app_uninstalled",
        "E0GRID00001+T0GRID00011",
        "-",
    ),
    (
        "event__function_executed.json",
        "function_executed",
        "E0GRID00001+T0ALPHA0001",
        "-",
    ),
    (
        "event__grid_migration_finished.json",
        "event grid_migration_finished",
        "T0ALPHA0001",
        "-",
    ),
    (
        "event__grid_migration_started.json",
        "event grid_migration_started",
        "T0ALPHA0001",
        "-",
    ),
    (
        "event__message__no_authorizations_legacy.json",
        "event app_mention",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "event__message__org_wide_install.json",
        "event message",
        "org E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "event__message__slack_connect_sender_outside.json",
        "event message",
        "T0ALPHA0001",
        "U0XUSER0099",
    ),
    (
        "event__org_wide_install__authorization_with_team.json",
        "event app_home_opened",
        "org E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "event__org_wide_install__authorization_without_team_key.json",
        "event member_left_channel",
        "org E0GRID00001+T0GRID00011",
        "-",
    ),
    (
        "event__team_access_granted.json",
        "event team_access_granted",
        "org E0GRID00001",
        "-",
    ),
    (
        "event__team_access_granted__docs_nested_oddity.json",
        "event team_access_granted",
        "org E0GRID00001",
        "-",
    ),
    (
        "event__team_rename.json",
        "event team_rename",
        "T0ALPHA0001",
        "-",
    ),
    (
        "event__tokens_revoked__bot.json",
        "event tokens_revoked",
        "T0ALPHA0001",
        "-",
    ),
    (
        "event__tokens_revoked__org_wide.json",
        "event tokens_revoked",
        "org E0GRID00001",
        "-",
    ),
    (
        "event__tokens_revoked__unknown_users.json",
        "event tokens_revoked",
        "T0ALPHA0001",
        "-",
    ),
    (
        "event__tokens_revoked__user.json",
        "event tokens_revoked",
        "T0ALPHA0001",
        "-",
    ),
    (
        "event__tokens_revoked__user_and_bot.json",
        "event tokens_revoked",
        "T0ALPHA0001",
        "-",
    ),
    ("event__url_verification.json", "url_verification", "-", "-"),
    (
        "interactive__block_actions__home",
        "block_actions",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "interactive__block_actions__home_org_wide",
        "block_actions",
        "org E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "interactive__block_actions__message",
        "block_actions",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "interactive__block_actions__message_org_wide",
        "block_actions",
        "org E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "interactive__block_actions__message_workspace_inside_org",
        "block_actions",
        "E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "interactive__block_actions__modal_slack_connect",
        "block_actions",
        "T0ALPHA0001",
        "U0XUSER0099",
    ),
    (
        "interactive__block_actions__workflow_function",
        "block_actions",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "interactive__dialog_submission",
        "dialog_submission",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "interactive__global_shortcut",
        "shortcut",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "interactive__global_shortcut__org_wide",
        "shortcut",
        "org E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "interactive__global_shortcut__workspace_inside_org",
        "shortcut",
        "E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "interactive__interactive_message",
        "interactive_message",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "interactive__message_shortcut",
        "message_action",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "interactive__view_closed",
        "view_closed",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "interactive__view_closed__org_wide",
        "view_closed",
        "org E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "interactive__view_submission",
        "view_submission",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "interactive__view_submission__org_wide_installed_E",
        "view_submission",
        "org E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "interactive__view_submission__org_wide_installed_T",
        "view_submission",
        "org E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "interactive__view_submission__slack_connect",
        "view_submission",
        "T0ALPHA0001",
        "U0XUSER0099",
    ),
    (
        "interactive__view_submission__with_response_urls",
        "view_submission",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "interactive__view_submission__workspace_inside_org",
        "view_submission",
        "E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "slash_command__docs_signing_vector.form",
        "slash_command",
        "T1DC2JH3J",
        "U2CERLKJA",
    ),
    (
        "slash_command__empty_text.form",
        "slash_command",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "slash_command__org_wide.form",
        "slash_command",
        "org E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "slash_command__spoof_duplicate_team.form",
        "a key occurs twice in the body",
        "",
        "",
    ),
    (
        "slash_command__text_contains_payload.form",
        "slash_command",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "slash_command__workspace.form",
        "slash_command",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "slash_command__workspace_inside_org.form",
        "slash_command",
        "E0GRID00001+T0GRID00011",
        "U0GRIDUSR02",
    ),
    (
        "socket__ack.json",
        "the field `type` has a type or value that Slack does not document",
        "",
        "",
    ),
    (
        "socket__ack_with_payload.json",
        "the field `type` has a type or value that Slack does not document",
        "",
        "",
    ),
    (
        "socket__disconnect_refresh_requested.json",
        "no request",
        "",
        "",
    ),
    ("socket__disconnect_warning.json", "no request", "", ""),
    (
        "socket__events_api.json",
        "event app_mention",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    (
        "socket__events_api_retry.json",
        "event app_mention",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    ("socket__hello.json", "no request", "", ""),
    (
        "socket__slash_commands.json",
        "slash_command",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
    ("ssl_check.form", "ssl_check", "-", "-"),
    (
        "ssl_check__abuse.form",
        "slash_command",
        "T0ALPHA0001",
        "U0ADMIN0001",
    ),
];

#[test]
fn every_inbound_fixture_names_its_tenant_and_its_user() {
    let mut wrong = String::new();
    for (file, kind, tenant, user) in TABLE {
        for (way, outcome) in ways(file) {
            let expected = if tenant.is_empty() {
                (*kind).to_owned()
            } else {
                format!("{kind} | {tenant} | {user}")
            };
            if outcome != expected {
                writeln!(wrong, "{file} {way}:\n  {outcome}\n  {expected}").expect("a String");
            }
        }
    }
    assert!(wrong.is_empty(), "outcome, expected:\n{wrong}");
}

#[test]
fn no_inbound_fixture_is_left_out() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/slack");
    let there: BTreeSet<String> = std::fs::read_dir(directory)
        .expect("the fixtures")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|file| file != "signing_vectors.json")
        .collect();
    let listed = TABLE.iter().flat_map(|(file, ..)| {
        if file.starts_with("interactive__") {
            vec![format!("{file}.form"), format!("{file}.json")]
        } else {
            vec![(*file).to_owned()]
        }
    });
    assert_eq!(there, listed.collect());
}

#[test]
fn every_signing_vector_is_taken_and_its_file_is_untouched() {
    let vectors: Value = serde_json::from_slice(&fixture("signing_vectors.json")).expect("JSON");
    let vectors = vectors["vectors"].as_array().expect("vectors");
    assert_eq!(vectors.len(), 57);
    for vector in vectors {
        let text = |key: &str| vector[key].as_str();
        let name = text("name").expect("a name");
        let file = text("file").unwrap_or("bare.json");
        let body = match (text("body"), text("body_hex")) {
            (Some(body), _) => Bytes::copy_from_slice(body.as_bytes()),
            (None, Some(digits)) => unhex(digits).into(),
            (None, None) => fixture(file),
        };
        if let Some(sum) = text("body_sha256") {
            let sum = unhex(sum);
            assert_eq!(
                digest::digest(&digest::SHA256, &body).as_ref(),
                sum,
                "{name}"
            );
        }
        let timestamp = vector["timestamp"].as_u64().expect("a timestamp");
        let verifier = Verifier::new(&secret(text("signing_secret").expect("a secret")))
            .with_clock(clock_at(timestamp));
        let signature = text("expected_signature").expect("a signature");
        let headers = headers(content_type(file), &timestamp.to_string(), signature);
        let outcome = verifier.verify(&headers, body);
        // A body is parsed only after its signature was verified.
        let malformed = ["empty body", "body with non-UTF-8 byte, hex"].contains(&name)
            || name == "slash_command__spoof_duplicate_team.form";
        match outcome {
            Ok(_) => assert!(!malformed, "{name}"),
            Err(VerifyError::Malformed(_)) => assert!(malformed, "{name}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// Returns the ways in which a fixture can arrive, with the result of each.
fn ways(file: &str) -> Vec<(&'static str, String)> {
    if file.starts_with("interactive__") {
        let payload = fixture(&format!("{file}.json"));
        let frame = [
            br#"{"payload":"#,
            &*payload,
            br#","type":"interactive","envelope_id":"11111111-2222-4333-8444-555555550009"}"#,
        ];
        return vec![
            (
                "form",
                outcome(verify(FORM, fixture(&format!("{file}.form"))).map(Some)),
            ),
            (
                "frame",
                outcome(connection().receive(frame.concat().into())),
            ),
        ];
    }
    let body = fixture(file);
    if file.starts_with("socket__") {
        vec![("frame", outcome(connection().receive(body)))]
    } else {
        vec![("http", outcome(verify(content_type(file), body).map(Some)))]
    }
}

fn outcome(outcome: Result<Option<VerifiedRequest>, VerifyError>) -> String {
    match outcome {
        Err(VerifyError::Malformed(malformed)) => malformed.to_string(),
        Err(error) => error.to_string(),
        Ok(None) => "no request".to_owned(),
        Ok(Some(request)) => {
            let user = request.user().map_or("-", |user| user.as_str());
            format!("{:?} | {} | {user}", request.kind(), word(request.tenant()))
        }
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(pair).collect()
}
