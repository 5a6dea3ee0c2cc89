//! The places that a master key is read from.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::error::{KeySetupError, KeySetupErrorKind, invalid, unreadable};

#[cfg(feature = "aws-secret")]
mod aws_secret;
mod command;

#[cfg(feature = "aws-secret")]
pub(super) use aws_secret::AwsSecret;
pub(super) use command::Command;

/// Where the text with the master keys is.
#[derive(Debug)]
pub(crate) enum Source {
    #[cfg(feature = "aws-secret")]
    AwsSecret(AwsSecret),
    Command(Command),
    Descriptor(u16),
    Environment(String),
    File(PathBuf),
}

impl Source {
    /// Reads the text.
    pub(super) async fn read(&self) -> Result<Zeroizing<String>, KeySetupError> {
        match self {
            #[cfg(feature = "aws-secret")]
            Self::AwsSecret(secret) => secret.read().await,
            Self::Command(command) => command.read().await,
            Self::Descriptor(number) => {
                let path = PathBuf::from(format!("/dev/fd/{number}"));
                within(READ_LIMIT, "the master key's file descriptor", move || {
                    let opened = File::open(path).map_err(|source| {
                        let text = "the master key's file descriptor cannot be read: open it in \
                                    the program that starts this one, for example with `3< FILE`";
                        unreadable(text).with_source(source)
                    });
                    text_of(opened?, "the master key's file descriptor")
                })
                .await?
            }
            Self::Environment(name) => environment(name),
            Self::File(path) => {
                let path = path.clone();
                within(READ_LIMIT, "the master key's file", move || file(&path)).await?
            }
        }
    }

    /// Returns whether a later reading may find other keys.
    pub(super) fn may_change(&self) -> bool {
        !matches!(self, Self::Descriptor(_) | Self::Environment(_))
    }
}

fn environment(name: &str) -> Result<Zeroizing<String>, KeySetupError> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    let value = value.ok_or_else(|| {
        unreadable(
            "the environment variable that `key-env:` names is not set: set it to a master key",
        )
    })?;
    value.into_string().map(Zeroizing::new).map_err(|value| {
        drop(Zeroizing::new(OsString::into_encoded_bytes(value)));
        invalid("the environment variable with the master key is not UTF-8")
    })
}

fn file(path: &Path) -> Result<Zeroizing<String>, KeySetupError> {
    let file = File::open(path).map_err(|source| {
        unreadable("the master key's file cannot be read: check its path and permissions")
            .with_source(source)
    })?;
    #[cfg(unix)]
    warn_if_others_may_read(&file, path);
    text_of(file, "the master key's file")
}

/// Kubernetes and Docker mount secrets that everyone in the container may read. So this is a
/// warning and no error.
#[cfg(unix)]
fn warn_if_others_may_read(file: &File, path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = file.metadata().map_or(0, |data| data.permissions().mode());
    if mode & OTHERS != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format_args!("{:03o}", mode & 0o777),
            "every user of this machine may read the master key: set the file's mode to 0400 (in \
             Kubernetes: `defaultMode: 0400`)"
        );
    }
}

#[cfg(unix)]
const OTHERS: u32 = 0o007;

/// Reads a text of at most [`LONGEST`] bytes, and leaves no copy behind.
fn text_of(from: impl Read, what: &'static str) -> Result<Zeroizing<String>, KeySetupError> {
    // With this capacity, the buffer never moves to a larger one.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * LONGEST));
    let limit = u64::try_from(LONGEST).expect("a small number") + 1;
    from.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| unreadable(format!("{what} cannot be read")).with_source(source))?;
    if bytes.len() > LONGEST {
        return Err(invalid(format!("{what} is too long for a master key")));
    }
    let text = String::from_utf8(std::mem::take(&mut bytes));
    text.map(Zeroizing::new).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        invalid(format!("{what} has no master key: it is not text"))
    })
}

/// Runs blocking work on a thread of its own, because a pipe or a network file system may hang.
///
/// It is not one of the runtime's threads: the end of a runtime waits for those.
async fn within<T: Send + 'static>(
    limit: Duration,
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, KeySetupError> {
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("slack-installs key".into());
    let started = thread.spawn(move || drop(sender.send(work())));
    started.map_err(|source| unreadable(format!("{what} cannot be read")).with_source(source))?;
    let late = |_| {
        let text = format!("{what} was not read within {} s", limit.as_secs());
        KeySetupError::new(KeySetupErrorKind::Unavailable, text)
    };
    let received = timeout(limit, receiver).await.map_err(late)?;
    received.map_err(|source| unreadable(format!("{what} cannot be read")).with_source(source))
}

/// A file with hundreds of master keys is shorter.
const LONGEST: usize = 16 * 1024;

const READ_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
