//! The stored forms: what stands in a row's metadata, and what under its seal.
//!
//! Golden files in `tests/golden/` pin both; forms are only ever added to. `v` is the version of
//! a form: a row of a later version is refused, not guessed at.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::driver::{Draft, Record};
use super::rotation_facts::RotationFacts;
use crate::backend::{Due, Lane, Row};
use crate::clock::{from_epoch, to_epoch};
use crate::installation::{
    Bot, Enterprise, Grant, Hold, Home, IncomingWebhook, Installation, Scopes, Team, User,
};
use crate::secret::{AccessToken, RefreshToken, WebhookUrl};
use crate::store::{Chain, Error, Mark, StoredChain, Summary};
use crate::tenant::{AppId, BotId, EnterpriseId, TeamId, UserId};

pub(super) const INSTALL: &str = "install";
pub(super) const BOT: &str = "bot";
pub(super) const USER: &str = "user";
pub(super) const STATE: &str = "state";

/// The facts of an installation, in the clear.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct InstallFacts {
    v: u32,
    kind: Cow<'static, str>,
    app_id: AppId,
    pub(super) enterprise_id: Option<EnterpriseId>,
    enterprise_name: Option<String>,
    team_id: Option<TeamId>,
    team_name: Option<String>,
    is_enterprise_install: bool,
    pub(super) url: Option<String>,
    installed_by: Option<UserId>,
    /// Seconds since 1970, as all times here.
    installed_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hold: Option<HoldFacts>,
}

/// An operator's hold, in the clear.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct HoldFacts {
    pub(super) is_on: bool,
    reason: String,
    at: u64,
}

impl From<&Hold> for HoldFacts {
    fn from(hold: &Hold) -> Self {
        Self {
            is_on: hold.is_on,
            reason: hold.reason.clone(),
            at: to_epoch(hold.at),
        }
    }
}

impl From<HoldFacts> for Hold {
    fn from(facts: HoldFacts) -> Self {
        Self {
            is_on: facts.is_on,
            reason: facts.reason,
            at: from_epoch(facts.at),
        }
    }
}

/// The secrets of an installation that belong to no chain of tokens.
#[derive(Deserialize, Serialize)]
struct InstallSecrets<'a> {
    #[serde(borrow)]
    webhooks: Vec<WebhookSecrets<'a>>,
    #[serde(borrow)]
    metadata: Option<Text<'a>>,
}

/// A text in the plaintext that was read, not a copy of it: a copy would not be wiped. On a field
/// that is an option or a list, serde borrows through a type of one's own only.
#[derive(Deserialize, Serialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    fn of(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

#[derive(Deserialize, Serialize)]
struct WebhookSecrets<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    channel_id: Cow<'a, str>,
    #[serde(borrow)]
    configuration_url: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
}

/// The facts of a chain of tokens, in the clear.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct GrantFacts {
    v: u32,
    kind: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bot_user_id: Option<UserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bot_id: Option<BotId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<UserId>,
    scopes: String,
    expires_at: Option<u64>,
    pub(super) granted_at: u64,
    /// Absent until the chain is first refreshed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation: Option<RotationFacts>,
}

impl GrantFacts {
    /// The same facts of a chain that stands: another writer brings the pair that it has.
    pub(super) fn with_rotation_of(self, standing: Self) -> Self {
        Self {
            granted_at: self.granted_at.max(standing.granted_at),
            rotation: standing.rotation,
            ..self
        }
    }

    /// Whether this was one of the chain's last refresh tokens before the present one.
    pub(super) fn has_replaced(&self, mark: Mark) -> bool {
        let rotation = self.rotation.as_ref();
        rotation.is_some_and(|rotation| rotation.has_replaced(mark))
    }
}

/// The secrets of a chain of tokens.
#[derive(Deserialize, Serialize)]
struct GrantSecrets<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(borrow)]
    refresh_token: Option<Text<'a>>,
    /// Oldest first.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    alternates: Vec<Text<'a>>,
}

