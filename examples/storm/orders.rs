//! The orders of a process, in the first line of its input. They have secrets, so they are not
//! arguments: every user of a machine can read those.

use serde::{Deserialize, Serialize};
use slack_installs::secret::ClientSecret;
use slack_installs::slack::{ClientCredentials, Environment};
use slack_installs::{ClientId, InstallationKey, LocalKeyProvider, MasterKey, TeamId};

use crate::Failure;
use crate::steady::Steady;

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Orders {
    pub(crate) backend: String,
    pub(crate) callers: usize,
    pub(crate) each: Each,
    pub(crate) workspaces: usize,
    pub(crate) slack: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) master_key: String,
    /// Where to pause once. The parent then kills the process, or lets it continue.
    pub(crate) pause_at: Option<Step>,
    /// `None` in a storm, where callers request each token once.
    pub(crate) steady: Option<Steady>,
}

/// Who requests a token once for each workspace.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Each {
    /// Every caller. Each starts at a different workspace.
    Caller,
    /// Every process. Its callers share the workspaces, in the same order in every process.
    Process,
}

/// A moment in a refresh.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Step {
    /// The lease is acquired, and Slack was not called yet.
    Call,
    /// Slack has responded, and the pair is not saved yet.
    Answer,
}

impl Orders {
    pub(crate) fn environment(&self) -> Result<Environment, Failure> {
        Ok(Environment::at(&self.slack)?)
    }

    pub(crate) fn credentials(&self) -> Result<ClientCredentials, Failure> {
        Ok(ClientCredentials {
            client_id: self.client_id()?,
            client_secret: ClientSecret::new(&*self.client_secret)?,
        })
    }

    pub(crate) fn client_id(&self) -> Result<ClientId, Failure> {
        Ok(ClientId::new(&*self.client_id)?)
    }

    pub(crate) fn keys(&self) -> Result<LocalKeyProvider, Failure> {
        Ok(LocalKeyProvider::new(MasterKey::parse(&self.master_key)?))
    }

    pub(crate) fn tenants(&self) -> Result<Vec<InstallationKey>, Failure> {
        (0..self.workspaces).map(tenant).collect()
    }
}

pub(crate) fn tenant(number: usize) -> Result<InstallationKey, Failure> {
    Ok(InstallationKey::workspace(TeamId::new(format!(
        "T0STORM{number:05}"
    ))?))
}
