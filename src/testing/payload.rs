//! The payloads that Slack sends to the app, in the forms of its documentation and SDK tests.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::clock::to_epoch;
use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};

use super::core::Core;
use super::delivery::{Content, Delivery};
use super::mint::{CAPITALS, DIGITS};
use super::response::object;
use super::state::{BotUser, EventKind, PendingEvent, State};
use super::world::{Place, Who};
use super::{FakeSlack, key, team_id, user_id};

impl FakeSlack {
    /// Returns an event from this workspace, as the Events API sends it.
    ///
    /// `event` is the inner object. If the app is not installed in the workspace but org-wide, the
    /// envelope's authorization names the organisation. Otherwise it names the workspace.
    ///
    /// # Panics
    ///
    /// Panics if the workspace does not exist.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use slack_installs::testing::FakeSlack;
    /// use serde_json::json;
    ///
    /// let fake = FakeSlack::start().await?;
    /// let event = json!({ "type": "app_mention", "user": "U0ADMIN0001", "text": "hello" });
    /// let delivery = fake.event("T0ALPHA0001", event);
    /// assert_eq!(delivery.json().map(|json| &json["team_id"]), Some(&json!("T0ALPHA0001")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn event(&self, team: &str, event: Value) -> Delivery {
        self.event_for(team, None, event)
    }

    /// Returns an event from this workspace that the app gets on behalf of this person.
    ///
    /// Slack sends it if the app has the person's token but the bot is not concerned: for an app
    /// with only user scopes, or in a channel without the bot. The envelope's authorization then
    /// names the person, with `is_bot: false`. That person is the *authorizing user*; who caused
    /// the event is in `event`, and can be another person.
    ///
    /// If only an org-wide installation has the person's token, the authorization names the
    /// organisation. The person need not have a token.
    ///
    /// ```
    /// use slack_installs::testing::{FakeSlack, World};
    /// use serde_json::json;
    ///
    /// let fake = FakeSlack::in_process(World::default());
    /// // Carol reacts in a channel that Bob's authorization lets the app see.
    /// let event = json!({ "type": "reaction_added", "user": "U0CAROL0001" });
    /// let delivery = fake.event_on_behalf_of("T0ALPHA0001", "U0BOB000001", event);
    /// let body = delivery.json().expect("an event");
    /// assert_eq!(body["authorizations"][0]["user_id"], "U0BOB000001");
    /// assert_eq!(body["authorizations"][0]["is_bot"], false);
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if the workspace does not exist.
    #[must_use]
    pub fn event_on_behalf_of(&self, team: &str, user: &str, event: Value) -> Delivery {
        self.event_for(team, Some(&user_id(user)), event)
    }

    /// Returns an event for the bot, or on behalf of a user.
    fn event_for(&self, team: &str, behalf: Option<&UserId>, mut event: Value) -> Delivery {
        let core = &self.core;
        let team = team_id(team);
        let mut state = core.state();
        let mut scene = Scene::of(&mut state, team);
        if let Some(user) = behalf {
            scene.is_org_wide = scene.is_org_wide_for(&state, user);
        }
        let seconds = to_epoch(core.clock.now());
        if let Some(event) = event.as_object_mut() {
            let stamp = || format!("{seconds}.{}", state.mint.text(DIGITS, 6)).into();
            event.entry("event_ts").or_insert_with(stamp);
        }
        let mut body = core.envelope(&mut state, &scene.workspace(), event, seconds);
        body.extend(object(json!({
            "context_team_id": scene.team,
            "context_enterprise_id": scene.org_id(),
            "is_ext_shared_channel": false,
            "event_context": format!("4-{}", state.mint.text(CAPITALS, 20)),
            "authorizations": [{
                "enterprise_id": scene.org_id(),
                "team_id": (!scene.is_org_wide).then_some(&scene.team),
                "user_id": behalf.unwrap_or(&scene.bot.user),
                "is_bot": behalf.is_none(),
                "is_enterprise_install": scene.is_org_wide,
            }],
        })));
        core.delivery(Content::Json(body.into()))
    }

    /// Returns the event `app_uninstalled` for this tenant, even if the app is not installed there.
    ///
    /// For an organisation, the event names no workspace.
    #[must_use]
    pub fn app_uninstalled(&self, tenant: &str) -> Delivery {
        self.core.lifecycle_event(&PendingEvent {
            at: self.core.clock.now(),
            tenant: key(tenant),
            what: EventKind::Uninstalled,
        })
    }

    /// Returns the event `tokens_revoked` for this tenant, with these users and bots.
    ///
    /// A bot is named by its user id. The users and bots need not have tokens.
    #[must_use]
    pub fn tokens_revoked(&self, tenant: &str, users: &[&str], bots: &[&str]) -> Delivery {
        let ids = |ids: &[&str]| ids.iter().copied().map(user_id).collect();
        self.core.lifecycle_event(&PendingEvent {
            at: self.core.clock.now(),
            tenant: key(tenant),
            what: EventKind::Revoked {
                bots: ids(bots),
                users: ids(users),
            },
        })
    }

    /// Returns the lifecycle events that were queued since the last call.
    ///
    /// [`uninstall`], [`revoke_user`], and the app's own calls of `auth.revoke` and
    /// `apps.uninstall` queue events. The deactivation of a person does so too. The events have the
    /// order of their causes, which Slack does not guarantee. Each has the time of its cause.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     fake: slack_installs::testing::FakeSlack,
    /// #     events_url: url::Url,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// fake.uninstall("T0ALPHA0001");
    /// for event in fake.take_events() {
    ///     let response = fake.deliver(&events_url, &event).await?;
    ///     assert!(response.status().is_success());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`revoke_user`]: FakeSlack::revoke_user
    /// [`uninstall`]: FakeSlack::uninstall
    #[must_use]
    pub fn take_events(&self) -> Vec<Delivery> {
        let pending = self.core.state().take_events();
        let events = pending.iter().map(|event| self.core.lifecycle_event(event));
        events.collect()
    }

    /// Returns the request with which Slack verifies an app's events URL.
    #[must_use]
    pub fn url_verification(&self, challenge: &str) -> Delivery {
        self.core.delivery(Content::Json(json!({
            "token": self.core.app.verification_token,
            "challenge": challenge,
            "type": "url_verification",
        })))
    }

    /// Returns the probe that Slack sends to a command's URL from time to time.
    ///
    /// The fake signs it. No source says whether Slack signs it.
    #[must_use]
    pub fn ssl_check(&self) -> Delivery {
        let token = &self.core.app.verification_token;
        self.core
            .delivery(Content::Form(form([("ssl_check", "1"), ("token", token)])))
    }

    /// Returns a slash command of this person, such as `/hello` with the text `world`.
    ///
    /// # Panics
    ///
    /// Panics if the person does not exist, or is not in that workspace.
    #[must_use]
    pub fn slash_command(&self, who: impl Into<Who>, command: &str, text: &str) -> Delivery {
        let mut state = self.core.state();
        let actor = Actor::of(&mut state, &who.into());
        let scene = &actor.scene;
        let response_url = self.core.response_url(&mut state, &scene.team);
        let trigger_id = trigger_id(&mut state);
        let mut fields = form([
            ("token", &*self.core.app.verification_token),
            ("team_id", scene.team.as_str()),
            ("team_domain", &scene.place.domain),
        ]);
        if let Some((id, org)) = &scene.org {
            fields.extend(form([
                ("enterprise_id", id.as_str()),
                ("enterprise_name", &org.name),
            ]));
        }
        fields.extend(form([
            ("channel_id", CHANNEL_ID),
            ("channel_name", CHANNEL),
            ("user_id", actor.user.as_str()),
            ("user_name", &actor.name),
            ("command", command),
            ("text", text),
            ("api_app_id", self.core.app.id.as_str()),
            (
                "is_enterprise_install",
                if scene.is_org_wide { "true" } else { "false" },
            ),
            ("response_url", &response_url),
            ("trigger_id", &trigger_id),
        ]));
        self.core.delivery(Content::Form(fields))
    }

    /// Returns this person's click on a button in a message of the app's bot.
    ///
    /// # Panics
    ///
    /// Panics if the person does not exist, or is not in that workspace.
    #[must_use]
    pub fn block_action(&self, who: impl Into<Who>, action_id: &str) -> Delivery {
        self.interactive(&who.into(), "block_actions", |scene, ticket| {
            json!({
                "api_app_id": self.core.app.id,
                "channel": { "id": CHANNEL_ID, "name": CHANNEL },
                "container": {
                    "type": "message",
                    "message_ts": MESSAGE_TS,
                    "channel_id": CHANNEL_ID,
                    "is_ephemeral": false,
                },
                "message": {
                    "type": "message",
                    "subtype": "bot_message",
                    "bot_id": scene.bot.id,
                    "app_id": self.core.app.id,
                    "user": scene.bot.user,
                    "team": scene.team,
                    "text": "please choose",
                    "ts": MESSAGE_TS,
                    "blocks": [],
                },
                "state": { "values": {} },
                "response_url": ticket,
                "actions": [{
                    "action_id": action_id,
                    "block_id": "b1",
                    "text": { "type": "plain_text", "text": "Choose", "emoji": true },
                    "value": "1",
                    "type": "button",
                    "action_ts": MESSAGE_TS,
                }],
            })
        })
    }

    /// Returns this person's use of a message shortcut.
    ///
    /// As in Slack's payload, the person's workspace is not named.
    ///
    /// # Panics
    ///
    /// Panics if the person does not exist, or is not in that workspace.
    #[must_use]
    pub fn message_shortcut(&self, who: impl Into<Who>, callback_id: &str) -> Delivery {
        let delivery = self.interactive(&who.into(), "message_action", |scene, ticket| {
            json!({
                "api_app_id": self.core.app.id,
                "action_ts": MESSAGE_TS,
                "callback_id": callback_id,
                "channel": { "id": CHANNEL_ID, "name": CHANNEL },
                "message_ts": MESSAGE_TS,
                "message": {
                    "type": "message",
                    "user": user_id("U0SOMEBODY1"),
                    "ts": MESSAGE_TS,
                    "team": scene.team,
                    "text": "remember this",
                },
                "response_url": ticket,
            })
        });
        delivery.edit(|payload| {
            if let Some(user) = payload["user"].as_object_mut() {
                user.remove("team_id");
            }
        })
    }

    /// Returns this person's use of a global shortcut.
    ///
    /// The payload does not name the app, because no published sample does.
    ///
    /// # Panics
    ///
    /// Panics if the person does not exist, or is not in that workspace.
    #[must_use]
    pub fn shortcut(&self, who: impl Into<Who>, callback_id: &str) -> Delivery {
        self.interactive(
            &who.into(),
            "shortcut",
            |_, _| json!({ "action_ts": MESSAGE_TS, "callback_id": callback_id }),
        )
    }

    /// Returns this person's submission of a modal of the app.
    ///
    /// For an org-wide installation, `view.app_installed_team_id` is the organisation's id.
    ///
    /// # Panics
    ///
    /// Panics if the person does not exist, or is not in that workspace.
    #[must_use]
    pub fn view_submission(&self, who: impl Into<Who>, callback_id: &str) -> Delivery {
        self.interactive(&who.into(), "view_submission", |scene, _| {
            let view = json!({
                "id": "V0FAKEVIEW1",
                "team_id": scene.team,
                "type": "modal",
                "blocks": [],
                "private_metadata": "",
                "callback_id": callback_id,
                "state": { "values": {} },
                "title": { "type": "plain_text", "text": "Fake", "emoji": true },
                "clear_on_close": false,
                "notify_on_close": false,
                "close": null,
                "submit": { "type": "plain_text", "text": "Save", "emoji": true },
                "previous_view_id": null,
                "root_view_id": "V0FAKEVIEW1",
                "app_id": self.core.app.id,
                "external_id": "",
                "app_installed_team_id": scene.tenant().id(),
                "bot_id": scene.bot.id,
            });
            json!({ "api_app_id": self.core.app.id, "view": view, "response_urls": [] })
        })
    }

    /// Returns a payload with the fields that all interactions share, and the fields from `more`.
    ///
    /// `more` receives the scene and a `response_url`.
    fn interactive(
        &self,
        who: &Who,
        kind: &str,
        more: impl FnOnce(&Scene, String) -> Value,
    ) -> Delivery {
        let mut state = self.core.state();
        let Actor {
            name,
            scene,
            team_id,
            user,
        } = Actor::of(&mut state, who);
        let mut team = json!({ "id": scene.team, "domain": scene.place.domain });
        let mut enterprise = Value::Null;
        if let Some((id, org)) = &scene.org {
            team["enterprise_id"] = json!(id);
            team["enterprise_name"] = json!(org.name);
            enterprise = json!({ "id": id, "name": org.name });
        }
        let mut payload = object(json!({
            "type": kind,
            "token": self.core.app.verification_token,
            "trigger_id": trigger_id(&mut state),
            "user": { "id": user, "username": name, "name": name, "team_id": team_id },
            "team": (!scene.is_org_wide).then_some(team),
            "enterprise": enterprise,
            "is_enterprise_install": scene.is_org_wide,
        }));
        let response_url = self.core.response_url(&mut state, &scene.team);
        payload.extend(object(more(&scene, response_url)));
        self.core.delivery(Content::Payload(payload.into()))
    }
}

