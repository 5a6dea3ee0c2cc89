//! The stored format of an installation without its tokens. The facts are plain text; the webhooks
//! and your app's metadata are sealed.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::metadata_facts::{Dated, mark};
use super::names::INSTALL;
use super::record::{Draft, Record, Text, facts_in_the_clear, unknown};
use crate::backend::Row;
use crate::clock::{from_epoch, to_epoch};
use crate::installation::{Enterprise, Home, IncomingWebhook, Installation, Team};
use crate::secret::WebhookUrl;
use crate::store::{Error, Mark, Summary};
use crate::tenant::{AppId, EnterpriseId, TeamId, UserId};

/// The facts of an installation.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct InstallFacts {
    pub(super) app_id: AppId,
    enterprise_id: Option<EnterpriseId>,
    enterprise_name: Option<String>,
    team_id: Option<TeamId>,
    team_name: Option<String>,
    is_enterprise_install: bool,
    pub(super) url: Option<String>,
    installed_by: Option<UserId>,
    /// Seconds since 1970, like all times of this format.
    pub(super) installed_at: u64,
}

/// The secrets of an installation that belong to no chain.
#[derive(Default, Deserialize, Serialize)]
struct InstallSecrets<'a> {
    #[serde(borrow)]
    webhooks: Vec<WebhookSecrets<'a>>,
    #[serde(borrow)]
    metadata: Option<Text<'a>>,
    /// Which installation the metadata belongs to, if it is not the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata_at: Option<u64>,
    /// The mark of the metadata that was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata_removed: Option<String>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    removed_webhooks: Vec<RemovedWebhook<'a>>,
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

/// The record that a webhook was removed.
#[derive(Deserialize, Serialize)]
struct RemovedWebhook<'a> {
    #[serde(borrow)]
    channel_id: Cow<'a, str>,
    /// The mark of its URL: 16 hexadecimal digits.
    mark: String,
    /// When the last installation was made at the time.
    at: u64,
}

impl RemovedWebhook<'_> {
    /// Returns whether this webhook, of an installation that was made at `at`, is the removed one
    /// or an earlier one of its channel.
    fn bars(&self, webhook: &WebhookSecrets<'_>, at: u64) -> bool {
        let is_same = self.mark == mark(&webhook.url);
        at < self.at && self.is_of(webhook) || at == self.at && is_same
    }

    /// Returns whether this webhook is the removed one, or one of its channel.
    fn is_of(&self, webhook: &WebhookSecrets<'_>) -> bool {
        let is_known = !self.channel_id.is_empty();
        is_known && self.channel_id == webhook.channel_id || self.mark == mark(&webhook.url)
    }
}

impl InstallFacts {
    pub(super) fn read(record: &Record) -> Result<Self, Error> {
        record.facts(INSTALL)
    }

    fn new(installation: &Installation) -> Self {
        let (enterprise, team) = (installation.home.enterprise(), installation.home.team());
        Self {
            app_id: installation.app_id.clone(),
            enterprise_id: enterprise.map(|enterprise| enterprise.id.clone()),
            enterprise_name: enterprise.and_then(|enterprise| enterprise.name.clone()),
            team_id: team.map(|team| team.id.clone()),
            team_name: team.and_then(|team| team.name.clone()),
            is_enterprise_install: installation.home.is_enterprise_install(),
            url: installation.url.clone(),
            installed_by: installation.installed_by.clone(),
            installed_at: to_epoch(installation.installed_at),
        }
    }

    /// Removes that this person installed the app. Returns whether they did.
    pub(super) fn forget(&mut self, person: &UserId) -> bool {
        self.installed_by.take_if(|by| by == person).is_some()
    }

