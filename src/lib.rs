//! Slack apps for many workspaces: everything between *Add to Slack* and a live token for exactly
//! this workspace.
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
//! [`SlackApp::from_env`] lists the variables that this reads. People install the app at
//! `/slack/install`.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `sqlite` | `backend::SqliteBackend`: one file, for a bot on one machine |
//! | `postgres` | `backend::PostgresBackend`: any number of machines, directly or through PgBouncer |
//! | `dynamodb` | `backend::DynamoDbBackend`: one table of Amazon DynamoDB |
//! | `redis` | `backend::RedisBackend`: Redis 7, alone, behind Sentinel or as a cluster |
//! | `tower` | the layer that verifies, resolves and authorizes each request |
//! | `axum` | install routes and extractors; implies `tower` |
//! | `testing` | `testing::FakeSlack` for your own tests, and the conformance suite for backends |
//! | `ring` | TLS to Slack and to databases on the crate ring; the default |
//! | `aws-lc-rs` | TLS on the crate aws-lc-rs instead: set `default-features = false` |
//! | `full` | everything but `aws-lc-rs` |
//!
//! # A tour, in reading order
//!
//! 1. [`SlackApp`]: the front door. It puts the parts below together; each can be used alone.
//! 2. [`InstallationKey`], [`Installation`]: whose it is, and what it is.
//! 3. [`InstallationStore`]: store, fetch and delete by `(enterprise_id, team_id)`.
//!    [`EncryptedStore`] implements it over any [`backend`].
//! 4. [`InstallProvider`]: the OAuth v2 flow, from the install link to the stored installation.
//! 5. [`request::Verifier`] makes a [`VerifiedRequest`](request::VerifiedRequest), the only thing
//!    that names a tenant; [`Authorizer`] finds the tokens that may serve it.
//! 6. [`TokenRotator`]: tokens that expire, kept current by one refresh for all callers.
//! 7. [`Lifecycle`]: what happens when an app is removed. [`operate`]: what an operator can do.
//!
//! # Guides
//!
//! In the repository: `docs/rotation.md` (token rotation, what holds, and what proves it),
//! `docs/envelope.md` (the stored bytes), `docs/performance.md` (measurements, and the comparison
//! with Slack's SDKs), `docs/architecture.md`, and `docs/development.md`.
//!
//! # What is not promised
//!
//! * A row that someone with write access to the database replaces by an older version of itself
//!   is not noticed: it opens, and has an older token.
//! * A backup that is restored has lost what was issued since. With token rotation, a backup of
//!   age *a* has lost about *a* / 9 h of the active tenants.
//! * A process that dies between Slack's response to a refresh and the save relies on Slack accepting
//!   the used refresh token once more, for a time that it does not publish ([`rotation`]).
//! * Nothing here was run against Slack itself; the rules of its platform are from its
//!   documentation, each with its source where it is used.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(doctest, feature = "axum", feature = "sqlite"))]
#[doc = include_str!("../README.md")]
mod readme {}

mod app;
mod authorize;
mod clock;
mod encrypted;
mod error_chain;
mod events;
mod gate;
mod html;
mod installation;
mod panics;
mod random;
mod seal;
mod tenant;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;

pub mod backend;
#[cfg(feature = "tower")]
pub mod layer;
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

pub use app::{AppError, SlackApp, SlackAppBuilder};
pub use authorize::{AuthorizeError, AuthorizeResult, Authorizer};
pub use clock::Clock;
pub use encrypted::{CacheOptions, Copied, EncryptedStore, KeyringError, Pruned, VerifyReport};
pub use events::{Handled, Lifecycle, LifecycleError, LifecycleHooks};
pub use gate::{Admitted, Authorization, Reply};
pub use installation::{
    Bot, Enterprise, Grant, Hold, Home, IncomingWebhook, Installation, Revision, Scopes,
    StoredInstallation, Team, User,
};
pub use oauth::{InstallConfig, InstallOptions, InstallProvider, RedirectUri};
pub use rotation::{RotationConfig, TokenRotator};
pub use seal::{
    DataKey, KeyContext, KeyError, KeyId, KeyProvider, LocalKeyProvider, MasterKey, MasterKeyError,
};
pub use store::{Delete, Departure, InstallationStore, LifecycleStore, SeenStore, StateStore};
pub use tenant::{
    AppId, BotId, ClientId, EnterpriseId, IdError, InstallationKey, ResolvedVia, TeamId, Tenant,
    UserId,
};
