//! The fake Slack's state: codes, installations and tokens.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use url::Url;

use crate::installation::Scopes;
use crate::tenant::{AppId, BotId, InstallationKey, UserId};

use super::calls::Calls;
use super::canned::Canned;
use super::consent::Ask;
use super::fault::Faults;
use super::mint::{HEX, Mint};
use super::posts::{Posts, WEBHOOK_CHANNEL};
use super::rotation::{ChainId, Pairs, Rotation, Use};
use super::world::{ConsentError, Who, World};

/// The changing data of a fake Slack.
pub(super) struct State {
    pub(super) calls: Calls,
    pub(super) canned: Canned,
    pub(super) faults: Faults,
    pub(super) mint: Mint,
    pub(super) pairs: Pairs,
    pub(super) posts: Posts,
    /// `None` until token rotation is enabled.
    pub(super) rotation: Option<Rotation>,
    /// The scopes that an admin's policy withholds.
    pub(super) withheld: Scopes,
    pub(super) world: World,
    /// The bots of all tenants that ever had the app, because a bot keeps its ids after a
    /// reinstall.
    bots: HashMap<InstallationKey, BotUser>,
    codes: HashMap<String, Pending>,
    /// The exchanged long-lived tokens, by the chain that replaced them.
    exchanged: HashMap<ChainId, String>,
    installs: HashMap<InstallationKey, Install>,
    events: Vec<PendingEvent>,
    /// Every issued token, including invalid ones, because Slack's error differs for unknown ones.
    tokens: HashMap<String, Holder>,
}

/// The bot's two ids in one tenant.
#[derive(Clone)]
pub(super) struct BotUser {
    pub(super) id: BotId,
    pub(super) user: UserId,
}

/// An issued code.
struct Pending {
    ask: Ask,
    expires_at: SystemTime,
    tenant: InstallationKey,
    used: bool,
    user: UserId,
}

/// The installation of the app in one tenant: the chain of each user, and of the bot (`None`).
type Install = BTreeMap<Option<UserId>, Chain>;

/// The current tokens of a bot or a user. Without token rotation, a chain has one token until it
/// is revoked.
struct Chain {
    /// The chain's pairs; `None` without token rotation.
    pairs: Option<ChainId>,
    scopes: Scopes,
    /// The access token that was issued last.
    token: String,
}

/// An issued token, as the fields of a response.
pub(super) struct Issue {
    access: String,
    expires_in: Option<u64>,
    refresh: Option<String>,
    scopes: Scopes,
}

/// The tenant and the owner of a token.
pub(super) struct Holder {
    /// Slack's error code, if the token was revoked.
    dead: Option<&'static str>,
    /// The token's number, counted from 1 in the order of issue.
    pub(super) number: u64,
    pub(super) tenant: InstallationKey,
    /// The owner of a user token; `None` for the bot's.
    pub(super) user: Option<UserId>,
}

/// A lifecycle event that Slack sends to the app, and the time of its cause.
pub(super) struct PendingEvent {
    pub(super) at: SystemTime,
    pub(super) tenant: InstallationKey,
    pub(super) what: EventKind,
}

pub(super) enum EventKind {
    Revoked {
        bots: Vec<UserId>,
        users: Vec<UserId>,
    },
    Uninstalled,
}

impl State {
    pub(super) fn new(world: World, mint: Mint, base: &Url) -> Self {
        Self {
            bots: HashMap::new(),
            calls: Calls::default(),
            canned: Canned::default(),
            codes: HashMap::new(),
            exchanged: HashMap::new(),
            faults: Faults::default(),
            installs: HashMap::new(),
            mint,
            events: Vec::new(),
            pairs: Pairs::default(),
            posts: Posts::new(base),
            rotation: None,
            tokens: HashMap::new(),
            withheld: Scopes::default(),
            world,
        }
    }

    /// Allows the installation, and returns the callback URL with a new code.
    pub(super) fn allow(
        &mut self,
        ask: &Ask,
        who: &Who,
        now: SystemTime,
    ) -> Result<Url, ConsentError> {
        let tenant = self.world.place(who)?;
        let barred = ["bot", "apps.requests.write"];
        if tenant.is_org() && barred.iter().any(|scope| ask.bot_scopes.contains(scope)) {
            return Err(ConsentError::Refused("scope_not_allowed_on_enterprise"));
        }
        let code = self.mint.code();
        let callback = ask.callback(&[("code", &code)]);
        let pending = Pending {
            ask: ask.clone(),
            expires_at: now + CODE_LIFE,
            tenant,
            used: false,
            user: who.user.clone(),
        };
        self.codes.insert(code, pending);
        Ok(callback)
    }

