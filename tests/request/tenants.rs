use serde_json::{Value, json};
use slack_installs::request::Kind;

use super::*;

fn message(with: Value) -> Value {
    let mut event = json!({
        "type": "event_callback",
        "event": {"type": "message", "user": "U1"},
    });
    merge(&mut event, with);
    event
}

fn lifecycle(event_type: &str, with: Value) -> Value {
    message(json!({"event": {"type": event_type}})).tap(with)
}

fn click(with: Value) -> Value {
    let mut payload = json!({
        "type": "block_actions",
        "api_app_id": "A0FAKEAPP01",
        "user": {"id": "U1", "team_id": "T1"},
        "team": {"id": "T1"},
        "is_enterprise_install": false,
    });
    merge(&mut payload, with);
    payload
}

trait Tap {
    fn tap(self, with: Value) -> Self;
}

impl Tap for Value {
    fn tap(mut self, with: Value) -> Self {
        merge(&mut self, with);
        self
    }
}

fn merge(into: &mut Value, with: Value) {
    let Value::Object(with) = with else {
        panic!("an object")
    };
    for (key, value) in with {
        into[key] = value;
    }
}

#[test]
fn in_a_shared_channel_the_authorization_names_the_tenant_and_the_outer_ids_do_not() {
    let foreign = json!({"team_id": "T9", "enterprise_id": "E9", "is_ext_shared_channel": true});
    for (with, tenant) in [
        (
            json!({"authorizations": [{"team_id": "T1", "enterprise_id": null}]}),
            "T1",
        ),
        (
            json!({"authorizations": [{"team_id": "T1", "enterprise_id": "E1"}]}),
            "E1+T1",
        ),
        (json!({"authorizations": [], "context_team_id": "T1"}), "T1"),
        (
            json!({"context_team_id": "T1", "context_enterprise_id": "E1"}),
            "E1+T1",
        ),
        (
            json!({"authorizations": [{"enterprise_id": "E1", "is_enterprise_install": true}]}),
            "org E1",
        ),
        (json!({"authorizations": []}), "-"),
        (json!({}), "-"),
    ] {
        let event = message(foreign.clone()).tap(with);
        assert_eq!(tenant_of(verify_event(&event)), tenant, "{event}");
    }
}

#[test]
fn a_channel_shared_inside_one_org_belongs_to_the_authorized_workspace() {
    let event = message(json!({
        "team_id": "T111", "enterprise_id": "E1",
        "authorizations": [
            {"enterprise_id": "E1", "team_id": "T222", "is_enterprise_install": false}
        ],
    }));
    assert_eq!(tenant_of(verify_event(&event)), "E1+T222");
}

#[test]
fn an_enterprise_id_alone_never_makes_an_install_org_wide() {
    for (with, tenant) in [
        (json!({"enterprise_id": "E1"}), "-"),
        (json!({"context_enterprise_id": "E1"}), "-"),
        (
            json!({"authorizations": [{"enterprise_id": "E1", "team_id": null}]}),
            "-",
        ),
        (json!({"enterprise_id": "E1", "team_id": "T1"}), "E1+T1"),
    ] {
        let event = message(with);
        assert_eq!(tenant_of(verify_event(&event)), tenant, "{event}");
    }
    let payload = click(json!({"team": null, "user": {"id": "U1"}, "enterprise": {"id": "E1"}}));
    assert_eq!(tenant_of(verify_interactive(&payload)), "-");
    assert_eq!(
        tenant_of(verify(FORM, "command=%2Fx&enterprise_id=E1")),
        "-"
    );
}

#[test]
fn an_enterprise_id_is_never_put_beside_a_team_of_another_object() {
    for with in [
        json!({"context_team_id": "T1", "enterprise_id": "E9"}),
        json!({"team_id": "T1", "context_enterprise_id": "E9"}),
        json!({"authorizations": [{"team_id": "T1"}], "enterprise_id": "E9",
            "context_enterprise_id": "E9"}),
        json!({"authorizations": [{"team_id": "T1"}], "team_id": "T1", "enterprise_id": "E9"}),
    ] {
        let event = message(with);
        assert_eq!(tenant_of(verify_event(&event)), "T1", "{event}");
    }
}

