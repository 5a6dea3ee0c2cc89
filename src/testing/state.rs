//! What the fake Slack remembers: codes, installations and tokens.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use url::Url;

use crate::installation::Scopes;
use crate::tenant::{AppId, BotId, InstallationKey, UserId};

use super::authorize::{Ask, AuthorizeError};
use super::calls::Calls;
use super::fault::Faults;
use super::mint::{HEX, Mint};
use super::world::{Who, World};

/// Everything that changes.
pub(super) struct State {
    pub(super) calls: Calls,
    pub(super) faults: Faults,
    pub(super) mint: Mint,
    pub(super) replies: Vec<Value>,
    /// Scopes that an admin lets nobody grant.
    pub(super) withheld: Scopes,
    pub(super) world: World,
    /// One for each tenant that ever had the app: a bot keeps its ids over a reinstall.
    bots: HashMap<InstallationKey, BotUser>,
    codes: HashMap<String, Pending>,
    installs: HashMap<InstallationKey, Install>,
    news: Vec<News>,
    /// Every token ever issued, the dead ones too: Slack tells those from unknown ones.
    tokens: HashMap<String, Holder>,
}

/// The bot's two ids in one tenant.
#[derive(Clone)]
pub(super) struct BotUser {
    pub(super) id: BotId,
    pub(super) user: UserId,
}

/// A code that was sent to a redirect URL.
struct Pending {
    ask: Ask,
    expires_at: SystemTime,
    tenant: InstallationKey,
    used: bool,
    user: UserId,
}

/// The app in one tenant.
#[derive(Default)]
struct Install {
    bot: Option<Chain>,
    users: BTreeMap<UserId, Chain>,
}

/// The tokens that one bot or one user has had, one after the other. Without token rotation it is
/// one token until that is revoked.
struct Chain {
    scopes: Scopes,
    token: String,
}

/// What a token stands for.
pub(super) struct Holder {
    /// Slack's error code, once the token is dead.
    dead: Option<&'static str>,
    /// Which token it is, counted from 1.
    pub(super) number: u64,
    pub(super) tenant: InstallationKey,
    /// The owner of a user token; `None` for the bot's.
    pub(super) user: Option<UserId>,
}

/// Something that Slack tells the app in an event, and when it happened.
pub(super) struct News {
    pub(super) at: SystemTime,
    pub(super) tenant: InstallationKey,
    pub(super) what: Happening,
}

pub(super) enum Happening {
    Revoked {
        bots: Vec<UserId>,
        users: Vec<UserId>,
    },
    Uninstalled,
}

impl State {
    pub(super) fn new(world: World, mint: Mint) -> Self {
        Self {
            bots: HashMap::new(),
            calls: Calls::default(),
            codes: HashMap::new(),
            faults: Faults::default(),
            installs: HashMap::new(),
            mint,
            news: Vec::new(),
            replies: Vec::new(),
            tokens: HashMap::new(),
            withheld: Scopes::default(),
            world,
        }
    }

