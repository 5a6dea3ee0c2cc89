//! Ready-made install policies. Combine them with [`AllOf`].

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

use super::policy::{Candidate, Decision, InstallPolicy};
use crate::error_chain::error_chain;
use crate::installation::{Grant, Home, Scopes};
use crate::slack::UserInfo;
use crate::tenant::{EnterpriseId, TeamId};

/// Allows an installation if all its policies allow it. The first policy that refuses gives the
/// reason.
///
/// ```
/// use slack_installs::TeamId;
/// use slack_installs::oauth::{AdminRequired, AllOf, DenyTenants, OrgWide};
///
/// let policy = AllOf::default()
///     .and(DenyTenants::default().with_team(TeamId::new("T0BANNED001")?))
///     .and(OrgWide::Never)
///     .and(AdminRequired::default());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AllOf(Vec<Arc<dyn InstallPolicy>>);

impl AllOf {
    /// Adds a policy, which runs after the earlier ones. Put policies that call Slack last.
    #[must_use]
    pub fn and(mut self, policy: impl InstallPolicy) -> Self {
        self.0.push(Arc::new(policy));
        self
    }
}

/// Allows only these workspaces and organisations, each organisation with all its workspaces.
#[derive(Clone, Debug, Default)]
pub struct AllowTenants(Tenants);

/// Refuses these workspaces and organisations, each organisation with all its workspaces.
///
/// An org-wide installation belongs to the organisation: it can still serve a workspace that is
/// refused here.
#[derive(Clone, Debug, Default)]
pub struct DenyTenants(Tenants);

#[derive(Clone, Debug, Default)]
struct Tenants {
    enterprises: BTreeSet<EnterpriseId>,
    teams: BTreeSet<TeamId>,
}

/// Lets only admins grant sensitive scopes. For an org-wide installation, these are admins and
/// owners of the organisation. For a workspace, they are also admins and owners of the workspace.
///
/// Calls `users.info` for the installing user, so one of the two tokens must have the scope
/// `users:read`. Guests, members of other companies and deactivated users never count as admins. It
/// fails closed: without that scope, without the installing user's id, or without a response, an
/// installation with sensitive scopes is refused.
///
/// The default searches the granted scopes for [`SENSITIVE_SCOPES`].
#[derive(Clone, Debug)]
pub struct AdminRequired {
    scopes: Vec<Box<str>>,
}

/// Whether an installation may be org-wide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OrgWide {
    /// Workspaces only.
    Never,
    /// Whole organisations only.
    Only,
}

/// Refuses an installation without these scopes. An admin may have withheld a scope, or the person
/// did not select an optional one. To allow such an installation and mark it instead, read
/// [`Installed::missing_scopes`](super::Installed::missing_scopes) in the hook.
#[derive(Clone, Debug, Default)]
pub struct RequiredScopes {
    /// The scopes that the bot must have.
    pub bot: Scopes,
    /// The scopes that the installing user's own token must have.
    pub user: Scopes,
}

/// Scopes that read messages, files or canvases, reach beyond the workspace, or administer it. `*`
/// matches any text at that end.
///
/// From Slack's Marketplace guidelines
/// (<https://docs.slack.dev/slack-marketplace/slack-marketplace-app-guidelines-and-requirements>):
/// the scopes that Slack refuses, or accepts only after an enhanced review.
pub const SENSITIVE_SCOPES: &[&str] = &[
    "*:history",
    "admin",
    "admin.*",
    "canvases:read",
    "conversations.connect:*",
    "files:read",
    "groups:write",
    "groups:write.invites",
    "mpim:write",
    "search:*",
];

/// A text that is not a pattern for scopes.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "not a pattern for scopes: {0:?}: expected a scope, such as `files:read`, or a part of one \
     with one `*` at one end, such as `*:history`"
)]
pub struct ScopePatternError(Box<str>);

macro_rules! tenants {
    ($name:ident) => {
        impl $name {
            /// Adds an organisation, with all its workspaces.
            #[must_use]
            pub fn with_enterprise(mut self, enterprise: EnterpriseId) -> Self {
                self.0.enterprises.insert(enterprise);
                self
            }

            /// Adds a workspace.
            #[must_use]
            pub fn with_team(mut self, team: TeamId) -> Self {
                self.0.teams.insert(team);
                self
            }
        }
    };
}

tenants!(AllowTenants);
tenants!(DenyTenants);

impl Tenants {
    fn has(&self, home: &Home) -> bool {
        let org = home.enterprise();
        let team = home.team();
        org.is_some_and(|org| self.enterprises.contains(&org.id))
            || team.is_some_and(|team| self.teams.contains(&team.id))
    }
}

