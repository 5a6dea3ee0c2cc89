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
use crate::oauth::{INSTALL_PATH, InstallProvider};
use crate::request::VerifiedRequest;
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
