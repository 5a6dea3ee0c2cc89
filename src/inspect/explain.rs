//! Explains one tenant: how a request of it resolves, and what is wrong.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use super::finding::{self, Finding, Grade};
use super::timestamp::{Timestamp, span};
use crate::backend::Backend;
use crate::encrypted::{
    EncryptedStore, InspectedChain, InspectedInstall, InspectedPage, InspectedRow, RowContents,
    RowFault,
};
use crate::installation::{Home, Scopes};
use crate::store::{Credential, Error, Subject};
use crate::tenant::{EnterpriseId, InstallationKey, UserId};

/// What to explain.
#[derive(Clone, Debug)]
pub struct Question {
    /// The tenant. If it also names the organisation, a workspace without an own installation is
    /// looked for in the organisation's installation.
    pub tenant: InstallationKey,
    /// The scopes that the app requests for the bot, if known.
    pub scopes: Option<Scopes>,
    /// The scopes that the app requests for users, if known.
    pub user_scopes: Option<Scopes>,
    /// The current time.
    pub now: SystemTime,
}

/// How a request of a tenant resolves, and what is wrong. Has no secrets.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The tenant that was asked for.
    pub tenant: InstallationKey,
    /// How a request resolves, step by step.
    pub steps: Vec<Step>,
    /// The installation that serves the tenant's requests; `None` if none does.
    pub served_by: Option<InstallationKey>,
    /// The facts of that installation.
    pub installation: Option<InstallReport>,
    /// The chains of tokens: the bot's, and each user's.
    pub chains: Vec<ChainReport>,
    /// The operator's hold, or the record that it was lifted.
    pub hold: Option<HoldReport>,
    /// The workspaces that an org-wide installation was granted, or lost.
    pub workspaces: Vec<AccessReport>,
    /// What was not delivered to the app's hooks yet.
    pub pending: Vec<PendingReport>,
    /// The stored rows.
    pub rows: Vec<RowReport>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// One step of a resolution.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// Whether the step succeeds.
    pub is_ok: bool,
    /// What is looked at.
    pub name: &'static str,
    /// The outcome.
    pub text: String,
}

/// The facts of an installation.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct InstallReport {
    /// The app.
    pub app_id: String,
    /// The organisation.
    pub enterprise_id: Option<String>,
    /// The organisation's name.
    pub enterprise_name: Option<String>,
    /// The workspace.
    pub team_id: Option<String>,
    /// The workspace's name.
    pub team_name: Option<String>,
    /// Whether the organisation installed the app for its workspaces at once.
    pub is_enterprise_install: bool,
    /// The URL of the workspace or organisation.
    pub url: Option<String>,
    /// Who installed the app.
    pub installed_by: Option<UserId>,
    /// When the app was installed.
    pub installed_at: Timestamp,
    /// The channels that have a webhook.
    pub webhooks: Vec<WebhookReport>,
    /// Whether the app stored metadata with it.
    pub has_metadata: bool,
}

/// A webhook, without its URL.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct WebhookReport {
    /// The channel's id.
    pub channel_id: String,
    /// The channel's name.
    pub channel: String,
}

/// A chain of tokens, without the tokens.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ChainReport {
    /// `bot`, or the user's id.
    pub credential: String,
    /// Whether the token rotates.
    pub rotates: bool,
    /// Whether Slack refused every refresh token.
    pub is_dead: bool,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// The requested scopes that were not granted; empty if the requested scopes are not known.
    pub missing_scopes: Vec<String>,
    /// When the access token was issued: at the installation, or by the last successful refresh.
    pub issued_at: Timestamp,
    /// When the access token expires. `None` if it does not expire, or was withdrawn.
    pub expires_at: Option<Timestamp>,
    /// Whether the access token ended before it expired, because it leaked or Slack revoked it, and
    /// no new one is stored yet.
    pub is_withdrawn: bool,
    /// When a worker refreshes it.
    pub due_at: Option<Timestamp>,
    /// How often the pair was replaced since the installation.
    pub refreshes: u64,
    /// How many refreshes failed since the last successful one.
    pub failures: u32,
    /// The error code of the last failure.
    pub last_error: Option<String>,
    /// Calls to Slack whose outcome is not known.
    pub lost_calls: u32,
    /// When the last of these calls was made.
    pub attempted_at: Option<Timestamp>,
    /// The time before which no refresh is tried.
    pub retry_at: Option<Timestamp>,
    /// When the lease of the process that refreshes the chain ends.
    pub lease_until: Option<Timestamp>,
}

/// An operator's hold.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct HoldReport {
    /// Whether the hold is on.
    pub is_on: bool,
    /// The reason.
    pub reason: String,
    /// When it was put on or lifted. `None` if the stored hold cannot be read.
    pub at: Option<Timestamp>,
}