#[test]
fn an_org_wide_authorization_takes_its_workspace_only_from_the_same_org() {
    let org = json!([{"enterprise_id": "E1", "team_id": null, "is_enterprise_install": true}]);
    for (with, tenant) in [
        (
            json!({"context_team_id": "T1", "context_enterprise_id": "E1"}),
            "org E1+T1",
        ),
        (json!({"team_id": "T1", "enterprise_id": "E1"}), "org E1+T1"),
        (
            json!({"context_team_id": "T9", "context_enterprise_id": "E9"}),
            "org E1",
        ),
        (json!({"team_id": "T9", "enterprise_id": "E9"}), "org E1"),
        (json!({"team_id": "T9"}), "org E1"),
        (json!({"team_id": "E1"}), "org E1"),
    ] {
        let event = message(with).tap(json!({"authorizations": org}));
        assert_eq!(tenant_of(verify_event(&event)), tenant, "{event}");
    }
}

#[test]
fn an_uninstall_names_exactly_what_was_uninstalled() {
    let org = json!([{"enterprise_id": "E1", "team_id": null, "is_enterprise_install": true}]);
    for event_type in ["app_uninstalled", "tokens_revoked"] {
        for (with, tenant) in [
            (json!({"team_id": "T1"}), "T1"),
            (json!({"team_id": "T1", "enterprise_id": "E1"}), "E1+T1"),
            (json!({"enterprise_id": "E1"}), "org E1"),
            (
                json!({"enterprise_id": "E1", "team_id": "T1", "authorizations": org}),
                "org E1",
            ),
            (
                json!({"team_id": "T9", "authorizations": [{"team_id": "T1"}]}),
                "T1",
            ),
            // An org-wide event without an organisation: there is no organisation to purge, and the
            // workspace is kept.
            (
                json!({"authorizations": [{"team_id": "T1", "is_enterprise_install": true}]}),
                "org T1",
            ),
            // One authorization with two organisations.
            (
                json!({"authorizations": [{"team_id": "E1", "enterprise_id": "E2"}]}),
                "-",
            ),
            (json!({}), "-"),
        ] {
            let event = lifecycle(event_type, with);
            assert_eq!(tenant_of(verify_event(&event)), tenant, "{event}");
        }
    }
}

#[test]
fn another_apps_uninstall_is_an_event_like_any_other() {
    let event = lifecycle("app_uninstalled_team", json!({"enterprise_id": "E1"}));
    assert_eq!(tenant_of(verify_event(&event)), "-");
}

#[test]
fn team_access_concerns_the_org_whatever_it_is_flagged() {
    for event_type in ["team_access_granted", "team_access_revoked"] {
        for (with, tenant) in [
            (json!({"enterprise_id": "E1"}), "org E1"),
            (json!({"enterprise_id": "E1", "team_id": "T1"}), "org E1"),
            (
                json!({"team_id": "T1", "authorizations": [{"enterprise_id": "E1", "team_id": "T1",
                    "is_enterprise_install": false}]}),
                "org E1",
            ),
            (json!({"team_id": "T1"}), "-"),
        ] {
            let event = lifecycle(event_type, with);
            assert_eq!(tenant_of(verify_event(&event)), tenant, "{event}");
        }
    }
}

#[test]
fn a_migrating_workspace_is_not_yet_beside_the_org_that_its_event_names() {
    let event = lifecycle("grid_migration_started", json!({"team_id": "T1"}))
        .tap(json!({"event": {"type": "grid_migration_started", "enterprise_id": "E1"}}));
    assert_eq!(tenant_of(verify_event(&event)), "T1");
}

