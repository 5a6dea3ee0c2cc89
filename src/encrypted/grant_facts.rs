//! The stored format of a chain of tokens. The facts are plain text; the tokens are sealed.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::names::{BOT, USER};
use super::record::{self, Draft, Record, Text, unknown};
use super::rotation_facts::RotationFacts;
use crate::backend::Lane;
use crate::clock::{from_epoch, to_epoch};
use crate::installation::{Bot, Grant, Scopes, User};
use crate::secret::{AccessToken, RefreshToken};
use crate::store::{Chain, Error, Mark, StoredChain};
use crate::tenant::{AppId, BotId, UserId};

/// The facts of a chain.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct GrantFacts {
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

/// The secrets of a chain.
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

impl GrantFacts {
    fn new(grant: &Grant, granted_at: SystemTime) -> Self {
        Self {
            bot_user_id: None,
            bot_id: None,
            user_id: None,
            scopes: grant.scopes.to_string(),
            expires_at: grant.expires_at.map(to_epoch),
            granted_at: to_epoch(granted_at),
            rotation: None,
        }
    }

    /// Makes the facts of the bot's chain. Keeps the stored bot id, which `auth.test` reported.
    pub(super) fn of_bot(
        bot: &Bot,
        granted_at: SystemTime,
        stored: Option<&Record>,
    ) -> Result<Self, Error> {
        let old: Option<Self> = stored.map(|record| record.facts(BOT)).transpose()?;
        let same_bot = old.filter(|old| old.bot_user_id.as_ref() == Some(&bot.user_id));
        let told = || same_bot.and_then(|old| old.bot_id);
        Ok(Self {
            bot_user_id: Some(bot.user_id.clone()),
            bot_id: bot.id.clone().or_else(told),
            ..Self::new(&bot.grant, granted_at)
        })
    }

    /// Makes the facts of one user's chain.
    pub(super) fn of_user(user: &User, granted_at: SystemTime) -> Self {
        Self {
            user_id: Some(user.id.clone()),
            ..Self::new(&user.grant, granted_at)
        }
    }

    /// Adds the rotation of the stored chain, which has the same pair.
    pub(super) fn with_rotation_of(self, stored: Self) -> Self {
        Self {
            granted_at: self.granted_at.max(stored.granted_at),
            rotation: stored.rotation,
            ..self
        }
    }

    /// Returns when the installation of the chain in this record was made.
    pub(super) fn granted_at(kind: &'static str, record: &Record) -> Result<u64, Error> {
        let facts: Self = record.facts(kind)?;
        Ok(facts.granted_at)
    }

    /// Returns whether the chain had this refresh token recently and has replaced it.
    pub(super) fn has_replaced(&self, mark: Mark) -> bool {
        let rotation = self.rotation.as_ref();
        rotation.is_some_and(|rotation| rotation.has_replaced(mark))
    }

    pub(super) fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at.map(from_epoch)
    }

    pub(super) fn scopes(&self) -> Scopes {
        Scopes::from(self.scopes.as_str())
    }

    pub(super) fn is_dead(&self) -> bool {
        let rotation = self.rotation.as_ref();
        rotation.is_some_and(RotationFacts::is_dead)
    }

    fn is_suspect(&self) -> bool {
        let rotation = self.rotation.as_ref();
        rotation.is_some_and(RotationFacts::is_suspect)
    }
}

/// Returns whether the chain of this draft is alive.
pub(super) fn is_alive(draft: &Draft) -> bool {
    let facts = record::facts::<GrantFacts>(&draft.metadata, draft.kind);
    let rotation = facts.and_then(|facts| facts.rotation);
    !rotation.is_some_and(|rotation| rotation.is_dead())
}

/// Makes the record of a chain that begins with this grant.
pub(super) fn new_draft(kind: &'static str, facts: &GrantFacts, grant: &Grant) -> Draft {
    let due_at = Chain::new(grant, from_epoch(facts.granted_at)).due_at;
    draft(kind, facts, grant, &[], due_at)
}

/// Makes the record of a chain.
pub(super) fn draft(
    kind: &'static str,
    facts: &GrantFacts,
    grant: &Grant,
    alternates: &[RefreshToken],
    due_at: Option<SystemTime>,
) -> Draft {
    let secrets = GrantSecrets {
        access_token: grant.access_token.expose().into(),
        refresh_token: grant.refresh_token.as_ref().map(text),
        alternates: alternates.iter().map(text).collect(),
    };
    Draft::new(kind, facts)
        .with_secrets(&secrets)
        .due(Lane::Refresh, due_at)
}

