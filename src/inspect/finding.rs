//! What is wrong with one row or one tenant, and the remedy.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::timestamp::{Timestamp, span};
use crate::encrypted::{InspectedChain, InspectedRow, RowContents, RowFault};
use crate::installation::{Hold, Scopes};
use crate::store::Credential;
use crate::tenant::InstallationKey;

/// How bad something is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Nothing is wrong.
    Ok,
    /// Look at it, but no tenant is without service because of it.
    Warning,
    /// Tenants are without service, or will be.
    Failure,
}

/// Something that is wrong with one tenant.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// The kind of the finding: a stable word, such as `dead_chain`.
    pub kind: &'static str,
    /// What is wrong, in a sentence.
    pub text: String,
    /// What to do. It names a command, if there is one.
    pub remedy: String,
}

impl Finding {
    pub(super) fn new(
        grade: Grade,
        kind: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            grade,
            kind,
            text: text.into(),
            remedy: remedy.into(),
        }
    }
}

pub(super) const DAMAGED: &str = "damaged_row";
pub(super) const DEAD: &str = "dead_chain";
pub(super) const DEPARTURE: &str = "departure_not_delivered";
pub(super) const EXPIRED: &str = "expired_token";
pub(super) const FAILING: &str = "failing_refresh";
pub(super) const HOLD: &str = "hold";
pub(super) const LEASE: &str = "orphaned_lease";
pub(super) const NOTICE: &str = "notice_not_delivered";
pub(super) const OVERDUE: &str = "overdue_chain";
pub(super) const SCOPES: &str = "missing_scopes";
pub(super) const SUSPECT: &str = "suspect_token";
pub(super) const WITHOUT_KEY: &str = "row_without_key";

/// Returns what is wrong with this row.
pub(super) fn of_row(row: &InspectedRow, now: SystemTime) -> Vec<Finding> {
    match &row.contents {
        Ok(RowContents::Chain(chain)) => of_chain(&row.tenant, chain, now),
        Ok(RowContents::Hold(hold)) => of_hold(&row.tenant, hold).into_iter().collect(),
        Ok(RowContents::Departure { at, attempts, .. }) => {
            let what = "the tenant's departure";
            let found = of_note(DEPARTURE, what, *at, *attempts, row.due_at, now);
            found.into_iter().collect()
        }
        Ok(RowContents::Notice { at, attempts, .. }) => {
            let found = of_note(NOTICE, "a notice", *at, *attempts, row.due_at, now);
            found.into_iter().collect()
        }
        Ok(_) => Vec::new(),
        Err(fault) => vec![of_fault(&row.tenant, &row.slot, fault)],
    }
}

fn of_fault(tenant: &InstallationKey, slot: &str, fault: &RowFault) -> Finding {
    match fault {
        RowFault::Damaged => Finding::new(
            Grade::Failure,
            DAMAGED,
            format!(
                "the row `{slot}` does not open: it was changed or moved, or a newer version \
                 wrote it"
            ),
            format!(
                "restore the row from a backup, or have the app installed again, which replaces \
                 it; if the tenant has left, `slack-installs purge {tenant} --reason …`"
            ),
        ),
        RowFault::WithoutKey(reason) => Finding::new(
            Grade::Failure,
            WITHOUT_KEY,
            format!("the row `{slot}` needs a data key that cannot be used: {reason}"),
            "give this process the missing master key as another line of its key file, or the \
             provider that wrapped the data key; then run `slack-installs verify`",
        ),
    }
}

fn of_hold(tenant: &InstallationKey, hold: &Hold) -> Option<Finding> {
    hold.is_on.then(|| {
        Finding::new(
            Grade::Warning,
            HOLD,
            format!(
                "the tenant is on hold since {}: {}",
                Timestamp(hold.at),
                hold.reason
            ),
            format!("if the reason is settled, `slack-installs thaw {tenant} --reason …`"),
        )
    })
}