#[test]
fn a_view_belongs_to_the_team_that_installed_the_app() {
    for kind in [
        "block_actions",
        "block_suggestion",
        "view_closed",
        "view_submission",
    ] {
        for (with, tenant) in [
            (json!({"view": {"app_installed_team_id": "T1"}}), "T1"),
            (
                json!({"view": {"app_installed_team_id": "T5", "team_id": "T1"}}),
                "T5",
            ),
            (json!({"view": {"app_installed_team_id": "E1"}}), "org E1"),
            (json!({"view": {"app_installed_team_id": null}}), "T1"),
            (json!({"view": {"team_id": "T5"}}), "T1"),
            (json!({"view": null}), "T1"),
        ] {
            let payload = click(json!({"type": kind})).tap(with);
            assert_eq!(tenant_of(verify_interactive(&payload)), tenant, "{payload}");
        }
    }
}

#[test]
fn the_other_companys_enterprise_is_not_put_beside_our_team() {
    let theirs = json!({
        "team": {"id": "T9", "enterprise_id": "E9"},
        "user": {"id": "U9", "team_id": "T9"},
        "enterprise": {"id": "E9"},
    });
    for (with, tenant) in [
        (json!({"view": {"app_installed_team_id": "T1"}}), "T1"),
        (
            json!({"view": {"app_installed_team_id": "T1"}, "is_enterprise_install": true}),
            "org T1",
        ),
        (json!({"view": {"app_installed_team_id": "E1"}}), "org E1"),
        (
            json!({"message": {"app_id": "A0FAKEAPP01", "team": "T1"}}),
            "T1",
        ),
    ] {
        let payload = click(theirs.clone()).tap(with);
        assert_eq!(tenant_of(verify_interactive(&payload)), tenant, "{payload}");
    }
    let outsider = json!({"user": {"id": "U9", "team_id": "T9"}, "enterprise": {"id": "E9"}});
    assert_eq!(tenant_of(verify_interactive(&click(outsider))), "T1");
}

#[test]
fn the_enterprise_of_a_team_is_taken_where_it_is_certain() {
    for (with, tenant) in [
        (json!({"enterprise": {"id": "E1"}}), "E1+T1"),
        (
            json!({"team": {"id": "T1", "enterprise_id": "E1"}}),
            "E1+T1",
        ),
        (
            json!({"team": {"id": "T1", "enterprise_id": "E1"}, "enterprise": {"id": "E9"},
                "user": {"id": "U9", "team_id": "T9"}}),
            "E1+T1",
        ),
        (
            json!({"enterprise": {"id": "E1"}, "user": {"id": "U1"}}),
            "T1",
        ),
        (
            json!({"enterprise": {"id": "E1"}, "user": {"id": "U1"}, "type": "message_action"}),
            "E1+T1",
        ),
    ] {
        let payload = click(with);
        assert_eq!(tenant_of(verify_interactive(&payload)), tenant, "{payload}");
    }
}

#[test]
fn a_clicked_message_belongs_to_the_workspace_that_our_app_posted_it_from() {
    let outsider = json!({"team": {"id": "T9"}, "user": {"id": "U9", "team_id": "T9"}});
    for (with, tenant) in [
        (
            json!({"message": {"app_id": "A0FAKEAPP01", "team": "T1"}}),
            "T1",
        ),
        // On another app's message this app only unfurled a link, so neither the message's team
        // nor the clicker's is certainly ours.
        (
            json!({"message": {"app_id": "A0OTHER0001", "team": "T1"}}),
            "-",
        ),
        (json!({"message": {"team": "T1"}}), "-"),
        (json!({"api_app_id": null, "message": {"team": "T1"}}), "-"),
        (
            json!({"type": "block_suggestion", "message": {"app_id": "A0FAKEAPP01", "team": "T1"}}),
            "T1",
        ),
        // Only members can use a shortcut, but they can use it on an outsider's message.
        (
            json!({"type": "message_action", "message": {"app_id": "A0FAKEAPP01", "team": "T1"}}),
            "T9",
        ),
    ] {
        let payload = click(outsider.clone()).tap(with);
        assert_eq!(tenant_of(verify_interactive(&payload)), tenant, "{payload}");
    }
}

#[test]
fn an_org_wide_click_keeps_the_workspace_in_use_whatever_message_was_clicked() {
    let payload = click(json!({
        "team": null, "enterprise": {"id": "E1"}, "is_enterprise_install": true,
        "message": {"app_id": "A0FAKEAPP01", "team": "T5"},
    }));
    assert_eq!(tenant_of(verify_interactive(&payload)), "org E1+T1");
    let unnamed = payload.tap(json!({"enterprise": null}));
    assert_eq!(
        tenant_of(verify_interactive(&unnamed)),
        "org T5",
        "without the organisation's id the message's team counts"
    );
}

