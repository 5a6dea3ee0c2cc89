//! Exit codes, and the errors that lead to them. `docs/operations.md` has the table.

use std::error::Error;
use std::process::ExitCode;

use slack_installs::backend::{ConnectError, ConnectErrorKind};
use slack_installs::inspect::Timestamp;
use slack_installs::keys::KeySetupError;
use slack_installs::operate::OperateError;
use slack_installs::{
    AppError, KeyChangeError, KeyringError, LifecycleError, rotation, slack, store,
};

use crate::output::shortened;

/// An exit code. The numbers never change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Code {
    /// The command did what it says.
    Ok = 0,
    /// `doctor` found a failure, or the command failed for a reason without a code of its own.
    Failed = 1,
    /// An argument, a variable or the configuration file is wrong.
    Usage = 2,
    /// The tenant, or a part of it, is not stored.
    NotFound = 3,
    /// The command was not confirmed, or the state of the tenant or database forbids it.
    Refused = 4,
    /// The database cannot be reached, opened or changed.
    Database = 5,
    /// The key provider or a data key cannot be used.
    Keys = 6,
    /// Slack did not respond, or refused the call.
    Slack = 7,
    /// Stored data is damaged.
    Damaged = 8,
    /// SIGINT or SIGTERM ended the command. It can be run again.
    Interrupted = 130,
}

impl Code {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Database => "database",
            Self::Keys => "keys",
            Self::Slack => "slack",
            Self::Damaged => "damaged",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// Adds a sentence. It keeps the beginning if the error is longer than a report shows.
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.text = format!("{}; {more}", shortened(&self.text, LONGEST));
        self
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Code::Usage, text)
    }

    fn of(code: Code, error: &(dyn Error + 'static)) -> Self {
        Self::new(code, chain(error))
    }
}

/// Returns the texts of an error and its sources. A source that an error already shows is left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let code = match error.source() {
            Some(source) if source.is::<KeySetupError>() => Code::Keys,
            Some(source) => {
                let connect = source.downcast_ref::<ConnectError>().map(of_connect);
                let keyring = source.downcast_ref::<KeyringError>().map(of_keyring);
                connect.or(keyring).unwrap_or(Code::Usage)
            }
            None => Code::Usage,
        };
        Self::of(code, &error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::of(of_connect(&error), &error)
    }
}

impl From<KeyringError> for Failure {
    fn from(error: KeyringError) -> Self {
        Self::of(of_keyring(&error), &error)
    }
}

impl From<KeyChangeError> for Failure {
    fn from(error: KeyChangeError) -> Self {
        let code = match &error {
            KeyChangeError::InUse { .. }
            | KeyChangeError::NotDistributed { .. }
            | KeyChangeError::NotEverywhere { .. }
            | KeyChangeError::NotRetired { .. }
            | KeyChangeError::TooEarly { .. } => Code::Refused,
            KeyChangeError::Keyring(error) => of_keyring(error),
            KeyChangeError::Store(error) => of_store(error),
            KeyChangeError::UnknownRows { .. } => Code::Damaged,
            _ => Code::Failed,
        };
        Self::of(code, &error)
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::of(of_store(&error), &error)
    }
}

impl From<OperateError> for Failure {
    fn from(error: OperateError) -> Self {
        let code = match &error {
            OperateError::NotInstalled => Code::NotFound,
            OperateError::Slack(_) | OperateError::Purge(LifecycleError::Slack(_)) => Code::Slack,
            OperateError::Store(error) | OperateError::Purge(LifecycleError::Store(error)) => {
                of_store(error)
            }
            _ => Code::Failed,
        };
        Self::of(code, &error)
    }
}

