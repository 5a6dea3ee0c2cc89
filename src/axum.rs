//! axum: routes for the install flow, and extractors for what [`SlackLayer`] found out.
//!
//! ```no_run
//! # async fn example(
//! #     provider: slack_installs::InstallProvider,
//! #     layer: slack_installs::tower::SlackLayer,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use axum::Router;
//! use axum::routing::post;
//! use slack_installs::axum::{Authorized, install_routes};
//!
//! async fn command(auth: Authorized) -> String {
//!     format!("Hello from {:?}", auth.team_id())
//! }
//!
//! let slack = Router::new().route("/slack/command", post(command)).layer(layer);
//! let app: Router = slack.merge(install_routes(&provider));
//! # Ok(())
//! # }
//! ```
//!
//! [`SlackLayer`]: crate::tower::SlackLayer

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::authorize::AuthorizeResult;
use crate::gate::Reply;
use crate::oauth::{INSTALL_PATH, InstallProvider};
use crate::request::VerifiedRequest;
use crate::secret::AccessToken;
use crate::tower::Authorization;

/// Routes for the install flow: `/slack/install`, and a callback at the path of each redirect URL
/// (`/slack/oauth_redirect` by convention).
pub fn install_routes<S: Clone + Send + Sync + 'static>(provider: &InstallProvider) -> Router<S> {
    let install = {
        let provider = provider.clone();
        move |request: Request| async move {
            let (head, _) = request.into_parts();
            provider.install_response(&head.uri, &head.headers).await
        }
    };
    let mut paths: Vec<_> = provider
        .redirect_uris()
        .iter()
        .map(|uri| uri.path())
        .collect();
    paths.sort_unstable();
    paths.dedup();
    paths.iter().fold(
        Router::new().route(INSTALL_PATH, get(install)),
        |router, path| {
            let provider = provider.clone();
            let callback = move |request: Request| async move {
                let (head, _) = request.into_parts();
                provider
                    .callback_response(&head.method, &head.uri, &head.headers)
                    .await
            };
            router.route(path, get(callback))
        },
    )
}

/// The tokens that may serve this request. Needs [`SlackLayer`](crate::tower::SlackLayer) around
/// the route.
#[derive(Clone, Debug)]
pub struct Authorized(pub Arc<AuthorizeResult>);

impl Deref for Authorized {
    type Target = AuthorizeResult;

    fn deref(&self) -> &AuthorizeResult {
        &self.0
    }
}

/// The request as Slack signed it. Needs [`SlackLayer`](crate::tower::SlackLayer) around the
/// route.
#[derive(Clone, Debug)]
pub struct Verified(pub Arc<VerifiedRequest>);

impl Deref for Verified {
    type Target = VerifiedRequest;

    fn deref(&self) -> &VerifiedRequest {
        &self.0
    }
}

/// The bot's token, in the workspace of this request. Needs
/// [`SlackLayer`](crate::tower::SlackLayer) around the route.
///
/// Where the app has no bot, the handler does not run: a person who typed a command reads that the
/// app is not installed.
#[derive(Clone, Debug)]
pub struct BotToken(pub AccessToken);

impl Deref for BotToken {
    type Target = AccessToken;

    fn deref(&self) -> &AccessToken {
        &self.0
    }
}

/// The token of the user who acted. Needs [`SlackLayer`](crate::tower::SlackLayer) around the
/// route.
///
/// Where that user has not authorised the app, the handler does not run. To run it anyway, extract
/// [`Authorized`] and ask for its [`user_token`](AuthorizeResult::user_token).
#[derive(Clone, Debug)]
pub struct UserToken(pub AccessToken);

impl Deref for UserToken {
    type Target = AccessToken;

    fn deref(&self) -> &AccessToken {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for BotToken {
    type Rejection = TokenMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TokenMissing> {
        token(parts, AuthorizeResult::bot_token).map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for UserToken {
    type Rejection = TokenMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TokenMissing> {
        token(parts, AuthorizeResult::user_token).map(Self)
    }
}

fn token(
    parts: &Parts,
    of: fn(&AuthorizeResult) -> Option<&AccessToken>,
) -> Result<AccessToken, TokenMissing> {
    let Authorization {
        request,
        authorized,
    } = authorization(parts).map_err(TokenMissing::Layer)?;
    let token = of(authorized).cloned();
    token.ok_or_else(|| TokenMissing::Token(Reply::without_token(request)))
}

/// Why a handler that needs a token does not run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TokenMissing {
    /// The route has no [`SlackLayer`](crate::tower::SlackLayer) around it.
    Layer(LayerMissing),
    /// There is no such token; this is the response for Slack.
    Token(Reply),
}

impl IntoResponse for TokenMissing {
    fn into_response(self) -> Response {
        match self {
            Self::Layer(missing) => missing.into_response(),
            Self::Token(reply) => (reply.status, reply.text).into_response(),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Authorized {
    type Rejection = LayerMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, LayerMissing> {
        Ok(Self(Arc::clone(&authorization(parts)?.authorized)))
    }
}

impl<S: Sync> FromRequestParts<S> for Verified {
    type Rejection = LayerMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, LayerMissing> {
        Ok(Self(Arc::clone(&authorization(parts)?.request)))
    }
}

fn authorization(parts: &Parts) -> Result<&Authorization, LayerMissing> {
    parts.extensions.get().ok_or(LayerMissing)
}

/// The route has no [`SlackLayer`](crate::tower::SlackLayer) around it, so nothing is verified;
/// the handler does not run.
#[derive(Clone, Copy, Debug)]
pub struct LayerMissing;

impl IntoResponse for LayerMissing {
    fn into_response(self) -> Response {
        tracing::error!("a handler wants an authorization, but its route has no SlackLayer");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
