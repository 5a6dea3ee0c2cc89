//! The Web API: reads a call, finds out who calls, and answers as Slack does.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use serde_json::{Map, Value, json};

use crate::installation::Scopes;
use crate::tenant::{InstallationKey, UserId};

use super::answer::json_response;
use super::app::App;
use super::ask::{field, pairs};
use super::state::State;

mod auth;
mod oauth;
mod people;

/// A call, taken apart.
pub(super) struct Incoming {
    args: Vec<(String, String)>,
    /// The client id and secret, from HTTP Basic or from the form.
    client: (String, String),
    method: String,
    pub(super) token: Option<String>,
    /// Slack warns of a charset in a form's content type.
    superfluous_charset: bool,
}

/// Whose token a call carries.
struct Caller {
    scopes: Scopes,
    tenant: InstallationKey,
    user: Option<UserId>,
}

/// An error code of Slack's, and what it says besides.
pub(super) struct Refusal {
    error: &'static str,
    more: Map<String, Value>,
}

impl From<&'static str> for Refusal {
    fn from(error: &'static str) -> Self {
        let more = Map::new();
        Self { error, more }
    }
}

impl Incoming {
    /// # Errors
    ///
    /// Slack's code for a body that it cannot read.
    pub(super) fn read(method: &str, request: &Request<Bytes>) -> Result<Self, &'static str> {
        let headers = request.headers();
        let content_type = text(headers, &header::CONTENT_TYPE);
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let in_body = match media_type.to_ascii_lowercase().as_str() {
            _ if request.body().is_empty() => Vec::new(),
            "application/json" => json_args(request.body())?,
            "application/x-www-form-urlencoded" => pairs(request.body()),
            _ => return Err("invalid_post_type"),
        };
        let authorization = text(headers, &header::AUTHORIZATION);
        let arg = |name: &str| field(&in_body, name).map(str::to_owned);
        let bearer = authorization.strip_prefix("Bearer ").map(str::to_owned);
        let basic = authorization.strip_prefix("Basic ").and_then(basic);
        let form = || {
            (
                arg("client_id").unwrap_or_default(),
                arg("client_secret").unwrap_or_default(),
            )
        };
        let client = basic.unwrap_or_else(form);
        let token = bearer.or_else(|| arg("token"));
        let mut args = pairs(request.uri().query().unwrap_or_default().as_bytes());
        // Neither a token nor a secret counts when it comes in the query.
        args.retain(|(name, _)| !["client_secret", "code", "refresh_token"].contains(&&**name));
        args.splice(..0, in_body);
        Ok(Self {
            args,
            client,
            method: method.to_owned(),
            superfluous_charset: media_type.ends_with("form-urlencoded")
                && content_type.contains("charset"),
            token,
        })
    }

    /// The first argument of that name.
    pub(super) fn arg(&self, name: &str) -> Option<&str> {
        field(&self.args, name)
    }

    /// Whether the token is one of a rotating pair, access or refresh.
    fn is_for_one_token(&self, state: &State) -> bool {
        let token = self.token.as_deref();
        token.is_some_and(|token| state.is_of_pair(token))
    }

    /// # Errors
    ///
    /// Slack's code, unless the call carries the app's own id and secret.
    fn check_client(&self, app: &App) -> Result<(), &'static str> {
        let (id, secret) = &self.client;
        match id == app.client_id.as_str() {
            true if *secret == app.client_secret => Ok(()),
            true => Err("bad_client_secret"),
            false => Err("invalid_client_id"),
        }
    }

    fn caller(&self, state: &State, now: SystemTime) -> Result<Caller, &'static str> {
        let token = self.token.as_deref().ok_or("not_authed")?;
        let holder = state.holder(token, now)?;
        Ok(Caller {
            scopes: state.scopes(&holder.tenant, holder.user.as_ref()),
            tenant: holder.tenant.clone(),
            user: holder.user.clone(),
        })
    }
}

impl Caller {
    fn needs(&self, scope: &str) -> Result<(), Refusal> {
        match self.scopes.contains(scope) {
            true => Ok(()),
            false => Err(Refusal {
                error: "missing_scope",
                more: Map::from_iter([
                    ("needed".to_owned(), scope.into()),
                    ("provided".to_owned(), self.scopes.to_string().into()),
                ]),
            }),
        }
    }
}

/// Carries out a call. The error code, if any, is returned beside the answer.
pub(super) fn answer(
    state: &mut State,
    app: &App,
    call: &Incoming,
    now: SystemTime,
) -> (Response<Bytes>, Option<String>) {
    // Read before the call is carried out: it may end the token.
    let caller = call.caller(state, now);
    let scopes = caller.as_ref().ok().map(|caller| caller.scopes.to_string());
    let outcome = match (call.method.as_str(), caller) {
        ("oauth.v2.access", _) => oauth::access(state, app, call, now),
        ("oauth.v2.exchange", _) => oauth::exchange(state, app, call, now),
        ("auth.revoke", _) if call.is_for_one_token(state) => Ok(auth::revoke_one(state, call)),
        (method, _) if !METHODS.contains(&method) => Err("unknown_method".into()),
        (_, Err(error)) => Err(error.into()),
        ("apps.uninstall", Ok(caller)) => auth::uninstall(state, app, call, &caller, now),
        ("auth.revoke", Ok(caller)) => Ok(auth::revoke(state, call, &caller, now)),
        ("auth.test", Ok(caller)) => Ok(auth::test(state, &caller)),
        ("team.info", Ok(caller)) => people::team_info(state, call, &caller),
        ("users.info", Ok(caller)) => people::users_info(state, call, &caller, now),
        _ => unreachable!("every method of METHODS has its arm"),
    };
    let error = outcome
        .as_ref()
        .err()
        .map(|refusal| refusal.error.to_owned());
    let mut body = match outcome {
        Ok(body) => body,
        Err(refusal) => {
            let mut body = refusal.more;
            body.insert("error".to_owned(), refusal.error.into());
            body
        }
    };
    body.insert("ok".to_owned(), error.is_none().into());
    if call.superfluous_charset {
        let warning = "superfluous_charset";
        body.insert("warning".to_owned(), warning.into());
        body.insert(
            "response_metadata".to_owned(),
            json!({ "warnings": [warning] }),
        );
    }
    let mut response = json_response(body);
    if let Some(scopes) = scopes.and_then(|scopes| HeaderValue::try_from(scopes).ok()) {
        response.headers_mut().insert("x-oauth-scopes", scopes);
    }
    (response, error)
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

/// A JSON object's fields, all as text.
fn json_args(body: &[u8]) -> Result<Vec<(String, String)>, &'static str> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "invalid_json")?;
    let Value::Object(fields) = body else {
        return Err("json_not_object");
    };
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(fields
        .into_iter()
        .map(|(name, value)| (name, text(value)))
        .collect())
}

fn basic(credentials: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// The methods that need a token.
const METHODS: [&str; 5] = [
    "apps.uninstall",
    "auth.revoke",
    "auth.test",
    "team.info",
    "users.info",
];