    /// Changes the organisation that a workspace belongs to. Deletes the name of the old one.
    pub(super) fn move_to(&mut self, enterprise: Option<&EnterpriseId>) {
        if self.enterprise_id.as_ref() != enterprise {
            self.enterprise_id = enterprise.cloned();
            self.enterprise_name = None;
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
            .map_err(|_| unknown("an installation's ids"))
    }
}

/// Makes the record that stores an installation over `stored`. The stored bot was installed at
/// `bot_at`.
///
/// Webhooks of other channels are kept. If the stored installation is later, all of it is kept.
pub(super) fn draft(
    installation: &Installation,
    stored: Option<&Record>,
    bot_at: Option<u64>,
) -> Result<Draft, Error> {
    let new = InstallFacts::new(installation);
    let old = stored.map(InstallFacts::read).transpose()?;
    let is_late = old
        .as_ref()
        .is_some_and(|old| old.installed_at > new.installed_at);
    let old_secrets = old.as_ref().zip(stored);
    let old_secrets = old_secrets.map(|(old, stored)| Ok::<_, Error>((secrets(stored)?, old)));
    let old_secrets = old_secrets.transpose()?;
    let mut secrets = merged(secrets_of(installation), old_secrets, &new, is_late);
    let installed_by = installed_by(installation, old.as_ref(), bot_at, is_late);
    let facts = match old {
        Some(old) if is_late => old,
        Some(old) => InstallFacts {
            url: new.url.or(old.url),
            ..new
        },
        None => new,
    };
    let facts = InstallFacts {
        installed_by,
        ..facts
    };
    secrets.metadata_at = secrets.metadata_at.filter(|at| *at != facts.installed_at);
    Ok(Draft::new(INSTALL, &facts).with_secrets(&secrets))
}

/// Returns who installed the bot last; if there is no bot, who completed the flow last.
fn installed_by(
    new: &Installation,
    old: Option<&InstallFacts>,
    bot_at: Option<u64>,
    is_late: bool,
) -> Option<UserId> {
    let keeps_old = match (&new.bot, bot_at) {
        (Some(_), bot_at) => bot_at.is_some_and(|at| at > to_epoch(new.installed_at)),
        (None, Some(_)) if new.user.is_some() => true,
        _ => is_late,
    };
    let by = match old {
        Some(old) if keeps_old => &old.installed_by,
        _ => &new.installed_by,
    };
    by.clone()
}

fn secrets_of(installation: &Installation) -> InstallSecrets<'_> {
    let webhooks = installation.incoming_webhooks.iter();
    let webhooks = webhooks.map(|webhook| WebhookSecrets {
        channel: webhook.channel.as_str().into(),
        channel_id: webhook.channel_id.as_str().into(),
        configuration_url: webhook.configuration_url.as_str().into(),
        url: webhook.url.expose().into(),
    });
    InstallSecrets {
        webhooks: webhooks.collect(),
        metadata: installation.metadata.as_deref().map(Text::of),
        ..InstallSecrets::default()
    }
}

/// Merges the webhooks of both, one for each channel, and the metadata. The new ones win, unless
/// they are late. What was removed stays away. Within one list, the first webhook of a channel
/// wins.
fn merged<'a>(
    mut new: InstallSecrets<'a>,
    old: Option<(InstallSecrets<'a>, &InstallFacts)>,
    facts: &InstallFacts,
    is_late: bool,
) -> InstallSecrets<'a> {
    let (old, old_metadata) = match old {
        Some((mut old, facts)) => {
            let metadata = old.take_metadata(facts.installed_at);
            (old, metadata)
        }
        None => (InstallSecrets::default(), Dated::default()),
    };
    let at = facts.installed_at;
    let metadata = new.take_metadata(at).over(old_metadata);
    let mut removed = old.removed_webhooks;
    new.webhooks
        .retain(|webhook| !removed.iter().any(|removed| removed.bars(webhook, at)));
    let (first, second) = if is_late {
        (old.webhooks, new.webhooks)
    } else {
        (new.webhooks, old.webhooks)
    };
    let mut channels = HashSet::new();
    let mut webhooks: Vec<_> = first.into_iter().chain(second).collect();
    webhooks.retain(|webhook| {
        let is_known = !webhook.channel_id.is_empty();
        let channel = is_known.then(|| webhook.channel_id.clone());
        channels.insert(channel.unwrap_or_else(|| webhook.url.clone()))
    });
    removed.retain(|removed| !webhooks.iter().any(|webhook| removed.is_of(webhook)));
    let merged = InstallSecrets {
        webhooks,
        removed_webhooks: removed,
        ..InstallSecrets::default()
    };
    merged.with_metadata(metadata)
}