#[test]
fn a_function_runs_for_the_tenant_of_its_authorization() {
    let event = message(json!({
        "event": {"type": "function_executed", "bot_access_token": "xwfp-1"},
        "team_id": "T9", "enterprise_id": "E9",
        "authorizations": [{"team_id": "T1", "enterprise_id": null}],
    }));
    assert_eq!(tenant_of(verify_event(&event)), "T1");
}

#[test]
fn without_a_team_the_flag_names_the_org_and_else_the_users_team_is_taken() {
    for (with, tenant) in [
        (
            json!({"enterprise": {"id": "E1"}, "is_enterprise_install": true}),
            "org E1+T1",
        ),
        (
            json!({"enterprise": {"id": "E1"}, "is_enterprise_install": true,
                "user": {"id": "U1", "team_id": "E1"}}),
            "org E1",
        ),
        (json!({"enterprise": {"id": "E1"}}), "T1"),
        (json!({"enterprise": null}), "T1"),
        (json!({"user": {"id": "U1", "team_id": "E1"}}), "-"),
    ] {
        let payload = click(json!({"team": null})).tap(with);
        assert_eq!(tenant_of(verify_interactive(&payload)), tenant, "{payload}");
    }
}

#[test]
fn the_org_flag_is_a_boolean_or_its_text_and_anything_else_is_refused() {
    for (flag, tenant) in [
        (json!(true), Some("org E1+T1")),
        (json!("true"), Some("org E1+T1")),
        (json!(false), Some("E1+T1")),
        (json!("false"), Some("E1+T1")),
        (json!(null), Some("E1+T1")),
        (json!("True"), None),
        (json!("1"), None),
        (json!(""), None),
        (json!(1), None),
        (json!({}), None),
        (json!(["true"]), None),
    ] {
        let payload = click(json!({
            "is_enterprise_install": flag,
            "team": {"id": "T1", "enterprise_id": "E1"},
            "enterprise": {"id": "E1"},
        }));
        let event = message(json!({"authorizations": [
            {"enterprise_id": "E1", "team_id": "T1", "is_enterprise_install": flag},
        ]}));
        let frame = json!({"envelope_id": "1", "type": "slash_commands", "payload": {
            "team_id": "T1", "enterprise_id": "E1", "is_enterprise_install": flag,
        }});
        let received = connection().receive(frame.to_string().into());
        for request in [
            verify_interactive(&payload),
            verify_event(&event),
            received.map(|request| request.expect("a frame with a request")),
        ] {
            assert_eq!(
                request.ok().map(|it| word(it.tenant())).as_deref(),
                tenant,
                "{flag}"
            );
        }
        if let Some(text) = flag.as_str() {
            let body =
                format!("command=%2Fx&team_id=T1&enterprise_id=E1&is_enterprise_install={text}");
            let request = verify(FORM, body).ok();
            assert_eq!(
                request.map(|it| word(it.tenant())).as_deref(),
                tenant,
                "{flag}"
            );
        }
    }
}

