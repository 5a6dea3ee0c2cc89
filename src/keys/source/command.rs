//! A master key that a program writes to its output.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use zeroize::Zeroizing;

use super::{READ_LIMIT, text_of, within};
use crate::keys::error::{KeySetupError, KeySetupErrorKind, unreadable};

/// A program with its arguments. No shell runs it.
pub(crate) struct Command {
    program: PathBuf,
    arguments: Vec<OsString>,
    limit: Duration,
}

impl fmt::Debug for Command {
    /// Omits the arguments, because one of them may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

impl Command {
    pub(in crate::keys) fn new(
        program: PathBuf,
        arguments: Vec<OsString>,
        seconds: Option<u64>,
    ) -> Self {
        Self {
            program,
            arguments,
            limit: seconds.map_or(READ_LIMIT, Duration::from_secs),
        }
    }

    pub(super) async fn read(&self) -> Result<Zeroizing<String>, KeySetupError> {
        let until = Instant::now() + self.limit;
        let child = std::process::Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = Running(child.map_err(|source| {
            unreadable(
                "the master key's command cannot be started: check its path. It is run without a \
                 shell; each argument is an option `arg=…`",
            )
            .with_source(source)
        })?);
        let output = child.0.stdout.take().expect("the output is piped");
        let what = "the output of the master key's command";
        let read = within(self.limit, what, move || text_of(output, what));
        let text = timeout_at(until, read).await;
        let text = text.map_err(|_| self.late())???;
        let status = timeout_at(until, child.ended()).await;
        let status = status.map_err(|_| self.late())?;
        if status.success() {
            return Ok(text);
        }
        Err(unreadable(format!(
            "the master key's command failed: {status}"
        )))
    }

    fn late(&self) -> KeySetupError {
        let text = format!(
            "the master key's command did not end within {} s, and was killed; its time limit is \
             the option `timeout`",
            self.limit.as_secs()
        );
        KeySetupError::new(KeySetupErrorKind::Unavailable, text)
    }
}

/// A program that is killed when this value is dropped.
struct Running(Child);

impl Running {
    async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Ok(Some(status)) = self.0.try_wait() {
                return status;
            }
            sleep(POLL).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const POLL: Duration = Duration::from_millis(10);
