//! Multi-workspace Slack apps: the OAuth install flow, an encrypted installation store, token
//! rotation and tenant isolation.
//!
//! ```no_run
//! # #[cfg(all(feature = "axum", feature = "sqlite"))]
//! # mod program {
//! use axum::{Router, routing::post};
//! use slack_installs::prelude::*;
//!
//! async fn command(auth: Authorized) -> String {
//!     format!("Hello from {}", auth.installation_key())
//! }
//!
//! async fn event(_: Authorized) {}
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let app = SlackApp::from_env().scopes("commands").build().await?;
//!     let background = tokio::spawn(app.run());
//!     let router = Router::new()
//!         .route("/slack/command", post(command))
//!         .route("/slack/events", post(event))
//!         .layer(app.layer())
//!         .merge(app.install_routes());
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//!     let stop = async { drop(tokio::signal::ctrl_c().await) };
//!     axum::serve(listener, router)
//!         .with_graceful_shutdown(stop)
//!         .await?;
//!     app.shutdown().await;
//!     Ok(background.await?)
//! }
//! # }
//! # fn main() {}
//! ```
//!
//! [`SlackApp::from_env`] lists the environment variables that this program reads. People install
//! the app at `/slack/install`.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `sqlite` | `backend::SqliteBackend`: one file, for an app on one machine |
//! | `postgres` | `backend::PostgresBackend`: any number of machines, with or without PgBouncer |
//! | `dynamodb` | `backend::DynamoDbBackend`: one table in Amazon DynamoDB |
//! | `redis` | `backend::RedisBackend`: one Redis 7 server, a Sentinel setup or a cluster |
//! | `aws-kms` | `keys::AwsKms`: data keys are wrapped by a key in AWS KMS |
//! | `aws-secret` | the master key is a secret in AWS Secrets Manager |
//! | `vault` | `keys::VaultTransit`: data keys are wrapped by OpenBao or HashiCorp Vault |
//! | `tower` | the layer that verifies each request, finds its tenant and its tokens |
//! | `axum` | install routes and extractors; implies `tower` |
//! | `cli` | the command line `slack-installs` for operators; not for the library |
//! | `manifest` | `manifest`: a check of the app manifest, and a starter |
//! | `metrics` | counters and gauges for the facade `metrics`; see `docs/observability.md` |
//! | `testing` | `testing::FakeSlack` for your own tests, and the conformance suite for backends |
//! | `ring` | TLS to Slack and to databases with the crate ring; enabled by default |
//! | `aws-lc-rs` | TLS with the crate aws-lc-rs instead of ring; set `default-features = false` |
//! | `full` | all features except `aws-lc-rs` |
//!
//! # A tour, in reading order
//!
//! 1. [`SlackApp`]: combines the parts below. You can use each part alone.
//! 2. [`InstallationKey`], [`Installation`]: the tenant, and what is stored for it.
//! 3. [`InstallationStore`]: stores, fetches and deletes by `(enterprise_id, team_id)`.
//!    [`EncryptedStore`] implements it over any [`backend`].
//! 4. [`InstallProvider`]: the OAuth v2 flow, from the install link to the stored installation.
//! 5. [`request::Verifier`] checks Slack's signature and returns a
//!    [`VerifiedRequest`](request::VerifiedRequest), the only type that names a request's tenant.
//!    [`Authorizer`] finds the tokens for that tenant.
//! 6. [`TokenRotator`]: refreshes tokens that expire, with one refresh for all callers.
//! 7. [`Lifecycle`]: handles the removal of the app. [`operate`]: commands for an operator.
//!
//! # Guides
//!
//! `docs/README.md` in the repository says which guide to read when. The guides are about the first
//! app, the install flow, what is stored, requests and tenants, uninstallation, tests, Socket Mode,
//! keys, token rotation, the log and metrics, the command line for operators, what to do about each
//! error, security, performance and Slack's Marketplace.
//!
//! # Limits
//!
//! * The crate does not detect the rollback of a row. Someone with write access to the database
//!   can replace a row by an older version of it. The row then opens, and holds an older token.
//! * A restored backup lacks the tokens that were issued after it was made. With token rotation,
//!   a backup of age *a* has lost about *a* / 9 h of the active tenants.
//! * If a process dies after Slack's response to a refresh and before the save, recovery depends
//!   on Slack: it must accept the used refresh token once more. Slack does so for a time that it
//!   does not publish ([`rotation`]).
//! * This crate was not tested against Slack itself. Slack's rules come from its documentation;
//!   the code that applies a rule names the source.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(doctest, feature = "axum", feature = "sqlite"))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(doctest)]
#[doc = include_str!("../docs/keys.md")]
mod keys_guide {}

