//! axum: routes for the install flow, and extractors for the results of [`SlackLayer`].
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
use axum::extract::{FromRequestParts, OptionalFromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use thiserror::Error;

use crate::authorize::{AuthorizeError, AuthorizeResult};
use crate::gate::{Authorization, RefusalReason};
use crate::oauth::InstallProvider;
use crate::request::VerifiedRequest;
use crate::secret::AccessToken;

/// Returns routes for the install flow: the install path (`/slack/install` by default), and a
/// callback at the path of each redirect URL (`/slack/oauth_redirect` by convention).
///
/// If the router is nested, or behind a proxy that strips a prefix, use [`install_routes_under`].
pub fn install_routes<S: Clone + Send + Sync + 'static>(provider: &InstallProvider) -> Router<S> {
    install_routes_under(provider, "").expect("without a prefix, every path is under it")
}

/// Returns the routes of [`install_routes`] without a prefix. Use it if the router is nested under
/// that prefix, or behind a proxy that strips it.
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
        return Err(MountError(format!(
            "the prefix {prefix} is not a path: it must begin with `/`, such as /{prefix}"
        )));
    }
    let install_path = provider.install_path();
    let mounted = below(prefix, install_path).ok_or_else(|| {
        MountError(format!(
            "the install path {install_path} is not under {prefix}: set `install_path` to a path \
             that begins with {prefix}/, or mount the routes under another prefix"
        ))
    })?;
    // The mounted path, and the full path.
    let mut taken = BTreeMap::from([(mounted, install_path)]);
    let install = {
        let provider = provider.clone();
        move |request: Request| async move {
            let (head, _) = request.into_parts();
            provider.install_response(&head.uri, &head.headers).await
        }
    };
    // A path segment may begin with `:` or `*`, which has no special meaning here.
    let mut router = Router::new()
        .without_v07_checks()
        .route(mounted, get(install));
    for uri in provider.redirect_uris() {
        let path = uri.path();
        let mounted = below(prefix, path).ok_or_else(|| {
            let uri = uri.as_str();
            MountError(format!(
                "the path of the redirect URL {uri} is not under {prefix}: add the prefix to the \
                 URL, here and at Slack, or mount the routes under another prefix"
            ))
        })?;
        match taken.insert(mounted, path) {
            None => {}
            Some(other) if other == path => continue,
            Some(other) => {
                return Err(MountError(format!(
                    "{other} and {path} are the same path without {prefix}: change one of them"
                )));
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

/// Returns the path without this prefix of whole segments; `None` if the path does not begin with
/// it.
fn below<'a>(prefix: &str, path: &'a str) -> Option<&'a str> {
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest => rest.starts_with('/').then_some(rest),
    }
}

/// Returns the URL as the browser sent it, before the prefix was stripped. The provider compares
/// the path, and refuses a flow of another redirect URL.
fn with_path(uri: Uri, path: &str) -> Uri {
    let mut parts = uri.clone().into_parts();
    let path = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into(),
    };
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).unwrap_or(uri)
}

/// Why the install routes cannot be mounted under a prefix. The text contains the remedy.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct MountError(String);

/// The tokens that may serve this request. The route needs a
/// [`SlackLayer`](crate::layer::SlackLayer) around it.
///
/// An event can arrive without a token. The handler then does not run, and Slack gets an empty 200.
/// To run it anyway, extract `Result<Authorized, Rejection>` or `Option<Authorized>`:
///
/// ```
/// use slack_installs::web::{Authorized, Rejection, Verified};
///
/// async fn event(request: Verified, auth: Result<Authorized, Rejection>) {
///     match auth {
///         // An app with only user scopes gets the token of the user for whom Slack delivered it.
///         Ok(auth) => drop(auth.authorizing_user_token().or(auth.bot_token())),
///         Err(rejection) => eprintln!("{:?}: {:?}", request.tenant(), rejection.error()),
///     }
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::post(event));
/// ```
#[derive(Clone, Debug)]
pub struct Authorized(pub Arc<AuthorizeResult>);

/// The verified request. The route needs a [`SlackLayer`](crate::layer::SlackLayer) around it.
#[derive(Clone, Debug)]
pub struct Verified(pub Arc<VerifiedRequest>);

/// The bot's token, in the workspace of this request. The route needs a
/// [`SlackLayer`](crate::layer::SlackLayer) around it.
///
/// If the app has no bot there, the handler does not run. A person who typed a command sees that,
/// and the install link.
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

/// The token of the user who acts. The route needs a [`SlackLayer`](crate::layer::SlackLayer)
/// around it.
///
/// If that user did not authorise the app, the handler does not run. If they typed a command, they
/// see a link that connects their account. To run it anyway, extract
/// [`Authorized`] and call its [`user_token`](AuthorizeResult::user_token).
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

/// The token of the user for whom Slack delivered an event. The route needs a
/// [`SlackLayer`](crate::layer::SlackLayer) around it.
///
/// That user did not necessarily act. If Slack delivered the event to the bot, or if that user has
/// no token, the handler does not run.
#[derive(Clone, Debug)]
pub struct AuthorizingUserToken(pub AccessToken);