#[test]
fn an_id_that_is_none_is_refused_and_never_passed_over_for_another() {
    let large = "T".repeat(10_000);
    for bad in [
        json!(large),
        json!("T1\u{0}"),
        json!("t1"),
        json!("U1"),
        json!("T 1"),
        json!(1),
        json!(1.5),
        json!(-1),
        json!(true),
        json!([]),
        json!(["T1"]),
        json!({"id": "T1"}),
    ] {
        for event in [
            message(json!({"authorizations": [{"team_id": bad}], "team_id": "T9"})),
            message(json!({"authorizations": [{"team_id": "T1", "enterprise_id": bad}]})),
            message(json!({"context_team_id": bad, "team_id": "T9"})),
            message(json!({"team_id": bad})),
            message(json!({"team_id": "T1", "enterprise_id": bad})),
        ] {
            let refused = verify_event(&event);
            assert!(matches!(refused, Err(VerifyError::Malformed(_))), "{event}");
        }
        for payload in [
            click(json!({"view": {"app_installed_team_id": bad}})),
            click(json!({"team": {"id": bad}})),
            click(json!({"team": {"id": "T1", "enterprise_id": bad}})),
            click(json!({"enterprise": {"id": bad}})),
            click(json!({"team": null, "user": {"id": "U1", "team_id": bad}})),
        ] {
            let refused = verify_interactive(&payload);
            assert!(
                matches!(refused, Err(VerifyError::Malformed(_))),
                "{payload}"
            );
        }
    }
    for bad in [json!([]), json!("x"), json!(1), json!(["T1"])] {
        for payload in [
            click(json!({"view": bad})),
            click(json!({"team": bad})),
            click(json!({"team": null, "user": bad})),
            click(json!({"enterprise": bad})),
        ] {
            let refused = verify_interactive(&payload);
            assert!(
                matches!(refused, Err(VerifyError::Malformed(_))),
                "{payload}"
            );
        }
    }
    for bad in [
        json!({}),
        json!("x"),
        json!([null]),
        json!([["T1"]]),
        json!(["T1"]),
    ] {
        let event = message(json!({"authorizations": bad, "team_id": "T9"}));
        assert!(
            matches!(verify_event(&event), Err(VerifyError::Malformed(_))),
            "{event}"
        );
    }
}

#[test]
fn a_creator_an_author_or_a_listed_user_does_not_act() {
    let event = |event: Value| message(json!({"team_id": "T1", "event": event}));
    for (event, user) in [
        (event(json!({"type": "message", "user": "U1"})), Some("U1")),
        (event(json!({"type": "message", "user": "W1"})), Some("W1")),
        (event(json!({"type": "message", "user": ""})), None),
        (
            event(json!({"type": "message", "message": {"user": "U1"}})),
            None,
        ),
        (
            event(json!({"type": "channel_created", "channel": {"creator": "U1"}})),
            None,
        ),
        (
            event(json!({"type": "subteam_created", "subteam": {"created_by": "U1"}})),
            None,
        ),
        (
            event(json!({"type": "reaction_added", "user": "U1", "item_user": "U2"})),
            Some("U1"),
        ),
        (
            event(json!({"type": "user_change", "user": {"id": "U1"}})),
            None,
        ),
        (event(json!({"type": "tokens_revoked", "user": "U1"})), None),
        (
            event(json!({"type": "function_executed", "user": "U1"})),
            None,
        ),
        (
            event(json!({"type": "message"}))
                .tap(json!({"authorizations": [{"team_id": "T1", "user_id": "U1"}]})),
            None,
        ),
    ] {
        let request = verify_event(&event).expect("an accepted request");
        assert_eq!(request.user().map(|user| user.as_str()), user, "{event}");
    }
    let payload = click(json!({"user": {"team_id": "T1"}, "message": {"user": "U1"}}));
    assert_eq!(verify_interactive(&payload).expect("accepted").user(), None);
}

#[test]
fn a_request_of_an_unknown_form_names_no_tenant() {
    let ids = json!({"team_id": "T1", "team": {"id": "T1"}, "user": {"id": "U1"}, "user_id": "U1",
        "event": {"type": "message", "user": "U1"}});
    for kind in [
        json!("something_new"),
        json!(null),
        json!("view_submission"),
    ] {
        let request = verify_event(&ids.clone().tap(json!({"type": kind}))).expect("accepted");
        assert_eq!((request.tenant(), request.user()), (None, None), "{kind}");
    }
    for kind in [
        json!(null),
        json!(""),
        json!(1),
        json!("a b"),
        json!("a".repeat(65)),
    ] {
        let request =
            verify_interactive(&ids.clone().tap(json!({"type": kind}))).expect("accepted");
        assert_eq!((request.tenant(), request.user()), (None, None), "{kind}");
    }
    let request = verify(FORM, "team_id=T1&user_id=U1").expect("accepted");
    assert_eq!((request.tenant(), request.user()), (None, None));
}

