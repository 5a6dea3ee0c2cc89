//! Types for Slack's ids, and the keys of tenants that are built from them.
//!
//! An id from outside is checked before it becomes part of a key, a query or a cache name. So `T1`
//! is never read as the start of `T12`, and a workspace is never read as an organisation.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Declares a newtype for one of Slack's ids. It is checked on construction and may be printed.
macro_rules! slack_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $prefixes:literal) => {
        slack_id!(
            $(#[$doc])* $name: concat!("a Slack ", $what, " id"),
            concat!(
                "one of the letters \"", $prefixes, "\" and then 1 to 30 capital letters or digits"
            ),
            |id| is_id(id, $prefixes)
        );
    };
    ($(#[$doc:meta])* $name:ident: $what:expr, $expected:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Makes an id after checking its form.
            ///
            /// # Errors
            ///
            /// [`IdError`], if `id` does not have the form of this type. A token or a secret never
            /// has it. Slack documents no length: real ids have 9 to 11 characters, and 31 are
            /// accepted.
            pub fn new(id: impl Into<String>) -> Result<Self, IdError> {
                let id = id.into();
                let check: fn(&str) -> bool = $check;
                if check(&id) {
                    Ok(Self(id.into_boxed_str()))
                } else {
                    Err(IdError { what: $what, expected: $expected })
                }
            }

            /// Returns the id as Slack writes it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(id: String) -> Result<Self, IdError> {
                Self::new(id)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = IdError;

            fn try_from(id: &str) -> Result<Self, IdError> {
                Self::new(id)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(id: &str) -> Result<Self, IdError> {
                Self::new(id)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into_string()
            }
        }
    };
}

slack_id!(
    /// A Slack app's id, `A…`.
    AppId, "app", "A"
);
slack_id!(
    /// A bot's id, `B…`. Not the bot's *user* id, which is a [`UserId`].
    BotId, "bot", "B"
);
slack_id!(
    /// An Enterprise organisation's id, `E…`.
    EnterpriseId, "enterprise", "E"
);
slack_id!(
    /// A workspace's id, `T…`. Unique over all of Slack; a workspace keeps it when it joins an
    /// Enterprise organisation.
    TeamId, "team", "T"
);
slack_id!(
    /// A person's or a bot user's id, `U…` or (in Enterprise organisations) `W…`.
    UserId, "user", "UW"
);

slack_id!(
    /// A Slack app's client id: two numbers joined by a dot. It is the app's name in storage, so
    /// that several apps can share one database and keep their data apart. It is stored in plain
    /// text, so no secret has its form.
    ClientId: "a Slack client id",
    "two numbers joined by a dot, such as 100000000001.200000000002, from the app's page Basic \
     Information",
    |id| {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let parts = id.split_once('.');
        id.len() <= MAX_ID_LEN && parts.is_some_and(|(one, two)| is_number(one) && is_number(two))
    }
);

/// The longest accepted id, in bytes.
///
/// It is several times the length of Slack's ids, and an id of this length fits every database's
/// keys.
pub(crate) const MAX_ID_LEN: usize = 64;

/// The longest accepted id that begins with a letter. A secret in capital hexadecimal digits, which
/// would otherwise have the form of such an id, has at least 32.
const MAX_LETTERED_LEN: usize = 31;

fn is_id(id: &str, prefixes: &str) -> bool {
    let mut bytes = id.bytes();
    (2..=MAX_LETTERED_LEN).contains(&id.len())
        && bytes
            .next()
            .is_some_and(|first| prefixes.as_bytes().contains(&first))
        && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// The text is not an id of this kind. The error does not contain the text, because it may be a
/// secret that was pasted into the wrong place.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not {what}: expected {expected}")]
pub struct IdError {
    what: &'static str,
    expected: &'static str,
}

/// The key of an installation: `(enterprise_id, team_id)`, with at least one of them.
///
/// * `(_, Some(team))` is the installation in that workspace.
/// * `(Some(enterprise), None)` is the org-wide installation.
///
/// The team id alone identifies a workspace, because a workspace keeps it when it joins an
/// Enterprise organisation. So two keys are equal if they name the same tenant. The enterprise id
/// of a workspace's key is for information only.
///
/// Use this as the key of your app's own tables. As text, and in serde's formats, it is the id
/// that identifies the tenant: `T…` or `E…`.
///
/// ```
/// use slack_installs::{EnterpriseId, InstallationKey, TeamId};
///
/// let team = TeamId::new("T0ALPHA0001")?;
/// let before = InstallationKey::workspace(team.clone());
/// let after = InstallationKey::new(Some(EnterpriseId::new("E0GRID00001")?), Some(team))?;
/// assert_eq!(before, after);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstallationKey {
    enterprise: Option<EnterpriseId>,
    team: Option<TeamId>,
}

impl InstallationKey {
    /// Makes the key of `(enterprise_id, team_id)`.
    ///
    /// # Errors
    ///
    /// [`IdError`], if both are absent, because such a key would match every tenant.
    pub fn new(enterprise: Option<EnterpriseId>, team: Option<TeamId>) -> Result<Self, IdError> {
        if enterprise.is_none() && team.is_none() {
            return Err(NO_TENANT);
        }
        Ok(Self { enterprise, team })
    }

    /// Makes the key of this organisation's org-wide installation.
    #[must_use]
    pub fn org(enterprise: EnterpriseId) -> Self {
        Self {
            enterprise: Some(enterprise),
            team: None,
        }
    }

    /// Makes the key of the installation in this workspace.
    #[must_use]
    pub fn workspace(team: TeamId) -> Self {
        Self {
            enterprise: None,
            team: Some(team),
        }
    }

    /// Sets the organisation that the workspace belongs to.
    #[must_use]
    pub fn within(mut self, enterprise: EnterpriseId) -> Self {
        self.enterprise = Some(enterprise);
        self
    }

    /// Returns the enterprise id, if known.
    #[must_use]
    pub fn enterprise(&self) -> Option<&EnterpriseId> {
        self.enterprise.as_ref()
    }

    /// Returns whether the key names an org-wide installation.
    #[must_use]
    pub fn is_org(&self) -> bool {
        self.team.is_none()
    }

    /// Returns what the key names, for logs: `org` or `workspace`.
    pub(crate) fn kind(&self) -> &'static str {
        if self.is_org() { "org" } else { "workspace" }
    }

    /// Returns the team id, if the key names a workspace.
    #[must_use]
    pub fn team(&self) -> Option<&TeamId> {
        self.team.as_ref()
    }

    /// Returns the id that identifies the tenant: the team id, or for an org-wide installation the
    /// enterprise id. Its first letter shows which of the two it is.
    #[must_use]
    pub fn id(&self) -> &str {
        match (&self.team, &self.enterprise) {
            (Some(team), _) => team.as_str(),
            (None, Some(enterprise)) => enterprise.as_str(),
            (None, None) => unreachable!("a key has at least one id"),
        }
    }
}