impl<'a> InstallSecrets<'a> {
    /// Takes the tenant's metadata out of the secrets of an installation that was made at `at`.
    fn take_metadata(&mut self, at: u64) -> Dated<'a> {
        Dated {
            text: self.metadata.take(),
            at: self.metadata_at.take().unwrap_or(at),
            removed: self.metadata_removed.take(),
        }
    }

    fn with_metadata(self, metadata: Dated<'a>) -> Self {
        let is_known = metadata.text.is_some() || metadata.removed.is_some();
        Self {
            metadata_at: is_known.then_some(metadata.at),
            metadata: metadata.text,
            metadata_removed: metadata.removed,
            ..self
        }
    }
}

/// Makes the record of an installation without these webhooks; `None` if there are none.
/// `is_meant` gets the channel's id and the mark of the URL.
pub(super) fn without_webhook(
    record: &Record,
    is_meant: impl Fn(&str, Mark) -> bool,
) -> Result<Option<Draft>, Error> {
    let facts = InstallFacts::read(record)?;
    let mut secrets = secrets(record)?;
    let all = std::mem::take(&mut secrets.webhooks).into_iter();
    let (meant, left): (Vec<_>, _) =
        all.partition(|webhook| is_meant(&webhook.channel_id, Mark::of_text(&webhook.url)));
    if meant.is_empty() {
        return Ok(None);
    }
    secrets.webhooks = left;
    secrets
        .removed_webhooks
        .extend(meant.into_iter().map(|webhook| RemovedWebhook {
            mark: mark(&webhook.url),
            channel_id: webhook.channel_id,
            at: facts.installed_at,
        }));
    Ok(Some(Draft::new(INSTALL, &facts).with_secrets(&secrets)))
}

/// Makes the record of an installation without the tenant's metadata; `None` if there is none.
pub(super) fn without_metadata(record: &Record) -> Result<Option<Draft>, Error> {
    let facts = InstallFacts::read(record)?;
    let mut secrets = secrets(record)?;
    let metadata = secrets.take_metadata(facts.installed_at);
    let Some(removed) = metadata.removed(facts.installed_at) else {
        return Ok(None);
    };
    let secrets = secrets.with_metadata(removed);
    Ok(Some(Draft::new(INSTALL, &facts).with_secrets(&secrets)))
}

/// Returns the installation in this record, without its tokens.
pub(super) fn installation(record: &Record, facts: &InstallFacts) -> Result<Installation, Error> {
    let at = from_epoch(facts.installed_at);
    let mut installation = Installation::new(facts.app_id.clone(), facts.home()?, at);
    installation.url.clone_from(&facts.url);
    installation.installed_by.clone_from(&facts.installed_by);
    let secrets = secrets(record)?;
    let webhooks = secrets.webhooks.into_iter().map(webhook);
    installation.incoming_webhooks = webhooks.collect::<Result<_, _>>()?;
    installation.metadata = secrets.metadata.map(|text| text.0.into_owned());
    Ok(installation)
}

fn webhook(webhook: WebhookSecrets<'_>) -> Result<IncomingWebhook, Error> {
    Ok(IncomingWebhook {
        channel: webhook.channel.into_owned(),
        channel_id: webhook.channel_id.into_owned(),
        configuration_url: webhook.configuration_url.into_owned(),
        url: WebhookUrl::new(webhook.url).map_err(|_| unknown("a webhook"))?,
    })
}

/// Returns the summary of an unopened row; `None` if the row has no installation's facts. The
/// summary is not authenticated.
pub(super) fn summary(row: &Row) -> Option<Summary> {
    let facts: InstallFacts = facts_in_the_clear(row.metadata.as_str(), INSTALL)?;
    let home = facts.home().ok()?;
    let at = from_epoch(facts.installed_at);
    Some(Summary::new(facts.app_id, home, facts.installed_by, at))
}

fn secrets(record: &Record) -> Result<InstallSecrets<'_>, Error> {
    record.secrets("an installation's webhooks")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_borrowed_from_the_plaintext_and_not_copied() {
        let json = r#"{"webhooks":[{"channel":"a","channel_id":"b","configuration_url":"c",
            "url":"d"}],"metadata":"e"}"#;
        let secrets: InstallSecrets<'_> = serde_json::from_str(json).expect("a known form");
        let metadata = secrets.metadata.expect("metadata");
        assert!(matches!(metadata.0, Cow::Borrowed(_)));
        assert!(matches!(secrets.webhooks[0].url, Cow::Borrowed(_)));
    }
}