/// An org-wide installation's access to one workspace.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AccessReport {
    /// The workspace.
    pub team_id: String,
    /// Whether it is served.
    pub is_granted: bool,
    /// When that changed.
    pub at: Timestamp,
}

/// A departure or a notice that was not delivered to the app's hooks yet.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PendingReport {
    /// `departure`, `authorization_revoked`, `reinstall_needed` or `workspace_left`.
    pub what: &'static str,
    /// The reason.
    pub reason: String,
    /// When it happened.
    pub at: Timestamp,
    /// How often the report was put off.
    pub attempts: u32,
    /// When the hook is called next.
    pub due_at: Option<Timestamp>,
}

/// A stored row.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RowReport {
    /// The name of the row within the tenant.
    pub slot: String,
    /// The data key that sealed it.
    pub key_id: Option<String>,
    /// `opens`, `damaged`, or `without_key`.
    pub state: &'static str,
    /// The row's version.
    pub version: String,
    /// When the row is due.
    pub due_at: Option<Timestamp>,
}

/// Explains a tenant. Reads its rows, and if it is a workspace without an own installation, the
/// organisations' rows.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # use slack_installs::backend::MemoryBackend;
/// # use slack_installs::{ClientId, Clock, EncryptedStore, LocalKeyProvider, MasterKey};
/// use slack_installs::inspect::{Question, explain};
///
/// # let app = ClientId::new("1.2")?;
/// # let keys = LocalKeyProvider::new(MasterKey::generate());
/// # let store = EncryptedStore::open(MemoryBackend::default(), keys, app).await?;
/// let question = Question {
///     tenant: "T0ALPHA0001".parse()?,
///     scopes: None,
///     user_scopes: None,
///     now: Clock::default().now(),
/// };
/// let explanation = explain(&store, &question).await?;
/// assert!(explanation.served_by.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Error::Unavailable`], if the database does not respond. A row that does not open is a finding.
///
/// # Cancel safety
///
/// Changes nothing. You can drop the call at any point.
pub async fn explain<B: Backend>(
    store: &EncryptedStore<B>,
    question: &Question,
) -> Result<Explanation, Error> {
    let tenant = &question.tenant;
    let own = store.inspect_tenant(tenant).await?;
    let mut explanation = Explanation::of(tenant, &own, question);
    if explanation.served_by.is_some() || tenant.is_org() || explanation.has_broken_install() {
        return Ok(explanation);
    }
    let Some(team) = tenant.team() else {
        return Ok(explanation);
    };
    let orgs = match tenant.enterprise() {
        Some(org) => vec![org.clone()],
        None => store.organisations_of(team).await?,
    };
    for org in orgs {
        explanation.through(store, &org, question).await?;
        if explanation.served_by.is_some() {
            break;
        }
    }
    if explanation.served_by.is_none() {
        explanation.step(false, "result", "no installation serves this tenant".into());
    }
    Ok(explanation)
}

impl Explanation {
    /// Explains a tenant from its own rows.
    pub(super) fn of(tenant: &InstallationKey, page: &InspectedPage, question: &Question) -> Self {
        let mut it = Self {
            tenant: tenant.clone(),
            steps: Vec::new(),
            served_by: None,
            installation: None,
            chains: Vec::new(),
            hold: None,
            workspaces: Vec::new(),
            pending: Vec::new(),
            rows: Vec::new(),
            findings: Vec::new(),
        };
        it.add(tenant, page, question);
        it
    }

    /// Returns whether the installation's row exists and does not open.
    fn has_broken_install(&self) -> bool {
        let mut rows = self.rows.iter();
        rows.any(|row| row.slot == "install" && row.state != OPENS)
    }

