//! Checks the whole store, and Slack, and grades what it finds.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::finding::{self, Finding, Grade};
use crate::backend::Backend;
use crate::encrypted::{EncryptedStore, InspectedPage};
use crate::error_chain::error_chain;
use crate::slack::{Error as SlackError, Probe, SlackClient};
use crate::store::{Error, ListCursor};
use crate::wording::counted;

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// The part that was checked: a stable word, such as `database`.
    pub name: &'static str,
    /// The result.
    pub grade: Grade,
    /// The result, in a sentence.
    pub text: String,
    /// What to do; empty if nothing is wrong.
    pub remedy: String,
    /// The tenants concerned, at most 20.
    pub tenants: Vec<String>,
    /// How many tenants or rows are concerned.
    pub count: u64,
}

impl Check {
    /// Makes the result of a check that found nothing wrong.
    #[must_use]
    pub fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, Grade::Ok, text, "")
    }

    /// Makes the result of a check.
    #[must_use]
    pub fn new(
        name: &'static str,
        grade: Grade,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            name,
            grade,
            text: text.into(),
            remedy: remedy.into(),
            tenants: Vec::new(),
            count: 0,
        }
    }
}

/// The results of all checks. Has no secrets.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The checks, in their order.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Returns the worst grade.
    #[must_use]
    pub fn grade(&self) -> Grade {
        let grades = self.checks.iter().map(|check| check.grade);
        grades.max().unwrap_or(Grade::Ok)
    }
}

/// Collects findings over all rows, page by page.
#[derive(Debug, Default)]
pub struct HealthCheck {
    rows: u64,
    /// For each kind: a finding that stands for all of them, the tenants, and the number.
    found: BTreeMap<&'static str, (Finding, Vec<String>, u64)>,
}

impl HealthCheck {
    /// Adds the rows of a page.
    pub fn add(&mut self, page: &InspectedPage, now: SystemTime) {
        for row in &page.rows {
            self.rows += 1;
            for finding in finding::of_row(row, now) {
                self.note(row.tenant.to_string(), finding);
            }
        }
        for text in &page.malformed {
            self.rows += 1;
            let finding = Finding::new(
                Grade::Failure,
                finding::DAMAGED,
                format!("the row `{text}` cannot be parsed"),
                "restore the row from a backup, or have the app installed again",
            );
            self.note(text.clone(), finding);
        }
    }

    fn note(&mut self, tenant: String, finding: Finding) {
        let found = self.found.entry(finding.kind);
        let (worst, tenants, count) = found.or_insert_with(|| (finding.clone(), Vec::new(), 0));
        if finding.grade > worst.grade {
            *worst = finding;
        }
        *count += 1;
        if tenants.len() < SHOWN && !tenants.contains(&tenant) {
            tenants.push(tenant);
        }
    }

    /// Returns the number of rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns one check for each kind of finding, the worst first.
    #[must_use]
    pub fn checks(self) -> Vec<Check> {
        let rows = self.rows;
        let mut checks: Vec<_> = self.found.into_values().map(check_of).collect();
        checks.sort_by_key(|check| std::cmp::Reverse(check.grade));
        if !checks.iter().any(|it| is_about_rows(it.name)) {
            let text = match rows {
                0 => "no tenant is stored".to_owned(),
                1 => "the only row of a tenant opens".to_owned(),
                _ => format!("all {rows} rows of tenants open"),
            };
            let check = Check {
                count: rows,
                ..Check::ok("rows", text)
            };
            checks.insert(0, check);
        }
        checks
    }
}

fn check_of((finding, tenants, count): (Finding, Vec<String>, u64)) -> Check {
    let more = match count {
        1 => String::new(),
        _ => format!(" (and {} more like it)", count - 1),
    };
    let first = tenants.first().cloned().unwrap_or_default();
    Check {
        name: finding.kind,
        grade: finding.grade,
        text: format!("{first}: {}{more}", finding.text),
        remedy: finding.remedy,
        tenants,
        count,
    }
}

