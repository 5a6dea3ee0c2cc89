//! What Slack tells the app, in the shapes that its documentation and its SDKs' tests show.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::clock::to_epoch;
use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};

use super::core::{Core, REPLIES};
use super::delivery::{Content, Delivery};
use super::mint::{CAPITALS, DIGITS};
use super::state::{BotUser, Happening, News, State};
use super::world::{Place, Who};
use super::{FakeSlack, key, team_id, user_id};

impl FakeSlack {
    /// An event from this workspace, as the Events API sends it: `event` is the inner object.
    ///
    /// The authorization in the envelope is the workspace's own installation if there is one, else
    /// its organisation's.
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
    pub fn event(&self, team: &str, mut event: Value) -> Delivery {
        let core = &self.core;
        let team = team_id(team);
        let mut state = core.state();
        let scene = Scene::of(&mut state, team);
        let seconds = to_epoch(core.clock.now());
        if let Some(event) = event.as_object_mut() {
            let stamp = || format!("{seconds}.{}", state.mint.text(DIGITS, 6)).into();
            event.entry("event_ts").or_insert_with(stamp);
        }
        let mut body = core.envelope(&mut state, &scene.workspace(), event, seconds);
        body.insert("context_team_id".to_owned(), json!(scene.team));
        body.insert("context_enterprise_id".to_owned(), json!(scene.org_id()));
        body.insert("is_ext_shared_channel".to_owned(), false.into());
        let context = format!("4-{}", state.mint.text(CAPITALS, 20));
        body.insert("event_context".to_owned(), context.into());
        let authorization = json!({
            "enterprise_id": scene.org_id(),
            "team_id": (!scene.is_org_wide).then_some(&scene.team),
            "user_id": scene.bot.user,
            "is_bot": true,
            "is_enterprise_install": scene.is_org_wide,
        });
        body.insert("authorizations".to_owned(), json!([authorization]));
        core.delivery(Content::Json(body.into()))
    }

    /// `app_uninstalled` for this tenant, whether it is installed or not. For an organisation it
    /// names no workspace.
    #[must_use]
    pub fn app_uninstalled(&self, tenant: &str) -> Delivery {
        self.core.tell(&News {
            at: self.core.clock.now(),
            tenant: key(tenant),
            what: Happening::Uninstalled,
        })
    }

    /// `tokens_revoked` for this tenant: of these people, and of these bots (by the bot's user
    /// id), whether they have tokens or not.
    #[must_use]
    pub fn tokens_revoked(&self, tenant: &str, users: &[&str], bots: &[&str]) -> Delivery {
        let ids = |ids: &[&str]| ids.iter().copied().map(user_id).collect();
        self.core.tell(&News {
            at: self.core.clock.now(),
            tenant: key(tenant),
            what: Happening::Revoked {
                bots: ids(bots),
                users: ids(users),
            },
        })
    }

    /// The lifecycle events that became due since the last time: by [`uninstall`], by
    /// [`revoke_user`] and by the app's own `auth.revoke` and `apps.uninstall`. In the order in
    /// which things happened, which Slack does not promise; each carries the time of its cause.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     fake: slack_installs::testing::FakeSlack,
    /// #     events_url: url::Url,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// fake.uninstall("T0ALPHA0001");
    /// for event in fake.take_events() {
    ///     let answer = fake.deliver(&events_url, &event).await?;
    ///     assert!(answer.status().is_success());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`revoke_user`]: FakeSlack::revoke_user
    /// [`uninstall`]: FakeSlack::uninstall
    #[must_use]
    pub fn take_events(&self) -> Vec<Delivery> {
        let news = self.core.state().take_news();
        news.iter().map(|news| self.core.tell(news)).collect()
    }

    /// The question with which Slack checks an app's events URL.
    #[must_use]
    pub fn url_verification(&self, challenge: &str) -> Delivery {
        self.core.delivery(Content::Json(json!({
            "token": self.core.app.verification_token,
            "challenge": challenge,
            "type": "url_verification",
        })))
    }

    /// The probe that Slack sends to a command's URL now and then. It is signed here; no source
    /// says whether Slack signs it.
    #[must_use]
    pub fn ssl_check(&self) -> Delivery {
        let token = &self.core.app.verification_token;
        self.core
            .delivery(Content::Form(form([("ssl_check", "1"), ("token", token)])))
    }

