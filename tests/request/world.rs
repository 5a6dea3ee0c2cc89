//! In generated companies with shared channels and similar ids, no request is served by another
//! company's installation. The payloads are built from known facts, so these tests do not repeat
//! the rules under test.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use slack_installs::ResolvedVia;

use super::*;

/// Workspaces, and the organisations that they belong to.
const WORLD: &[(&str, Option<&str>)] = &[
    ("T1", Some("E1")),
    ("T12", Some("E1")),
    ("T2", Some("E12")),
    ("T123", Some("E12")),
    ("T3", None),
    ("T31", None),
];

#[derive(Clone, Debug)]
struct Scene {
    /// The workspace in which the app is used.
    home: &'static str,
    /// Whether the app is used through the org-wide installation.
    org_wide: bool,
    /// The workspace of the actor: `home`, or another company's in a shared channel.
    actor: &'static str,
    /// Which of the documented forms the payload has.
    form: u8,
}

impl Scene {
    fn org(&self) -> Option<&'static str> {
        org_of(self.home)
    }

    fn shared(&self) -> bool {
        self.actor != self.home
    }

    /// Returns the id of the installation that must serve.
    fn truth(&self) -> &'static str {
        match (self.org_wide, self.org()) {
            (true, Some(org)) => org,
            _ => self.home,
        }
    }

    fn event(&self) -> Value {
        let mut event = json!({
            "type": "event_callback",
            "event": {"type": "message", "user": "U1", "user_team": self.actor},
            "team_id": self.actor,
            "enterprise_id": org_of(self.actor),
            "context_team_id": self.home,
            "context_enterprise_id": self.org(),
            "is_ext_shared_channel": self.shared(),
        });
        let team = (!self.org_wide).then_some(self.home);
        let authorization = json!({"enterprise_id": self.org(), "team_id": team,
            "is_enterprise_install": self.org_wide});
        match self.form % 4 {
            0 => event["authorizations"] = json!([authorization]),
            1 if !self.org_wide => event["authorizations"] = json!([]),
            2 if !self.org_wide => {}
            3 => {
                event["authorizations"] = json!([authorization]);
                let event = event.as_object_mut().expect("an object");
                event.retain(|key, _| !key.starts_with("context_"));
            }
            _ => {
                event["authorizations"] = json!([authorization]);
                event["authorizations"][0]["team_id"] = json!(self.home);
            }
        }
        event
    }

    fn interactive(&self) -> Value {
        let team = match org_of(self.actor) {
            Some(org) => json!({"id": self.actor, "enterprise_id": org}),
            None => json!({"id": self.actor}),
        };
        let mut payload = json!({
            "type": "block_actions",
            "api_app_id": "A0FAKEAPP01",
            "user": {"id": "U1", "team_id": self.actor},
            "team": team,
            "enterprise": org_of(self.actor).map(|org| json!({"id": org})),
            "is_enterprise_install": self.org_wide,
        });
        if self.org_wide {
            payload["team"] = Value::Null;
            payload["enterprise"] = json!({"id": self.org()});
        }
        match self.form % 4 {
            0 => {
                payload["view"] =
                    json!({"team_id": self.actor, "app_installed_team_id": self.truth()})
            }
            1 => {
                payload["type"] = json!("view_submission");
                payload["view"] =
                    json!({"team_id": self.actor, "app_installed_team_id": self.home});
            }
            2 => payload["message"] = json!({"app_id": "A0FAKEAPP01", "team": self.home}),
            _ if self.shared() => {
                payload["message"] = json!({"app_id": "A0FAKEAPP01", "team": self.home});
                // Slack does not document which team a click from outside carries. Here it is the
                // home workspace.
                if !self.org_wide {
                    payload["team"] = json!({"id": self.home});
                }
            }
            _ => payload["type"] = json!("shortcut"),
        }
        payload
    }

    /// Returns a lifecycle event, which never mentions another company.
    fn lifecycle(&self) -> Value {
        let mut event = json!({
            "type": "event_callback",
            "event": {"type": select_lifecycle(self.form)},
            "enterprise_id": self.org(),
        });
        if !self.org_wide {
            event["team_id"] = json!(self.home);
        }
        event
    }
}

fn select_lifecycle(form: u8) -> &'static str {
    match form % 2 {
        0 => "app_uninstalled",
        _ => "tokens_revoked",
    }
}

fn org_of(team: &str) -> Option<&'static str> {
    WORLD
        .iter()
        .find(|(id, _)| *id == team)
        .and_then(|(_, org)| *org)
}

fn scene() -> impl Strategy<Value = Scene> {
    (
        select(WORLD),
        any::<bool>(),
        select(WORLD),
        any::<bool>(),
        any::<u8>(),
    )
        .prop_map(|((home, org), org_wide, (actor, other), shared, form)| {
            // Another company is another organisation, or another workspace without one.
            let foreign = shared && (org.is_none() || other != org);
            Scene {
                home,
                org_wide: org_wide && org.is_some(),
                actor: if foreign { actor } else { home },
                form,
            }
        })
}

/// Returns every installation that the order of resolution allows to serve, if every tenant had the
/// app.
fn may_serve(request: &VerifiedRequest) -> Vec<String> {
    let Some(tenant) = request.tenant() else {
        return Vec::new();
    };
    tenant
        .candidates()
        .into_iter()
        .filter(|(via, key)| {
            let own_org = key.enterprise().map(|org| org.as_str());
            *via != ResolvedVia::OrgToWorkspace
                || key
                    .team()
                    .is_some_and(|team| org_of(team.as_str()) == own_org)
        })
        .map(|(_, key)| key.id().to_owned())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nobody_is_served_with_another_companys_installation(scene in scene()) {
        for request in [
            verify_event(&scene.event()),
            verify_interactive(&scene.interactive()),
            verify_event(&scene.lifecycle()),
        ] {
            let serving = may_serve(&request.expect("accepted"));
            for id in &serving {
                let ours = id == scene.home
                    || Some(id.as_str()) == scene.org()
                    || (scene.org_wide && org_of(id) == scene.org());
                prop_assert!(ours, "{:?} served by {:?}", scene, serving);
            }
        }
    }

    #[test]
    fn what_is_installed_where_the_app_is_used_serves_first(scene in scene()) {
        let request = verify_event(&scene.event()).expect("accepted");
        // An org-wide installation may be named through a workspace that it covers.
        let first = may_serve(&request).into_iter().next();
        prop_assert_eq!(first.as_deref(), Some(scene.truth()), "{}", scene.event());
        let request = verify_interactive(&scene.interactive()).expect("accepted");
        let first = may_serve(&request).into_iter().next();
        prop_assert_eq!(first.as_deref(), Some(scene.truth()), "{}", scene.interactive());
        let request = verify_event(&scene.lifecycle()).expect("accepted");
        let first = may_serve(&request).into_iter().next();
        prop_assert_eq!(first.as_deref(), Some(scene.truth()), "{}", scene.lifecycle());
    }
}