impl Core {
    fn delivery(&self, content: Content) -> Delivery {
        Delivery::new(
            content,
            self.clock.now(),
            Arc::clone(&self.app.signing_secret),
        )
    }

    /// Returns a lifecycle event with the fewest fields that Slack documents. It has no
    /// `authorizations`.
    fn lifecycle_event(&self, pending: &PendingEvent) -> Delivery {
        let event = match &pending.what {
            EventKind::Revoked { bots, users } => {
                json!({ "type": "tokens_revoked", "tokens": { "oauth": users, "bot": bots } })
            }
            EventKind::Uninstalled => json!({ "type": "app_uninstalled" }),
        };
        let mut state = self.state();
        let body = self.envelope(&mut state, &pending.tenant, event, to_epoch(pending.at));
        self.delivery(Content::Json(body.into()))
    }

    fn envelope(
        &self,
        state: &mut State,
        tenant: &InstallationKey,
        event: Value,
        event_time: u64,
    ) -> Map<String, Value> {
        let mut body = object(json!({
            "token": self.app.verification_token,
            "api_app_id": self.app.id,
            "type": "event_callback",
            "event_id": state.mint.id("Ev0"),
            "event_time": event_time,
        }));
        body.insert("event".to_owned(), event);
        if let Some(team) = tenant.team() {
            body.insert("team_id".to_owned(), json!(team));
        }
        let org = state.world.org_of(tenant).map(|(id, _)| id);
        if let Some(org) = org.as_ref().or_else(|| tenant.enterprise()) {
            body.insert("enterprise_id".to_owned(), json!(org));
        }
        body
    }

