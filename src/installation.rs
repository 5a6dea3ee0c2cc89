//! Installations: which app was installed where and by whom, and the tokens that were issued.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::time::SystemTime;

use crate::secret::{AccessToken, RefreshToken, WebhookUrl};
use crate::tenant::{
    AppId, BotId, EnterpriseId, IdError, InstallationKey, NO_TENANT, TeamId, UserId,
};

mod metadata;

pub(crate) use metadata::write as metadata_text;
pub use metadata::{MetadataError, UserMetadata};

/// One app in one workspace or organisation.
///
/// Does not implement `Serialize`, so that it leaves this process only through the encrypted
/// store.
///
/// ```compile_fail
/// fn wants_serialize<T: serde::Serialize>() {}
/// wants_serialize::<slack_installs::Installation>();
/// ```
#[non_exhaustive]
pub struct Installation {
    /// The app that was installed.
    pub app_id: AppId,
    /// The workspace or organisation where it was installed.
    pub home: Home,
    /// The workspace's or the organisation's URL; `None` until `auth.test` has reported it.
    pub url: Option<String>,
    /// The bot, one per app and tenant; `None` if only users authorised the app.
    pub bot: Option<Bot>,
    /// A user's own authorisation. `store` takes that of the user who installed the app. `fetch`
    /// returns that of the user whom the caller named, and never another user's.
    pub user: Option<User>,
    /// The user who installed the bot last. If the tenant has no bot, the user who completed the
    /// install flow last.
    pub installed_by: Option<UserId>,
    /// When the app was installed last, on Slack's clock.
    pub installed_at: SystemTime,
    /// Incoming webhooks, one for each channel.
    pub incoming_webhooks: Vec<IncomingWebhook>,
    /// The tenant's metadata: what your app passed to `InstallOptions` of the last flow that
    /// installed the bot. A flow that only connects a user does not change it, so a tenant without
    /// a bot has none. Sealed like a token.
    pub metadata: Option<String>,
    /// One person's own metadata: what your app passed to the last flow that this person completed.
    /// `store` takes that of the person whom it names. `fetch` returns that of the user whom the
    /// caller named, even if they have no token, and never another person's. Sealed like a token.
    pub user_metadata: Option<UserMetadata>,
}

impl Installation {
    /// Makes an installation of this app without any token.
    #[must_use]
    pub fn new(app_id: AppId, home: Home, installed_at: SystemTime) -> Self {
        Self {
            app_id,
            home,
            url: None,
            bot: None,
            user: None,
            installed_by: None,
            installed_at,
            incoming_webhooks: Vec::new(),
            metadata: None,
            user_metadata: None,
        }
    }

    /// Returns the bot's grant and the user's own.
    pub(crate) fn grants(&self) -> [Option<&Grant>; 2] {
        [
            self.bot.as_ref().map(|bot| &bot.grant),
            self.user.as_ref().map(|user| &user.grant),
        ]
    }

    /// Returns the key under which this installation is stored.
    #[must_use]
    pub fn key(&self) -> InstallationKey {
        self.home.key()
    }
}

impl fmt::Debug for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installation")
            .field("app_id", &self.app_id)
            .field("home", &self.home)
            .field("url", &self.url)
            .field("bot", &self.bot)
            .field("user", &self.user)
            .field("installed_by", &self.installed_by)
            .field("installed_at", &self.installed_at)
            .field("incoming_webhooks", &self.incoming_webhooks)
            .field("metadata", &self.metadata.as_ref().map(|_| "[redacted]"))
            .field("user_metadata", &self.user_metadata)
            .finish()
    }
}

/// An installation as the store returns it. Dereferences to the [`Installation`].
#[derive(Debug)]
#[non_exhaustive]
pub struct StoredInstallation {
    /// The installation.
    pub installation: Installation,
    /// The operator's hold on the tenant, or the record that a hold was lifted. Installing the app
    /// again does not change it.
    pub hold: Option<Hold>,
    /// The revision of the stored installation.
    pub revision: Revision,
    /// Which of its tokens Slack may have revoked early. Read from the same rows.
    pub(crate) suspects: Suspects,
}

impl StoredInstallation {
    /// Makes a stored installation that is not on hold, for implementations of the store.
    #[must_use]
    pub fn new(installation: Installation, revision: Revision) -> Self {
        Self {
            installation,
            hold: None,
            revision,
            suspects: Suspects::default(),
        }
    }

    /// Returns whether an operator has put the tenant on hold: no token may be handed out.
    #[must_use]
    pub fn is_on_hold(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.is_on)
    }
}

impl Deref for StoredInstallation {
    type Target = Installation;