    /// Somebody types a slash command, such as `/hello` with the text `world`.
    ///
    /// # Panics
    ///
    /// If there is no such person, or they are in no such workspace.
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

    /// Somebody clicks a button in a message of the app's bot.
    ///
    /// # Panics
    ///
    /// If there is no such person, or they are in no such workspace.
    #[must_use]
    pub fn block_action(&self, who: impl Into<Who>, action_id: &str) -> Delivery {
        self.interactive(&who.into(), "block_actions", |payload, scene, ticket| {
            payload.extend([
                ("api_app_id".to_owned(), json!(self.core.app.id)),
                (
                    "channel".to_owned(),
                    json!({ "id": CHANNEL_ID, "name": CHANNEL }),
                ),
                (
                    "container".to_owned(),
                    json!({
                        "type": "message",
                        "message_ts": MESSAGE_TS,
                        "channel_id": CHANNEL_ID,
                        "is_ephemeral": false,
                    }),
                ),
                (
                    "message".to_owned(),
                    json!({
                        "type": "message",
                        "subtype": "bot_message",
                        "bot_id": scene.bot.id,
                        "app_id": self.core.app.id,
                        "user": scene.bot.user,
                        "team": scene.team,
                        "text": "please choose",
                        "ts": MESSAGE_TS,
                        "blocks": [],
                    }),
                ),
                ("state".to_owned(), json!({ "values": {} })),
                ("response_url".to_owned(), ticket.into()),
                (
                    "actions".to_owned(),
                    json!([{
                        "action_id": action_id,
                        "block_id": "b1",
                        "text": { "type": "plain_text", "text": "Choose", "emoji": true },
                        "value": "1",
                        "type": "button",
                        "action_ts": MESSAGE_TS,
                    }]),
                ),
            ]);
        })
    }

    /// Somebody uses a message shortcut. Slack does not say which workspace the person is of.
    ///
    /// # Panics
    ///
    /// If there is no such person, or they are in no such workspace.
    #[must_use]
    pub fn message_shortcut(&self, who: impl Into<Who>, callback_id: &str) -> Delivery {
        self.interactive(&who.into(), "message_action", |payload, scene, ticket| {
            if let Some(user) = payload.get_mut("user").and_then(Value::as_object_mut) {
                user.remove("team_id");
            }
            let message = json!({
                "type": "message",
                "user": user_id("U0SOMEBODY1"),
                "ts": MESSAGE_TS,
                "team": scene.team,
                "text": "remember this",
            });
            payload.extend([
                ("api_app_id".to_owned(), json!(self.core.app.id)),
                ("action_ts".to_owned(), MESSAGE_TS.into()),
                ("callback_id".to_owned(), callback_id.into()),
                (
                    "channel".to_owned(),
                    json!({ "id": CHANNEL_ID, "name": CHANNEL }),
                ),
                ("message_ts".to_owned(), MESSAGE_TS.into()),
                ("message".to_owned(), message),
                ("response_url".to_owned(), ticket.into()),
            ]);
        })
    }

    /// Somebody uses a global shortcut. It names no app: no published sample does.
    ///
    /// # Panics
    ///
    /// If there is no such person, or they are in no such workspace.
    #[must_use]
    pub fn shortcut(&self, who: impl Into<Who>, callback_id: &str) -> Delivery {
        self.interactive(&who.into(), "shortcut", |payload, _, _| {
            payload.extend([
                ("action_ts".to_owned(), MESSAGE_TS.into()),
                ("callback_id".to_owned(), callback_id.into()),
            ]);
        })
    }

    /// Somebody submits a modal of the app's. For an org-wide installation
    /// `view.app_installed_team_id` is the organisation's id.
    ///
    /// # Panics
    ///
    /// If there is no such person, or they are in no such workspace.
    #[must_use]
    pub fn view_submission(&self, who: impl Into<Who>, callback_id: &str) -> Delivery {
        self.interactive(&who.into(), "view_submission", |payload, scene, _| {
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
            payload.extend([
                ("api_app_id".to_owned(), json!(self.core.app.id)),
                ("view".to_owned(), view),
                ("response_urls".to_owned(), json!([])),
            ]);
        })
    }