    /// Returns a `response_url` on the fake's own host, so that the app's replies stay on this
    /// machine.
    fn response_url(&self, state: &mut State, team: &TeamId) -> String {
        let State { mint, posts, .. } = state;
        posts.response_url(mint, team, self.clock.now())
    }
}

/// A workspace and its installation, or the org-wide one.
struct Scene {
    bot: BotUser,
    is_org_wide: bool,
    org: Option<(EnterpriseId, Place)>,
    place: Place,
    team: TeamId,
}

impl Scene {
    fn of(state: &mut State, team: TeamId) -> Self {
        let workspace = InstallationKey::workspace(team.clone());
        let place = state.world.named(&workspace).cloned();
        let org = state
            .world
            .org_of(&workspace)
            .map(|(id, org)| (id, org.clone()));
        let org_key = org.as_ref().map(|(id, _)| InstallationKey::org(id.clone()));
        let org_key =
            org_key.filter(|org| !state.is_installed(&workspace) && state.is_installed(org));
        Self {
            bot: state.bot_user(org_key.as_ref().unwrap_or(&workspace)),
            is_org_wide: org_key.is_some(),
            org,
            place: place
                .unwrap_or_else(|| panic!("no workspace {team} in this world: add it first")),
            team,
        }
    }

    fn org_id(&self) -> Option<&EnterpriseId> {
        self.org.as_ref().map(|(id, _)| id)
    }