/// The row of an installation's facts. Webhooks of other channels are kept from `standing`, and all
/// of it if that is of a later installation. A hold is kept from a `row` that does not open as well,
/// though what it says in the clear is not authenticated: nobody is to end one by damaging it.
pub(super) fn install_draft(
    installation: &Installation,
    standing: Option<&Record>,
    row: Option<&Row>,
) -> Result<Draft, Error> {
    let old_facts = standing.map(install_facts).transpose()?;
    let said = |row: &Row| serde_json::from_str::<InstallFacts>(row.metadata.as_str()).ok();
    let hold = match &old_facts {
        Some(facts) => facts.hold.clone(),
        None => row.and_then(said).and_then(|facts| facts.hold),
    };
    let old = standing.map(open_secrets).transpose()?;
    let home = &installation.home;
    let installed_at = to_epoch(installation.installed_at);
    let later = |old: &InstallFacts| old.installed_at > installed_at;
    let is_late = old_facts.as_ref().is_some_and(later);
    let facts = match old_facts {
        Some(later) if is_late => later,
        old_facts => InstallFacts {
            v: 1,
            kind: INSTALL.into(),
            app_id: installation.app_id.clone(),
            enterprise_id: home.enterprise().map(|enterprise| enterprise.id.clone()),
            enterprise_name: home
                .enterprise()
                .and_then(|enterprise| enterprise.name.clone()),
            team_id: home.team().map(|team| team.id.clone()),
            team_name: home.team().and_then(|team| team.name.clone()),
            is_enterprise_install: home.is_enterprise_install(),
            url: installation
                .url
                .clone()
                .or_else(|| old_facts.as_ref().and_then(|facts| facts.url.clone())),
            installed_by: installation.installed_by.clone(),
            installed_at,
            hold,
        },
    };
    let new = installation
        .incoming_webhooks
        .iter()
        .map(|webhook| WebhookSecrets {
            channel: webhook.channel.as_str().into(),
            channel_id: webhook.channel_id.as_str().into(),
            configuration_url: webhook.configuration_url.as_str().into(),
            url: webhook.url.expose().into(),
        });
    let (old_webhooks, old_metadata) = match old {
        Some(old) => (old.webhooks, old.metadata),
        None => (Vec::new(), None),
    };
    let metadata = installation.metadata.as_deref().map(Text::of);
    let (mut webhooks, metadata) = match is_late {
        true => (
            old_webhooks.into_iter().chain(new).collect::<Vec<_>>(),
            old_metadata.or(metadata),
        ),
        false => (new.chain(old_webhooks).collect(), metadata.or(old_metadata)),
    };
    let mut channels = HashSet::new();
    webhooks.retain(|webhook| channels.insert(webhook.channel_id.clone()));
    let secrets = InstallSecrets { webhooks, metadata };
    Ok(Draft {
        kind: INSTALL,
        metadata: to_text(&facts),
        plaintext: to_plaintext(&secrets),
        due: None,
    })
}

/// The same record with other facts.
pub(super) fn with_facts(kind: &'static str, facts: &impl Serialize, record: &Record) -> Draft {
    Draft {
        kind,
        metadata: to_text(facts),
        plaintext: record.plaintext.clone(),
        due: record.row.due,
    }
}

/// The facts of the bot's chain. What `auth.test` told before is kept from `standing`.
pub(super) fn bot_facts(
    bot: &Bot,
    granted_at: SystemTime,
    standing: Option<&Record>,
) -> Result<GrantFacts, Error> {
    let old = standing
        .map(|record| grant_facts(record, BOT))
        .transpose()?;
    let same_bot = old.filter(|old| old.bot_user_id.as_ref() == Some(&bot.user_id));
    Ok(GrantFacts {
        bot_user_id: Some(bot.user_id.clone()),
        bot_id: bot
            .id
            .clone()
            .or_else(|| same_bot.and_then(|old| old.bot_id)),
        ..facts_of(BOT, &bot.grant, granted_at)
    })
}