impl Eq for InstallationKey {}

impl Hash for InstallationKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl PartialEq for InstallationKey {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl fmt::Display for InstallationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl From<EnterpriseId> for InstallationKey {
    fn from(enterprise: EnterpriseId) -> Self {
        Self::org(enterprise)
    }
}

impl FromStr for InstallationKey {
    type Err = IdError;

    fn from_str(id: &str) -> Result<Self, IdError> {
        match (TeamId::new(id), EnterpriseId::new(id)) {
            (Ok(team), _) => Ok(Self::workspace(team)),
            (_, Ok(enterprise)) => Ok(Self::org(enterprise)),
            _ => Err(IdError {
                what: "a tenant's id",
                expected: "`T` (a workspace) or `E` (an organisation) and then capital letters or \
                           digits",
            }),
        }
    }
}

impl TryFrom<String> for InstallationKey {
    type Error = IdError;

    fn try_from(id: String) -> Result<Self, IdError> {
        id.parse()
    }
}

impl From<InstallationKey> for String {
    fn from(key: InstallationKey) -> Self {
        key.id().to_owned()
    }
}

impl From<TeamId> for InstallationKey {
    fn from(team: TeamId) -> Self {
        Self::workspace(team)
    }
}

/// The error if neither an enterprise id nor a team id is given.
pub(crate) const NO_TENANT: IdError = IdError {
    what: "a tenant",
    expected: "an enterprise id or a team id",
};

/// The tenant that a verified request from Slack concerns.
///
/// The fields are the ids that the request named. [`Tenant::candidates`] returns the installations
/// that may serve it, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tenant {
    enterprise: Option<EnterpriseId>,
    team: Option<TeamId>,
    is_enterprise_install: bool,
}