impl AdminRequired {
    /// Creates a policy that searches for these scopes instead. `*` at one end matches any text.
    ///
    /// # Errors
    ///
    /// [`ScopePatternError`] for a pattern that would match nothing, or everything: one that is
    /// empty, has a `*` elsewhere than at one end, or has characters that no scope has.
    pub fn for_scopes<S: Into<Box<str>>>(
        scopes: impl IntoIterator<Item = S>,
    ) -> Result<Self, ScopePatternError> {
        let checked = |pattern: Box<str>| {
            if is_pattern(&pattern) {
                Ok(pattern)
            } else {
                Err(ScopePatternError(pattern))
            }
        };
        let scopes = scopes.into_iter().map(Into::into).map(checked);
        Ok(Self {
            scopes: scopes.collect::<Result<_, _>>()?,
        })
    }

    fn is_sensitive(&self, scope: &str) -> bool {
        self.scopes.iter().any(|pattern| fits(pattern, scope))
    }
}

impl Default for AdminRequired {
    fn default() -> Self {
        Self::for_scopes(SENSITIVE_SCOPES.iter().copied()).expect("the constants are patterns")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl InstallPolicy for AllOf {
    async fn judge(&self, candidate: &Candidate<'_>) -> Decision {
        for policy in &self.0 {
            match policy.judge(candidate).await {
                Decision::Allow => {}
                refusal @ Decision::Refuse { .. } => return refusal,
            }
        }
        Decision::Allow
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl InstallPolicy for AllowTenants {
    async fn judge(&self, candidate: &Candidate<'_>) -> Decision {
        if self.0.has(&candidate.installation.home) {
            Decision::Allow
        } else {
            refuse("This app is not open to your workspace.")
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl InstallPolicy for DenyTenants {
    async fn judge(&self, candidate: &Candidate<'_>) -> Decision {
        if self.0.has(&candidate.installation.home) {
            refuse("This app is not open to your workspace.")
        } else {
            Decision::Allow
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl InstallPolicy for AdminRequired {
    async fn judge(&self, candidate: &Candidate<'_>) -> Decision {
        let installation = candidate.installation;
        let granted = installation.grants().into_iter().flatten();
        if !granted
            .clone()
            .any(|grant| grant.scopes.iter().any(|scope| self.is_sensitive(scope)))
        {
            return Decision::Allow;
        }
        let reader = reader_of_users(granted);
        let (Some(grant), Some(by)) = (reader, &installation.installed_by) else {
            tracing::error!(
                tenant = %installation.key(),
                "an admin is required, but no token has the scope users:read"
            );
            return refuse("The app could not check whether you are an admin.");
        };
        let asked = candidate.slack.users_info(&grant.access_token, by).await;
        match asked {
            Ok(person) if is_admin(&person, &installation.home) => Decision::Allow,
            Ok(_) => refuse(match &installation.home {
                Home::Org(_) => "Only an admin of your organisation can install this app.",
                Home::Workspace { .. } => "Only an admin of your workspace can install this app.",
            }),
            Err(error) => {
                tracing::warn!(
                    tenant = %installation.key(),
                    error = error_chain(&error),
                    "users.info failed, so an install policy could not check for an admin"
                );
                refuse("The app could not check whether you are an admin. Please try again.")
            }
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl InstallPolicy for OrgWide {
    async fn judge(&self, candidate: &Candidate<'_>) -> Decision {
        match (self, &candidate.installation.home) {
            (Self::Never, Home::Org(_)) => refuse(
                "This app is for single workspaces. Please install it in each one separately.",
            ),
            (Self::Only, Home::Workspace { .. }) => refuse(
                "This app is for whole organisations. Please ask an admin of yours to install it.",
            ),
            _ => Decision::Allow,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl InstallPolicy for RequiredScopes {
    async fn judge(&self, candidate: &Candidate<'_>) -> Decision {
        let [bot, user] = candidate.installation.grants();
        let (bot, user) = (missing(bot, &self.bot), missing(user, &self.user));
        let missing: Vec<_> = bot.iter().chain(user.iter()).collect();
        if missing.is_empty() {
            Decision::Allow
        } else {
            Decision::Refuse {
                reason: format!(
                    "This app needs permissions that were not granted: {}.",
                    missing.join(", ")
                ),
            }
        }
    }
}

/// Returns the scopes that a credential lacks.
pub(super) fn missing(grant: Option<&Grant>, wanted: &Scopes) -> Scopes {
    match grant {
        Some(grant) => grant.scopes.missing(wanted),
        None => wanted.clone(),
    }
}

/// Returns the first of these grants with which `users.info` can be called.
pub(super) fn reader_of_users<'a>(
    mut grants: impl Iterator<Item = &'a Grant>,
) -> Option<&'a Grant> {
    grants.find(|grant| grant.scopes.contains(USERS_READ))
}

/// Returns whether this is a scope, or the beginning or end of one with a `*` in place of the rest.
fn is_pattern(pattern: &str) -> bool {
    let part = pattern
        .strip_prefix('*')
        .or_else(|| pattern.strip_suffix('*'))
        .unwrap_or(pattern);
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":._-".contains(&byte);
    !part.is_empty() && part.bytes().all(allowed)
}

/// Returns whether the person is an admin here. The flags count only in the person's own workspace
/// or organisation.
fn is_admin(person: &UserInfo, home: &Home) -> bool {
    if person.is_deleted || person.is_outsider {
        return false;
    }
    let of_org = home
        .enterprise()
        .is_some_and(|org| person.is_org_admin && person.enterprise_id.as_ref() == Some(&org.id));
    let of_workspace = home.team().is_some_and(|team| {
        let is_here = person.team_id.as_ref() == Some(&team.id) || person.teams.contains(&team.id);
        person.is_admin && is_here
    });
    of_org || of_workspace
}

fn fits(pattern: &str, scope: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => scope.ends_with(end),
        (None, Some(start)) => scope.starts_with(start),
        (None, None) => scope == pattern,
    }
}

fn refuse(reason: &str) -> Decision {
    Decision::Refuse {
        reason: reason.to_owned(),
    }
}

/// The scope of `users.info` (<https://docs.slack.dev/reference/methods/users.info>).
const USERS_READ: &str = "users:read";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installation::{Enterprise, Team};

    #[test]
    fn a_pattern_stands_for_anything_at_its_open_end() {
        let policy = AdminRequired::default();
        for sensitive in [
            "admin",
            "admin.users:read",
            "canvases:read",
            "channels:history",
            "conversations.connect:manage",
            "files:read",
            "groups:write",
            "groups:write.invites",
            "im:history",
            "mpim:write",
            "search:read",
        ] {
            assert!(policy.is_sensitive(sensitive), "{sensitive}");
        }
        for harmless in [
            "administer",
            "canvases:read.all",
            "channels:history.some",
            "chat:write",
            "commands",
            "files:write",
            "groups:write.topic",
            "history",
            "not:search:read",
            "users:read",
        ] {
            assert!(!policy.is_sensitive(harmless), "{harmless}");
        }
    }

    #[test]
    fn other_patterns_replace_those_that_are_there() {
        let policy = AdminRequired::for_scopes(["chat:*"]).expect("a pattern");
        assert!(policy.is_sensitive("chat:write"));
        assert!(!policy.is_sensitive("channels:history"));
    }

    #[test]
    fn a_pattern_that_would_match_nothing_or_everything_makes_no_policy() {
        for bad in [
            "",
            "*",
            "**",
            "*history*",
            "channels:*history",
            "*:*",
            "a*b",
            "chat:write,commands",
            "chat:write commands",
            "Chat:write",
            "files:read\n",
            "files:?",
            "^admin",
            "admin.**",
        ] {
            let error = AdminRequired::for_scopes(["files:read", bad]).expect_err(bad);
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
        for good in [
            "admin",
            "admin.*",
            "*:history",
            "groups:write.invites",
            "tokens.basic",
        ] {
            assert!(AdminRequired::for_scopes([good]).is_ok(), "{good}");
        }
        assert!(AdminRequired::for_scopes([""; 0]).is_ok());
    }

    #[test]
    fn an_admins_flags_count_only_where_they_are_from() {
        let team = |id: &str| TeamId::new(id).expect("an id");
        let org = |id: &str| EnterpriseId::new(id).expect("an id");
        let home = |enterprise: Option<&str>, id: &str| Home::Workspace {
            enterprise: enterprise.map(|id| Enterprise {
                id: org(id),
                name: None,
            }),
            team: Team {
                id: team(id),
                name: None,
            },
        };
        let admin = UserInfo {
            team_id: Some(team("T1")),
            is_admin: true,
            ..UserInfo::default()
        };
        assert!(is_admin(&admin, &home(None, "T1")));
        assert!(!is_admin(&admin, &home(None, "T12")));
        let everywhere = Home::Org(Enterprise {
            id: org("E1"),
            name: None,
        });
        let in_org = UserInfo {
            enterprise_id: Some(org("E1")),
            teams: vec![team("T1"), team("T2")],
            ..admin.clone()
        };
        assert!(
            !is_admin(&in_org, &everywhere),
            "an admin of a workspace is not an admin of the organisation"
        );
        assert!(is_admin(&in_org, &home(Some("E1"), "T2")));
        let of_org = UserInfo {
            is_admin: false,
            is_org_admin: true,
            ..in_org
        };
        assert!(is_admin(&of_org, &everywhere));
        assert!(is_admin(&of_org, &home(Some("E1"), "T3")));
        assert!(!is_admin(&of_org, &home(Some("E12"), "T3")));
        assert!(!is_admin(&of_org, &home(None, "T1")));
        for refused in [
            UserInfo {
                is_deleted: true,
                ..admin.clone()
            },
            UserInfo {
                is_outsider: true,
                ..admin
            },
        ] {
            assert!(!is_admin(&refused, &home(None, "T1")));
        }
    }
}
