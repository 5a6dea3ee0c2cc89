//! axum: routes for the install flow, and extractors for what [`SlackLayer`] found out.
//!
//! ```no_run
//! # async fn example(
//! #     provider: slack_installs::InstallProvider,
//! #     layer: slack_installs::layer::SlackLayer,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use axum::Router;
//! use axum::routing::post;
//! use slack_installs::web::{Authorized, install_routes};
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
//! [`SlackLayer`]: crate::layer::SlackLayer

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use thiserror::Error;

use crate::authorize::AuthorizeResult;
use crate::gate::Reply;
use crate::layer::Authorization;
use crate::oauth::InstallProvider;
use crate::request::VerifiedRequest;
use crate::secret::AccessToken;

/// Returns routes for the install flow: the install path (`/slack/install` by default), and a
/// callback at the path of each redirect URL (`/slack/oauth_redirect` by convention).
///
/// For a router that is nested, or behind a proxy that strips a prefix, use
/// [`install_routes_under`].
pub fn install_routes<S: Clone + Send + Sync + 'static>(provider: &InstallProvider) -> Router<S> {
    install_routes_under(provider, "").expect("without a prefix each path is mounted as it is")
}

/// Returns the routes of [`install_routes`] without a prefix: for a router that is nested under
/// it, or behind a proxy that strips it.
///
/// The configuration has the paths as browsers and Slack see them, with the prefix:
///
/// ```no_run
/// # fn example(
/// #     provider: slack_installs::InstallProvider,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use axum::Router;
/// use slack_installs::web::install_routes_under;
///
/// // The redirect URL is https://example.com/bot/slack/oauth_redirect, and the configuration's
/// // `install_path` is /bot/slack/install.
/// let app: Router = Router::new().nest("/bot", install_routes_under(&provider, "/bot")?);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`MountError`] if a path is not under the prefix.
pub fn install_routes_under<S: Clone + Send + Sync + 'static>(
    provider: &InstallProvider,
    prefix: &str,
) -> Result<Router<S>, MountError> {
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() && !prefix.starts_with('/') {
        return Err(MountError::Prefix {
            prefix: prefix.into(),
        });
    }
    let install_path = provider.install_path();
    let mounted = below(prefix, install_path).ok_or_else(|| MountError::InstallPath {
        path: install_path.into(),
        prefix: prefix.into(),
    })?;
    // What a path is mounted at, and the path.
    let mut taken = BTreeMap::from([(mounted, install_path)]);
    let install = {
        let provider = provider.clone();
        move |request: Request| async move {
            let (head, _) = request.into_parts();
            provider.install_response(&head.uri, &head.headers).await
        }
    };
    // A segment may begin with `:` or `*`; it means nothing.
    let mut router = Router::new()
        .without_v07_checks()
        .route(mounted, get(install));
    for uri in provider.redirect_uris() {
        let path = uri.path();
        let mounted = below(prefix, path).ok_or_else(|| MountError::RedirectUri {
            uri: uri.as_str().into(),
            prefix: prefix.into(),
        })?;
        match taken.insert(mounted, path) {
            None => {}
            Some(other) if other == path => continue,
            Some(other) => {
                return Err(MountError::Same {
                    paths: [other.into(), path.into()],
                    prefix: prefix.into(),
                });
            }
        }
        let provider = provider.clone();
        let path: Arc<str> = path.into();
        let callback = move |request: Request| async move {
            let (head, _) = request.into_parts();
            let uri = with_path(head.uri, &path);
            provider
                .callback_response(&head.method, &uri, &head.headers)
                .await
        };
        router = router.route(mounted, get(callback));
    }
    Ok(router)
}

/// The path without this prefix of whole segments; `None` if it has another.
fn below<'a>(prefix: &str, path: &'a str) -> Option<&'a str> {
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest => rest.starts_with('/').then_some(rest),
    }
}

