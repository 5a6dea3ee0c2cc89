//! The token: where it comes from, and how it is renewed.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Method as Verb, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::auth::{Method, VaultAuth};
use super::refusal::{is_transient, rejected, shown, unavailable};
use super::wire::{Token, Wire};
use crate::error_chain::error_chain;
use crate::seal::KeyError;
use crate::wipe::wiped;

/// One token for all calls.
pub(super) struct Session {
    pub(super) wire: Wire,
    auth: VaultAuth,
    login: Mutex<Option<Login>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("wire", &self.wire)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

struct Login {
    token: Arc<Token>,
    keeper: JoinHandle<()>,
}

impl Drop for Login {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// How long a token lives.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Lease {
    #[serde(rename = "lease_duration", alias = "ttl")]
    seconds: u64,
    renewable: bool,
}

impl Session {
    pub(super) fn new(wire: Wire, auth: VaultAuth) -> Self {
        Self {
            wire,
            auth,
            login: Mutex::new(None),
        }
    }

    /// Returns the current token. Logs in if there is none.
    pub(super) async fn token(self: &Arc<Self>) -> Result<Arc<Token>, KeyError> {
        let mut login = self.login.lock().await;
        if let Some(login) = &*login {
            return Ok(Arc::clone(&login.token));
        }
        self.logged_in(&mut login).await
    }

    /// Returns another token, if this one is no longer accepted and another one can be had.
    pub(super) async fn replace(
        self: &Arc<Self>,
        old: &Token,
    ) -> Result<Option<Arc<Token>>, KeyError> {
        let mut login = self.login.lock().await;
        let is_old = login.as_ref().is_some_and(|login| *login.token == *old);
        if let Some(login) = login.as_ref().filter(|_| !is_old) {
            return Ok(Some(Arc::clone(&login.token)));
        }
        let new = self.logged_in(&mut login).await?;
        Ok((*new != *old).then_some(new))
    }

    /// Returns whether Vault no longer accepts this token for anything. A denied path and an
    /// expired token have the same response, so this asks for what each token may read.
    pub(super) async fn is_expired(&self, token: &Token) -> Result<bool, KeyError> {
        let answer = self
            .wire
            .send(Verb::GET, LOOKUP, Some(token), Bytes::new())
            .await?;
        Ok(answer.status == StatusCode::FORBIDDEN)
    }

    async fn logged_in(
        self: &Arc<Self>,
        login: &mut Option<Login>,
    ) -> Result<Arc<Token>, KeyError> {
        let (token, lease) = match &self.auth.0 {
            Method::Token(secret) => (source("token", secret.read())?, None),
            Method::AppRole {
                mount,
                role_id,
                secret_id,
            } => {
                let secret_id = source("secret id", secret_id.read())?;
                let (token, lease) = self.app_role(mount, role_id, &secret_id).await?;
                (token, Some(lease))
            }
        };
        let token = Arc::new(token);
        let keeper = keep(Arc::downgrade(self), Arc::clone(&token), lease);
        *login = Some(Login {
            token: Arc::clone(&token),
            keeper: tokio::spawn(keeper),
        });
        Ok(token)
    }

    async fn app_role(
        &self,
        mount: &str,
        role_id: &str,
        secret_id: &str,
    ) -> Result<(Token, Lease), KeyError> {
        let path = format!("auth/{}/login", mount.trim_matches('/'));
        // Escapes the texts by the JSON library, and wipes what it returns.
        let body = Zeroizing::new(json!(secret_id).to_string());
        let body = format!("{{\"role_id\":{},\"secret_id\":{}}}", json!(role_id), *body);
        let answer = self.wire.send(Verb::POST, &path, None, wiped(body)).await?;
        match answer.status {
            StatusCode::OK => granted(&answer.body),
            status if is_transient(status) => {
                let errors = answer.errors();
                let sealed = if errors.contains("sealed") {
                    ": it is sealed"
                } else {
                    ""
                };
                Err(unavailable(format!(
                    "Vault responded to the login with {status}{sealed}"
                )))
            }
            status => Err(rejected(format!(
                "Vault refused the login with AppRole at `{path}` ({status}: {}): check the role \
                 id and the secret id; a secret id may have expired, or be used up",
                shown(&answer.errors())
            ))),
        }
    }

