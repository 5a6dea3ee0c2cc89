//! Data keys that OpenBao or HashiCorp Vault wraps, with a derived key of its transit engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};
use zeroize::Zeroizing;

use self::refusal::{Action, refused};
use self::session::Session;
use self::wire::Wire;
use super::binding;
use super::error::KeySetupError;
use crate::random;
use crate::seal::{DataKey, KeyContext, KeyError, KeyProvider, wrapped};
use crate::wipe::wiped;

mod auth;
mod key_url;
mod refusal;
mod session;
mod wire;

pub use auth::VaultAuth;
use key_url::KeyPlace;
pub(super) use key_url::by_url;

/// Wraps data keys under a derived key of the transit engine of OpenBao, or of HashiCorp Vault.
///
/// The key must be derived (`derived=true`), so that each wrapped key is bound to its app, id and
/// epoch. A call that cannot reach the server is repeated for at most 2 s. The token is renewed in
/// the background, so the first call must be made in a Tokio runtime that lives as long as the
/// app. `docs/keys.md` in the repository has the policies.
///
/// Tested against OpenBao. HashiCorp Vault has the same API, and was not tried.
///
/// ```
/// use slack_installs::keys::{VaultAuth, VaultOptions, VaultTransit};
///
/// let provider = VaultTransit::new(
///     "https://vault.example.com:8200/transit/keys/slack",
///     VaultAuth::token("hvs.example"),
///     VaultOptions::default(),
/// )?;
/// # Ok::<(), slack_installs::keys::KeySetupError>(())
/// ```
#[derive(Debug)]
pub struct VaultTransit {
    place: KeyPlace,
    environment: Option<String>,
    session: Arc<Session>,
}

/// Options of a [`VaultTransit`].
#[derive(Clone, Debug, Default)]
pub struct VaultOptions {
    /// Sends tokens and data keys without TLS to another machine. Without it, `http` is refused
    /// except to this machine.
    pub allow_plain_http: bool,
    /// A PEM file with the certificate authorities to trust, instead of Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// The name of your environment, such as `staging`. Wrapped keys are bound to it.
    pub environment: Option<String>,
    /// The namespace of the transit engine.
    pub namespace: Option<String>,
}

impl VaultTransit {
    /// Makes a provider from the URL of a transit key: `https://HOST:8200/MOUNT/keys/NAME`. It
    /// sends no request.
    ///
    /// # Errors
    ///
    /// [`KeySetupError`], if the URL or an option cannot be used.
    pub fn new(url: &str, auth: VaultAuth, options: VaultOptions) -> Result<Self, KeySetupError> {
        let place = KeyPlace::parse(url, options.allow_plain_http)?;
        let wire = Wire::new(&place.server, &options)?;
        Ok(Self {
            place,
            environment: options.environment,
            session: Arc::new(Session::new(wire, auth)),
        })
    }

    /// Returns the name in front of wrapped keys. The server's address is left out, because a
    /// restored or replicated server has another one.
    fn name(&self) -> String {
        format!("vault-transit {}/keys/{}", self.place.mount, self.place.key)
    }

    fn context(&self, context: &KeyContext<'_>) -> String {
        STANDARD.encode(binding::bytes(context, self.environment.as_deref()))
    }

    /// Makes one call, and repeats it while the server is unavailable, until the deadline.
    async fn call(&self, action: Action, body: Bytes) -> Result<Bytes, KeyError> {
        let until = Instant::now() + DEADLINE;
        let mut pause = FIRST_PAUSE;
        let mut cause = None;
        loop {
            let attempt = (Instant::now() + ATTEMPT).min(until);
            match timeout_at(attempt, self.once(action, body.clone())).await {
                Ok(Err(KeyError::Unavailable(error))) => cause = Some(error),
                Ok(result) => return result,
                Err(_) => cause = cause.or_else(|| Some(NO_RESPONSE.into())),
            }
            let next = Instant::now() + jittered(pause);
            if next >= until {
                return Err(KeyError::Unavailable(
                    cause.unwrap_or_else(|| NO_RESPONSE.into()),
                ));
            }
            sleep(next - Instant::now()).await;
            pause *= 2;
        }
    }

    /// Makes one call, with a second attempt if the token has expired and another one can be had.
    async fn once(&self, action: Action, body: Bytes) -> Result<Bytes, KeyError> {
        let path = format!("{}/{}/{}", self.place.mount, action.path(), self.place.key);
        let token = self.session.token().await?;
        let wire = &self.session.wire;
        let mut answer = wire
            .send(Method::POST, &path, Some(&token), body.clone())
            .await?;
        let mut is_expired = false;
        if answer.status == StatusCode::FORBIDDEN {
            is_expired = self.session.is_expired(&token).await?;
            if is_expired && let Some(token) = self.session.replace(&token).await? {
                answer = wire.send(Method::POST, &path, Some(&token), body).await?;
                is_expired = false;
            }
        }
        if answer.status == StatusCode::OK {
            return Ok(answer.body);
        }
        Err(refused(&self.place, action, &answer, is_expired))
    }

