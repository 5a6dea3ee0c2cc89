//! Slack apps for many workspaces: everything between *Add to Slack* and a live token for exactly
//! this workspace.
//!
//! # A tour, in reading order
//!
//! 1. [`InstallationKey`], [`Installation`]: whose it is, and what it is.
//! 2. [`InstallationStore`]: store, fetch and delete by `(enterprise_id, team_id)`.
//!    [`EncryptedStore`] implements it over any [`backend`].
//! 3. [`InstallProvider`]: the OAuth v2 flow, from the install link to the stored installation.
//! 4. [`request::Verifier`] makes a [`VerifiedRequest`](request::VerifiedRequest), the only thing
//!    that names a tenant; [`Authorizer`] finds the tokens that may serve it.
//! 5. [`TokenRotator`]: tokens that expire, kept current by one refresh for all who ask.
//! 6. [`Lifecycle`]: what happens when an app is removed. [`operate`]: what an operator can do.
//! 7. `tower` and `axum` (features of these names) put all of it in front of your handlers.
//! 8. `testing` (feature): a fake Slack for your own tests, and the suite that every backend
//!    passes.
//!
//! ```no_run
//! # #[cfg(feature = "sqlite")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use slack_installs::backend::SqliteBackend;
//! use slack_installs::{
//!     ClientId, EncryptedStore, InstallationKey, InstallationStore, LocalKeyProvider, MasterKey,
//!     TeamId,
//! };
//!
//! let key = MasterKey::from_env("SLACK_INSTALLS_MASTER_KEY")?;
//! let store = EncryptedStore::open(
//!     SqliteBackend::open("installations.sqlite3").await?,
//!     LocalKeyProvider::new(key),
//!     ClientId::new("100000000001.200000000002")?,
//! )
//! .await?;
//! let alpha = InstallationKey::workspace(TeamId::new("T0ALPHA0001")?);
//! let installation = store.fetch(&alpha, None).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is not promised
//!
//! * A row that someone with write access to the database replaces by an older version of itself
//!   is not noticed: it opens, and has an older token.
//! * A backup that is restored has lost what was issued since. With token rotation, a backup of
//!   age *a* has lost about *a* / 9 h of the active tenants.
//! * A process that dies between Slack's answer to a refresh and the save relies on Slack taking the
//!   used refresh token once more, for a time that it does not publish ([`rotation`]).
//! * Nothing here was run against Slack itself; the rules of its platform are from its
//!   documentation, each with its source where it is used.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(doctest, feature = "axum", feature = "sqlite"))]
#[doc = include_str!("../README.md")]
mod readme {}

mod app;
mod authorize;
mod caught;
mod causes;
mod clock;
mod encrypted;
mod events;
mod gate;
mod installation;
mod random;
mod seal;
mod tenant;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;

#[cfg(feature = "axum")]
pub mod axum;
pub mod backend;
pub mod oauth;
pub mod operate;
pub mod prelude;
pub mod replay;
pub mod request;
pub mod rotation;
pub mod secret;
pub mod slack;
pub mod store;
#[cfg(feature = "tower")]
pub mod tower;

pub use app::{AppError, SlackApp, SlackAppBuilder};
pub use authorize::{AuthorizeError, AuthorizeResult, Authorizer};
pub use clock::Clock;
pub use encrypted::{CacheOptions, Copied, CopyError, EncryptedStore, OpenError, Pruned, Verified};
pub use events::{Handled, Lifecycle, LifecycleError, LifecycleHooks};
pub use gate::{Admitted, Authorization, Reply};
pub use installation::{
    Bot, Enterprise, Grant, Hold, Home, IncomingWebhook, Installation, Revision, Scopes, Team, User,
};
pub use oauth::{InstallConfig, InstallOptions, InstallProvider, RedirectUri};
pub use rotation::{RotationConfig, TokenRotator};
pub use seal::{
    DataKey, KeyContext, KeyError, KeyId, KeyProvider, LocalKeyProvider, MasterKey, MasterKeyError,
};
pub use store::{Delete, Departure, InstallationStore, LifecycleStore, SeenStore, StateStore};
pub use tenant::{
    AppId, BotId, ClientId, ClientIdError, EnterpriseId, IdError, InstallationKey,
    InstallationKeyError, MAX_ID_LEN, NoTenant, ResolvedVia, TeamId, Tenant, UserId,
};