#[test]
fn an_unknown_type_of_interaction_is_what_it_is_with_the_tenant_that_all_ids_name() {
    let payload = |with| click(json!({"type": "something_new"})).tap(with);
    for (with, tenant) in [
        (json!({}), "T1"),
        (json!({"user": {"id": "U1"}}), "T1"),
        (json!({"message": {"team": "T1"}}), "T1"),
        (json!({"view": {"app_installed_team_id": "T1"}}), "T1"),
        (
            json!({"team": null, "enterprise": {"id": "E1"}, "is_enterprise_install": true}),
            "org E1+T1",
        ),
        // Another company may own what was used.
        (json!({"user": {"id": "U1", "team_id": "T9"}}), "-"),
        (json!({"team": {"id": "T9"}}), "-"),
        (json!({"view": {"app_installed_team_id": "T9"}}), "-"),
        (json!({"message": {"team": "T9"}}), "-"),
        (
            json!({"message": {"app_id": "A0FAKEAPP01", "team": "T9"}}),
            "-",
        ),
        (json!({"message": {"text": "from anywhere"}}), "-"),
        (json!({"message": "T1"}), "-"),
        (json!({"original_message": {"team": "T9"}}), "-"),
    ] {
        let payload = payload(with);
        let request = verify_interactive(&payload).expect("accepted");
        let kind = Kind::Interaction {
            interaction_type: "something_new".into(),
        };
        assert_eq!(request.kind(), &kind);
        assert_eq!(word(request.tenant()), tenant, "{payload}");
        assert_eq!(request.user().map(|user| user.as_str()), Some("U1"));
    }
}

#[test]
fn a_click_of_the_other_company_is_the_message_owners_or_nobodys() {
    let outsider = json!({"team": {"id": "T9"}, "user": {"id": "U9", "team_id": "T9"}});
    let ours = json!({"bot_id": "B0BOTA00001", "team": "T1"});
    for (with, tenant) in [
        // A bot posted the message, and Slack sends the click to the app that posted it.
        (json!({"message": ours}), "T1"),
        (json!({"message": ours, "api_app_id": null}), "T1"),
        (json!({"type": "block_suggestion", "message": ours}), "T1"),
        (
            json!({"type": "interactive_message", "original_message": ours}),
            "T1",
        ),
        // The preview of a link in a message of any bot.
        (
            json!({"message": ours, "container": {"type": "message_attachment"}}),
            "-",
        ),
        (
            json!({"type": "interactive_message", "original_message": ours,
                "is_app_unfurl": true}),
            "-",
        ),
        // A message of a person, of another app, or of an unreadable place.
        (json!({"message": {"user": "U1", "team": "T1"}}), "-"),
        (
            json!({"message": {"app_id": 1, "bot_id": "B1", "team": "T1"}}),
            "-",
        ),
        (json!({"message": {"bot_id": "B1", "team": "t1"}}), "-"),
        (json!({"message": ["T1"]}), "-"),
        // All ids agree: the clicker's own workspace owns the message.
        (json!({"message": {"user": "U9", "team": "T9"}}), "T9"),
        // Nothing says whose message it is.
        (json!({"message": {"text": "x"}}), "T9"),
    ] {
        let payload = click(outsider.clone()).tap(with);
        assert_eq!(tenant_of(verify_interactive(&payload)), tenant, "{payload}");
    }
    let insider = click(json!({"message": {"user": "U1", "team": "T1"}}));
    assert_eq!(tenant_of(verify_interactive(&insider)), "T1");
}