    /// Renews the token. Returns `None` if Vault refuses.
    async fn renewed(&self, token: &Token) -> Result<Option<Lease>, KeyError> {
        let body = Bytes::from_static(b"{}");
        let answer = self.wire.send(Verb::POST, RENEW, Some(token), body).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(granted(&answer.body)?.1)),
            status if is_transient(status) => Err(unavailable(format!("{status}"))),
            _ => Ok(None),
        }
    }

    /// Returns how long the token lives, or `None` if it may not read that.
    async fn lease(&self, token: &Token) -> Result<Option<Lease>, KeyError> {
        #[derive(Deserialize)]
        struct Lookup {
            data: Lease,
        }
        let answer = self
            .wire
            .send(Verb::GET, LOOKUP, Some(token), Bytes::new())
            .await?;
        match answer.status {
            StatusCode::OK => Ok(serde_json::from_slice(&answer.body)
                .ok()
                .map(|lookup: Lookup| lookup.data)),
            status if is_transient(status) => Err(unavailable(format!("{status}"))),
            _ => Ok(None),
        }
    }
}

/// Renews a token until it cannot be renewed. Then logs in again with AppRole, or reads the token
/// again if it comes from a file.
///
/// A login starts this, and this logs in. So the compiler needs a name for the future's type.
fn keep(session: Weak<Session>, token: Arc<Token>, lease: Option<Lease>) -> Keeping {
    Box::pin(keep_on(session, token, lease))
}

type Keeping = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn keep_on(session: Weak<Session>, token: Arc<Token>, lease: Option<Lease>) {
    let Some(first) = known(&session, &token, lease).await else {
        return;
    };
    if first.seconds == 0 {
        return;
    }
    let mut lease = first;
    loop {
        sleep(Duration::from_secs(lease.seconds).mul_f64(RENEW_AT)).await;
        let Some(session) = session.upgrade() else {
            return;
        };
        let renewed = if lease.renewable {
            session.renewed(&token).await
        } else {
            Ok(None)
        };
        match renewed {
            // Near the end of its longest life, each renewal is shorter.
            Ok(Some(renewed)) if renewed.seconds > first.seconds / 2 => lease = renewed,
            Ok(renewed) => {
                match session.replace(&token).await {
                    // The new token has its own keeper.
                    Ok(Some(_)) => return,
                    Ok(None) => tracing::warn!(
                        "the token for Vault cannot be renewed, and will expire: pass another one"
                    ),
                    Err(error) => {
                        let error = error_chain(&error);
                        tracing::warn!(error, "no new token for Vault");
                    }
                }
                lease = renewed.unwrap_or(lease);
                lease.seconds = (lease.seconds / 3).max(1);
            }
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(error, "the token for Vault was not renewed");
                lease.seconds = (lease.seconds / 3).max(1);
            }
        }
    }
}

/// Returns the lease that a login returned, or else asks for the token's.
async fn known(session: &Weak<Session>, token: &Token, lease: Option<Lease>) -> Option<Lease> {
    if lease.is_some() {
        return lease;
    }
    loop {
        match session.upgrade()?.lease(token).await {
            Ok(lease) => return lease,
            Err(_) => sleep(ASK_AGAIN).await,
        }
    }
}

/// Parses the token that Vault granted. The parser's error is dropped, because it repeats the input.
fn granted(body: &[u8]) -> Result<(Token, Lease), KeyError> {
    #[derive(Deserialize)]
    struct Granted {
        auth: Auth,
    }
    #[derive(Deserialize)]
    struct Auth {
        client_token: Token,
        #[serde(flatten)]
        lease: Lease,
    }
    let granted = serde_json::from_slice::<Granted>(body);
    let granted = granted.map_err(|_| unavailable("the response has no token".into()))?;
    Ok((granted.auth.client_token, granted.auth.lease))
}

fn source(what: &str, read: std::io::Result<Token>) -> Result<Token, KeyError> {
    let text = read.map_err(|error| {
        let text = format!(
            "the file with the {what} for Vault cannot be read: {}",
            error.kind()
        );
        unavailable(text)
    })?;
    if text.is_empty() {
        return Err(rejected(format!("the {what} for Vault is empty")));
    }
    Ok(text)
}

const LOOKUP: &str = "auth/token/lookup-self";

const RENEW: &str = "auth/token/renew-self";

/// The part of its life after which a token is renewed.
const RENEW_AT: f64 = 2.0 / 3.0;

const ASK_AGAIN: Duration = Duration::from_secs(5);
