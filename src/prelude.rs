//! Exports the names that most apps need: `use slack_installs::prelude::*`.
//!
//! No exported name hides a crate or a name of the standard library.

pub use crate::app::{AppError, SlackApp};
pub use crate::authorize::AuthorizeResult;
pub use crate::events::LifecycleHooks;
pub use crate::installation::Scopes;
pub use crate::oauth::{FailedFlow, InstallHooks, InstallOptions, Installed};
pub use crate::store::{Credential, Departure, InstallationStore, Notice};
pub use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};
#[cfg(feature = "axum")]
pub use crate::web::{Authorized, AuthorizingUserToken, BotToken, UserToken, Verified};