impl Tenant {
    /// Makes the tenant from the ids that a request names.
    ///
    /// # Errors
    ///
    /// [`IdError`], if the request names neither an enterprise id nor a team id. The org-wide flag
    /// makes no difference.
    pub(crate) fn new(
        enterprise: Option<EnterpriseId>,
        team: Option<TeamId>,
        is_enterprise_install: bool,
    ) -> Result<Self, IdError> {
        if enterprise.is_none() && team.is_none() {
            return Err(NO_TENANT);
        }
        Ok(Self {
            enterprise,
            team,
            is_enterprise_install,
        })
    }

    /// Returns the enterprise id, if the request named one.
    #[must_use]
    pub fn enterprise(&self) -> Option<&EnterpriseId> {
        self.enterprise.as_ref()
    }

    /// Returns whether the request said that it concerns an org-wide installation.
    #[must_use]
    pub fn is_enterprise_install(&self) -> bool {
        self.is_enterprise_install
    }

    /// Returns the team id, if the request named one.
    #[must_use]
    pub fn team(&self) -> Option<&TeamId> {
        self.team.as_ref()
    }

    /// Returns the keys of the installations that may serve this request, best first.
    ///
    /// 1. The installation that the request names.
    /// 2. If the request names a workspace in an organisation: the organisation's org-wide
    ///    installation, because its token covers its workspaces.
    /// 3. If an org-wide request also names a workspace: that workspace's own installation, but
    ///    only if it belongs to the same organisation. The caller must compare the two.
    ///
    /// A workspace's installation never serves another workspace.
    #[must_use]
    pub fn candidates(&self) -> Vec<(ResolvedVia, InstallationKey)> {
        let org = self.enterprise.clone().map(InstallationKey::org);
        let workspace = self.team.clone().map(|team| InstallationKey {
            enterprise: self.enterprise.clone(),
            team: Some(team),
        });
        let (named, fallback) = if self.is_enterprise_install && org.is_some() {
            (org, workspace.map(|key| (ResolvedVia::OrgToWorkspace, key)))
        } else {
            (workspace, org.map(|key| (ResolvedVia::WorkspaceToOrg, key)))
        };
        let named = named.map(|key| (ResolvedVia::Named, key));
        named.into_iter().chain(fallback).collect()
    }
}

impl fmt::Display for Tenant {
    /// Writes the id of the installation that the request names, as
    /// [`InstallationKey`] does: `T…` for a workspace, `E…` for an organisation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let team = self.team.as_ref().map(TeamId::as_str);
        let org = self.enterprise.as_ref().map(EnterpriseId::as_str);
        let named = if self.is_enterprise_install {
            org.or(team)
        } else {
            team.or(org)
        };
        f.write_str(named.unwrap_or_default())
    }
}