    /// Returns the tenant and the user of a code.
    pub(super) fn holder_of_code(&self, code: &str) -> Option<(&InstallationKey, &UserId)> {
        self.codes
            .get(code)
            .map(|pending| (&pending.tenant, &pending.user))
    }

    /// Spends a code, and returns the fields of the `oauth.v2.access` response.
    pub(super) fn exchange(
        &mut self,
        app: &AppId,
        code: &str,
        redirect_uri: Option<&str>,
        now: SystemTime,
    ) -> Result<Map<String, Value>, &'static str> {
        let pending = self.codes.get_mut(code).ok_or("invalid_code")?;
        if pending.used || now >= pending.expires_at {
            return Err("invalid_code");
        }
        if !pending.ask.is_repeated_by(redirect_uri) {
            return Err("bad_redirect_uri");
        }
        pending.used = true;
        let (ask, tenant, user) = (
            pending.ask.clone(),
            pending.tenant.clone(),
            pending.user.clone(),
        );
        Ok(self.grant(app, &tenant, &user, &ask, now))
    }

    /// Installs the app, or adds scopes to its installation.
    fn grant(
        &mut self,
        app: &AppId,
        tenant: &InstallationKey,
        user: &UserId,
        ask: &Ask,
        now: SystemTime,
    ) -> Map<String, Value> {
        let bot_scopes = self.withheld.missing(&ask.bot_scopes);
        let user_scopes = self.withheld.missing(&ask.user_scopes);
        let mut answer = self.home_of(tenant);
        answer.insert("app_id".to_owned(), json!(app));
        let mut authed_user = Map::from_iter([("id".to_owned(), json!(user))]);
        if !bot_scopes.is_empty() {
            let bot = self.bot_user(tenant);
            let issue = self.extend(tenant, None, &bot_scopes, now);
            answer.extend(issue.fields("bot"));
            answer.insert("bot_user_id".to_owned(), json!(bot.user));
            if bot_scopes.contains("incoming-webhook") {
                answer.insert("incoming_webhook".to_owned(), self.webhook(tenant, user));
            }
        }
        if !user_scopes.is_empty() {
            let issue = self.extend(tenant, Some(user), &user_scopes, now);
            authed_user.extend(issue.fields("user"));
        }
        answer.insert("authed_user".to_owned(), authed_user.into());
        answer
    }

    /// Adds scopes to a chain, and returns its token.
    ///
    /// An existing chain keeps its token. If token rotation is enabled, starts a new chain instead.
    fn extend(
        &mut self,
        tenant: &InstallationKey,
        user: Option<&UserId>,
        scopes: &Scopes,
        now: SystemTime,
    ) -> Issue {
        let install = self.installs.entry(tenant.clone()).or_default();
        let old = install.remove(&user.cloned());
        let scopes: Scopes = match &old {
            Some(old) => old.scopes.iter().chain(scopes.iter()).collect(),
            None => scopes.clone(),
        };
        let (issue, pairs) = match (self.rotation.clone(), old) {
            (Some(rotation), old) => {
                if let Some(old) = old.and_then(|old| old.pairs)
                    && rotation.reinstall_revokes
                {
                    self.pairs.end_chain(old, "token_revoked");
                }
                let chain = self.pairs.new_chain();
                let parent = None;
                let issue = self.pair(
                    tenant,
                    user,
                    (chain, parent),
                    scopes,
                    (&rotation, now),
                    false,
                );
                (issue, Some(chain))
            }
            (None, Some(old)) => (Issue::lasting(old.token, scopes), old.pairs),
            (None, None) => {
                let token = match user {
                    Some(_) => self.mint.user_token(),
                    None => self.mint.bot_token(),
                };
                self.hold(token.clone(), tenant, user);
                (Issue::lasting(token, scopes), None)
            }
        };
        let chain = Chain {
            pairs,
            scopes: issue.scopes.clone(),
            token: issue.access.clone(),
        };
        let install = self.installs.entry(tenant.clone()).or_default();
        install.insert(user.cloned(), chain);
        issue
    }

    fn hold(&mut self, token: String, tenant: &InstallationKey, user: Option<&UserId>) {
        let holder = Holder {
            dead: None,
            number: self.tokens.len() as u64 + 1,
            tenant: tenant.clone(),
            user: user.cloned(),
        };
        self.tokens.insert(token, holder);
    }

    /// Issues a pair.
    fn pair(
        &mut self,
        tenant: &InstallationKey,
        user: Option<&UserId>,
        (chain, parent): (ChainId, Option<usize>),
        scopes: Scopes,
        (rotation, now): (&Rotation, SystemTime),
        is_dead: bool,
    ) -> Issue {
        let access = self.mint.rotating_token(user.is_some());
        let refresh = self.mint.refresh_token();
        self.hold(access.clone(), tenant, user);
        let pair = (access.clone(), refresh.clone());
        self.pairs
            .add(chain, parent, pair, now + rotation.token_life, is_dead);
        self.pairs.keep_two(chain, now);
        Issue {
            access,
            expires_in: Some(rotation.token_life.as_secs()),
            refresh: Some(refresh),
            scopes,
        }
    }

    /// Spends a refresh token, and returns the fields of the `oauth.v2.access` response.
    pub(super) fn refresh(
        &mut self,
        app: &AppId,
        refresh_token: &str,
        now: SystemTime,
    ) -> Result<Map<String, Value>, &'static str> {
        let rotation = self.rotation.clone().ok_or("invalid_refresh_token")?;
        let old = self.pairs.access_of(refresh_token).map(str::to_owned);
        let spent = self.pairs.spend(refresh_token, &rotation, now)?;
        let holder = old.and_then(|old| self.tokens.get(&old));
        let (tenant, user) = match holder {
            Some(holder) => (holder.tenant.clone(), holder.user.clone()),
            None => return Err("invalid_refresh_token"),
        };
        let scopes = self.scopes(&tenant, user.as_ref());
        let (issue, chain) = match spent {
            Use::Issue {
                parent,
                chain,
                is_dead,
            } => {
                let place = (chain, Some(parent));
                let by = (&rotation, now);
                (
                    self.pair(&tenant, user.as_ref(), place, scopes, by, is_dead),
                    chain,
                )
            }
            Use::Same {
                access,
                refresh,
                chain,
                expires_at,
            } => {
                let left = expires_at.duration_since(now).unwrap_or_default();
                let issue = Issue {
                    access,
                    expires_in: Some(left.as_secs()),
                    refresh: Some(refresh),
                    scopes,
                };
                (issue, chain)
            }
        };
        self.retire_exchanged(chain);
        if let Some(current) = self.chain_mut(&tenant, user.as_ref())
            && current.pairs == Some(chain)
        {
            current.token = issue.access.clone();
        }
        let answer = self.renewed(app, &tenant, user.as_ref(), &issue, rotation.is_minimal);
        Ok(match user {
            Some(user) if rotation.is_nested => nested(answer, &user),
            _ => answer,
        })
    }

    /// Exchanges a long-lived token for a pair, once, and returns the fields of the
    /// `oauth.v2.exchange` response.
    pub(super) fn exchange_token(
        &mut self,
        app: &AppId,
        token: &str,
        now: SystemTime,
    ) -> Result<Map<String, Value>, &'static str> {
        let rotation = self.rotation.clone().ok_or("token_rotation_not_enabled")?;
        if self.pairs.has_access(token) || self.exchanged.values().any(|old| old == token) {
            return Err("token_already_exchanged");
        }
        let holder = self.holder(token, now).map_err(|_| "invalid_token")?;
        let (tenant, user) = (holder.tenant.clone(), holder.user.clone());
        let chain = self.pairs.new_chain();
        let scopes = self.scopes(&tenant, user.as_ref());
        let by = (&rotation, now);
        let issue = self.pair(&tenant, user.as_ref(), (chain, None), scopes, by, false);
        self.exchanged.insert(chain, token.to_owned());
        if let Some(current) = self.chain_mut(&tenant, user.as_ref()) {
            current.pairs = Some(chain);
            current.token = issue.access.clone();
        }
        Ok(self.renewed(app, &tenant, user.as_ref(), &issue, false))
    }

    /// Revokes the long-lived token of a chain, because the chain's first pair was refreshed.
    fn retire_exchanged(&mut self, chain: ChainId) {
        let old = self.exchanged.get(&chain);
        if let Some(holder) = old.and_then(|old| self.tokens.get_mut(old)) {
            holder.dead.get_or_insert("token_revoked");
        }
    }

    fn renewed(
        &mut self,
        app: &AppId,
        tenant: &InstallationKey,
        user: Option<&UserId>,
        issue: &Issue,
        is_minimal: bool,
    ) -> Map<String, Value> {
        let kind = if user.is_some() { "user" } else { "bot" };
        let mut answer = Map::from_iter(issue.fields(kind));
        answer.insert("app_id".to_owned(), json!(app));
        if is_minimal {
            answer.remove("scope");
            answer.insert("team".to_owned(), Value::Null);
            answer.insert("enterprise".to_owned(), Value::Null);
            return answer;
        }
        answer.extend(self.home_of(tenant));
        match user {
            Some(user) => answer.insert("user_id".to_owned(), json!(user)),
            None => {
                let bot = self.bot_user(tenant);
                answer.insert("bot_user_id".to_owned(), json!(bot.user))
            }
        };
        answer
    }

    /// Returns whether this is the access token or the refresh token of a pair.
    pub(super) fn is_of_pair(&self, token: &str) -> bool {
        self.pairs.has_access(token) || self.pairs.access_of(token).is_some()
    }

    /// Revokes one token of a pair, and returns whether it was valid. Returns `None` if the token
    /// does not belong to a pair.
    pub(super) fn revoke_one(&mut self, token: &str) -> Option<bool> {
        if self.pairs.has_access(token) {
            return Some(self.pairs.revoke_access(token));
        }
        self.pairs.access_of(token)?;
        Some(self.pairs.revoke_refresh(token))
    }

    /// Returns the current pairs of this bot or user.
    pub(super) fn chain_id(
        &self,
        tenant: &InstallationKey,
        user: Option<&UserId>,
    ) -> Option<ChainId> {
        self.chain(tenant, user)?.pairs
    }

    fn chain_mut(&mut self, tenant: &InstallationKey, user: Option<&UserId>) -> Option<&mut Chain> {
        self.installs.get_mut(tenant)?.get_mut(&user.cloned())
    }

    fn webhook(&mut self, tenant: &InstallationKey, user: &UserId) -> Value {
        let hook = self.mint.id("B0");
        let domain = self.world.named(tenant).map_or("", |place| &place.domain);
        json!({
            "channel": "#general",
            "channel_id": WEBHOOK_CHANNEL,
            "configuration_url": format!("https://{domain}.slack.com/services/{hook}"),
            "url": self.posts.webhook(&mut self.mint, &hook, tenant, user),
        })
    }

    /// Returns the response fields `team`, `enterprise` and `is_enterprise_install`.
    fn home_of(&self, tenant: &InstallationKey) -> Map<String, Value> {
        let team = tenant.team().map(|team| {
            let name = self.world.named(tenant).map(|place| &place.name);
            json!({ "id": team, "name": name })
        });
        let org = self.world.org_of(tenant);
        let enterprise = org.map(|(id, org)| json!({ "id": id, "name": org.name }));
        Map::from_iter([
            ("team".to_owned(), team.into()),
            ("enterprise".to_owned(), enterprise.into()),
            ("is_enterprise_install".to_owned(), tenant.is_org().into()),
        ])
    }

    /// Returns the bot of a tenant. Generates its ids at first use.
    pub(super) fn bot_user(&mut self, tenant: &InstallationKey) -> BotUser {
        let mint = &mut self.mint;
        let bot = self.bots.entry(tenant.clone()).or_insert_with(|| BotUser {
            id: BotId::new(mint.id("B0")).expect("a generated id has the right form"),
            user: UserId::new(mint.id("U0")).expect("a generated id has the right form"),
        });
        bot.clone()
    }

    /// Returns the holder of a valid token.
    ///
    /// # Errors
    ///
    /// Returns Slack's error code if the token is unknown or no longer valid.
    pub(super) fn holder(&self, token: &str, now: SystemTime) -> Result<&Holder, &'static str> {
        let holder = self.tokens.get(token).ok_or("invalid_auth")?;
        let dead = holder.dead.or_else(|| self.pairs.error(token, now));
        dead.map_or(Ok(holder), Err)
    }

    /// Returns the holder of a token, valid or not.
    pub(super) fn former_holder(&self, token: &str) -> Option<&Holder> {
        self.tokens.get(token)
    }

    /// Returns the current scopes of this bot or user.
    pub(super) fn scopes(&self, tenant: &InstallationKey, user: Option<&UserId>) -> Scopes {
        self.chain(tenant, user)
            .map(|chain| chain.scopes.clone())
            .unwrap_or_default()
    }

    /// Returns the current access token of this bot or user.
    pub(super) fn token(&self, tenant: &InstallationKey, user: Option<&UserId>) -> Option<&str> {
        self.chain(tenant, user).map(|chain| chain.token.as_str())
    }

    pub(super) fn is_installed(&self, tenant: &InstallationKey) -> bool {
        self.installs.contains_key(tenant)
    }

    /// Revokes the tokens of this bot or user. Returns whether there were any.
    ///
    /// If no other token is left in the tenant, the app is uninstalled.
    pub(super) fn revoke(
        &mut self,
        tenant: &InstallationKey,
        user: Option<&UserId>,
        now: SystemTime,
    ) -> bool {
        let Some(install) = self.installs.get_mut(tenant) else {
            return false;
        };
        let chain = install.remove(&user.cloned());
        let Some(chain) = chain else { return false };
        let is_last = install.is_empty();
        self.kill(&chain, user);
        let (bots, users) = match user {
            Some(user) => (vec![], vec![user.clone()]),
            None => {
                self.posts.end_webhooks(tenant);
                (vec![self.bot_user(tenant).user], vec![])
            }
        };
        self.queue_event(tenant, EventKind::Revoked { bots, users }, now);
        if is_last {
            self.installs.remove(tenant);
            self.queue_event(tenant, EventKind::Uninstalled, now);
        }
        true
    }

    /// Revokes this user's tokens in every tenant.
    pub(super) fn revoke_everywhere(&mut self, user: &UserId, now: SystemTime) {
        let mut tenants: Vec<_> = self.installs.keys().cloned().collect();
        // Sorted, because a map has no order and a seeded run must be repeatable.
        tenants.sort_by(|one, other| one.id().cmp(other.id()));
        for tenant in tenants {
            self.revoke(&tenant, Some(user), now);
        }
    }

    /// Uninstalls the app from a tenant and revokes its tokens. Returns whether it was installed.
    pub(super) fn uninstall(&mut self, tenant: &InstallationKey, now: SystemTime) -> bool {
        let Some(install) = self.installs.remove(tenant) else {
            return false;
        };
        self.posts.end_webhooks(tenant);
        let (mut bots, mut users) = (Vec::new(), Vec::new());
        for (user, chain) in install {
            self.kill(&chain, user.as_ref());
            match user {
                Some(user) => users.push(user),
                None => bots.push(self.bot_user(tenant).user),
            }
        }
        self.queue_event(tenant, EventKind::Revoked { bots, users }, now);
        self.queue_event(tenant, EventKind::Uninstalled, now);
        true
    }

    /// Removes and returns the events that were not taken yet.
    pub(super) fn take_events(&mut self) -> Vec<PendingEvent> {
        mem::take(&mut self.events)
    }

    /// Revokes the tokens of a chain. Their error codes are those that Slack uses for a bot and for
    /// a user after an uninstallation.
    fn kill(&mut self, chain: &Chain, user: Option<&UserId>) {
        let error = match user {
            Some(_) => "token_revoked",
            None => "account_inactive",
        };
        if let Some(pairs) = chain.pairs {
            self.pairs.end_chain(pairs, error);
        }
        if let Some(holder) = self.tokens.get_mut(&chain.token) {
            holder.dead = Some(error);
        }
    }

    fn queue_event(&mut self, tenant: &InstallationKey, what: EventKind, at: SystemTime) {
        let tenant = tenant.clone();
        self.events.push(PendingEvent { at, tenant, what });
    }

    fn chain(&self, tenant: &InstallationKey, user: Option<&UserId>) -> Option<&Chain> {
        self.installs.get(tenant)?.get(&user.cloned())
    }

    /// Returns a value for the header `x-slack-req-id`.
    pub(super) fn request_id(&mut self) -> String {
        self.mint.text(HEX, 32)
    }
}