/// The facts of one user's chain.
pub(super) fn user_facts(user: &User, granted_at: SystemTime) -> GrantFacts {
    GrantFacts {
        user_id: Some(user.id.clone()),
        ..facts_of(USER, &user.grant, granted_at)
    }
}

/// An installation from its rows.
pub(super) fn installation(
    install: &Record,
    bot: Option<&Record>,
    user: Option<&Record>,
) -> Result<Installation, Error> {
    let facts = install_facts(install)?;
    let secrets = open_secrets(install)?;
    let webhook = |webhook: WebhookSecrets<'_>| -> Result<_, Error> {
        Ok(IncomingWebhook {
            channel: webhook.channel.into_owned(),
            channel_id: webhook.channel_id.into_owned(),
            configuration_url: webhook.configuration_url.into_owned(),
            url: WebhookUrl::new(webhook.url).map_err(|_| form("a webhook"))?,
        })
    };
    let home = facts.home()?;
    let mut installation = Installation::new(facts.app_id, home, from_epoch(facts.installed_at));
    installation.url = facts.url;
    installation.hold = facts.hold.map(Hold::from);
    installation.installed_by = facts.installed_by;
    installation.incoming_webhooks = secrets
        .webhooks
        .into_iter()
        .map(webhook)
        .collect::<Result<_, _>>()?;
    installation.metadata = secrets.metadata.map(|text| text.0.into_owned());
    if let Some((bot, is_suspect)) = bot.map(open_bot).transpose()? {
        installation.bot = Some(bot);
        installation.suspects.bot = is_suspect;
    }
    if let Some((user, is_suspect)) = user.map(open_user).transpose()? {
        installation.user = Some(user);
        installation.suspects.user = is_suspect;
    }
    Ok(installation)
}

/// What a listing shows of a row; `None` if it is not the row of an installation's facts.
pub(super) fn summary(metadata: &str) -> Option<Summary> {
    let facts: InstallFacts = serde_json::from_str(metadata).ok()?;
    if facts.v != 1 || facts.kind != INSTALL {
        return None;
    }
    let home = facts.home().ok()?;
    Some(Summary::new(
        facts.app_id,
        home,
        facts.installed_by,
        from_epoch(facts.installed_at),
    ))
}

pub(super) fn install_facts(record: &Record) -> Result<InstallFacts, Error> {
    let facts: InstallFacts = facts(record, "an installation's metadata")?;
    known(facts.v, &facts.kind, INSTALL)?;
    Ok(facts)
}

pub(super) fn grant_facts(record: &Record, kind: &'static str) -> Result<GrantFacts, Error> {
    let facts: GrantFacts = facts(record, "a grant's metadata")?;
    known(facts.v, &facts.kind, kind)?;
    Ok(facts)
}

impl GrantFacts {
    fn is_suspect(&self) -> bool {
        self.rotation
            .as_ref()
            .is_some_and(RotationFacts::is_suspect)
    }
}

impl InstallFacts {
    /// The same facts of a workspace that belongs to this organisation by now. The name of
    /// another one would be wrong.
    pub(super) fn within(self, enterprise: Option<&EnterpriseId>) -> Self {
        let is_same = self.enterprise_id.as_ref() == enterprise;
        Self {
            enterprise_id: enterprise.cloned(),
            enterprise_name: self.enterprise_name.filter(|_| is_same),
            ..self
        }
    }

    fn home(&self) -> Result<Home, Error> {
        let enterprise = self.enterprise_id.clone().map(|id| Enterprise {
            id,
            name: self.enterprise_name.clone(),
        });
        let team = self.team_id.clone().map(|id| Team {
            id,
            name: self.team_name.clone(),
        });
        Home::new(enterprise, team, self.is_enterprise_install)
            .map_err(|_| form("an installation's ids"))
    }
}

fn facts_of(kind: &'static str, grant: &Grant, granted_at: SystemTime) -> GrantFacts {
    GrantFacts {
        v: 1,
        kind: kind.into(),
        bot_user_id: None,
        bot_id: None,
        user_id: None,
        scopes: grant.scopes.to_string(),
        expires_at: grant.expires_at.map(to_epoch),
        granted_at: to_epoch(granted_at),
        rotation: None,
    }
}