    /// What all interactive payloads share, and then what `complete` adds, given a `response_url`.
    fn interactive(
        &self,
        who: &Who,
        kind: &str,
        complete: impl FnOnce(&mut Map<String, Value>, &Scene, String),
    ) -> Delivery {
        let mut state = self.core.state();
        let Actor {
            name,
            scene,
            team_id,
            user,
        } = Actor::of(&mut state, who);
        let mut team = Map::from_iter([
            ("id".to_owned(), json!(scene.team)),
            ("domain".to_owned(), json!(scene.place.domain)),
        ]);
        if let Some((id, org)) = &scene.org {
            team.insert("enterprise_id".to_owned(), json!(id));
            team.insert("enterprise_name".to_owned(), json!(org.name));
        }
        let enterprise = scene
            .org
            .as_ref()
            .map(|(id, org)| json!({ "id": id, "name": org.name }));
        let user = json!({ "id": user, "username": name, "name": name, "team_id": team_id });
        let mut payload = Map::from_iter([
            ("type".to_owned(), kind.into()),
            (
                "token".to_owned(),
                self.core.app.verification_token.clone().into(),
            ),
            ("trigger_id".to_owned(), trigger_id(&mut state).into()),
            ("user".to_owned(), user),
            (
                "team".to_owned(),
                (!scene.is_org_wide).then_some(team).into(),
            ),
            ("enterprise".to_owned(), enterprise.into()),
            ("is_enterprise_install".to_owned(), scene.is_org_wide.into()),
        ]);
        let response_url = self.core.response_url(&mut state, &scene.team);
        complete(&mut payload, &scene, response_url);
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

    /// A lifecycle event: the least that Slack's documentation shows, without authorizations.
    fn tell(&self, news: &News) -> Delivery {
        let event = match &news.what {
            Happening::Revoked { bots, users } => {
                json!({ "type": "tokens_revoked", "tokens": { "oauth": users, "bot": bots } })
            }
            Happening::Uninstalled => json!({ "type": "app_uninstalled" }),
        };
        let mut state = self.state();
        let body = self.envelope(&mut state, &news.tenant, event, to_epoch(news.at));
        self.delivery(Content::Json(body.into()))
    }

    fn envelope(
        &self,
        state: &mut State,
        tenant: &InstallationKey,
        event: Value,
        event_time: u64,
    ) -> Map<String, Value> {
        let mut body = Map::from_iter([
            (
                "token".to_owned(),
                self.app.verification_token.clone().into(),
            ),
            ("api_app_id".to_owned(), json!(self.app.id)),
            ("event".to_owned(), event),
            ("type".to_owned(), "event_callback".into()),
            ("event_id".to_owned(), state.mint.id("Ev0").into()),
            ("event_time".to_owned(), event_time.into()),
        ]);
        if let Some(team) = tenant.team() {
            body.insert("team_id".to_owned(), json!(team));
        }
        let org = state.world.org_of(tenant).map(|(id, _)| id);
        if let Some(org) = org.as_ref().or_else(|| tenant.enterprise()) {
            body.insert("enterprise_id".to_owned(), json!(org));
        }
        body
    }

    /// On this fake's own host, so that what the app answers stays on this machine.
    fn response_url(&self, state: &mut State, team: &TeamId) -> String {
        let path = format!("{REPLIES}{team}/{}", state.mint.ticket());
        let url = self.environment.base().join(&path);
        url.expect("a path of letters joins any base").into()
    }
}

/// A workspace, and the installation that serves it.
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
            place: place.unwrap_or_else(|| panic!("no workspace {team} in this world")),
            team,
        }
    }

    fn org_id(&self) -> Option<&EnterpriseId> {
        self.org.as_ref().map(|(id, _)| id)
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
    /// The workspace that they are of: for a stranger, their own.
    team_id: TeamId,
    user: UserId,
}

impl Actor {
    fn of(state: &mut State, who: &Who) -> Self {
        let resident = state.world.resident(&who.user);
        let resident = resident
            .unwrap_or_else(|| panic!("no {} in this world", who.user))
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
