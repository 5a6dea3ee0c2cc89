//! Slack apps for many workspaces.

mod clock;
mod random;

pub mod backend;
mod encrypted;
mod installation;
mod seal;
pub mod slack;
pub mod secret;
pub mod store;
mod tenant;
#[cfg(feature = "testing")]
pub mod testing;

pub use clock::Clock;
pub use encrypted::{EncryptedStore, OpenError};
pub use installation::{
    Bot, Enterprise, Grant, Home, IncomingWebhook, Installation, Revision, Scopes, Team, User,
};
pub use seal::{
    DataKey, KeyContext, KeyError, KeyId, KeyProvider, LocalKeyProvider, MasterKey, MasterKeyError,
};
pub use store::{Delete, InstallationStore, StateStore};
pub use tenant::{
    AppId, BotId, ClientId, ClientIdError, EnterpriseId, IdError, InstallationKey, NoTenant,
    ResolvedVia, TeamId, Tenant, UserId,
};
