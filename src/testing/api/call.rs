//! A call of the Web API and its caller.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, header};
use serde_json::{Map, Value};

use crate::installation::Scopes;
use crate::tenant::{InstallationKey, UserId};
use crate::testing::app::App;
use crate::testing::consent::pairs;
use crate::testing::state::State;

/// A parsed call.
pub(in crate::testing) struct Incoming {
    args: Vec<(String, Value)>,
    /// The client id and secret, from HTTP Basic or from the form.
    client: (String, String),
    pub(in crate::testing) method: String,
    pub(in crate::testing) token: Option<String>,
    /// Whether the content type of a form has a charset. Slack then adds a warning to the response.
    pub(super) superfluous_charset: bool,
}

/// The owner of a call's token.
pub(super) struct Caller {
    pub(super) scopes: Scopes,
    pub(super) tenant: InstallationKey,
    pub(super) user: Option<UserId>,
}

/// An error code of Slack's, and further fields of the response.
pub(super) struct Refusal {
    pub(super) error: &'static str,
    pub(super) more: Map<String, Value>,
}

impl From<&'static str> for Refusal {
    fn from(error: &'static str) -> Self {
        let more = Map::new();
        Self { error, more }
    }
}

impl Incoming {
    /// Parses a request.
    ///
    /// # Errors
    ///
    /// Returns Slack's error code if the body cannot be parsed.
    pub(in crate::testing) fn read(
        method: &str,
        request: &Request<Bytes>,
    ) -> Result<Self, &'static str> {
        let headers = request.headers();
        let content_type = text(headers, &header::CONTENT_TYPE);
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let in_body = match media_type.to_ascii_lowercase().as_str() {
            _ if request.body().is_empty() => Vec::new(),
            "application/json" => json_args(request.body())?,
            "application/x-www-form-urlencoded" => texts(request.body()),
            _ => return Err("invalid_post_type"),
        };
        let authorization = text(headers, &header::AUTHORIZATION);
        let arg = |name: &str| text_of(&in_body, name);
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
        let mut args = texts(request.uri().query().unwrap_or_default().as_bytes());
        // Slack ignores tokens and secrets in the query.
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

    /// Returns the first argument of that name, as text.
    pub(in crate::testing) fn arg(&self, name: &str) -> Option<String> {
        text_of(&self.args, name)
    }

    /// Returns the arguments without secrets. Of two with one name, returns the first.
    pub(in crate::testing) fn public_args(&self) -> Map<String, Value> {
        let public = self.args.iter().rev();
        let public = public.filter(|(name, _)| !SECRET_ARGS.contains(&name.as_str()));
        public.cloned().collect()
    }

    /// Returns whether the token is the access token or the refresh token of a pair.
    pub(super) fn is_for_one_token(&self, state: &State) -> bool {
        let token = self.token.as_deref();
        token.is_some_and(|token| state.is_of_pair(token))
    }

    /// Checks that the call has the app's client id and client secret.
    ///
    /// # Errors
    ///
    /// Returns Slack's error code if one of them is wrong.
    pub(super) fn check_client(&self, app: &App) -> Result<(), &'static str> {
        let (id, secret) = &self.client;
        if id != app.client_id.as_str() {
            return Err("invalid_client_id");
        }
        if *secret != app.client_secret {
            return Err("bad_client_secret");
        }
        Ok(())
    }

    pub(super) fn caller(&self, state: &State, now: SystemTime) -> Result<Caller, &'static str> {
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
    pub(super) fn needs(&self, scope: &str) -> Result<(), Refusal> {
        if self.scopes.contains(scope) {
            Ok(())
        } else {
            Err(Refusal {
                error: "missing_scope",
                more: Map::from_iter([
                    ("needed".to_owned(), scope.into()),
                    ("provided".to_owned(), self.scopes.to_string().into()),
                ]),
            })
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

/// Returns the fields of a JSON object.
fn json_args(body: &[u8]) -> Result<Vec<(String, Value)>, &'static str> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "invalid_json")?;
    let Value::Object(fields) = body else {
        return Err("json_not_object");
    };
    Ok(fields.into_iter().collect())
}

/// Returns the fields of a form or of a query.
fn texts(form: &[u8]) -> Vec<(String, Value)> {
    let fields = pairs(form).into_iter();
    fields.map(|(name, value)| (name, value.into())).collect()
}

/// Returns the first argument of that name, as text.
fn text_of(args: &[(String, Value)], name: &str) -> Option<String> {
    let (_, value) = args.iter().find(|(key, _)| key == name)?;
    Some(match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

fn basic(credentials: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// The arguments that are never recorded.
const SECRET_ARGS: [&str; 7] = [
    "assertion",
    "client_secret",
    "code",
    "code_verifier",
    "new_token",
    "refresh_token",
    "token",
];
