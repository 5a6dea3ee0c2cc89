//! Your app's own data about an installation.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::Installation;
use crate::tenant::UserId;

/// The metadata of one person: of the last flow that this person completed.
#[derive(Clone, Eq, PartialEq)]
pub struct UserMetadata {
    /// The person.
    pub user: UserId,
    /// The text that your app passed to `InstallOptions`.
    pub text: String,
}

impl fmt::Debug for UserMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserMetadata")
            .field("user", &self.user)
            .field("text", &"[redacted]")
            .finish()
    }
}

impl Installation {
    /// Sets the metadata of the flow that issued this installation. It is that of the person who
    /// completed the flow, and the tenant's only if the flow installed the bot.
    pub(crate) fn set_metadata(&mut self, text: Option<String>) {
        let own = text.clone().zip(self.installed_by.clone());
        self.user_metadata = own.map(|(text, user)| UserMetadata { user, text });
        self.metadata = text.filter(|_| self.bot.is_some());
    }
}

impl Installation {
    /// Reads the tenant's metadata as a value that your app wrote with
    /// [`InstallOptions::with_metadata`](crate::InstallOptions::with_metadata). `None` if there is
    /// none.
    ///
    /// # Errors
    ///
    /// [`MetadataError::Read`] if the text is not the JSON form of such a value.
    pub fn metadata_as<T: DeserializeOwned>(&self) -> Result<Option<T>, MetadataError> {
        self.metadata.as_deref().map(read).transpose()
    }

    /// Reads the person's own metadata, like [`metadata_as`](Self::metadata_as).
    ///
    /// # Errors
    ///
    /// [`MetadataError::Read`] if the text is not the JSON form of such a value.
    pub fn user_metadata_as<T: DeserializeOwned>(&self) -> Result<Option<T>, MetadataError> {
        let own = self.user_metadata.as_ref();
        own.map(|own| read(&own.text)).transpose()
    }
}

/// Why a typed metadata cannot be written or read. Does not contain any of it, because an error
/// may be logged.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MetadataError {
    /// The text is not JSON, or not of the wanted type.
    #[error(
        "the metadata is not the JSON form of the wanted type, at line {line}, column {column}"
    )]
    Read {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// The value has no JSON form, such as a map whose keys are not texts.
    #[error(
        "the metadata has no JSON form: its type refuses it, or a map has keys other than text"
    )]
    Write,
}

/// Writes a value as JSON.
pub(crate) fn write<T: Serialize + ?Sized>(value: &T) -> Result<String, MetadataError> {
    serde_json::to_string(value).map_err(|_| MetadataError::Write)
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, MetadataError> {
    serde_json::from_str(text).map_err(|error| MetadataError::Read {
        line: error.line(),
        column: error.column(),
    })
}