/// Moves the fields of a user's pair into `authed_user`, as in the response to a code exchange.
fn nested(mut answer: Map<String, Value>, user: &UserId) -> Map<String, Value> {
    answer.remove("user_id");
    let pair = [
        "access_token",
        "expires_in",
        "refresh_token",
        "scope",
        "token_type",
    ];
    let moved = pair.iter().filter_map(|name| answer.remove_entry(*name));
    let mut authed_user: Map<String, Value> = moved.collect();
    authed_user.insert("id".to_owned(), json!(user));
    answer.insert("authed_user".to_owned(), authed_user.into());
    answer
}

impl Issue {
    fn lasting(access: String, scopes: Scopes) -> Self {
        Self {
            access,
            expires_in: None,
            refresh: None,
            scopes,
        }
    }

    fn fields(&self, kind: &str) -> Vec<(String, Value)> {
        let mut fields = vec![
            ("access_token".to_owned(), self.access.as_str().into()),
            ("scope".to_owned(), self.scopes.to_string().into()),
            ("token_type".to_owned(), kind.into()),
        ];
        if let (Some(refresh), Some(expires_in)) = (&self.refresh, self.expires_in) {
            fields.push(("refresh_token".to_owned(), refresh.as_str().into()));
            fields.push(("expires_in".to_owned(), expires_in.into()));
        }
        fields
    }
}

/// How long a code is valid, from Slack's documentation.
const CODE_LIFE: Duration = Duration::from_secs(10 * 60);
