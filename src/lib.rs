//! Slack apps for many workspaces.

mod clock;
mod random;

pub mod backend;
mod encrypted;
mod installation;
pub mod oauth;
mod seal;
pub mod request;
pub mod slack;
pub mod secret;
pub mod store;
mod tenant;

pub use clock::Clock;
pub use encrypted::{EncryptedStore, OpenError};
pub use installation::{
    Bot, Enterprise, Grant, Home, IncomingWebhook, Installation, Revision, Scopes, Team, User,
};
pub use seal::{
    DataKey, KeyContext, KeyError, KeyId, KeyProvider, LocalKeyProvider, MasterKey, MasterKeyError,
};
pub use oauth::{InstallConfig, InstallOptions, InstallProvider, RedirectUri};
pub use store::{Delete, InstallationStore, StateStore};
pub use tenant::{
    AppId, BotId, ClientId, ClientIdError, EnterpriseId, IdError, InstallationKey, MAX_ID_LEN,
    NoTenant, ResolvedVia, TeamId, Tenant, UserId,
};