    /// Returns whether anything is stored for the tenant.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.served_by.is_some() || !self.rows.is_empty()
    }

    fn step(&mut self, is_ok: bool, name: &'static str, text: String) {
        self.steps.push(Step { is_ok, name, text });
    }

    /// Looks for the tenant in an organisation's installation.
    async fn through<B: Backend>(
        &mut self,
        store: &EncryptedStore<B>,
        org: &EnterpriseId,
        question: &Question,
    ) -> Result<(), Error> {
        let key = InstallationKey::org(org.clone());
        let page = store.inspect_tenant(&key).await?;
        let team = self.tenant.team().cloned();
        let access = page.rows.iter().find_map(|row| match &row.contents {
            Ok(RowContents::Access {
                team: of,
                is_granted,
                at,
            }) if Some(of) == team.as_ref() => Some((*is_granted, *at)),
            _ => None,
        });
        if let Some((false, at)) = access {
            let at = Timestamp(at);
            let text = format!("the installation of {org} lost this workspace at {at}");
            self.step(false, "organisation", text.clone());
            self.findings.push(Finding::new(
                Grade::Failure,
                "access_revoked",
                text,
                format!("have an administrator of {org} add the app to this workspace again"),
            ));
            return Ok(());
        }
        let text = format!("the workspace may be served by the installation of {org}");
        self.step(true, "organisation", text);
        self.add(&key, &page, question);
        Ok(())
    }

    /// Adds the rows of the installation of this key.
    fn add(&mut self, key: &InstallationKey, page: &InspectedPage, question: &Question) {
        for row in &page.rows {
            self.add_row(row, question);
        }
        for text in &page.malformed {
            self.findings.push(Finding::new(
                Grade::Failure,
                finding::DAMAGED,
                format!("the row `{text}` cannot be parsed"),
                "restore the row from a backup, or have the app installed again",
            ));
        }
        self.findings.sort_by_key(|it| std::cmp::Reverse(it.grade));
        self.resolve(key, &page.rows, question.now);
    }

    fn add_row(&mut self, row: &InspectedRow, question: &Question) {
        self.rows.push(RowReport::of(row));
        self.findings.extend(finding::of_row(row, question.now));
        match &row.contents {
            Ok(RowContents::Access {
                team,
                is_granted,
                at,
            }) => self.workspaces.push(AccessReport {
                team_id: team.to_string(),
                is_granted: *is_granted,
                at: Timestamp(*at),
            }),
            Ok(RowContents::Chain(chain)) => {
                let requested = match chain.credential {
                    Credential::Bot => question.scopes.as_ref(),
                    Credential::User(_) => question.user_scopes.as_ref(),
                };
                let found = finding::of_scopes(&chain.credential, &chain.scopes, requested);
                self.findings.extend(found);
                self.chains.push(ChainReport::of(chain, requested));
            }
            Ok(RowContents::Departure {
                reason,
                at,
                attempts,
            }) => self.push_pending("departure", reason, *at, *attempts, row.due_at),
            Ok(RowContents::Notice {
                subject,
                reason,
                at,
                attempts,
            }) => {
                let what = match subject {
                    Subject::Authorization(_) => "authorization_revoked",
                    Subject::Chain(_) => "reinstall_needed",
                    Subject::Workspace(_) => "workspace_left",
                };
                self.push_pending(what, reason, *at, *attempts, row.due_at);
            }
            Ok(RowContents::Hold(hold)) => {
                self.hold = Some(HoldReport {
                    is_on: hold.is_on,
                    reason: hold.reason.clone(),
                    at: Some(Timestamp(hold.at)),
                });
            }
            Ok(RowContents::Install(install)) => {
                self.installation = Some(InstallReport::of(install));
            }
            // A hold that cannot be read is a hold.
            Err(_) if row.slot == "hold" => {
                self.hold = Some(HoldReport {
                    is_on: true,
                    reason: "the stored hold cannot be read, so it counts as on".to_owned(),
                    at: None,
                });
            }
            Ok(RowContents::Installer(_) | RowContents::Other) | Err(_) => {}
        }
    }

    fn push_pending(
        &mut self,
        what: &'static str,
        reason: &str,
        at: SystemTime,
        attempts: u32,
        due_at: Option<SystemTime>,
    ) {
        self.pending.push(PendingReport {
            what,
            reason: reason.to_owned(),
            at: Timestamp(at),
            attempts,
            due_at: due_at.map(Timestamp),
        });
    }

    /// Adds the steps of a request that the installation of this key would serve.
    fn resolve(&mut self, key: &InstallationKey, rows: &[InspectedRow], now: SystemTime) {
        let install = rows.iter().find(|row| row.slot == "install");
        match install.map(|row| &row.contents) {
            None => {
                self.step(false, "installation", format!("{key} has none of its own"));
                return;
            }
            Some(Err(fault)) => {
                let text = match fault {
                    RowFault::Damaged => format!("the installation of {key} does not open"),
                    RowFault::WithoutKey(_) => {
                        format!("the data key of the installation of {key} cannot be used")
                    }
                };
                self.step(false, "installation", text);
                return;
            }
            Some(Ok(RowContents::Install(install))) => {
                let at = Timestamp(install.installed_at);
                let by = install.installed_by.as_ref();
                let by = by.map_or_else(|| "an unknown user".to_owned(), ToString::to_string);
                let text = format!("{key}, installed by {by} at {at}");
                self.step(true, "installation", text);
                self.served_by = Some(key.clone());
            }
            Some(Ok(_)) => {}
        }
        match &self.hold {
            Some(hold) => self.step(!hold.is_on, "hold", hold.to_string()),
            None => self.step(true, "hold", "none".to_owned()),
        }
        for row in rows {
            match &row.contents {
                Ok(RowContents::Chain(chain)) => {
                    let (is_ok, text) = token_step(chain, now);
                    self.step(is_ok, "token", text);
                }
                Err(_) if row.slot == "bot" || row.slot.starts_with("user/") => {
                    self.step(
                        false,
                        "token",
                        format!("the row `{}` does not open", row.slot),
                    );
                }
                _ => {}
            }
        }
        if self.chains.is_empty() {
            self.step(false, "token", "no token is stored".to_owned());
        }
    }
}