    fn deref(&self) -> &Installation {
        &self.installation
    }
}

/// Which tokens are suspect; see [`Chain::is_suspect`](crate::store::Chain::is_suspect).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Suspects {
    pub(crate) bot: bool,
    pub(crate) user: bool,
}

/// An operator's hold on a tenant: its data is kept and no token is handed out. Or the record that
/// a hold was lifted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hold {
    /// Whether the hold is on, so that no token may be handed out.
    pub is_on: bool,
    /// The reason, in the operator's words. Stored in plain text.
    pub reason: String,
    /// When the hold was put on or lifted.
    pub at: SystemTime,
}

/// Where an app is installed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Home {
    /// In an Enterprise organisation, for all of its workspaces that an admin adds.
    Org(Enterprise),
    /// In one workspace.
    Workspace {
        /// The organisation that the workspace belongs to, if any. For information only: it
        /// changes when the workspace joins an organisation.
        enterprise: Option<Enterprise>,
        /// The workspace.
        team: Team,
    },
}

impl Home {
    /// Makes a home from the fields of Slack's response.
    ///
    /// Only the flag makes an installation org-wide, never the presence of an enterprise id. The
    /// team of an org-wide installation is dropped, because an installation that is stored under
    /// its team is never found again (slackapi/python-slack-sdk#1639).
    ///
    /// # Errors
    ///
    /// [`IdError`], if the flag is set and no organisation is given, or if the flag is not set and
    /// no workspace is given.
    pub fn new(
        enterprise: Option<Enterprise>,
        team: Option<Team>,
        is_enterprise_install: bool,
    ) -> Result<Self, IdError> {
        match (is_enterprise_install, enterprise, team) {
            (true, Some(enterprise), _) => Ok(Self::Org(enterprise)),
            (false, enterprise, Some(team)) => Ok(Self::Workspace { enterprise, team }),
            _ => Err(NO_TENANT),
        }
    }

    /// Returns the organisation, if any.
    #[must_use]
    pub fn enterprise(&self) -> Option<&Enterprise> {
        match self {
            Self::Org(enterprise) => Some(enterprise),
            Self::Workspace { enterprise, .. } => enterprise.as_ref(),
        }
    }

    /// Returns whether the organisation installed the app for its workspaces at once.
    #[must_use]
    pub fn is_enterprise_install(&self) -> bool {
        matches!(self, Self::Org(_))
    }

    /// Returns the key of an installation in this home.
    #[must_use]
    pub fn key(&self) -> InstallationKey {
        match self {
            Self::Org(enterprise) => InstallationKey::org(enterprise.id.clone()),
            Self::Workspace { enterprise, team } => {
                let key = InstallationKey::workspace(team.id.clone());
                enterprise
                    .iter()
                    .fold(key, |key, enterprise| key.within(enterprise.id.clone()))
            }
        }
    }

    /// Returns the workspace; `None` for an org-wide installation.
    #[must_use]
    pub fn team(&self) -> Option<&Team> {
        match self {
            Self::Org(_) => None,
            Self::Workspace { team, .. } => Some(team),
        }
    }
}

/// An Enterprise organisation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enterprise {
    /// Its id.
    pub id: EnterpriseId,
    /// Its name, if Slack reported it.
    pub name: Option<String>,
}

/// A workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Team {
    /// Its id.
    pub id: TeamId,
    /// Its name, if Slack reported it.
    pub name: Option<String>,
}

/// The app's bot in one workspace or organisation.
#[derive(Debug)]
pub struct Bot {
    /// The bot's user, which posts messages and can be mentioned.
    pub user_id: UserId,
    /// The bot's own id; `None` until `auth.test` has reported it.
    pub id: Option<BotId>,
    /// Its token.
    pub grant: Grant,
}

/// One user's authorisation of the app.
#[derive(Debug)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// The user's token.
    pub grant: Grant,
}

/// An access token, and the refresh token that Slack exchanges for the next pair.
#[derive(Debug)]
pub struct Grant {
    /// The token for Slack's Web API.
    pub access_token: AccessToken,
    /// With token rotation, the token that Slack exchanges for the next pair.
    pub refresh_token: Option<RefreshToken>,
    /// When the access token expires; `None` if it does not expire.
    pub expires_at: Option<SystemTime>,
    /// The granted scopes. They may be fewer or more than those that were requested.
    pub scopes: Scopes,
}

/// A webhook into one channel.
#[derive(Debug)]
pub struct IncomingWebhook {
    /// The channel's name at the time when the webhook was created; empty if Slack did not name it.
    pub channel: String,
    /// The channel's id. One webhook is stored for each. Empty if Slack did not name it; then one
    /// webhook is stored for each URL.
    pub channel_id: String,
    /// Slack's page where a person can change the webhook; empty if Slack did not name it.
    pub configuration_url: String,
    /// The URL to post to.
    pub url: WebhookUrl,
}

