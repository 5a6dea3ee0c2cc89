//! Opens an app's parts for an operator's program: its store alone, its store for reading, or the
//! parts that act on tenants. None of them serves requests, so no signing secret is needed.

use std::sync::Arc;

use super::SlackAppBuilder;
use super::builder::{BASIC_INFORMATION, required};
use super::env::{self, CLIENT_ID, CLIENT_SECRET};
use super::error::AppError;
use crate::audit::Audit;
use crate::backend::{self, Backend, ConnectError, ConnectErrorKind};
use crate::encrypted::{EncryptedStore, KeyringError};
use crate::error_chain::error_chain;
use crate::events::Lifecycle;
use crate::inspect::{Check, Diagnosis, Grade, HealthCheck, check_audit, check_slack};
use crate::keys::KeySetupError;
use crate::operate::Operator;
use crate::rotation::{RotationConfig, TokenRotator};
use crate::secret::ClientSecret;
use crate::slack::ClientCredentials;
use crate::tenant::ClientId;

/// The store of an app, over the backend of its URL.
pub type AppStore = EncryptedStore<Arc<dyn Backend>>;

/// What an operator's program needs of an app.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OperatorOptions {
    /// Whether a purge leaves a note for the app's own processes, which call its lifecycle hooks.
    /// Set it to `false` if the app has no hooks. The default is `true`.
    pub leaves_notes: bool,
    /// Whether the program calls Slack, so that it needs the client secret. The default is `true`.
    pub calls_slack: bool,
}

impl Default for OperatorOptions {
    fn default() -> Self {
        Self {
            leaves_notes: true,
            calls_slack: true,
        }
    }
}

/// The parts of an app that act on tenants.
#[derive(Debug)]
#[non_exhaustive]
pub struct OperatorParts {
    /// The store.
    pub store: AppStore,
    /// Freezes, revokes, purges and reconciles tenants.
    pub operator: Operator,
    /// Refreshes tokens. Call its `shutdown` before the program ends.
    pub rotator: TokenRotator,
    /// The audit log, if [`SlackAppBuilder::audit`] was called. Close it before the program ends.
    pub audit: Option<Audit>,
}

impl SlackAppBuilder {
    /// Opens the app's store and nothing else. It needs the client id, the database and the keys.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub async fn open_store(mut self) -> Result<AppStore, AppError> {
        let app = self.client_id()?;
        self.encrypted(&app, Access::Write).await
    }

    /// As [`open_store`](Self::open_store), for reading only. Creates no database, no table and no
    /// key, and every change is refused.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub async fn open_store_read_only(mut self) -> Result<AppStore, AppError> {
        let app = self.client_id()?;
        self.encrypted(&app, Access::Read).await
    }

    /// Opens the parts that act on tenants. It needs the client id, the database and the keys, and
    /// for calls to Slack the client secret.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub async fn open_operator(
        mut self,
        options: OperatorOptions,
    ) -> Result<OperatorParts, AppError> {
        let client_id = self.client_id()?;
        let client_secret = match self.values.client_secret.take() {
            None if !options.calls_slack => {
                ClientSecret::new(NO_SECRET).expect("the constant has the form of a secret")
            }
            secret => required(secret, CLIENT_SECRET, BASIC_INFORMATION)?,
        };
        let credentials = ClientCredentials {
            client_id,
            client_secret,
        };
        let (store, audit) = self.encrypted_to_write(&credentials.client_id).await?;
        let clock = self.clock.clone();
        let slack = self.slack_client(&credentials)?.with_clock(clock.clone());
        let lifecycle = Lifecycle::new(store.clone(), slack.clone()).with_clock(clock.clone());
        let lifecycle = match self.lifecycle_hooks.take() {
            Some(hooks) => lifecycle.with_hooks(hooks),
            None if options.leaves_notes => lifecycle.leaving_notes(),
            None => lifecycle,
        };
        let config = RotationConfig {
            is_pkce_app: self.is_pkce_app,
            ..RotationConfig::new(credentials.clone())
        };
        let rotator = TokenRotator::new(config, slack.clone(), store.clone());
        Ok(OperatorParts {
            operator: Operator::new(store.clone(), slack, lifecycle, credentials)
                .with_clock(clock.clone()),
            rotator: rotator.with_clock(clock),
            store,
            audit,
        })
    }

    /// Checks the key provider, the database with its settings, the keys, all rows, Slack and the
    /// clock. Changes nothing. `progress` is called with the number of rows so far.
    ///
    /// A part that cannot be opened is a failed check.
    ///
    /// # Errors
    ///
    /// Returns [`AppError`] if a value is missing or wrong.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. The future can be dropped at any point.
    pub async fn diagnose(
        mut self,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Diagnosis, AppError> {
        let app = self.client_id()?;
        let clock = self.clock.clone();
        let credentials = ClientCredentials {
            client_id: app.clone(),
            client_secret: ClientSecret::new(NO_SECRET)
                .expect("the constant has the form of a secret"),
        };
        let slack = self.slack_client(&credentials)?.with_clock(clock.clone());
        let mut diagnosis = Diagnosis::default();
        let url = self.values.url.as_ref().and_then(|url| url.as_ref().ok());
        let url = url.cloned();
        match self.encrypted(&app, Access::Read).await {
            Ok(store) => {
                diagnosis
                    .checks
                    .push(check_schema(url.as_ref().map(|url| url.as_str())).await);
                diagnosis.checks.push(store.check_keys().await);
                let checks = check_rows(&store, clock.now(), &mut progress).await;
                diagnosis.checks.extend(checks);
                let audit = check_audit(&store, clock.now()).await;
                diagnosis.checks.extend(audit);
            }
            Err(error) => diagnosis.checks.push(check_of(error)?),
        }
        diagnosis.checks.extend(check_slack(&slack).await);
        Ok(diagnosis)
    }

    /// Opens the store at the URL, with its audit log.
    pub(super) async fn encrypted_to_write(
        &mut self,
        app: &ClientId,
    ) -> Result<(AppStore, Option<Audit>), AppError> {
        let store = self.encrypted(app, Access::Write).await?;
        let Some(options) = self.audit.take() else {
            return Ok((store, None));
        };
        let options = options.with_clock(self.clock.clone());
        let audit = Audit::open(Arc::new(store.clone()), options).await;
        let audit = audit.map_err(AppError::audit)?;
        Ok((store.with_witness(audit.clone()), Some(audit)))
    }

    /// Opens the store at the URL.
    async fn encrypted(&mut self, app: &ClientId, access: Access) -> Result<AppStore, AppError> {
        let url = required(
            self.values.url.take(),
            env::URL,
            "set it to a database URL, such as `sqlite:installations.sqlite3`, or call \
             `database` or `store`",
        )?;
        let keys = required(
            self.values.keys.take(),
            env::MASTER_KEY,
            "make a key with `openssl rand -base64 32`, and store it apart from the database; \
             or set SLACK_INSTALLS_MASTER_KEY_FILE to the path of a file with the key, or \
             SLACK_INSTALLS_KEYS to the URL of a key provider",
        )?;
        let keys = keys.opened().await?;
        let store = match access {
            Access::Read => {
                let backend = backend::connect_read_only(&url).await?;
                EncryptedStore::open_existing(backend, keys, app.clone()).await?
            }
            Access::Write => {
                let backend = backend::connect(&url).await?;
                EncryptedStore::open(backend, keys, app.clone()).await?
            }
        };
        Ok(store.with_clock(self.clock.clone()))
    }

    fn client_id(&mut self) -> Result<ClientId, AppError> {
        let id = self.values.client_id.take();
        required(id, CLIENT_ID, BASIC_INFORMATION)
    }
}