    /// A person says yes: the callback URL, with a fresh code.
    pub(super) fn allow(
        &mut self,
        ask: &Ask,
        who: &Who,
        now: SystemTime,
    ) -> Result<Url, AuthorizeError> {
        let tenant = self.world.place(who)?;
        let barred = ["bot", "apps.requests.write"];
        if tenant.is_org() && barred.iter().any(|scope| ask.bot_scopes.contains(scope)) {
            return Err(AuthorizeError::Refused("scope_not_allowed_on_enterprise"));
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

    /// Whose code this is.
    pub(super) fn holder_of_code(&self, code: &str) -> Option<(&InstallationKey, &UserId)> {
        self.codes
            .get(code)
            .map(|pending| (&pending.tenant, &pending.user))
    }

    /// Spends a code, and answers as `oauth.v2.access` does.
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
        Ok(self.grant(app, &tenant, &user, &ask))
    }

    /// Installs the app, or adds to its installation.
    fn grant(
        &mut self,
        app: &AppId,
        tenant: &InstallationKey,
        user: &UserId,
        ask: &Ask,
    ) -> Map<String, Value> {
        let bot_scopes = self.withheld.missing(&ask.bot_scopes);
        let user_scopes = self.withheld.missing(&ask.user_scopes);
        let mut answer = self.home_of(tenant);
        answer.insert("app_id".to_owned(), json!(app));
        let mut authed_user = Map::from_iter([("id".to_owned(), json!(user))]);
        if !bot_scopes.is_empty() {
            let bot = self.bot_user(tenant);
            let (token, scopes) = self.extend(tenant, None, &bot_scopes);
            answer.extend(credential(&token, &scopes, "bot"));
            answer.insert("bot_user_id".to_owned(), json!(bot.user));
            if bot_scopes.contains("incoming-webhook") {
                answer.insert("incoming_webhook".to_owned(), self.webhook(tenant));
            }
        }
        if !user_scopes.is_empty() {
            let (token, scopes) = self.extend(tenant, Some(user), &user_scopes);
            authed_user.extend(credential(&token, &scopes, "user"));
        }
        answer.insert("authed_user".to_owned(), authed_user.into());
        answer
    }

    /// The token of this chain, with these scopes added. A chain that stands keeps its token.
    fn extend(
        &mut self,
        tenant: &InstallationKey,
        user: Option<&UserId>,
        scopes: &Scopes,
    ) -> (String, Scopes) {
        let install = self.installs.entry(tenant.clone()).or_default();
        let old = match user {
            Some(user) => install.users.remove(user),
            None => install.bot.take(),
        };
        let chain = match old {
            Some(old) => Chain {
                scopes: old.scopes.iter().chain(scopes.iter()).collect(),
                token: old.token,
            },
            None => {
                let token = match user {
                    Some(_) => self.mint.user_token(),
                    None => self.mint.bot_token(),
                };
                let holder = Holder {
                    dead: None,
                    number: self.tokens.len() as u64 + 1,
                    tenant: tenant.clone(),
                    user: user.cloned(),
                };
                self.tokens.insert(token.clone(), holder);
                Chain {
                    scopes: scopes.clone(),
                    token,
                }
            }
        };
        let current = (chain.token.clone(), chain.scopes.clone());
        match user {
            Some(user) => drop(install.users.insert(user.clone(), chain)),
            None => install.bot = Some(chain),
        }
        current
    }

    fn webhook(&mut self, tenant: &InstallationKey) -> Value {
        let hook = self.mint.id("B0");
        let domain = self.world.named(tenant).map_or("", |place| &place.domain);
        json!({
            "channel": "#general",
            "channel_id": "C0GENERAL01",
            "configuration_url": format!("https://{domain}.slack.com/services/{hook}"),
            "url": self.mint.webhook_url(tenant.id(), &hook),
        })
    }

    /// `team`, `enterprise` and `is_enterprise_install` as answers have them.
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

    /// The bot of a tenant, made up when it is first needed.
    pub(super) fn bot_user(&mut self, tenant: &InstallationKey) -> BotUser {
        let mint = &mut self.mint;
        let bot = self.bots.entry(tenant.clone()).or_insert_with(|| BotUser {
            id: BotId::new(mint.id("B0")).expect("a made-up id is well formed"),
            user: UserId::new(mint.id("U0")).expect("a made-up id is well formed"),
        });
        bot.clone()
    }

    /// Whose this token is.
    ///
    /// # Errors
    ///
    /// Slack's code, if it is unknown or dead.
    pub(super) fn holder(&self, token: &str) -> Result<&Holder, &'static str> {
        let holder = self.tokens.get(token).ok_or("invalid_auth")?;
        holder.dead.map_or(Ok(holder), Err)
    }

    /// Whose this token is or was.
    pub(super) fn former_holder(&self, token: &str) -> Option<&Holder> {
        self.tokens.get(token)
    }

    /// What the token of this bot or user may do now.
    pub(super) fn scopes(&self, tenant: &InstallationKey, user: Option<&UserId>) -> Scopes {
        self.chain(tenant, user)
            .map(|chain| chain.scopes.clone())
            .unwrap_or_default()
    }