/// A set of OAuth scopes.
///
/// ```
/// use slack_installs::Scopes;
///
/// let scopes = Scopes::from("chat:write,commands");
/// assert!(scopes.contains("commands"));
/// assert_eq!(scopes.to_string(), "chat:write,commands");
/// ```
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Scopes(BTreeSet<String>);

impl Scopes {
    /// Returns whether the set contains this scope.
    #[must_use]
    pub fn contains(&self, scope: &str) -> bool {
        self.0.contains(scope)
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the scopes, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Returns the scopes of `wanted` that this set does not contain.
    #[must_use]
    pub fn missing(&self, wanted: &Self) -> Self {
        Self(wanted.0.difference(&self.0).cloned().collect())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Scopes {
    /// Writes the scopes separated by commas, as Slack does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: Vec<_> = self.iter().collect();
        f.write_str(&scopes.join(","))
    }
}

impl From<&str> for Scopes {
    /// Parses scopes separated by commas or white space, as Slack and people write them.
    fn from(scopes: &str) -> Self {
        let parts = scopes.split(|c: char| c == ',' || c.is_whitespace());
        parts.filter(|scope| !scope.is_empty()).collect()
    }
}

impl<S: Into<String>> FromIterator<S> for Scopes {
    fn from_iter<I: IntoIterator<Item = S>>(scopes: I) -> Self {
        Self(scopes.into_iter().map(Into::into).collect())
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for Scopes {
    fn from(scopes: [S; N]) -> Self {
        scopes.into_iter().collect()
    }
}

/// Identifies one state of a stored installation. It changes with every reinstall and never
/// repeats.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Revision([u8; 16]);

impl Revision {
    /// Makes a revision from its bytes, for implementations of the store.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the revision's bytes, for implementations of the store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enterprise() -> Option<Enterprise> {
        let id = EnterpriseId::new("E1").ok()?;
        Some(Enterprise { id, name: None })
    }

    fn team() -> Option<Team> {
        let id = TeamId::new("T1").ok()?;
        Some(Team { id, name: None })
    }

    #[test]
    fn the_flag_says_where_an_app_is_installed_and_never_the_ids_beside_it() {
        for (enterprise, team, is_org, key) in [
            (enterprise(), team(), true, Some("E1")),
            (enterprise(), None, true, Some("E1")),
            (None, team(), true, None),
            (None, None, true, None),
            (enterprise(), team(), false, Some("T1")),
            (None, team(), false, Some("T1")),
            (enterprise(), None, false, None),
            (None, None, false, None),
        ] {
            let home = Home::new(enterprise.clone(), team.clone(), is_org).ok();
            let shown = home.as_ref().map(|home| home.key().to_string());
            assert_eq!(shown.as_deref(), key);
            let Some(home) = home else { continue };
            assert_eq!(home.is_enterprise_install(), is_org);
            assert_eq!(home.enterprise(), enterprise.as_ref());
            assert_eq!(home.team(), team.as_ref().filter(|_| !is_org));
            assert_eq!(
                home.key().enterprise(),
                enterprise.as_ref().map(|it| &it.id)
            );
        }
    }

    #[test]
    fn only_a_hold_that_is_on_holds() {
        let home = Home::new(None, team(), false).expect("a tenant");
        let app = AppId::new("A1").expect("an id");
        let new = Installation::new(app, home, SystemTime::UNIX_EPOCH);
        let mut installation = StoredInstallation::new(new, Revision([0; 16]));
        assert!(!installation.is_on_hold());
        for is_on in [true, false] {
            let (reason, at) = (String::new(), SystemTime::UNIX_EPOCH);
            installation.hold = Some(Hold { is_on, reason, at });
            assert_eq!(installation.is_on_hold(), is_on);
        }
    }

    #[test]
    fn scopes_are_parted_by_commas_and_white_space_and_told_apart() {
        let scopes = Scopes::from(" chat:write,,commands users:read\n");
        assert_eq!(scopes.to_string(), "chat:write,commands,users:read");
        assert!(Scopes::from(" , ").is_empty() && !scopes.is_empty());
        assert!(scopes.contains("commands") && !scopes.contains("chat"));
        let wanted = Scopes::from("commands,files:read");
        assert_eq!(scopes.missing(&wanted).to_string(), "files:read");
        assert_eq!(wanted.missing(&scopes).to_string(), "chat:write,users:read");
    }
}