/// Returns whether this token is handed out, and a sentence about it.
fn token_step(row: &InspectedChain, now: SystemTime) -> (bool, String) {
    let chain = &row.chain;
    let whose = finding::whose(&row.credential);
    let rotates = chain.refresh.is_some() && !chain.is_dead;
    let left = chain.expires_at.map(|at| at.duration_since(now));
    let (is_valid, state) = match (finding::withdrawal(chain), left) {
        (Some(why), _) => (false, why.to_owned()),
        (None, None) => (true, "does not expire".to_owned()),
        (None, Some(Ok(left))) => (true, format!("is valid for {}", span(left))),
        (None, Some(Err(error))) => (false, format!("expired {} ago", span(error.duration()))),
    };
    let next = match (is_valid, rotates) {
        _ if chain.is_dead => ", and Slack refused every refresh token",
        (true, true) => ", and is refreshed before",
        (false, true) => ", and the next request refreshes it",
        (_, false) => "",
    };
    (is_valid || rotates, format!("{whose}: {state}{next}"))
}

impl InstallReport {
    fn of(install: &InspectedInstall) -> Self {
        let home: &Home = &install.home;
        let (enterprise, team) = (home.enterprise(), home.team());
        let webhooks = install.webhooks.iter();
        let webhooks = webhooks.map(|(channel_id, channel)| WebhookReport {
            channel_id: channel_id.clone(),
            channel: channel.clone(),
        });
        Self {
            app_id: install.app_id.to_string(),
            enterprise_id: enterprise.map(|it| it.id.to_string()),
            enterprise_name: enterprise.and_then(|it| it.name.clone()),
            team_id: team.map(|it| it.id.to_string()),
            team_name: team.and_then(|it| it.name.clone()),
            is_enterprise_install: home.is_enterprise_install(),
            url: install.url.clone(),
            installed_by: install.installed_by.clone(),
            installed_at: Timestamp(install.installed_at),
            webhooks: webhooks.collect(),
            has_metadata: install.has_metadata,
        }
    }
}

impl ChainReport {
    fn of(row: &InspectedChain, requested: Option<&Scopes>) -> Self {
        let chain = &row.chain;
        let missing = requested.map(|requested| row.scopes.missing(requested));
        let missing = missing.unwrap_or_default();
        Self {
            credential: match &row.credential {
                Credential::Bot => "bot".to_owned(),
                Credential::User(id) => id.to_string(),
            },
            rotates: chain.refresh.is_some(),
            is_dead: chain.is_dead,
            scopes: row.scopes.iter().map(str::to_owned).collect(),
            missing_scopes: missing.iter().map(str::to_owned).collect(),
            issued_at: Timestamp(chain.issued_at),
            expires_at: finding::expiry(chain).map(Timestamp),
            is_withdrawn: finding::withdrawal(chain).is_some(),
            due_at: chain.due_at.map(Timestamp),
            refreshes: chain.generation,
            failures: chain.failures,
            last_error: chain.last_error.as_deref().map(str::to_owned),
            lost_calls: chain.attempts,
            attempted_at: chain.attempted_at.map(Timestamp),
            retry_at: chain.retry_at.map(Timestamp),
            lease_until: chain.lease.map(|lease| Timestamp(lease.until)),
        }
    }
}

impl fmt::Display for HoldReport {
    /// Writes the state, its time and its reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = &self.reason;
        match (self.is_on, self.at) {
            (true, Some(at)) => write!(f, "on since {at}: {reason}"),
            (false, Some(at)) => write!(f, "lifted at {at}: {reason}"),
            (true, None) => write!(f, "on: {reason}"),
            (false, None) => write!(f, "lifted: {reason}"),
        }
    }
}

impl RowReport {
    fn of(row: &InspectedRow) -> Self {
        Self {
            slot: row.slot.clone(),
            key_id: row.key_id.map(|id| id.to_string()),
            state: match &row.contents {
                Ok(_) => OPENS,
                Err(RowFault::Damaged) => "damaged",
                Err(RowFault::WithoutKey(_)) => "without_key",
            },
            version: format!("{:?}", row.revision),
            due_at: row.due_at.map(Timestamp),
        }
    }
}

const OPENS: &str = "opens";