/// Which step of the resolution order found the installation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ResolvedVia {
    /// The request named this installation.
    Named,
    /// The request named an org-wide installation that does not exist, and a workspace in the same
    /// organisation. The workspace's own installation was found.
    OrgToWorkspace,
    /// The request named a workspace that has no installation of its own. The org-wide installation
    /// of its organisation was found.
    WorkspaceToOrg,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_not_slacks_are_refused() {
        for bad in [
            "",
            "T",
            "t0ALPHA",
            "E0GRID",
            "T0 A",
            "T0\0A",
            "T0/../A",
            "T0ALPHA\n",
            "Tä1",
            "T0alpha",
        ] {
            assert!(TeamId::new(bad).is_err(), "{bad:?}");
        }
        assert!(TeamId::new(format!("T{}", "0".repeat(10_000))).is_err());
        assert!(TeamId::new(format!("T{}", "0".repeat(MAX_LETTERED_LEN - 1))).is_ok());
        assert!(TeamId::new(format!("T{}", "0".repeat(MAX_LETTERED_LEN))).is_err());
        assert!(UserId::new("W0ORGADM001").is_ok());
        assert!(TeamId::new("T1").is_ok());
    }

    #[test]
    fn a_client_id_is_two_numbers_joined_by_a_dot() {
        for bad in [
            "", ".", "1", "1.", ".1", "1.2.3", "1..2", "1/2", "1,2", "1 .2", "1.2\n", "-1.2",
            "+1.2", "1.a", "{1}", "ä", "١.٢",
        ] {
            assert!(ClientId::new(bad).is_err(), "{bad:?}");
        }
        let of_length = |length: usize| format!("1.{}", "0".repeat(length - 2));
        assert!(ClientId::new(of_length(MAX_ID_LEN + 1)).is_err());
        assert!(ClientId::new(of_length(MAX_ID_LEN)).is_ok());
        for good in ["1.2", "100000000001.200000000002"] {
            assert_eq!(ClientId::new(good).expect(good).as_str(), good);
        }
    }

    /// Everything secret that a person copies from Slack's pages, or finds in a log.
    const SECRETS: &[&str] = &[
        "xoxb-100000000001-200000000002-AbCdEfGhIjKlMnOpQrStUvWx",
        "xoxp-1-2-3-abc",
        "xoxe.xoxb-1-Mi0yLTEw",
        "xoxe.xoxp-1-Mi0yLTEw",
        "xoxe-1-My0xLTEw",
        "xapp-1-A0FAKEAPP01-100-abcdef",
        "xwfp-1",
        // A client secret, or a signing secret, and the same in capital letters.
        "8f742231b10e8888abcd99yyyzzz85a5",
        "8f742231b10e8888abcd99fff00085a5",
        "8F742231B10E8888ABCD99FFF00085A5",
        "AF742231B10E8888ABCD99FFF00085A5",
        "BF742231B10E8888ABCD99FFF00085A5",
        "EF742231B10E8888ABCD99FFF00085A5",
        // A key in capital hexadecimal digits, and one in base 32.
        "A0000000000000000000000000000000B0000000000000000000000000000000",
        "TBQWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
        "UBQWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
        "WBQWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
        // A secret with digits only, a verification token, and a code.
        "12345678901234567890123456789012",
        "gIkuvaNzQIHg97ATvDxqgjtO",
        "100000000001.200000000002.8f742231b10e8888abcd99fff00085a5",
        "https://hooks.slack.com/services/T0ALPHA0001/B0HOOK00001/XXXXXXXXXXXXXXXXXXXXXXXX",
        "T0ALPHA0001/B0HOOK00001/XXXXXXXXXXXXXXXXXXXXXXXX",
        "0RxoY3Zc4hKzqX8m0P6v1u0QmQ0m6h0s6m2m0l2b7wE=",
    ];

    #[test]
    fn a_token_or_a_secret_that_is_pasted_into_any_id_is_refused_and_not_repeated() {
        fn refused<I, E: fmt::Display>(parsed: Result<I, E>, secret: &str) {
            let Err(error) = parsed else {
                panic!("{secret} is accepted as {}", std::any::type_name::<I>());
            };
            assert!(!error.to_string().contains(secret), "{error}");
        }
        for secret in SECRETS {
            for text in [(*secret).to_owned(), secret.to_uppercase()] {
                refused(AppId::new(&*text), &text);
                refused(BotId::new(&*text), &text);
                refused(ClientId::new(&*text), &text);
                refused(EnterpriseId::new(&*text), &text);
                refused(TeamId::new(&*text), &text);
                refused(UserId::new(&*text), &text);
                refused(text.parse::<InstallationKey>(), &text);
                let json = serde_json::Value::from(&*text);
                refused(serde_json::from_value::<ClientId>(json.clone()), &text);
                refused(serde_json::from_value::<AppId>(json.clone()), &text);
                refused(serde_json::from_value::<InstallationKey>(json), &text);
            }
        }
    }

    #[test]
    fn a_key_names_a_workspace_or_an_organisation() {
        let (enterprise, team) = (|| EnterpriseId::new("E1").ok(), || TeamId::new("T1").ok());
        for (key, id, is_org) in [
            (InstallationKey::new(enterprise(), team()), "T1", false),
            (InstallationKey::new(None, team()), "T1", false),
            (InstallationKey::new(enterprise(), None), "E1", true),
        ] {
            let key = key.expect("it names a tenant");
            assert_eq!((key.id(), key.is_org()), (id, is_org));
        }
        assert_eq!(InstallationKey::new(None, None), Err(NO_TENANT));
        assert!(Tenant::new(None, None, true).is_err());
        assert!(Tenant::new(None, team(), true).is_ok());
        assert!(Tenant::new(enterprise(), None, false).is_ok());
    }

    #[test]
    fn who_may_serve_a_request_is_tried_in_order() {
        use ResolvedVia::{Named, OrgToWorkspace, WorkspaceToOrg};
        let candidates = |enterprise: &str, team: &str, is_org| {
            let tenant = Tenant::new(
                EnterpriseId::new(enterprise).ok(),
                TeamId::new(team).ok(),
                is_org,
            );
            let candidates = tenant.expect("it names a tenant").candidates().into_iter();
            let shown = |key: InstallationKey| {
                let enterprise = key.enterprise().map(ToString::to_string);
                format!("{} of {}", key.id(), enterprise.unwrap_or_default())
            };
            candidates
                .map(|(via, key)| (via, shown(key)))
                .collect::<Vec<_>>()
        };
        let of = |via, key: &str| (via, key.to_owned());
        let (org, workspace) = ("E1 of E1", "T1 of E1");
        assert_eq!(
            candidates("E1", "T1", true),
            [of(Named, org), of(OrgToWorkspace, workspace)]
        );
        assert_eq!(
            candidates("E1", "T1", false),
            [of(Named, workspace), of(WorkspaceToOrg, org)]
        );
        assert_eq!(candidates("E1", "", true), [of(Named, org)]);
        assert_eq!(candidates("E1", "", false), [of(WorkspaceToOrg, org)]);
        for is_org in [true, false] {
            assert_eq!(candidates("", "T1", is_org), [of(Named, "T1 of ")]);
        }
    }

    #[test]
    fn an_id_error_never_repeats_the_text() {
        let error = TeamId::new("xoxb-canary").expect_err("not an id");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    #[test]
    fn a_key_is_its_id_as_text_and_in_json() {
        for id in ["T0ALPHA0001", "E0GRID00001"] {
            let key: InstallationKey = id.parse().expect("an id");
            assert_eq!(key.to_string(), id);
            assert_eq!(key.is_org(), id.starts_with('E'));
            let json = serde_json::to_string(&key).expect("a string");
            assert_eq!(json, format!("\"{id}\""));
            let read: InstallationKey = serde_json::from_str(&json).expect("an id");
            assert_eq!(read, key);
        }
        for odd in [
            "",
            "T",
            "U0ADMIN0001",
            "T0ALPHA0001/U1",
            "t0alpha0001",
            "xoxb-canary",
        ] {
            let error = odd.parse::<InstallationKey>().expect_err("no tenant's id");
            assert!(!format!("{error} {error:?}").contains("canary"));
            let json = serde_json::from_str::<InstallationKey>(&format!("\"{odd}\""));
            assert!(json.is_err(), "{odd}");
        }
    }

    #[test]
    fn a_workspace_keeps_its_identity_when_it_joins_an_org() {
        let team = TeamId::new("T1").expect("id");
        let joined = InstallationKey::new(EnterpriseId::new("E1").ok(), Some(team.clone()));
        assert_eq!(joined, Ok(InstallationKey::workspace(team)));
    }
}
