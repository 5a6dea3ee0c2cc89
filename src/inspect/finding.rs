//! What is wrong with one row or one tenant, and the remedy.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::timestamp::{Timestamp, span};
use crate::encrypted::{InspectedChain, InspectedRow, RowContents, RowFault};
use crate::installation::{Hold, Scopes};
use crate::store::{Chain, Credential};
use crate::tenant::InstallationKey;
use crate::wording::counted;

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
pub(super) const WITHDRAWN: &str = "withdrawn_token";
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
            damage_remedy(tenant, slot),
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

/// Returns what to do about a row that does not open. Only an operator replaces a hold, and an
/// installation replaces only its own rows.
fn damage_remedy(tenant: &InstallationKey, slot: &str) -> String {
    match slot {
        "hold" => format!(
            "it counts as a hold: `slack-installs thaw {tenant} --reason …` replaces it; if the \
             tenant is to stay on hold, then `slack-installs freeze {tenant} --reason …`"
        ),
        "install" | "bot" => format!(
            "restore the row from a backup, or have the app installed again, which replaces it; if \
             the tenant has left, `slack-installs purge {tenant} --reason …`"
        ),
        _ if slot.starts_with("user/") => format!(
            "restore the row from a backup, or have this user install the app again, which \
             replaces it; if the tenant has left, `slack-installs purge {tenant} --reason …`"
        ),
        _ => format!(
            "restore the row from a backup; or `slack-installs purge {tenant} --reason …`, and \
             have the app installed again there"
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
                "{what} of {} was not delivered to the app's hook ({})",
                Timestamp(at),
                counted(attempts, "attempt")
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
    found.extend(of_expiry(row, &refresh, now));
    if chain.failures > 0 {
        let text = match chain.failures {
            1 => format!("the last refresh of {whose} failed ({code})"),
            failures => format!("the last {failures} refreshes of {whose} failed ({code})"),
        };
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

/// Returns what is wrong if a token is no longer handed out because of its time.
fn of_expiry(row: &InspectedChain, refresh: &str, now: SystemTime) -> Option<Finding> {
    let chain = &row.chain;
    let whose = whose(&row.credential);
    if let Some(why) = withdrawal(chain) {
        let wait = chain.retry_at.filter(|at| *at > now);
        let wait = wait.map_or_else(String::new, |at| format!(" after {}", Timestamp(at)));
        return Some(Finding::new(
            Grade::Warning,
            WITHDRAWN,
            format!("the token of {whose} {why}; Slack has issued no new one yet"),
            format!("`{refresh}`{wait}; the next request also refreshes it"),
        ));
    }
    let at = chain.expires_at.filter(|at| *at <= now)?;
    let text = format!("the token of {whose} expired at {}", Timestamp(at));
    Some(if chain.refresh.is_some() {
        let remedy = format!("`{refresh}`; the next request also refreshes it");
        Finding::new(Grade::Warning, EXPIRED, text, remedy)
    } else {
        let remedy = "have the app installed again there";
        Finding::new(Grade::Failure, EXPIRED, text, remedy)
    })
}

/// Returns why a token ended before its time; `None` if it did not. The stored expiry of such a
/// token is before its issue, and says nothing.
pub(super) fn withdrawal(chain: &Chain) -> Option<&'static str> {
    let is_early = chain.expires_at.is_some_and(|at| at <= chain.issued_at);
    if !is_early || chain.refresh.is_none() {
        return None;
    }
    // A refresh that failed has replaced the code.
    Some(match chain.last_error.as_deref() {
        Some("rotated_on_demand") => "leaked, so it is no longer handed out",
        Some("token_revoked") => "was revoked early by Slack",
        _ => "ended early, because it leaked or Slack revoked it",
    })
}

/// Returns when a token expires. A token that ended before its time has no such time.
pub(super) fn expiry(chain: &Chain) -> Option<SystemTime> {
    chain.expires_at.filter(|_| withdrawal(chain).is_none())
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