#[test]
fn only_the_field_that_an_event_types_documentation_names_is_the_actor() {
    let all = |event_type: &str| {
        message(json!({"team_id": "T1", "event": {
            "type": event_type, "user": "U1", "user_id": "U2", "inviter": "U3",
            "assistant_thread": {"user_id": "U4"}, "item_user": "U5", "actor_id": "U6",
            "message": {"user": "U7"},
        }}))
    };
    for (event_type, user) in [
        ("message", Some("U1")),
        ("app_mention", Some("U1")),
        ("app_home_opened", Some("U1")),
        ("reaction_added", Some("U1")),
        ("reaction_removed", Some("U1")),
        ("pin_added", Some("U1")),
        ("link_shared", Some("U1")),
        ("file_shared", Some("U2")),
        ("file_created", Some("U2")),
        // The inviter acted, and not the user who was invited.
        ("member_joined_channel", Some("U3")),
        ("assistant_thread_started", Some("U4")),
        // Somebody else may have removed the member or changed the profile.
        ("member_left_channel", None),
        ("user_change", None),
        ("user_profile_changed", None),
        ("team_join", None),
        ("channel_created", None),
        ("dnd_updated_user", None),
        ("an_event_of_the_future", None),
    ] {
        let request = verify_event(&all(event_type)).expect("accepted");
        let found = request.user().map(|user| user.as_str());
        assert_eq!(found, user, "{event_type}");
    }
    let joined = message(json!({"team_id": "T1",
        "event": {"type": "member_joined_channel", "user": "U1"}}));
    assert_eq!(verify_event(&joined).expect("accepted").user(), None);
    for (subtype, user) in [
        (json!(null), Some("U1")),
        (json!("file_share"), Some("U1")),
        (json!("me_message"), Some("U1")),
        (json!("thread_broadcast"), Some("U1")),
        (json!("channel_join"), None),
        (json!("channel_leave"), None),
        (json!("message_changed"), None),
        (json!("a_subtype_of_the_future"), None),
        (json!(1), None),
    ] {
        let event = message(json!({"team_id": "T1",
            "event": {"type": "message", "subtype": subtype, "user": "U1"}}));
        let request = verify_event(&event).expect("accepted");
        let found = request.user().map(|user| user.as_str());
        assert_eq!(found, user, "{subtype}");
    }
}

#[test]
fn the_authorizing_user_is_not_the_actor() {
    let event = |authorization: Value| {
        message(
            json!({"team_id": "T1", "event": {"type": "message", "user": "U0CAROL"},
            "authorizations": [authorization]}),
        )
    };
    for (authorization, user) in [
        (
            json!({"team_id": "T1", "user_id": "U0BOB", "is_bot": false}),
            Some("U0BOB"),
        ),
        (
            json!({"team_id": "T1", "user_id": "U0BOB", "is_bot": "false"}),
            Some("U0BOB"),
        ),
        (
            json!({"team_id": "T1", "user_id": "U0BOT", "is_bot": true}),
            None,
        ),
        (json!({"team_id": "T1", "user_id": "U0BOB"}), None),
        (
            json!({"team_id": "T1", "user_id": "U0BOB", "is_bot": 0}),
            None,
        ),
        (
            json!({"team_id": "T1", "user_id": {"id": "U0BOB"}, "is_bot": false}),
            None,
        ),
        (json!({"team_id": "T1", "is_bot": false}), None),
    ] {
        let event = event(authorization);
        let request = verify_event(&event).expect("accepted");
        let found = request.authorizing_user().map(|user| user.as_str());
        assert_eq!(found, user, "{event}");
        assert_eq!(request.user().map(|user| user.as_str()), Some("U0CAROL"));
    }
    let payload = click(json!({"authorizations": [{"user_id": "U0BOB", "is_bot": false}]}));
    let request = verify_interactive(&payload).expect("accepted");
    assert_eq!(request.authorizing_user(), None);
}