fn is_about_rows(name: &str) -> bool {
    [finding::DAMAGED, finding::WITHOUT_KEY].contains(&name)
}

impl<B: Backend> EncryptedStore<B> {
    /// Checks each data key: whether the key provider unwraps it now.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. You can drop the call at any point.
    pub async fn check_keys(&self) -> Check {
        let keys = match self.inspect_keys().await {
            Ok(keys) => keys,
            Err(error) => {
                let remedy = "docs/runbook.md has the remedy of each of these texts";
                return Check::new("keys", Grade::Failure, error_chain(&error), remedy);
            }
        };
        let faults = keys
            .iter()
            .filter_map(|key| Some((key, key.fault.as_ref()?)));
        let faults: Vec<_> = faults
            .map(|(key, fault)| format!("{}: {}", key.id, error_chain(fault)))
            .collect();
        if faults.is_empty() {
            let text = match keys.len() {
                1 => "the key provider unwraps the data key".to_owned(),
                all => format!("the key provider unwraps all {all} data keys"),
            };
            return Check::ok("keys", text);
        }
        let (bad, all) = (faults.len(), counted(keys.len(), "data key"));
        let text = format!("{bad} of {all} cannot be used: {}", faults.join("; "));
        let remedy = "give this process the missing master key as another line of its key file, or \
                      the provider that wrapped the data key; then run `slack-installs verify`";
        Check {
            count: u64::try_from(faults.len()).unwrap_or(u64::MAX),
            ..Check::new("keys", Grade::Failure, text, remedy)
        }
    }

    /// Checks a page of the rows of all tenants. Adds the findings to `health`, and returns the
    /// cursor of the next page.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the database does not respond.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. You can drop the call at any point.
    pub async fn check_rows(
        &self,
        health: &mut HealthCheck,
        from: Option<ListCursor>,
        now: SystemTime,
    ) -> Result<Option<ListCursor>, Error> {
        let page = self.inspect(from, AT_ONCE).await?;
        health.add(&page, now);
        Ok(page.next)
    }
}

/// Checks whether Slack can be reached, and this machine's clock.
///
/// # Cancel safety
///
/// You can drop the call at any point.
pub async fn check_slack(slack: &SlackClient) -> [Check; 2] {
    of_probe(slack.probe().await)
}

fn of_probe(probe: Result<Probe, SlackError>) -> [Check; 2] {
    let probe = match probe {
        Ok(probe) => probe,
        Err(error) => {
            let remedy = "check the network, the proxy (HTTPS_PROXY) and https://status.slack.com";
            return [
                Check::new("slack", Grade::Failure, error_chain(&error), remedy),
                Check::new(
                    "clock",
                    Grade::Warning,
                    "the clock was not compared, because Slack did not respond",
                    "run `slack-installs doctor` again when Slack responds",
                ),
            ];
        }
    };
    let reached = if probe.status < 500 {
        Check::ok("slack", "Slack responds")
    } else {
        let text = format!("Slack responds with the status {}", probe.status);
        let remedy = "see https://status.slack.com, and run `slack-installs doctor` again later";
        Check::new("slack", Grade::Failure, text, remedy)
    };
    let clock = match probe.skew {
        None => Check::new(
            "clock",
            Grade::Warning,
            "Slack's response has no time, so the clock was not compared",
            "check that this machine's clock is synchronised (NTP)",
        ),
        Some(skew) if skew.is_large() => {
            let direction = if skew.is_behind { "behind" } else { "ahead of" };
            let text = format!(
                "this machine's clock is {} s {direction} Slack's, so tokens are refreshed at \
                 wrong times",
                skew.by.as_secs()
            );
            let remedy = "synchronise the clock (NTP), for example with `timedatectl set-ntp true`";
            Check::new("clock", Grade::Failure, text, remedy)
        }
        Some(_) => Check::ok("clock", "this machine's clock agrees with Slack's"),
    };
    [reached, clock]
}

/// The rows of one page.
const AT_ONCE: usize = 1000;

/// The tenants that a check names.
const SHOWN: usize = 20;