/// The URL as the browser sent it, before the prefix was stripped: a flow of another redirect URL
/// is refused by it.
fn with_path(uri: Uri, path: &str) -> Uri {
    let mut parts = uri.clone().into_parts();
    let path = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into(),
    };
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).unwrap_or(uri)
}

/// Why install routes cannot be mounted under a prefix.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MountError {
    /// The install path has another prefix.
    #[error(
        "the install path {path} is not under {prefix}: set `install_path` to a path that begins \
         with {prefix}/, or mount the routes under another prefix"
    )]
    InstallPath {
        /// The install path.
        path: String,
        /// The prefix that was given.
        prefix: String,
    },
    /// The prefix is not a path.
    #[error("the prefix {prefix} is not a path: it must begin with `/`, such as /{prefix}")]
    Prefix {
        /// The prefix that was given.
        prefix: String,
    },
    /// A redirect URL's path has another prefix.
    #[error(
        "the path of the redirect URL {uri} is not under {prefix}: add the prefix to the URL, here \
         and at Slack, or mount the routes under another prefix"
    )]
    RedirectUri {
        /// The redirect URL.
        uri: String,
        /// The prefix that was given.
        prefix: String,
    },
    /// Two paths are the same one without the prefix.
    #[error(
        "{} and {} are the same path without {prefix}: change one of them",
        paths[0],
        paths[1]
    )]
    Same {
        /// Both paths.
        paths: [String; 2],
        /// The prefix that was given.
        prefix: String,
    },
}

/// The tokens that may serve this request. Needs [`SlackLayer`](crate::layer::SlackLayer) around
/// the route.
#[derive(Clone, Debug)]
pub struct Authorized(pub Arc<AuthorizeResult>);

impl Deref for Authorized {
    type Target = AuthorizeResult;

    fn deref(&self) -> &AuthorizeResult {
        &self.0
    }
}

/// The request as Slack signed it. Needs [`SlackLayer`](crate::layer::SlackLayer) around the
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
/// [`SlackLayer`](crate::layer::SlackLayer) around the route.
///
/// Where the app has no bot, the handler does not run: a person who typed a command reads that the
/// app is not installed.
///
/// ```
/// use slack_installs::web::BotToken;
///
/// /// Posts a message with the bot's token.
/// async fn command(BotToken(token): BotToken) -> &'static str {
///     let request = reqwest::Client::new()
///         .post("https://slack.com/api/chat.postMessage")
///         .bearer_auth(token.expose());
///     # drop(request);
///     "Posted."
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::post(command));
/// ```
#[derive(Clone, Debug)]
pub struct BotToken(pub AccessToken);

impl Deref for BotToken {
    type Target = AccessToken;

    fn deref(&self) -> &AccessToken {
        &self.0
    }
}

/// The token of the user who acted. Needs [`SlackLayer`](crate::layer::SlackLayer) around the
/// route.
///
/// Where that user has not authorised the app, the handler does not run. To run it anyway, extract
/// [`Authorized`] and ask for its [`user_token`](AuthorizeResult::user_token).
///
/// ```
/// use slack_installs::web::{BotToken, UserToken};
///
/// /// Sets the status of the user who typed the command.
/// async fn status(BotToken(_bot): BotToken, UserToken(user): UserToken) -> String {
///     format!("Your token has {} characters.", user.expose().len())
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::post(status));
/// ```
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
    /// The route has no [`SlackLayer`](crate::layer::SlackLayer) around it.
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

/// The route has no [`SlackLayer`](crate::layer::SlackLayer) around it, so nothing is verified;
/// the handler does not run.
#[derive(Clone, Copy, Debug)]
pub struct LayerMissing;

impl IntoResponse for LayerMissing {
    fn into_response(self) -> Response {
        tracing::error!("a handler extracts an authorization, but its route has no SlackLayer");
        let body = "This route has no SlackLayer. Add `.layer(app.layer())` after its route.";
        (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
    }
}