    /// The token that this bot or user has now.
    pub(super) fn token(&self, tenant: &InstallationKey, user: Option<&UserId>) -> Option<&str> {
        self.chain(tenant, user).map(|chain| chain.token.as_str())
    }

    pub(super) fn is_installed(&self, tenant: &InstallationKey) -> bool {
        self.installs.contains_key(tenant)
    }

    /// Ends this bot's or user's tokens, and with the last of them the installation. Whether
    /// there were any.
    pub(super) fn revoke(
        &mut self,
        tenant: &InstallationKey,
        user: Option<&UserId>,
        now: SystemTime,
    ) -> bool {
        let Some(install) = self.installs.get_mut(tenant) else {
            return false;
        };
        let chain = match user {
            Some(user) => install.users.remove(user),
            None => install.bot.take(),
        };
        let Some(chain) = chain else { return false };
        let is_last = install.bot.is_none() && install.users.is_empty();
        self.kill(&chain, user);
        let (bots, users) = match user {
            Some(user) => (vec![], vec![user.clone()]),
            None => (vec![self.bot_user(tenant).user], vec![]),
        };
        self.tell(tenant, Happening::Revoked { bots, users }, now);
        if is_last {
            self.installs.remove(tenant);
            self.tell(tenant, Happening::Uninstalled, now);
        }
        true
    }

    /// Ends this user's tokens in every tenant.
    pub(super) fn revoke_everywhere(&mut self, user: &UserId, now: SystemTime) {
        let mut tenants: Vec<_> = self.installs.keys().cloned().collect();
        // A map has no order, and a seeded run must repeat.
        tenants.sort_by(|one, other| one.id().cmp(other.id()));
        for tenant in tenants {
            self.revoke(&tenant, Some(user), now);
        }
    }

    /// Removes the app from a tenant, with all its tokens. Whether it was there.
    pub(super) fn uninstall(&mut self, tenant: &InstallationKey, now: SystemTime) -> bool {
        let Some(install) = self.installs.remove(tenant) else {
            return false;
        };
        let mut bots = Vec::new();
        if let Some(bot) = &install.bot {
            self.kill(bot, None);
            bots.push(self.bot_user(tenant).user);
        }
        for (user, chain) in &install.users {
            self.kill(chain, Some(user));
        }
        let users = install.users.into_keys().collect();
        self.tell(tenant, Happening::Revoked { bots, users }, now);
        self.tell(tenant, Happening::Uninstalled, now);
        true
    }

    /// What the app was not told yet.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        mem::take(&mut self.news)
    }

    /// The error codes are those that Slack gives a bot, and a user, whose app is gone.
    fn kill(&mut self, chain: &Chain, user: Option<&UserId>) {
        if let Some(holder) = self.tokens.get_mut(&chain.token) {
            holder.dead = Some(match user {
                Some(_) => "token_revoked",
                None => "account_inactive",
            });
        }
    }

    fn tell(&mut self, tenant: &InstallationKey, what: Happening, at: SystemTime) {
        let tenant = tenant.clone();
        self.news.push(News { at, tenant, what });
    }

    fn chain(&self, tenant: &InstallationKey, user: Option<&UserId>) -> Option<&Chain> {
        let install = self.installs.get(tenant)?;
        match user {
            Some(user) => install.users.get(user),
            None => install.bot.as_ref(),
        }
    }

    /// The value of `x-slack-req-id`.
    pub(super) fn request_id(&mut self) -> String {
        self.mint.text(HEX, 32)
    }
}

fn credential(token: &str, scopes: &Scopes, kind: &str) -> [(String, Value); 3] {
    [
        ("access_token".to_owned(), token.into()),
        ("scope".to_owned(), scopes.to_string().into()),
        ("token_type".to_owned(), kind.into()),
    ]
}

/// How long a code lives, by Slack's documentation.
const CODE_LIFE: Duration = Duration::from_secs(10 * 60);