macro_rules! deref {
    ($($extractor:ident: $target:ident,)*) => {
        $(impl Deref for $extractor {
            type Target = $target;

            fn deref(&self) -> &$target {
                &self.0
            }
        })*
    };
}

deref! {
    Authorized: AuthorizeResult,
    AuthorizingUserToken: AccessToken,
    BotToken: AccessToken,
    UserToken: AccessToken,
    Verified: VerifiedRequest,
}

/// Implements extraction, and extraction of an `Option`, which is `None` without a token.
macro_rules! extract {
    ($($extractor:ident: $found:expr,)*) => {
        $(impl<S: Sync> FromRequestParts<S> for $extractor {
            type Rejection = Rejection;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
                let find: fn(&Parts) -> Result<Self, Rejection> = $found;
                find(parts)
            }
        }

        impl<S: Sync> OptionalFromRequestParts<S> for $extractor {
            type Rejection = Rejection;

            async fn from_request_parts(
                parts: &mut Parts,
                _: &S,
            ) -> Result<Option<Self>, Rejection> {
                let find: fn(&Parts) -> Result<Self, Rejection> = $found;
                match find(parts) {
                    Ok(found) => Ok(Some(found)),
                    Err(Rejection(Cause::NoToken { .. })) => Ok(None),
                    Err(rejection) => Err(rejection),
                }
            }
        })*
    };
}

extract! {
    Authorized: |parts| authorized(parts).map(|authorized| Self(Arc::clone(authorized))),
    AuthorizingUserToken: |parts| {
        let of = AuthorizeResult::authorizing_user_token;
        token(parts, of, RefusalReason::NotConnected).map(Self)
    },
    BotToken: |parts| {
        token(parts, AuthorizeResult::bot_token, RefusalReason::NoBot).map(Self)
    },
    UserToken: |parts| {
        token(parts, AuthorizeResult::user_token, RefusalReason::NotConnected).map(Self)
    },
}

impl<S: Sync> FromRequestParts<S> for Verified {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Ok(Self(Arc::clone(&authorization(parts)?.request)))
    }
}

fn authorization(parts: &Parts) -> Result<&Authorization, Rejection> {
    parts.extensions.get().ok_or(Rejection(Cause::NoLayer))
}

fn authorized(parts: &Parts) -> Result<&Arc<AuthorizeResult>, Rejection> {
    let authorization = authorization(parts)?;
    authorization.authorized.as_ref().map_err(|error| {
        Rejection(Cause::NoToken {
            authorization: authorization.clone(),
            reason: RefusalReason::of(error),
        })
    })
}

fn token(
    parts: &Parts,
    of: fn(&AuthorizeResult) -> Option<&AccessToken>,
    reason: RefusalReason,
) -> Result<AccessToken, Rejection> {
    let token = of(authorized(parts)?).cloned();
    let authorization = authorization(parts)?;
    token.ok_or_else(|| {
        Rejection(Cause::NoToken {
            authorization: authorization.clone(),
            reason,
        })
    })
}

/// Why a handler does not run. Without a [`SlackLayer`](crate::layer::SlackLayer) around the route,
/// no request is verified. With it, the token that the handler needs does not exist, and the
/// rejection is the response for Slack.
#[derive(Clone, Debug)]
pub struct Rejection(Cause);

#[derive(Clone, Debug)]
enum Cause {
    NoLayer,
    NoToken {
        authorization: Authorization,
        reason: RefusalReason,
    },
}

impl Rejection {
    /// Returns why the request has no token at all. `None` if it has another token than the one
    /// that the handler needs, or if there is no layer.
    #[must_use]
    pub fn error(&self) -> Option<&AuthorizeError> {
        match &self.0 {
            Cause::NoToken { authorization, .. } => match &authorization.authorized {
                Ok(_) => None,
                Err(error) => Some(error),
            },
            Cause::NoLayer => None,
        }
    }

    /// Returns why the handler does not run. `None` if there is no layer.
    #[must_use]
    pub fn reason(&self) -> Option<RefusalReason> {
        match &self.0 {
            Cause::NoToken { reason, .. } => Some(*reason),
            Cause::NoLayer => None,
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        // Only now, because a handler that takes the rejection responds itself.
        if let Cause::NoToken {
            authorization,
            reason,
        } = self.0
        {
            let (desk, request) = (&authorization.desk, &authorization.request);
            let reply = match &authorization.authorized {
                Ok(_) => desk.respond(request, reason, None),
                Err(error) => desk.unauthorized(request, error),
            };
            let content_type = [(CONTENT_TYPE, reply.content_type())];
            return (reply.status, content_type, reply.text).into_response();
        }
        tracing::error!(
            "a handler extracts an authorization, but its route has no SlackLayer: add \
             `.layer(app.layer())` after its route"
        );
        let body = "This route has no SlackLayer. Add `.layer(app.layer())` after its route.";
        (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
    }
}