impl From<rotation::Error> for Failure {
    fn from(error: rotation::Error) -> Self {
        let code = match &error {
            rotation::Error::NotInstalled { .. } => Code::NotFound,
            rotation::Error::OnHold | rotation::Error::NotRotating => Code::Refused,
            // Slack was not asked.
            rotation::Error::TryAgain { code, .. } if code.as_str() == JUST_NOW => Code::Refused,
            rotation::Error::Store(error) => of_store(error),
            rotation::Error::Interrupted => Code::Interrupted,
            _ => Code::Slack,
        };
        let failure = Self::of(code, &error);
        match &error {
            rotation::Error::TryAgain { at, code } if code.as_str() == JUST_NOW => {
                failure.and(&format!(
                    "the pair is new, and is not replaced before {}; if it leaked, add --leaked",
                    Timestamp(*at)
                ))
            }
            rotation::Error::TryAgain { at, .. } => {
                failure.and(&format!("it is not tried before {}", Timestamp(*at)))
            }
            _ => failure,
        }
    }
}

impl From<slack::Error> for Failure {
    fn from(error: slack::Error) -> Self {
        Self::of(Code::Slack, &error)
    }
}

fn of_connect(error: &ConnectError) -> Code {
    match error.kind() {
        // The database was not asked.
        ConnectErrorKind::Invalid => Code::Usage,
        _ => Code::Database,
    }
}

fn of_keyring(error: &KeyringError) -> Code {
    match error {
        KeyringError::Backend(_) => Code::Database,
        KeyringError::Copying
        | KeyringError::InUse
        | KeyringError::NoKeys
        | KeyringError::NotCopied => Code::Refused,
        KeyringError::Lost | KeyringError::RolledBack | KeyringError::Unreadable => Code::Damaged,
        _ => Code::Keys,
    }
}

fn of_store(error: &store::Error) -> Code {
    match error {
        store::Error::Conflict => Code::Refused,
        store::Error::Key(source) | store::Error::KeyringRolledBack(source) => source
            .downcast_ref::<KeyringError>()
            .map_or(Code::Keys, of_keyring),
        store::Error::Unreadable(_) => Code::Damaged,
        _ => Code::Database,
    }
}

/// What a sentence leaves of an error, so that both are shown.
const LONGEST: usize = 500;

/// A pair that was issued some minutes ago is not replaced, because Slack keeps two tokens alive.
const JUST_NOW: &str = "refreshed_just_now";

#[cfg(test)]
mod tests {
    use std::error::Error;

    use slack_installs::backend;

    use super::*;

    fn cause() -> Box<dyn Error + Send + Sync> {
        "the cause".into()
    }

    #[test]
    fn each_error_of_the_library_has_the_exit_code_that_the_page_says() {
        let conflict = || store::Error::Conflict;
        let database = || store::Error::Unavailable(cause());
        let damaged = || store::Error::Unreadable(cause());
        let key = || store::Error::Key(KeyringError::Unreadable.into());
        let unavailable = || KeyringError::Backend(backend::Error::Unavailable(cause()));
        let rolled_back = || store::Error::KeyringRolledBack(KeyringError::RolledBack.into());
        let cases: [(Failure, Code); 15] = [
            (conflict().into(), Code::Refused),
            (database().into(), Code::Database),
            (damaged().into(), Code::Damaged),
            (key().into(), Code::Damaged),
            (rolled_back().into(), Code::Damaged),
            (store::Error::Key(cause()).into(), Code::Keys),
            (OperateError::Store(conflict()).into(), Code::Refused),
            (OperateError::Store(database()).into(), Code::Database),
            (OperateError::NotInstalled.into(), Code::NotFound),
            (
                rotation::Error::Store(conflict().into()).into(),
                Code::Refused,
            ),
            (rotation::Error::OnHold.into(), Code::Refused),
            (rotation::Error::Interrupted.into(), Code::Interrupted),
            (KeyChangeError::Store(conflict()).into(), Code::Refused),
            (unavailable().into(), Code::Database),
            (KeyringError::NoKeys.into(), Code::Refused),
        ];
        for (failure, code) in cases {
            assert_eq!(failure.code, code, "{}", failure.text);
        }
        let failure = Failure::from(conflict());
        assert!(failure.text.contains("has changed since it was read"));
    }

    #[test]
    fn a_source_that_an_error_shows_is_not_repeated() {
        let failure = Failure::from(KeyringError::Backend(backend::Error::Unavailable(cause())));
        assert_eq!(
            failure.text.matches("the database is unavailable").count(),
            1
        );
        assert!(failure.text.ends_with(": the cause"), "{}", failure.text);
    }
}
