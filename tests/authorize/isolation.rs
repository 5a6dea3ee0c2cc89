//! Property tests of tenant isolation, over generated tenants with similar ids and signed requests
//! of every kind. The token handed out belongs to the tenant that this file's oracle names. A user
//! token belongs to the user who acted, and the authorizing user's token to the user for whom
//! Slack delivers the event. Nobody who was only mentioned gives a token.
//!
//! The oracle knows the facts that a request was built from. It does not read the payload.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::app::key;
use crate::support::installs::{
    With, enterprise, in_org, in_workspace, in_workspace_of, noon, team,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use ring::hmac;
use serde_json::{Value, json};
use slack_installs::backend::MemoryBackend;
use slack_installs::request::{SocketModeConnection, VerifiedRequest, Verifier};
use slack_installs::secret::SigningSecret;
use slack_installs::store::Access;
use slack_installs::{
    AppId, AuthorizeError, Authorizer, Clock, EncryptedStore, Installation, InstallationStore as _,
    LifecycleStore as _, LocalKeyProvider, MasterKey,
};

const TEAMS: [&str; 6] = ["T1", "T12", "T123", "T2", "T21", "T3"];
const ORGS: [&str; 3] = ["E1", "E12", "E2"];
const USERS: [&str; 4] = ["U1", "U12", "W1", "W12"];
const SECRET: &str = "isolation-signing-secret";

/// The workspaces, their organisations, and the installations.
#[derive(Clone, Debug)]
struct World {
    /// The organisation of each workspace.
    orgs: BTreeMap<&'static str, Option<&'static str>>,
    /// The tenants that have the app, with the users who authorised it there.
    installs: BTreeMap<&'static str, BTreeSet<&'static str>>,
    /// The workspaces that were installed before they joined their organisation.
    stale: BTreeSet<&'static str>,
    /// The workspaces from which their organisation revoked the app's access.
    taken_away: BTreeSet<&'static str>,
}

/// One action of a user in a workspace that uses the app.
#[derive(Clone, Debug)]
struct Act {
    /// The workspace that uses the app.
    home: &'static str,
    /// Whether that workspace uses its organisation's installation.
    org_wide: bool,
    user: &'static str,
    /// A user who is named in the payload and did not act.
    bystander: &'static str,
    /// The user for whom Slack delivers an event, if it is not delivered to the bot.
    on_behalf_of: Option<&'static str>,
    /// The workspace of the actor. It differs from `home` in a channel shared with another company.
    from: &'static str,
    form: Form,
    socket: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    BlockActions,
    /// A click on a message that does not name its app.
    BlockActionsOfBot,
    Command,
    Event,
    EventWithoutContext,
    Function,
    /// The actor invited the bystander to a channel.
    Invitation,
    MessageAction,
    Options,
    /// Something happened to the actor.
    Profile,
    Shortcut,
    /// A type of interaction that is not known.
    Unknown,
    ViewClosed,
    ViewSubmission,
}

const FORMS: [Form; 14] = [
    Form::BlockActions,
    Form::BlockActionsOfBot,
    Form::Command,
    Form::Event,
    Form::EventWithoutContext,
    Form::Function,
    Form::Invitation,
    Form::MessageAction,
    Form::Options,
    Form::Profile,
    Form::Shortcut,
    Form::Unknown,
    Form::ViewClosed,
    Form::ViewSubmission,
];

impl Form {
    /// Returns whether the payload names no workspace except the actor's.
    fn is_silent(self) -> bool {
        self == Self::EventWithoutContext || !(self.is_event() || self == Self::Command)
    }

    fn is_event(self) -> bool {
        matches!(
            self,
            Self::Event
                | Self::EventWithoutContext
                | Self::Function
                | Self::Invitation
                | Self::Profile
        )
    }

    /// Returns whether the payload certainly says who acted.
    fn names_its_actor(self) -> bool {
        !matches!(self, Self::Function | Self::Profile)
    }
}

impl World {
    fn org(&self, team: &str) -> Option<&'static str> {
        self.orgs[team]
    }

    /// Returns the organisation whose installation may serve the action. If the actor belongs to
    /// another company, the payload for an org-wide installation does not name the home workspace.
    /// Only an event's context names it.
    fn serving_org(&self, act: &Act) -> Option<&'static str> {
        let is_said = !(act.is_shared() && act.form.is_silent());
        self.org(act.home)
            .filter(|_| !(is_said && self.taken_away.contains(act.home)))
    }

    /// Returns the tenants whose token may serve the action, best first. The second one counts only
    /// if the payload states for certain how the two are related.
    fn oracle(&self, act: &Act) -> Vec<&'static str> {
        let org = self.serving_org(act);
        let own = Some(act.home);
        let order = if act.org_wide { [org, own] } else { [own, org] };
        let installed = |id: &&'static str| self.installs.contains_key(id);
        order.into_iter().flatten().filter(installed).collect()
    }

    /// Returns the tenant that must serve the action if it is installed.
    fn must(&self, act: &Act) -> Option<&'static str> {
        let named = if act.org_wide {
            self.serving_org(act)?
        } else {
            act.home
        };
        self.installs.contains_key(named).then_some(named)
    }

    fn installation(&self, id: &str) -> Installation {
        let bare = match (id.starts_with('E'), self.orgs.get(id).copied().flatten()) {
            (true, _) => in_org(id, None),
            (false, Some(org)) if !self.stale.contains(id) => in_workspace_of(org, id),
            _ => in_workspace(id),
        };
        bare.with_bot(&format!("xoxb-{id}"))
    }

    async fn store(&self) -> EncryptedStore<MemoryBackend> {
        let keys = LocalKeyProvider::new(MasterKey::generate());
        let app = "1.2".to_owned();
        let app = slack_installs::ClientId::new(app).expect("a client id");
        let store = EncryptedStore::open(MemoryBackend::default(), keys, app).await;
        let store = store.expect("it responds").with_clock(Clock::from_fn(noon));
        for (id, users) in &self.installs {
            store.store(&self.installation(id)).await.expect("stored");
            for user in users {
                let install = self
                    .installation(id)
                    .with_user(user, &format!("xoxp-{id}-{user}"));
                store.store(&install).await.expect("stored");
            }
        }
        for home in &self.taken_away {
            if let Some(org) = self.org(home) {
                let access = Access {
                    teams: vec![team(home)],
                    is_granted: false,
                    at_micros: 1,
                };
                store
                    .set_access(&enterprise(org), &access)
                    .await
                    .expect("responds");
            }
        }
        store
    }
}

