//! A call of the Web API, and who makes it.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, header};
use serde_json::{Map, Value};

use crate::installation::Scopes;
use crate::tenant::{InstallationKey, UserId};
use crate::testing::app::App;
use crate::testing::consent::{field, pairs};
use crate::testing::state::State;

/// A call, taken apart.
pub(in crate::testing) struct Incoming {
    args: Vec<(String, String)>,
    /// The client id and secret, from HTTP Basic or from the form.
    client: (String, String),
    pub(super) method: String,
    pub(in crate::testing) token: Option<String>,
    /// Slack warns of a charset in a form's content type.
    pub(super) superfluous_charset: bool,
}

/// Whose token a call carries.
pub(super) struct Caller {
    pub(super) scopes: Scopes,
    pub(super) tenant: InstallationKey,
    pub(super) user: Option<UserId>,
}

/// An error code of Slack's, and what it says besides.
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
    /// # Errors
    ///
    /// Slack's code for a body that it cannot read.
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
    pub(in crate::testing) fn arg(&self, name: &str) -> Option<&str> {
        field(&self.args, name)
    }

    /// Whether the token is one of a rotating pair, access or refresh.
    pub(super) fn is_for_one_token(&self, state: &State) -> bool {
        let token = self.token.as_deref();
        token.is_some_and(|token| state.is_of_pair(token))
    }

    /// # Errors
    ///
    /// Slack's code, unless the call carries the app's own id and secret.
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
