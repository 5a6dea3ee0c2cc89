//! Who acts and why, and who records it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use super::Error;
use crate::installation::Revision;
use crate::tenant::{InstallationKey, UserId};

tokio::task_local! {
    static CONTEXT: AuditContext;
}

/// Receives reports of what a store does with credentials. [`audit::Audit`](crate::audit::Audit) implements it.
///
/// # Contract
///
/// A store reports to its witness each opened credential, each changed row of a tenant and each key
/// that it makes, before it returns the result to its caller. If a call is cancelled during a
/// change, the store reports the change with an unknown outcome (`is_done` is `false`): it polls the
/// report once, and the rest is a task of its own.
///
/// # Errors
///
/// If the witness returns an error, the store hands nothing out, and the caller gets that error. A
/// change stays applied: the error must be [`Error::Unavailable`], so that the caller tries again.
#[async_trait]
pub trait Witness: fmt::Debug + Send + Sync + 'static {
    /// Records these acts. They were done together.
    async fn report(&self, who: AuditContext, acts: Vec<Act>) -> Result<(), Error>;
}

/// Something that a store did.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Act {
    /// What was done.
    pub kind: ActKind,
    /// The tenant; `None` for acts on keys.
    pub tenant: Option<InstallationKey>,
    /// The row: `bot`, `user/U…`, `install`, `hold` and so on, or the id of a key.
    pub row: String,
    /// The row's version: after a write, the new one.
    pub version: Option<Revision>,
    /// The version that a write replaced.
    pub replaced: Option<Revision>,
    /// Whether it was done. A row that does not open is a failure.
    pub is_done: bool,
}

impl Act {
    /// Makes an act that was done.
    #[must_use]
    pub fn new(kind: ActKind, tenant: Option<InstallationKey>, row: impl Into<String>) -> Self {
        Self {
            kind,
            tenant,
            row: row.into(),
            version: None,
            replaced: None,
            is_done: true,
        }
    }
}

/// The kinds of acts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ActKind {
    /// A credential was opened: the caller has it now.
    Open,
    /// A row was written.
    Write,
    /// A row was removed.
    Remove,
    /// All rows of a tenant were removed.
    Clear,
    /// A data key was destroyed.
    Destroy,
    /// A data key was made, or the key provider refused to make it.
    Key,
    /// A data key became the primary one.
    Promote,
    /// A tenant's part of the log was made unreadable.
    Erase,
    /// Rows were sealed again under this data key.
    Reseal,
    /// A data key was wrapped again, under what the key provider wraps with now.
    Rewrap,
    /// A data key was unwrapped by the key provider, or the provider refused.
    Unwrap,
    /// The row was there when the log was asked to note all rows.
    Found,
}

impl ActKind {
    /// Returns the name that is recorded. It never changes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Write => "write",
            Self::Remove => "remove",
            Self::Clear => "clear",
            Self::Destroy => "destroy",
            Self::Key => "key",
            Self::Promote => "promote",
            Self::Erase => "erase",
            Self::Reseal => "reseal",
            Self::Rewrap => "rewrap",
            Self::Unwrap => "unwrap",
            Self::Found => "found",
        }
    }
}

/// On whose behalf something is done, and why. Never a secret.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct AuditContext {
    /// The part of your app: `nightly-report`, for example.
    pub actor: Option<Arc<str>>,
    /// Why: the kind of the request, for example.
    pub purpose: Option<Arc<str>>,
    /// The user who acts in Slack.
    pub user: Option<UserId>,
    /// The id of the request, as Slack names it.
    pub request: Option<Arc<str>>,
}

impl AuditContext {
    /// Names a part of your app.
    #[must_use]
    pub fn actor(name: &str) -> Self {
        Self {
            actor: Some(text(name)),
            ..Self::default()
        }
    }

    /// Returns on whose behalf the caller acts. If nothing says so, it is this part of the app.
    #[must_use]
    pub fn current_or(name: &str) -> Self {
        let current = Self::current();
        let actor = current.actor.or_else(|| Some(text(name)));
        Self { actor, ..current }
    }

    /// Adds why it acts.
    #[must_use]
    pub fn because(self, purpose: &str) -> Self {
        Self {
            purpose: Some(text(purpose)),
            ..self
        }
    }

    /// Adds the user who acts.
    #[must_use]
    pub fn user(self, user: Option<UserId>) -> Self {
        Self { user, ..self }
    }

    /// Adds the id of the request.
    #[must_use]
    pub fn request(self, id: Option<&str>) -> Self {
        Self {
            request: id.map(text),
            ..self
        }
    }

    /// Returns on whose behalf the caller acts.
    #[must_use]
    pub fn current() -> Self {
        CONTEXT.try_with(Self::clone).unwrap_or_default()
    }

    /// Does this work on behalf of this. Tasks that the work spawns do not inherit it.
    ///
    /// ```
    /// # use slack_installs::store::AuditContext;
    /// # async fn report() {}
    /// # async fn nightly() {
    /// AuditContext::actor("nightly-report").scope(report()).await;
    /// # }
    /// ```
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CONTEXT.scope(self, work)
    }
}

/// Returns the text, cut to the length that is recorded.
fn text(text: &str) -> Arc<str> {
    text.chars().take(MAX_TEXT).collect::<String>().into()
}

/// The length limit of an actor, a purpose and a request's id, in characters. So a record has a
/// known largest size.
const MAX_TEXT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_on_the_innermost_behalf() {
        assert_eq!(AuditContext::current(), AuditContext::default());
        let outer = AuditContext::actor("job").because("report");
        let seen = outer.clone().scope(async {
            let inner = AuditContext::actor("inner")
                .scope(async { AuditContext::current() })
                .await;
            (AuditContext::current(), inner)
        });
        assert_eq!(seen.await, (outer, AuditContext::actor("inner")));
    }

    #[test]
    fn a_long_name_is_cut() {
        let who = AuditContext::actor(&"ä".repeat(1000));
        assert_eq!(who.actor, Some("ä".repeat(MAX_TEXT).into()));
    }
}