/// Makes the record of a chain that has changed since it was stored.
pub(super) fn moved_draft(
    kind: &'static str,
    stored: &Record,
    moved: &StoredChain,
) -> Result<Draft, Error> {
    let old: GrantFacts = stored.facts(kind)?;
    let facts = GrantFacts {
        scopes: moved.grant.scopes.to_string(),
        expires_at: moved.grant.expires_at.map(to_epoch),
        rotation: Some(RotationFacts::after(old.rotation, &moved.chain)),
        ..old
    };
    let due_at = moved.chain.due_at;
    Ok(draft(kind, &facts, &moved.grant, &moved.alternates, due_at))
}

/// Returns the chain in this record, which belongs to an installation of this app.
pub(super) fn chain(
    kind: &'static str,
    app_id: AppId,
    record: &Record,
) -> Result<StoredChain, Error> {
    let (chain, grant, alternates) = parts(record.facts(kind)?, record)?;
    Ok(StoredChain::new(app_id, chain, grant, alternates))
}

/// Returns the chain and the scopes in this record.
pub(super) fn inspected(record: &Record) -> Result<(Chain, Scopes), Error> {
    let is_bot = record::kind_of(record.row.metadata.as_str()) == Some(BOT);
    let kind = if is_bot { BOT } else { USER };
    let (chain, grant, _) = parts(record.facts(kind)?, record)?;
    Ok((chain, grant.scopes))
}

fn parts(facts: GrantFacts, record: &Record) -> Result<(Chain, Grant, Vec<RefreshToken>), Error> {
    let (grant, alternates) = tokens(record, &facts)?;
    let mut chain = Chain::new(&grant, from_epoch(facts.granted_at));
    if let Some(rotation) = facts.rotation {
        rotation.onto(&mut chain)?;
    }
    chain.alternates = alternates.iter().map(Mark::of).collect();
    chain.due_at = record.row.due.map(|due| due.at);
    Ok((chain, grant, alternates))
}

/// Returns the bot in this record, and whether its token is suspect.
pub(super) fn bot(record: &Record) -> Result<(Bot, bool), Error> {
    let facts: GrantFacts = record.facts(BOT)?;
    let (grant, _) = tokens(record, &facts)?;
    let is_suspect = facts.is_suspect();
    let id = facts.bot_id;
    let user_id = facts
        .bot_user_id
        .ok_or_else(|| unknown("a bot's user id"))?;
    Ok((Bot { user_id, id, grant }, is_suspect))
}

/// Returns the user in this record, and whether their token is suspect.
pub(super) fn user(record: &Record) -> Result<(User, bool), Error> {
    let facts: GrantFacts = record.facts(USER)?;
    let (grant, _) = tokens(record, &facts)?;
    let is_suspect = facts.is_suspect();
    let id = facts.user_id.ok_or_else(|| unknown("a user's id"))?;
    Ok((User { id, grant }, is_suspect))
}

/// Returns the mark of the access token in this record.
pub(super) fn access_mark(record: &Record) -> Result<Mark, Error> {
    Ok(Mark::of_access_token(&access_token(
        secrets(record)?.access_token,
    )?))
}

/// Returns the pair and the alternates.
fn tokens(record: &Record, facts: &GrantFacts) -> Result<(Grant, Vec<RefreshToken>), Error> {
    let secrets = secrets(record)?;
    let refresh_token = |text: Text<'_>| RefreshToken::new(text.0).map_err(|_| unknown("a token"));
    let grant = Grant {
        access_token: access_token(secrets.access_token)?,
        refresh_token: secrets.refresh_token.map(refresh_token).transpose()?,
        expires_at: facts.expires_at.map(from_epoch),
        scopes: Scopes::from(facts.scopes.as_str()),
    };
    let alternates = secrets.alternates.into_iter().map(refresh_token);
    Ok((grant, alternates.collect::<Result<_, _>>()?))
}

fn text(token: &RefreshToken) -> Text<'_> {
    Text::of(token.expose())
}

fn access_token(text: Cow<'_, str>) -> Result<AccessToken, Error> {
    AccessToken::new(text).map_err(|_| unknown("a token"))
}

fn secrets(record: &Record) -> Result<GrantSecrets<'_>, Error> {
    record.secrets("a grant's tokens")
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