fn of_note(
    kind: &'static str,
    what: &str,
    at: SystemTime,
    attempts: u32,
    due_at: Option<SystemTime>,
    now: SystemTime,
) -> Option<Finding> {
    let late = now.duration_since(due_at.unwrap_or(at)).unwrap_or_default();
    (late > LATE || attempts > 2).then(|| {
        Finding::new(
            Grade::Warning,
            kind,
            format!(
                "{what} of {} was not delivered to the app's hook ({attempts} attempts)",
                Timestamp(at)
            ),
            "run the app with its lifecycle hooks, and look for a failing hook in its log",
        )
    })
}

fn of_chain(tenant: &InstallationKey, row: &InspectedChain, now: SystemTime) -> Vec<Finding> {
    let chain = &row.chain;
    let whose = whose(&row.credential);
    let refresh = command("refresh", tenant, &row.credential);
    let code = chain.last_error.as_deref().unwrap_or("unknown");
    let since = |time: SystemTime| now.duration_since(time).unwrap_or_default();
    if chain.is_dead {
        return vec![Finding::new(
            Grade::Failure,
            DEAD,
            format!("Slack refused every refresh token of {whose} ({code})"),
            format!(
                "have the app installed again there; if Slack refused by mistake, `{refresh} \
                 --revive`; if the tenant has left, `slack-installs purge {tenant} --reason …`"
            ),
        )];
    }
    let mut found = Vec::new();
    if let Some(lease) = chain.lease.filter(|it| since(it.until) > ORPHANED) {
        found.push(Finding::new(
            Grade::Warning,
            LEASE,
            format!(
                "a process that refreshed the token of {whose} died, and left a lease that ended \
                 at {}",
                Timestamp(lease.until)
            ),
            format!("`{refresh}`"),
        ));
    }
    if let Some(at) = chain.expires_at.filter(|at| *at <= now) {
        let rotates = chain.refresh.is_some();
        let grade = if rotates {
            Grade::Warning
        } else {
            Grade::Failure
        };
        let remedy = if rotates {
            format!("`{refresh}`; the next request also refreshes it")
        } else {
            "have the app installed again there".to_owned()
        };
        let text = format!("the token of {whose} expired at {}", Timestamp(at));
        found.push(Finding::new(grade, EXPIRED, text, remedy));
    }
    if chain.failures > 0 {
        let text = format!(
            "the last {} refreshes of {whose} failed ({code})",
            chain.failures
        );
        found.push(Finding::new(
            Grade::Warning,
            FAILING,
            text,
            format!("`slack-installs doctor` checks Slack and the app; then `{refresh}`"),
        ));
    }
    if chain.is_suspect() {
        found.push(Finding::new(
            Grade::Warning,
            SUSPECT,
            format!("Slack may have revoked the token of {whose}, because responses were lost"),
            format!("`{refresh}`"),
        ));
    }
    let late = chain.due_at.map(since).unwrap_or_default();
    if late > LATE {
        found.push(Finding::new(
            Grade::Warning,
            OVERDUE,
            format!(
                "the refresh of {whose} is overdue by {}, so no worker runs",
                span(late)
            ),
            format!("run the app (`SlackApp::run`) in at least one process; or `{refresh}`"),
        ));
    }
    found
}

/// Returns what is wrong if a token lacks scopes.
pub(super) fn of_scopes(
    credential: &Credential,
    granted: &Scopes,
    requested: Option<&Scopes>,
) -> Option<Finding> {
    let missing = granted.missing(requested?);
    (!missing.is_empty()).then(|| {
        Finding::new(
            Grade::Warning,
            SCOPES,
            format!(
                "the token of {} lacks the scopes {missing}",
                whose(credential)
            ),
            "have the app installed again there, which asks for them",
        )
    })
}

pub(super) fn whose(credential: &Credential) -> String {
    match credential {
        Credential::Bot => "the bot".to_owned(),
        Credential::User(id) => format!("user {id}"),
    }
}

fn command(name: &str, tenant: &InstallationKey, credential: &Credential) -> String {
    match credential {
        Credential::Bot => format!("slack-installs {name} {tenant}"),
        Credential::User(id) => format!("slack-installs {name} {tenant} --user {id}"),
    }
}

/// A worker looks at each queue at least once a minute, and takes a page at a time.
const LATE: Duration = Duration::from_secs(15 * 60);

/// A lease lasts 15 s. The rest allows for clocks that differ.
const ORPHANED: Duration = Duration::from_secs(60);