/// What a store is opened for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Access {
    Read,
    Write,
}

async fn check_rows(
    store: &AppStore,
    now: std::time::SystemTime,
    progress: &mut (impl FnMut(u64) + Send),
) -> Vec<Check> {
    let mut health = HealthCheck::default();
    let mut from = None;
    loop {
        match store.check_rows(&mut health, from, now).await {
            Ok(next) => from = next,
            Err(error) => {
                let remedy =
                    "check the database and its log, and run `slack-installs doctor` again";
                let failed = Check::new("database", Grade::Failure, error_chain(&error), remedy);
                let mut checks = health.checks();
                checks.insert(0, failed);
                return checks;
            }
        }
        progress(health.rows());
        if from.is_none() {
            return health.checks();
        }
    }
}

/// Checks that no part of the schema was dropped. The database was opened before.
async fn check_schema(url: Option<&str>) -> Check {
    let missing = match url {
        Some(url) => backend::missing(url).await,
        None => Ok(Vec::new()),
    };
    match missing {
        Ok(missing) if missing.is_empty() => {
            Check::ok("database", "it responds, and its settings lose no rows")
        }
        Ok(missing) => Check::new(
            "database",
            Grade::Warning,
            format!("it responds, but lacks {}", missing.join(", ")),
            "`slack-installs migrate`, which creates it again, as the tables' owner",
        ),
        Err(error) => Check::new(
            "database",
            Grade::Warning,
            format!(
                "it responds, but its schema cannot be read: {}",
                error_chain(&error)
            ),
            "do what the text says; docs/runbook.md has more, under Database",
        ),
    }
}

/// Returns the check that fails with this error. A missing or wrong value stays an error.
fn check_of(error: AppError) -> Result<Check, AppError> {
    let text = error_chain(&error);
    let Some(source) = std::error::Error::source(&error) else {
        return Err(error);
    };
    if let Some(connect) = source.downcast_ref::<ConnectError>() {
        let remedy = match connect.kind() {
            ConnectErrorKind::NotMigrated => {
                "check the database URL; if it is right, run `slack-installs migrate`"
            }
            ConnectErrorKind::Incomplete => {
                "restore the database from a backup; docs/runbook.md has more, under Database"
            }
            ConnectErrorKind::Unavailable => {
                "check that the server runs and can be reached from this machine"
            }
            _ => "do what the text says; docs/runbook.md has more, under Database",
        };
        return Ok(Check::new("database", Grade::Failure, text, remedy));
    }
    if let Some(keyring) = source.downcast_ref::<KeyringError>() {
        let (name, remedy) = match keyring {
            KeyringError::Backend(_) => (
                "database",
                "check that the server runs and can be reached from this machine",
            ),
            KeyringError::NoKeys | KeyringError::Copying => (
                "database",
                "do what the text says; docs/runbook.md has more, under Database",
            ),
            _ => (
                "keys",
                "do what the text says; docs/runbook.md has more, under Keys",
            ),
        };
        return Ok(Check::new(name, Grade::Failure, text, remedy));
    }
    if source.is::<KeySetupError>() {
        let remedy = "do what the text says; docs/keys.md has the set-up of each key provider";
        return Ok(Check::new("keys", Grade::Failure, text, remedy));
    }
    Err(error)
}

/// Stands for the client secret where Slack is not called.
const NO_SECRET: &str = "not-set";

/// The variables that [`SlackApp::from_env`](super::SlackApp::from_env) reads.
pub(super) const VARIABLES: &[&str] = &[
    CLIENT_ID,
    CLIENT_SECRET,
    env::KEYS,
    env::MASTER_KEY,
    env::MASTER_KEY_FILE,
    env::OLD_CLIENT_SECRET,
    env::REDIRECT_URI,
    env::SIGNING_SECRET,
    env::SLACK,
    env::URL,
];