/// The row of a chain that begins with this grant.
pub(super) fn grant_draft(kind: &'static str, facts: &GrantFacts, grant: &Grant) -> Draft {
    let due_at = Chain::new(grant, from_epoch(facts.granted_at)).due_at;
    draft_of(kind, facts, grant, &[], due_at)
}

pub(super) fn draft_of(
    kind: &'static str,
    facts: &GrantFacts,
    grant: &Grant,
    alternates: &[RefreshToken],
    due_at: Option<SystemTime>,
) -> Draft {
    let secrets = GrantSecrets {
        access_token: grant.access_token.expose().into(),
        refresh_token: grant
            .refresh_token
            .as_ref()
            .map(|token| Text::of(token.expose())),
        alternates: alternates
            .iter()
            .map(|token| Text::of(token.expose()))
            .collect(),
    };
    let lane = Lane::Refresh;
    Draft {
        kind,
        metadata: to_text(facts),
        plaintext: to_plaintext(&secrets),
        due: due_at.map(|at| Due { lane, at }),
    }
}

/// A chain from its row and the row of its installation's facts.
pub(super) fn chain(
    kind: &'static str,
    install: &Record,
    record: &Record,
) -> Result<StoredChain, Error> {
    let install = install_facts(install)?;
    let facts = grant_facts(record, kind)?;
    let (grant, alternates) = open_tokens(record, &facts)?;
    let mut chain = Chain::new(&grant, from_epoch(facts.granted_at));
    if let Some(rotation) = facts.rotation {
        rotation.onto(&mut chain)?;
    }
    chain.alternates = alternates.iter().map(Mark::of).collect();
    chain.due_at = record.row.due.map(|due| due.at);
    let mut stored = StoredChain::new(install.app_id, chain, grant, alternates);
    stored.is_on_hold = install.hold.is_some_and(|hold| Hold::from(hold).is_on);
    Ok(stored)
}

/// The row of a chain that has moved on.
pub(super) fn chain_draft(
    kind: &'static str,
    standing: &Record,
    moved: &StoredChain,
) -> Result<Draft, Error> {
    let mut facts = grant_facts(standing, kind)?;
    facts.scopes = moved.grant.scopes.to_string();
    facts.expires_at = moved.grant.expires_at.map(to_epoch);
    facts.rotation = Some(RotationFacts::after(facts.rotation, &moved.chain));
    let due_at = moved.chain.due_at;
    Ok(draft_of(
        kind,
        &facts,
        &moved.grant,
        &moved.alternates,
        due_at,
    ))
}

/// The bot, and whether its token is under suspicion.
fn open_bot(record: &Record) -> Result<(Bot, bool), Error> {
    let facts = grant_facts(record, BOT)?;
    let grant = open_grant(record, &facts)?;
    let is_suspect = facts.is_suspect();
    let user_id = facts.bot_user_id.ok_or_else(|| form("a bot's user id"))?;
    let bot = Bot {
        user_id,
        id: facts.bot_id,
        grant,
    };
    Ok((bot, is_suspect))
}

/// The user, and whether their token is under suspicion.
fn open_user(record: &Record) -> Result<(User, bool), Error> {
    let facts = grant_facts(record, USER)?;
    let grant = open_grant(record, &facts)?;
    let is_suspect = facts.is_suspect();
    let id = facts.user_id.ok_or_else(|| form("a user's id"))?;
    Ok((User { grant, id }, is_suspect))
}

fn open_grant(record: &Record, facts: &GrantFacts) -> Result<Grant, Error> {
    Ok(open_tokens(record, facts)?.0)
}

/// Which access token a chain's row holds.
pub(super) fn access_mark(record: &Record) -> Result<Mark, Error> {
    let secrets: GrantSecrets<'_> =
        serde_json::from_slice(&record.plaintext).map_err(|_| form("a grant's tokens"))?;
    let token = AccessToken::new(secrets.access_token).map_err(|_| form("a token"))?;
    Ok(Mark::of_access_token(&token))
}

