//! Reads the rows of tenants for an operator: what each row says, which key seals it, and whether
//! it opens. Returns no secrets.

use std::time::{Duration, SystemTime};

use super::install_facts::{self, InstallFacts};
use super::lifecycle_facts::{AccessFacts, DepartureFacts};
use super::names::{self, ACCESS, BOT, DEPARTURE, HOLD, INSTALL, INSTALLER, NOTICE, USER};
use super::record::{self, Record, revision};
use super::{EncryptedStore, InspectedKey, KeyringError, grant_facts, hold_facts, notice_facts};
use crate::backend::{Backend, Key, Row, Scope, Slot};
use crate::error_chain::error_chain;
use crate::installation::{Hold, Home, Installation, Revision, Scopes};
use crate::seal::KeyId;
use crate::store::{Chain, Credential, Error, ListCursor, Notice, Subject};
use crate::tenant::{AppId, EnterpriseId, InstallationKey, TeamId, UserId};

/// A row of a tenant, without its secrets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InspectedRow {
    /// The tenant.
    pub tenant: InstallationKey,
    /// The name of the row within the tenant.
    pub slot: String,
    /// The data key that sealed the row; `None` if the row does not name one.
    pub key_id: Option<KeyId>,
    /// The version of the row. Each change of the row gives it another one.
    pub revision: Revision,
    /// When the row is due.
    pub due_at: Option<SystemTime>,
    /// What the row says, or why it cannot be opened. Everything in it is authenticated.
    pub contents: Result<RowContents, RowFault>,
}

/// What a row says, without its secrets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RowContents {
    /// Whether an org-wide installation may serve a workspace.
    Access {
        /// The workspace.
        team: TeamId,
        /// Whether it may be served.
        is_granted: bool,
        /// When that changed.
        at: SystemTime,
    },
    /// A chain of tokens.
    Chain(Box<InspectedChain>),
    /// A departure that was not reported to the app yet.
    Departure {
        /// The reason.
        reason: String,
        /// When the tenant was purged.
        at: SystemTime,
        /// How often the report was put off.
        attempts: u32,
    },
    /// An operator's hold, or the record that it was lifted.
    Hold(Hold),
    /// The facts of an installation.
    Install(Box<InspectedInstall>),
    /// One person's own metadata.
    Installer(UserId),
    /// A notice that was not reported to the app yet.
    Notice {
        /// What ended.
        subject: Subject,
        /// The reason.
        reason: String,
        /// When it ended.
        at: SystemTime,
        /// How often the report was put off.
        attempts: u32,
    },
    /// A record of another kind.
    Other,
}

/// Why a row cannot be opened.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RowFault {
    /// The row was changed or moved, or a newer version of this crate wrote it.
    Damaged,
    /// The row's data key cannot be used, for this reason. The row is not damaged.
    WithoutKey(String),
}

/// The facts of an installation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InspectedInstall {
    /// The app.
    pub app_id: AppId,
    /// The workspace or organisation.
    pub home: Home,
    /// Its URL.
    pub url: Option<String>,
    /// Who installed the app.
    pub installed_by: Option<UserId>,
    /// When the app was installed.
    pub installed_at: SystemTime,
    /// The channels that have a webhook: id and name.
    pub webhooks: Vec<(String, String)>,
    /// Whether your app stored metadata with it.
    pub has_metadata: bool,
}

/// A chain of tokens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InspectedChain {
    /// Whose tokens they are.
    pub credential: Credential,
    /// The rotation.
    pub chain: Chain,
    /// The granted scopes.
    pub scopes: Scopes,
}

/// A page of rows.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct InspectedPage {
    /// The rows.
    pub rows: Vec<InspectedRow>,
    /// The rows that cannot be parsed, as `partition slot`.
    pub malformed: Vec<String>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<ListCursor>,
}

impl<B: Backend> EncryptedStore<B> {
    /// Returns a page of the rows of all tenants, opened, without their secrets.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the database does not respond. A row that does not open is in the
    /// page, with its fault.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. You can drop the call at any point.
    pub async fn inspect(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<InspectedPage, Error> {
        let (rows, malformed, next) = self.tenant_page(from, limit).await?;
        Ok(InspectedPage {
            rows: self.inspected(rows).await?,
            malformed,
            next,
        })
    }

    /// Returns the rows of one tenant, opened, without their secrets. Reads only this tenant's
    /// rows.
    ///
    /// # Errors
    ///
    /// As [`inspect`](Self::inspect).
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. You can drop the call at any point.
    pub async fn inspect_tenant(&self, key: &InstallationKey) -> Result<InspectedPage, Error> {
        let scope = Scope::Partition(self.driver.app.tenant(key));
        let mut all = InspectedPage::default();
        let mut from = None;
        loop {
            let page = self.driver.scan(&scope, from, AT_ONCE).await?;
            all.rows.extend(self.inspected(page.rows).await?);
            all.malformed.extend(page.malformed);
            from = page.next;
            if from.is_none() {
                return Ok(all);
            }
        }
    }

    /// Returns the app's data keys. Asks the key provider for each of them.
    ///
    /// # Errors
    ///
    /// [`KeyringError`], if the list of the keys cannot be read. The fault of one key is in its
    /// [`InspectedKey`].
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. You can drop the call at any point.
    pub async fn inspect_keys(&self) -> Result<Vec<InspectedKey>, KeyringError> {
        self.driver.keys.each().await
    }

    /// Returns the organisations whose installation was ever granted this workspace, or lost it.
    /// Reads the rows of all organisations.
    ///
    /// # Errors
    ///
    /// As [`inspect`](Self::inspect).
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. You can drop the call at any point.
    pub async fn organisations_of(&self, team: &TeamId) -> Result<Vec<EnterpriseId>, Error> {
        self.organisations_with(&names::access(team).slot).await
    }

    /// Returns the organisations that have an org-wide installation. Reads the rows of all
    /// organisations.
    ///
    /// # Errors
    ///
    /// As [`inspect`](Self::inspect).
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. You can drop the call at any point.
    pub async fn organisations(&self) -> Result<Vec<EnterpriseId>, Error> {
        self.organisations_with(&names::install().slot).await
    }

    /// Returns the organisations that have a row in this slot.
    async fn organisations_with(&self, wanted: &Slot) -> Result<Vec<EnterpriseId>, Error> {
        let scope = self.driver.app.named("E");
        let mut found = Vec::new();
        let mut from = None;
        loop {
            let page = self.driver.scan(&scope, from, AT_ONCE).await?;
            let rows = page.rows.iter().filter(|(key, _)| key.slot == *wanted);
            let orgs = rows.filter_map(|(key, _)| names::tenant_of(&key.partition));
            found.extend(orgs.filter_map(|org| org.enterprise().cloned()));
            from = page.next;
            if from.is_none() {
                return Ok(found);
            }
        }
    }

    async fn inspected(&self, rows: Vec<(Key, Row)>) -> Result<Vec<InspectedRow>, Error> {
        let mut inspected = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            let Some(tenant) = names::tenant_of(&key.partition) else {
                continue;
            };
            let slot = key.slot.as_str().to_owned();
            let key_id = row.sealed.key_id().ok();
            let due_at = row.due.map(|due| due.at);
            let revision = revision(&row);
            inspected.push(InspectedRow {
                contents: self.contents(&tenant, &key, row).await?,
                tenant,
                slot,
                key_id,
                revision,
                due_at,
            });
        }
        Ok(inspected)
    }

