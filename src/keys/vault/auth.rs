//! How the app proves itself to Vault.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

/// How a [`VaultTransit`](super::VaultTransit) gets its token.
#[derive(Clone)]
pub struct VaultAuth(pub(super) Method);

#[derive(Clone)]
pub(super) enum Method {
    AppRole {
        mount: String,
        role_id: String,
        secret_id: Secret,
    },
    Token(Secret),
}

/// A secret, or the file that has it. A file is read at each use, because an agent may replace it.
#[derive(Clone)]
pub(super) enum Secret {
    File(PathBuf),
    Text(Arc<Zeroizing<String>>),
}

impl VaultAuth {
    /// Uses this token, and renews it if it can be renewed.
    #[must_use]
    pub fn token(token: impl Into<String>) -> Self {
        Self(Method::Token(Secret::text(token)))
    }

    /// Uses the token in this file, which Vault's agent writes, and renews it if it can be renewed.
    /// If the token expires, the file is read again.
    #[must_use]
    pub fn token_file(path: impl Into<PathBuf>) -> Self {
        Self(Method::Token(Secret::File(path.into())))
    }

    /// Logs in with this AppRole. Renews the token, and logs in again when it ends.
    #[must_use]
    pub fn app_role(role_id: impl Into<String>, secret_id: impl Into<String>) -> Self {
        Self::role(role_id.into(), Secret::text(secret_id))
    }

    /// Logs in with this AppRole and the secret id in this file. The file is read at each login.
    #[must_use]
    pub fn app_role_file(role_id: impl Into<String>, secret_id_file: impl Into<PathBuf>) -> Self {
        Self::role(role_id.into(), Secret::File(secret_id_file.into()))
    }

    /// Sets the path at which AppRole is mounted. The default is `approle`. Has no effect on a
    /// token.
    #[must_use]
    pub fn with_mount(mut self, path: impl Into<String>) -> Self {
        if let Method::AppRole { mount, .. } = &mut self.0 {
            *mount = path.into();
        }
        self
    }

    fn role(role_id: String, secret_id: Secret) -> Self {
        Self(Method::AppRole {
            mount: "approle".into(),
            role_id,
            secret_id,
        })
    }
}

impl fmt::Debug for VaultAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Method::AppRole { .. } => "VaultAuth(AppRole, [redacted])",
            Method::Token(_) => "VaultAuth(token, [redacted])",
        })
    }
}

impl Secret {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(Arc::new(Zeroizing::new(text.into())))
    }

    /// Returns the text without white space around it.
    pub(super) fn read(&self) -> std::io::Result<Zeroizing<String>> {
        Ok(match self {
            Self::File(path) => {
                let text = Zeroizing::new(std::fs::read_to_string(path)?);
                Zeroizing::new(text.trim().to_owned())
            }
            Self::Text(text) => Zeroizing::new(text.trim().to_owned()),
        })
    }
}