/// The code of the guides.
#[cfg(all(
    doctest,
    feature = "axum",
    feature = "manifest",
    feature = "sqlite",
    feature = "testing"
))]
mod guides {
    #[doc = include_str!("../docs/audit.md")]
    mod audit {}
    #[doc = include_str!("../docs/getting-started.md")]
    mod getting_started {}
    #[doc = include_str!("../docs/install-flow.md")]
    mod install_flow {}
    #[doc = include_str!("../docs/marketplace.md")]
    mod marketplace {}
    #[doc = include_str!("../docs/requests.md")]
    mod requests {}
    #[doc = include_str!("../docs/socket-mode.md")]
    mod socket_mode {}
    #[doc = include_str!("../docs/storage.md")]
    mod storage {}
    #[doc = include_str!("../docs/testing.md")]
    mod testing {}
    #[doc = include_str!("../docs/uninstall.md")]
    mod uninstall {}
}
#[cfg(all(doctest, feature = "axum", feature = "metrics"))]
#[doc = include_str!("../docs/observability.md")]
mod observability_guide {}

#[macro_use]
mod debug;

mod app;
mod authorize;
#[cfg(any(feature = "aws-kms", feature = "aws-secret", feature = "dynamodb"))]
mod aws;
mod clock;
#[cfg(any(test, fuzzing))]
mod edit;
mod encrypted;
mod error_chain;
mod events;
mod flight;
mod forward;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod html;
mod https;
mod installation;
mod log_limit;
mod lru;
mod metrics;
mod panics;
mod random;
mod seal;
mod span;
mod tenant;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod wipe;
mod wording;

pub mod audit;
pub mod backend;
pub mod inspect;
pub mod keys;
#[cfg(feature = "tower")]
pub mod layer;
#[cfg(feature = "manifest")]
pub mod manifest;
pub mod oauth;
pub mod operate;
pub mod prelude;
pub mod replay;
pub mod request;
pub mod rotation;
pub mod secret;
pub mod slack;
pub mod store;
#[cfg(feature = "axum")]
pub mod web;

pub use app::{
    AppError, AppStore, Health, HealthReason, NewConsent, OperatorOptions, OperatorParts, SlackApp,
    SlackAppBuilder,
};
pub use authorize::{AuthorizeError, AuthorizeResult, Authorizer};
pub use clock::Clock;
pub use encrypted::{
    CacheOptions, Copied, EncryptedStore, KeyChangeError, KeyInfo, KeyList, KeyManager, KeyProcess,
    KeyState, KeyUsage, KeyringError, Pruned, Resealed, Rewrapped, StoredFacts, VerifyReport,
};
pub use events::{Handled, Lifecycle, LifecycleError, LifecycleHooks};
pub use gate::{
    Admitted, Authorization, MissingScopes, Refusal, RefusalReason, Refusals, Reply, ScopeDrift,
};
pub use installation::{
    Bot, Enterprise, Grant, Hold, Home, IncomingWebhook, Installation, MetadataError, Revision,
    Scopes, StoredInstallation, Team, User, UserMetadata,
};
pub use oauth::{InstallConfig, InstallOptions, InstallProvider, RedirectUri};
pub use rotation::{RotationConfig, TokenRotator};
pub use seal::{
    DataKey, KeyContext, KeyError, KeyId, KeyIdError, KeyProvider, LocalKeyProvider, MasterKey,
    MasterKeyError,
};
pub use store::{
    AuditStore, Delete, Departure, InstallationStore, LifecycleStore, Notice, SeenStore, StateStore,
};
pub use tenant::{
    AppId, BotId, ClientId, EnterpriseId, IdError, InstallationKey, ResolvedVia, TeamId, Tenant,
    UserId,
};