/// The pair, and the refresh tokens beside it.
fn open_tokens(record: &Record, facts: &GrantFacts) -> Result<(Grant, Vec<RefreshToken>), Error> {
    let secrets: GrantSecrets<'_> =
        serde_json::from_slice(&record.plaintext).map_err(|_| form("a grant's tokens"))?;
    let refresh_token = |text: Text<'_>| RefreshToken::new(text.0).map_err(|_| form("a token"));
    let grant = Grant {
        access_token: AccessToken::new(secrets.access_token).map_err(|_| form("a token"))?,
        refresh_token: secrets.refresh_token.map(refresh_token).transpose()?,
        expires_at: facts.expires_at.map(from_epoch),
        scopes: Scopes::from(facts.scopes.as_str()),
    };
    let alternates = secrets.alternates.into_iter().map(refresh_token);
    Ok((grant, alternates.collect::<Result<_, _>>()?))
}

fn open_secrets(record: &Record) -> Result<InstallSecrets<'_>, Error> {
    serde_json::from_slice(&record.plaintext).map_err(|_| form("an installation's webhooks"))
}

pub(super) fn facts<T: for<'a> Deserialize<'a>>(
    record: &Record,
    what: &'static str,
) -> Result<T, Error> {
    // The text of a JSON error can repeat what it read, so it goes no further.
    serde_json::from_str(record.row.metadata.as_str()).map_err(|_| form(what))
}

pub(super) fn known(v: u32, kind: &str, wanted: &'static str) -> Result<(), Error> {
    match v == 1 && kind == wanted {
        true => Ok(()),
        false => Err(form("a row written by a newer version of this crate")),
    }
}

pub(super) fn form(what: &'static str) -> Error {
    Error::Unreadable(format!("{what}: not a form that this version knows").into())
}

pub(super) fn to_text(facts: &impl Serialize) -> String {
    serde_json::to_string(facts).expect("plain fields always serialise")
}

fn to_plaintext(secrets: &impl Serialize) -> Zeroizing<Vec<u8>> {
    // Room for all of it at once, since a vector that grows leaves its old bytes in freed memory.
    let mut length = Length(0);
    serde_json::to_writer(&mut length, secrets).expect("plain fields always serialise");
    let mut plaintext = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *plaintext, secrets).expect("plain fields always serialise");
    plaintext
}