impl Act {
    fn is_shared(&self) -> bool {
        self.from != self.home
    }

    fn payload(&self, world: &World) -> Value {
        let org = world.org(self.home);
        let theirs = world.org(self.from);
        let named = if self.org_wide { org } else { Some(self.home) };
        let authorizing = self.on_behalf_of.unwrap_or("U0BOT");
        match self.form {
            Form::Command => json!({"command": "/x", "text": self.from, "team_id": self.home,
                "enterprise_id": org, "user_id": self.user, "api_app_id": "A0GOLDEN001",
                "is_enterprise_install": if self.org_wide { "true" } else { "false" }}),
            form if form.is_event() => {
                let (what, user, inviter) = match form {
                    Form::Function => ("function_executed", self.user, None),
                    Form::Invitation => ("member_joined_channel", self.bystander, Some(self.user)),
                    Form::Profile => ("user_profile_changed", self.user, None),
                    _ => ("message", self.user, None),
                };
                let mut event = json!({
                    "type": "event_callback", "api_app_id": "A0GOLDEN001",
                    "team_id": self.from, "enterprise_id": theirs,
                    "context_team_id": self.home, "context_enterprise_id": org,
                    "is_ext_shared_channel": self.is_shared(),
                    "event": {"type": what, "user": user, "inviter": inviter,
                        "item_user": self.bystander, "user_team": self.from,
                        "team": self.from, "source_team": self.from},
                    "authorizations": [{"enterprise_id": org,
                        "team_id": (!self.org_wide).then_some(self.home),
                        "user_id": authorizing, "is_bot": self.on_behalf_of.is_none(),
                        "is_enterprise_install": self.org_wide}],
                });
                if self.form == Form::EventWithoutContext {
                    let event = event.as_object_mut().expect("an object");
                    event.retain(|name, _| !name.starts_with("context_"));
                }
                event
            }
            form => {
                let (kind, has_view) = match form {
                    Form::BlockActions | Form::BlockActionsOfBot => ("block_actions", false),
                    Form::MessageAction => ("message_action", false),
                    Form::Options => ("block_suggestion", true),
                    Form::Unknown => ("an_interaction_of_the_future", false),
                    Form::ViewClosed => ("view_closed", true),
                    Form::ViewSubmission => ("view_submission", true),
                    _ => ("shortcut", false),
                };
                let mut payload = json!({
                    "type": kind, "api_app_id": "A0GOLDEN001",
                    "user": {"id": self.user, "team_id": self.from},
                    "team": {"id": self.from, "enterprise_id": theirs},
                    "enterprise": theirs.map(|id| json!({ "id": id })),
                    "is_enterprise_install": self.org_wide,
                });
                if self.org_wide {
                    payload["team"] = Value::Null;
                    payload["enterprise"] = json!({ "id": org });
                }
                if has_view {
                    payload["view"] = json!({"team_id": self.from,
                        "app_installed_team_id": named});
                }
                payload["message"] = match form {
                    Form::BlockActions => json!({"app_id": "A0GOLDEN001", "team": self.home,
                        "user": self.bystander}),
                    Form::BlockActionsOfBot | Form::Unknown => {
                        json!({"bot_id": "B1", "team": self.home, "user": self.bystander})
                    }
                    _ => Value::Null,
                };
                payload
            }
        }
    }