#[test]
fn what_does_not_name_the_tenant_never_refuses_a_request() {
    let odd = [
        json!(1),
        json!(-1.5),
        json!(true),
        json!([]),
        json!(["U1"]),
        json!({}),
        json!({"id": {}}),
        json!("u\u{0}"),
        json!("U".repeat(10_000)),
    ];
    for bad in odd {
        let authorization = json!({"team_id": "T1", "user_id": bad, "is_bot": bad});
        let mut event = message(json!({
            "event": {"type": "message", "user": bad, "user_id": bad, "inviter": bad,
                "subtype": bad, "user_team": bad, "source_team": bad, "assistant_thread": bad},
            "authorizations": [authorization],
        }));
        let names = [
            "api_app_id",
            "event_id",
            "event_time",
            "trigger_id",
            "team_id",
            "enterprise_id",
            "context_team_id",
            "context_enterprise_id",
            "user",
            "user_id",
            "view",
            "message",
            "container",
            "is_app_unfurl",
            "team",
        ];
        for name in names {
            event[name] = bad.clone();
        }
        let request = verify_event(&event).expect("accepted");
        assert_eq!(word(request.tenant()), "T1", "{event}");
        assert_eq!((request.user(), request.authorizing_user()), (None, None));
        for payload in [
            click(json!({"user": {"id": bad, "team_id": bad}})),
            click(json!({"user": bad, "trigger_id": bad, "container": bad, "event": bad})),
            click(json!({"type": "view_submission", "message": bad, "api_app_id": bad})),
        ] {
            let request = verify_interactive(&payload).expect("accepted");
            assert_eq!(word(request.tenant()), "T1", "{payload}");
        }
    }
    for name in ["user_id", "trigger_id", "api_app_id"] {
        let request =
            verify(FORM, format!("command=%2Fx&team_id=T1&{name}=x%2Fy")).expect("accepted");
        assert_eq!(
            (word(request.tenant()).as_str(), request.user()),
            ("T1", None)
        );
    }
}

/// Returns the actor as a short text: its user, its own ids, and whether it is of the tenant.
fn actor(request: Result<VerifiedRequest, VerifyError>) -> String {
    let request = request.expect("accepted");
    let actor = request.actor().expect("an actor");
    let team = actor.team().map_or("-", |id| id.as_str());
    let enterprise = actor.enterprise().map_or("-", |id| id.as_str());
    let place = if actor.is_insider() { "inside" } else { "?" };
    format!("{} {enterprise} {team} {place}", actor.user())
}

#[test]
fn the_actors_own_team_and_organisation_are_known_and_whether_they_are_the_tenants() {
    let event = |team: Value, shared: Value| {
        message(json!({
            "event": {"type": "message", "user": "U1", "user_team": team, "team": "T8"},
            "is_ext_shared_channel": shared,
            "team_id": "T8",
            "authorizations": [{"team_id": "T1", "enterprise_id": "E1"}],
        }))
    };
    for (team, shared, expected) in [
        (json!("T9"), json!(true), "U1 - T9 ?"),
        (json!("E9"), json!(true), "U1 E9 - ?"),
        (json!("T1"), json!(true), "U1 - T1 inside"),
        (json!("E1"), json!(true), "U1 E1 - inside"),
        // A workspace of the same organisation, or of another company: Slack does not say.
        (json!("T12"), json!(true), "U1 - T12 ?"),
        (json!(null), json!(true), "U1 - - ?"),
        (json!(null), json!(null), "U1 - - ?"),
        (json!(null), json!(false), "U1 - - inside"),
        (json!("T12"), json!(false), "U1 - T12 inside"),
    ] {
        let event = event(team, shared);
        assert_eq!(actor(verify_event(&event)), expected, "{event}");
    }
    let ours = json!({"app_id": "A0FAKEAPP01", "team": "T1"});
    for (with, expected) in [
        (json!({}), "U1 - T1 inside"),
        (
            json!({"team": {"id": "T9", "enterprise_id": "E9"}, "message": ours,
                "user": {"id": "U9", "team_id": "T9"}}),
            "U9 E9 T9 ?",
        ),
        (
            json!({"message": ours, "user": {"id": "U9", "team_id": "T9"}}),
            "U9 - T9 ?",
        ),
        (
            json!({"message": ours, "user": {"id": "U9", "team_id": "E9"}}),
            "U9 E9 - ?",
        ),
        (json!({"user": {"id": "U1"}}), "U1 - - ?"),
        (
            json!({"type": "message_action", "user": {"id": "U1"}}),
            "U1 - - inside",
        ),
    ] {
        let payload = click(with);
        assert_eq!(actor(verify_interactive(&payload)), expected, "{payload}");
    }
    let command = verify(FORM, "command=%2Fx&team_id=T1&enterprise_id=E1&user_id=U1");
    assert_eq!(actor(command), "U1 E1 T1 inside");
}
