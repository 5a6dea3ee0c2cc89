//! Sinks of signed heads: places outside the database.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;

use async_trait::async_trait;

use super::head::SignedHead;

/// Keeps signed heads outside the database, so that a rollback of the whole log is found.
///
/// Implement it for an object store that locks its objects, a syslog host or another account. Each
/// head is small, and a process has one every 10 s at most, and only if it recorded something.
///
/// ```
/// use std::error::Error;
///
/// use async_trait::async_trait;
/// use slack_installs::audit::{HeadSink, SignedHead};
///
/// # #[derive(Debug)]
/// # struct Client;
/// # impl Client {
/// #     async fn put_object(&self, _: &str, _: String) -> std::io::Result<()> { Ok(()) }
/// # }
/// /// A bucket with a retention lock.
/// #[derive(Debug)]
/// struct Bucket {
///     client: Client,
/// }
///
/// #[async_trait]
/// impl HeadSink for Bucket {
///     async fn keep(&self, head: &SignedHead) -> Result<(), Box<dyn Error + Send + Sync>> {
///         // A name of its own for each head: an object that is locked cannot be overwritten.
///         let name = format!("{}/{:020}", head.run, head.records);
///         self.client.put_object(&name, head.to_line()).await?;
///         Ok(())
///     }
/// }
/// ```
///
/// # Errors
///
/// An error is logged. The next head says all that this one said, so it is not repeated.
#[async_trait]
pub trait HeadSink: fmt::Debug + Send + Sync + 'static {
    /// Keeps this head.
    async fn keep(&self, head: &SignedHead)
    -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Appends each head as one line of JSON to a file, and syncs the file.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
}

impl FileSink {
    /// Makes a sink of this file. It is created with the first head.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

#[async_trait]
impl HeadSink for FileSink {
    async fn keep(
        &self,
        head: &SignedHead,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (path, line) = (self.path.clone(), format!("{}\n", head.to_line()));
        tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::options()
                .create(true)
                .append(true)
                .open(path)?;
            file.write_all(line.as_bytes())?;
            file.sync_data()
        })
        .await??;
        Ok(())
    }
}

/// Writes each head to the log of the process, at the level `INFO` and the target
/// `slack_installs::audit::head`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingSink;

#[async_trait]
impl HeadSink for TracingSink {
    async fn keep(
        &self,
        head: &SignedHead,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let line = head.to_line();
        tracing::info!(target: "slack_installs::audit::head", head = line, "the audit log's head");
        Ok(())
    }
}
