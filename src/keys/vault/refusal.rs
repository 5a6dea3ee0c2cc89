//! What Vault's errors mean.

use http::StatusCode;

use super::key_url::KeyPlace;
use super::wire::Answer;
use crate::seal::KeyError;
use crate::wording::printable;

/// A call of the transit engine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Action {
    Decrypt,
    Encrypt,
    Generate,
}

impl Action {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Decrypt => "decrypt",
            Self::Encrypt => "encrypt",
            Self::Generate => "datakey/plaintext",
        }
    }
}

/// Returns the error of a response that is not a success.
pub(super) fn refused(
    place: &KeyPlace,
    action: Action,
    answer: &Answer,
    is_expired: bool,
) -> KeyError {
    let errors = answer.errors();
    let path = format!("{}/{}/{}", place.mount, action.path(), place.key);
    let said = |text: &str| errors.contains(text);
    match answer.status {
        StatusCode::FORBIDDEN if is_expired => rejected(
            "Vault does not accept the token: it has expired or was revoked. Pass another one. A \
             token must be renewable, or periodic, to live longer than its TTL",
        ),
        StatusCode::FORBIDDEN => rejected(format!(
            "the policy of the token denies `{path}`: it needs the capability `update` there"
        )),
        StatusCode::BAD_REQUEST if said("too old") || said("disallowed by policy") => {
            rejected(format!(
                "the data key is wrapped by a version of the transit key {place} that is below its \
                 `min_decryption_version`: set that back, and wrap the data keys again \
                 (`KeyManager::rewrap`) before you raise it"
            ))
        }
        StatusCode::BAD_REQUEST if said("key not found") => no_key(format!(
            "Vault has no transit key {place}: check the name and the namespace, or restore the \
             key from a backup"
        )),
        StatusCode::BAD_REQUEST
            if action == Action::Decrypt && DAMAGED.iter().any(|it| said(it)) =>
        {
            KeyError::Changed
        }
        StatusCode::NOT_FOUND => no_key(format!(
            "Vault has no transit engine at `{}`: check the mount, the namespace and the address",
            place.mount
        )),
        StatusCode::SERVICE_UNAVAILABLE if said("sealed") => {
            unavailable("Vault is sealed: unseal it".into())
        }
        status if is_transient(status) => unavailable(format!("Vault responded with {status}")),
        status if status.is_redirection() => unavailable(format!(
            "Vault responded with {status}: a standby node leads to another one; use the address \
             of the active node or of a load balancer"
        )),
        status => rejected(format!(
            "Vault refused `{path}` with {status}: {}",
            shown(&errors)
        )),
    }
}

/// Returns whether a later call may succeed.
pub(super) fn is_transient(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            // 412: a performance standby does not have the token yet. 472 and 473: a standby.
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::PRECONDITION_FAILED
                | StatusCode::REQUEST_TIMEOUT
        )
        || matches!(status.as_u16(), 472 | 473)
}

pub(super) fn unavailable(text: String) -> KeyError {
    KeyError::Unavailable(text.into())
}

pub(super) fn rejected(reason: impl Into<String>) -> KeyError {
    KeyError::Refused {
        reason: reason.into(),
    }
}

fn no_key(reason: String) -> KeyError {
    KeyError::UnknownKey { reason }
}

/// Returns the beginning of Vault's own text, in a form that a log can show.
pub(super) fn shown(errors: &str) -> String {
    let shown: String = errors.chars().take(SHOWN).collect();
    printable(&shown)
}

const SHOWN: usize = 200;

/// What the errors say if the ciphertext does not open under this key and context.
const DAMAGED: &[&str] = &[
    "message authentication failed",
    "invalid ciphertext",
    "could not decode",
    "version is too new",
    "unable to decrypt",
];