    fn request(&self, world: &World) -> VerifiedRequest {
        let payload = self.payload(world);
        let type_ = match self.form {
            Form::Command => "slash_commands",
            form if form.is_event() => "events_api",
            _ => "interactive",
        };
        if self.socket {
            let frame = json!({"envelope_id": "1", "type": type_, "payload": payload});
            let app = AppId::new("A0GOLDEN001").expect("an id");
            let connection = SocketModeConnection::opened_with_app_token(app);
            let received = connection.receive(Bytes::from(frame.to_string()));
            return received.expect("a frame").expect("with a request");
        }
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        let (content_type, body) = match type_ {
            "events_api" => ("application/json", payload.to_string()),
            "interactive" => (
                FORM,
                form.append_pair("payload", &payload.to_string()).finish(),
            ),
            _ => {
                for (name, value) in payload.as_object().expect("an object") {
                    if let Some(value) = value.as_str() {
                        form.append_pair(name, value);
                    }
                }
                (FORM, form.finish())
            }
        };
        let time = noon()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let tag = hmac::sign(&key, format!("v0:{time}:{body}").as_bytes());
        let hex: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", content_type.to_owned()),
            ("x-slack-request-timestamp", time.to_string()),
            ("x-slack-signature", format!("v0={hex}")),
        ] {
            headers.insert(name, HeaderValue::from_str(&value).expect("visible ASCII"));
        }
        let secret = SigningSecret::new(SECRET).expect("a secret");
        let verifier = Verifier::new(&secret).with_clock(Clock::from_fn(noon));
        verifier
            .verify(&headers, Bytes::from(body))
            .expect("it is signed")
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn world() -> impl Strategy<Value = World> {
    let org = select(vec![None, Some("E1"), Some("E12"), Some("E2")]);
    let tenants: Vec<&'static str> = TEAMS.into_iter().chain(ORGS).collect();
    let users = btree_set(select(&USERS[..]), 0..3);
    let count = tenants.len();
    (
        vec(org, TEAMS.len()),
        subsequence(tenants, 0..=count),
        vec(users, count),
        btree_set(select(&TEAMS[..]), 0..3),
        btree_set(select(&TEAMS[..]), 0..3),
    )
        .prop_map(|(orgs, tenants, users, stale, taken_away)| World {
            orgs: TEAMS.into_iter().zip(orgs).collect(),
            installs: tenants.into_iter().zip(users).collect(),
            stale,
            taken_away,
        })
}

fn act() -> impl Strategy<Value = Act> {
    (
        select(&TEAMS[..]),
        any::<bool>(),
        select(&USERS[..]),
        (select(&USERS[..]), proptest::option::of(select(&USERS[..]))),
        select(&TEAMS[..]),
        any::<bool>(),
        select(&FORMS[..]),
        any::<bool>(),
    )
        .prop_map(
            |(home, org_wide, user, (bystander, on_behalf_of), other, is_shared, form, socket)| {
                Act {
                    home,
                    org_wide,
                    user,
                    bystander,
                    on_behalf_of: on_behalf_of.filter(|_| form.is_event()),
                    from: if is_shared { other } else { home },
                    form,
                    socket,
                }
            },
        )
}

/// Changes the action into one that Slack could send. An org-wide installation belongs to an
/// organisation. A shared channel is shared with another company. Some features are not available
/// to the other company.
fn plausible(act: &Act, world: &World) -> Act {
    let org = world.org(act.home);
    let org_wide = act.org_wide && org.is_some();
    let same_company = org.is_some() && world.org(act.from) == org;
    let inside_only = matches!(
        act.form,
        Form::Command | Form::Function | Form::MessageAction | Form::Shortcut
    );
    let from = if same_company || inside_only {
        act.home
    } else {
        act.from
    };
    Act {
        org_wide,
        from,
        ..act.clone()
    }
}

async fn check(world: &World, acts: Vec<Act>) {
    let store = world.store().await;
    let authorizer = Authorizer::new(store.clone()).with_clock(Clock::from_fn(noon));
    for act in acts {
        let act = plausible(&act, world);
        let allowed = world.oracle(&act);
        let payload = act.payload(world);
        let case = || format!("{act:?}\n{world:?}\n{payload}");
        match authorizer.authorize(&act.request(world)).await {
            Ok(served) => {
                let bot = served
                    .bot_token()
                    .expect("every install has a bot")
                    .expose();
                let by = bot.strip_prefix("xoxb-").expect("the tokens of this file");
                assert!(allowed.contains(&by), "served by {by}, {}", case());
                if let Some(must) = world.must(&act) {
                    assert_eq!(by, must, "{}", case());
                }
                let token_of = |user: Option<&str>| {
                    let user = user.filter(|user| world.installs[by].contains(*user));
                    user.map(|user| format!("xoxp-{by}-{user}"))
                };
                let actor = Some(act.user).filter(|_| act.form.names_its_actor());
                let token = served.user_token().map(|token| token.expose().to_owned());
                assert_eq!(token, token_of(actor), "{}", case());
                let token = served.authorizing_user_token();
                let token = token.map(|token| token.expose().to_owned());
                assert_eq!(token, token_of(act.on_behalf_of), "{}", case());
                assert_eq!(served.installation.key(), key(by), "{}", case());
            }
            Err(AuthorizeError::NotInstalled { .. } | AuthorizeError::NotGranted) => {
                assert_eq!(world.must(&act), None, "refused, {}", case());
            }
            Err(AuthorizeError::NoTenant) => {
                // The ids of two companies are in it, and nothing says which one is meant.
                assert!(act.form == Form::Unknown && act.is_shared(), "{}", case());
            }
            Err(error) => panic!("{error}, {}", case()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(300)
    })]

    #[test]
    fn the_token_handed_out_belongs_to_the_tenant_that_the_oracle_names(
        world in world(),
        acts in vec(act(), 40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(check(&world, acts));
    }
}