/// Counts what is written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::backend::{Metadata, Row, Sealed, Version};

    /// The newest golden database; `tests/store/golden.rs` reads the others.
    const DATABASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/database-1.json");

    #[test]
    fn todays_code_writes_the_golden_forms_to_the_byte() {
        let mut written = 0;
        for tenant in tenants().values() {
            let record = |prefix: &str| {
                let mut slots = tenant.iter().filter(|(slot, _)| slot.starts_with(prefix));
                slots.next().map(|(_, record)| record)
            };
            let install = record("install").expect("every tenant has one");
            let (bot, user) = (record("bot"), record("user/"));
            let installation = installation(install, bot, user).expect("a known form");

            let draft = install_draft(&installation, None, None).expect("nothing stands");
            assert_same(&draft, install);
            if let (Some(new), Some(bot)) = (&installation.bot, bot) {
                let facts = bot_facts(new, installation.installed_at, None);
                let facts = facts.expect("nothing stands");
                assert_same(&grant_draft(BOT, &facts, &new.grant), bot);
            }
            if let (Some(new), Some(user)) = (&installation.user, user) {
                let facts = user_facts(new, installation.installed_at);
                assert_same(&grant_draft(USER, &facts, &new.grant), user);
            }
            written += tenant.len();
        }
        assert_eq!(written, 7);
    }

    #[test]
    fn a_form_of_a_later_version_or_of_another_kind_is_refused_and_not_written_over() {
        for tenant in tenants().into_values() {
            for (slot, record) in tenant {
                let text = record.row.metadata.as_str();
                let (_, rest) = text.split_once("\"kind\":\"").expect("a kind");
                let kind = rest.split('"').next().expect("its end");
                let named = |kind: &str| format!("\"kind\":\"{kind}\"");
                for metadata in [
                    text.replace("\"v\":1", "\"v\":2"),
                    text.replace(&named(kind), &named("other")),
                ] {
                    assert_ne!(metadata, text);
                    let other = Record {
                        row: row(&metadata),
                        plaintext: record.plaintext.clone(),
                    };
                    let refused = match slot.as_str() {
                        "install" => installation(&other, None, None).is_err(),
                        "bot" => open_bot(&other).is_err() && grant_facts(&other, BOT).is_err(),
                        _ => open_user(&other).is_err() && grant_facts(&other, USER).is_err(),
                    };
                    assert!(refused, "{metadata}");
                    assert!(summary(&metadata).is_none());
                }
                assert_eq!(summary(text).is_some(), slot == "install");
            }
        }
    }

    #[test]
    fn members_that_this_version_does_not_know_are_ignored() {
        for tenant in tenants().into_values() {
            let with_more = |record: &Record| {
                let more = |json: &str| json.replacen('{', "{\"later\":{\"x\":[1]},", 1);
                let plaintext = String::from_utf8(record.plaintext.to_vec()).expect("JSON");
                let plaintext = Zeroizing::new(more(&plaintext).into_bytes());
                Record {
                    row: row(&more(record.row.metadata.as_str())),
                    plaintext,
                }
            };
            let install = with_more(&tenant["install"]);
            let bot = tenant.get("bot").map(with_more);
            let opened = installation(&install, bot.as_ref(), None).expect("opens");
            assert_eq!(opened.bot.is_some(), bot.is_some());
        }
    }

    #[test]
    fn what_is_secret_is_borrowed_from_the_plaintext_and_not_copied() {
        let json = r#"{"access_token":"a","refresh_token":"b","alternates":["c","d"]}"#;
        let secrets: GrantSecrets<'_> = serde_json::from_str(json).expect("a known form");
        let options = secrets.refresh_token.into_iter().chain(secrets.alternates);
        let texts: Vec<_> = options
            .map(|text| text.0)
            .chain([secrets.access_token])
            .collect();
        assert_eq!(texts.len(), 4);
        assert!(texts.iter().all(|text| matches!(text, Cow::Borrowed(_))));

        let json = r#"{"webhooks":[{"channel":"a","channel_id":"b","configuration_url":"c",
            "url":"d"}],"metadata":"e"}"#;
        let secrets: InstallSecrets<'_> = serde_json::from_str(json).expect("a known form");
        let metadata = secrets.metadata.expect("it is there");
        assert!(matches!(metadata.0, Cow::Borrowed(_)));
        assert!(matches!(secrets.webhooks[0].url, Cow::Borrowed(_)));
    }

    fn assert_same(draft: &Draft, golden: &Record) {
        assert_eq!(draft.metadata, golden.row.metadata.as_str());
        assert_eq!(draft.plaintext, golden.plaintext);
    }

    /// The golden records of each tenant by slot.
    fn tenants() -> BTreeMap<String, BTreeMap<String, Record>> {
        let text = std::fs::read_to_string(DATABASE).expect("the repository has it");
        let database: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let mut tenants: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for golden in database["rows"].as_array().expect("rows") {
            let text = |name: &str| golden[name].as_str().unwrap_or_default().to_owned();
            if text("slot") != "state" && !text("partition").ends_with("/keyring") {
                let plaintext = Zeroizing::new(text("plaintext").into_bytes());
                let record = Record {
                    row: row(&text("metadata")),
                    plaintext,
                };
                tenants
                    .entry(text("partition"))
                    .or_default()
                    .insert(text("slot"), record);
            }
        }
        tenants
    }

    fn row(metadata: &str) -> Row {
        Row {
            version: Version::mint(),
            metadata: Metadata::new(metadata),
            sealed: Sealed::from_stored([]),
            due: None,
        }
    }
}