    /// Opens a row. The result says why the row does not open; the error is of the database.
    async fn contents(
        &self,
        tenant: &InstallationKey,
        key: &Key,
        row: Row,
    ) -> Result<Result<RowContents, RowFault>, Error> {
        let kind = record::kind_of(row.metadata.as_str()).map(str::to_owned);
        let Some(kind) = kind else {
            return Ok(Err(RowFault::Damaged));
        };
        let opened = self
            .driver
            .open(&key.partition, &key.slot, &kind, &row)
            .await;
        Ok(match opened {
            Ok(plaintext) => {
                let record = Record { row, plaintext };
                let contents = contents_of(&kind, tenant, key, &record);
                contents.map_err(|_| RowFault::Damaged)
            }
            Err(error @ Error::Unavailable(_)) => return Err(error),
            Err(Error::Unreadable(_)) => Err(RowFault::Damaged),
            Err(error) => Err(RowFault::WithoutKey(error_chain(&error))),
        })
    }
}

fn contents_of(
    kind: &str,
    tenant: &InstallationKey,
    key: &Key,
    record: &Record,
) -> Result<RowContents, Error> {
    let slot = &key.slot;
    Ok(match kind {
        ACCESS => {
            let facts: AccessFacts = record.facts(ACCESS)?;
            RowContents::Access {
                at: SystemTime::UNIX_EPOCH + Duration::from_micros(facts.at_micros.min(LATEST)),
                is_granted: facts.is_granted,
                team: facts.team_id,
            }
        }
        BOT | USER => {
            let credential = names::credential_of(slot);
            let credential = credential.ok_or_else(|| record::unknown("a chain's slot"))?;
            let (chain, scopes) = grant_facts::inspected(record)?;
            RowContents::Chain(Box::new(InspectedChain {
                credential,
                chain,
                scopes,
            }))
        }
        DEPARTURE => {
            let facts: DepartureFacts = record.facts(DEPARTURE)?;
            let departure = facts.departure()?;
            RowContents::Departure {
                reason: departure.reason,
                at: departure.at,
                attempts: facts.attempts,
            }
        }
        HOLD => match hold_facts::hold(Some(record)) {
            Some(hold) => RowContents::Hold(hold),
            None => RowContents::Other,
        },
        INSTALL => {
            let facts = InstallFacts::read(record)?;
            let installation = install_facts::installation(record, &facts)?;
            if installation.key() != *tenant {
                return Err(record::unknown("an installation's ids"));
            }
            RowContents::Install(Box::new(without_secrets(installation)))
        }
        INSTALLER => {
            let id = slot.as_str().split_once('/').map(|(_, id)| UserId::new(id));
            match id {
                Some(Ok(id)) => RowContents::Installer(id),
                _ => return Err(record::unknown("a person's slot")),
            }
        }
        NOTICE => {
            let subject = names::subject_of(slot);
            let subject = subject.ok_or_else(|| record::unknown("a notice's slot"))?;
            let (notice, attempts) = notice_facts::notice(subject, record)?;
            let Notice {
                subject,
                reason,
                at,
                ..
            } = notice;
            RowContents::Notice {
                subject,
                reason,
                at,
                attempts,
            }
        }
        _ => RowContents::Other,
    })
}

fn without_secrets(installation: Installation) -> InspectedInstall {
    let webhooks = installation.incoming_webhooks.into_iter();
    InspectedInstall {
        app_id: installation.app_id,
        home: installation.home,
        url: installation.url,
        installed_by: installation.installed_by,
        installed_at: installation.installed_at,
        webhooks: webhooks
            .map(|hook| (hook.channel_id, hook.channel))
            .collect(),
        has_metadata: installation.metadata.is_some(),
    }
}

/// The rows of one page.
const AT_ONCE: usize = 1000;

/// The end of the year 9999, in microseconds since 1970.
const LATEST: u64 = 253_402_300_799_000_000;
