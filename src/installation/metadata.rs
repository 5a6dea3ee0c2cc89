//! Your app's own data beside an installation.

use std::fmt;

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