    /// Refuses a transit key that is not derived, because it ignores the context: a wrapped key
    /// could then be copied to another app, or get another epoch.
    async fn must_be_derived(&self, ciphertext: &str) -> Result<(), KeyError> {
        let body = json!({"ciphertext": ciphertext, "context": STANDARD.encode("another context")});
        match self.call(Action::Decrypt, body.to_string().into()).await {
            Ok(opened) => {
                drop(opened);
                let reason = format!(
                    "the transit key {} is not derived, so it does not bind data keys to their \
                     app: create another one with `derived=true`, which cannot be changed later",
                    self.place
                );
                Err(KeyError::Refused { reason })
            }
            Err(KeyError::Changed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn wrapped(&self, ciphertext: &str) -> Result<Vec<u8>, KeyError> {
        self.must_be_derived(ciphertext).await?;
        Ok(wrapped::named(&self.name(), ciphertext.as_bytes()))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl KeyProvider for VaultTransit {
    async fn generate(&self, context: &KeyContext<'_>) -> Result<(DataKey, Vec<u8>), KeyError> {
        let body = json!({"context": self.context(context), "bits": 256}).to_string();
        let answer = self.call(Action::Generate, body.into()).await?;
        let made: Made = parsed(&answer)?;
        let key = data_key(&made.plaintext)?;
        Ok((key, self.wrapped(&made.ciphertext).await?))
    }

    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        let plaintext = Zeroizing::new(STANDARD.encode(key.expose()));
        // Base64 needs no escapes, so the text is formatted without further copies of the key.
        let mut body = String::with_capacity(1024 + 2 * plaintext.len());
        body.push_str("{\"context\":\"");
        body.push_str(&self.context(context));
        body.push_str("\",\"plaintext\":\"");
        body.push_str(&plaintext);
        body.push_str("\"}");
        let answer = self.call(Action::Encrypt, wiped(body)).await?;
        let made: Encrypted = parsed(&answer)?;
        self.wrapped(&made.ciphertext).await
    }

    async fn unwrap(&self, bytes: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        let (name, ciphertext) = wrapped::parse(bytes).unwrap_or(("another provider", b""));
        if name != self.name() {
            return Err(KeyError::UnknownKey {
                reason: format!(
                    "the data key is wrapped by {}, but this process has the transit key {}: add \
                     the other one as a retired provider",
                    wrapped::shown(name),
                    self.place
                ),
            });
        }
        let ciphertext = canonical(ciphertext).ok_or(KeyError::Changed)?;
        let body = json!({"context": self.context(context), "ciphertext": ciphertext});
        let answer = self.call(Action::Decrypt, body.to_string().into()).await?;
        let opened: Decrypted = parsed(&answer)?;
        data_key(&opened.plaintext)
    }
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Made {
    ciphertext: String,
    plaintext: Zeroizing<String>,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: Zeroizing<String>,
}

/// Parses a response. The parser's error is dropped, because it repeats the input.
fn parsed<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, KeyError> {
    let parsed: Result<Data<T>, _> = serde_json::from_slice(body);
    let parsed = parsed.map_err(|_| {
        KeyError::Unavailable("the response has no data; is this the address of a Vault?".into())
    })?;
    Ok(parsed.data)
}

/// Returns a ciphertext, if it is exactly as Vault wrote it. Vault itself reads `v0` as `v1`, and
/// ignores line breaks and unused bits in base64.
fn canonical(ciphertext: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(ciphertext).ok()?;
    let (version, base64) = text.strip_prefix("vault:v")?.split_once(':')?;
    let number: u64 = version.parse().ok()?;
    let is_canonical = number > 0 && number.to_string() == version;
    (is_canonical && STANDARD.decode(base64).is_ok()).then_some(text)
}

fn data_key(base64: &str) -> Result<DataKey, KeyError> {
    // The decoder requires room for the estimate.
    let mut bytes = Zeroizing::new([0; 48]);
    let len = STANDARD
        .decode_slice(base64, &mut *bytes)
        .unwrap_or_default();
    let key = <&[u8; 32]>::try_from(&bytes[..len]).map_err(|_| KeyError::Changed)?;
    Ok(DataKey::from_bytes(*key))
}

/// Returns between half of a duration and all of it, so that processes do not retry in step.
fn jittered(duration: Duration) -> Duration {
    let [random] = random::bytes();
    duration.mul_f64(0.5 + f64::from(random) / 512.0)
}

/// The time for a whole call. A person may wait for it in Slack.
const DEADLINE: Duration = Duration::from_secs(2);

/// The time for one attempt. A second one uses another connection.
const ATTEMPT: Duration = Duration::from_millis(900);

const FIRST_PAUSE: Duration = Duration::from_millis(50);

const NO_RESPONSE: &str = "no response within the deadline";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_that_vault_writes_is_a_ciphertext() {
        assert_eq!(canonical(b"vault:v10:AAA="), Some("vault:v10:AAA="));
        for text in [
            "vault:v0:AAA=",
            "vault:v01:AAA=",
            "vault:v+1:AAA=",
            "vault:v1:AAB=",
            "vault:v1:AAA",
            "vault:v1:AA\nA=",
            "vault:1:AAA=",
            "vault:v1AAA=",
            "",
        ] {
            assert_eq!(canonical(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_data_key_has_exactly_32_bytes() {
        for len in [0, 16, 31, 33, 36, 64] {
            assert!(data_key(&STANDARD.encode(vec![7; len])).is_err(), "{len}");
        }
        let key = data_key(&STANDARD.encode([7; 32])).expect("32 bytes");
        assert_eq!(key.expose(), &[7; 32]);
    }
}