    /// Returns whether this user's token is in the org-wide installation only. If it is in none,
    /// returns where the bot is.
    fn is_org_wide_for(&self, state: &State, user: &UserId) -> bool {
        let has_token = |key: &InstallationKey| state.token(key, Some(user)).is_some();
        if has_token(&self.workspace()) {
            return false;
        }
        let org = self.org_id().cloned().map(InstallationKey::org);
        self.is_org_wide || org.is_some_and(|org| has_token(&org))
    }

    fn tenant(&self) -> InstallationKey {
        match (&self.org, self.is_org_wide) {
            (Some((org, _)), true) => InstallationKey::org(org.clone()),
            _ => self.workspace(),
        }
    }

    fn workspace(&self) -> InstallationKey {
        InstallationKey::workspace(self.team.clone())
    }
}

/// A person in a workspace.
struct Actor {
    name: String,
    scene: Scene,
    /// The person's own workspace.
    team_id: TeamId,
    user: UserId,
}

impl Actor {
    fn of(state: &mut State, who: &Who) -> Self {
        let resident = state.world.resident(&who.user);
        let resident = resident
            .unwrap_or_else(|| panic!("no person {} in this world: add them first", who.user))
            .clone();
        let is_meant = |team: &&TeamId| match &who.place {
            Some(place) => {
                let key = InstallationKey::workspace((*team).clone());
                let org = state.world.org_of(&key);
                team.as_str() == place || org.is_some_and(|(org, _)| org.as_str() == place)
            }
            None => true,
        };
        let team = resident.teams.iter().find(is_meant).cloned();
        let team = team.unwrap_or_else(|| panic!("{} is not in {:?}", who.user, who.place));
        Self {
            scene: Scene::of(state, team.clone()),
            team_id: resident.person.home.unwrap_or(team),
            name: resident.person.name,
            user: who.user.clone(),
        }
    }
}

fn form<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    let fields = fields.into_iter();
    fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn trigger_id(state: &mut State) -> String {
    let (one, two) = (state.mint.text(DIGITS, 10), state.mint.text(DIGITS, 10));
    format!("{one}.{two}.{}", state.mint.ticket())
}

const CHANNEL: &str = "general";
const CHANNEL_ID: &str = "C0GENERAL01";
const MESSAGE_TS: &str = "1790000049.000100";
