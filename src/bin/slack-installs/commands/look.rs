//! The commands that only read.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;
use slack_installs::inspect::{
    Diagnosis, Explanation, Grade, Question, Stats, Trail, counted, explain as explained, stats_of,
    trail,
};
use slack_installs::{Clock, InstallationKey, Scopes};

use super::tenant::{not_found, stored};
use super::{Session, person};
use crate::args::Explain;
use crate::failure::{Code, Failure};
use crate::output::shortened;
use crate::progress::counter;

/// Checks everything.
pub(crate) async fn doctor(session: &Session<'_>) -> Result<Code, Failure> {
    let builder = session.variables.app(session.args.database.as_deref())?;
    let bar = counter("rows checked:");
    let diagnosis = builder.diagnose(|rows| bar.set_position(rows)).await?;
    bar.finish_and_clear();
    let grade = diagnosis.grade();
    #[derive(Serialize)]
    struct Report<'a> {
        grade: Grade,
        #[serde(flatten)]
        diagnosis: &'a Diagnosis,
    }
    let report = Report {
        grade,
        diagnosis: &diagnosis,
    };
    let human = |report: &Report<'_>| {
        let mut text = String::new();
        for check in &report.diagnosis.checks {
            let line = format!("{}: {}", check.name, check.text);
            text.push_str(&session.output.graded(check.grade, &line, &check.remedy));
            if check.tenants.len() > 1 {
                let more = if check.tenants.len() == 20 {
                    ", …"
                } else {
                    ""
                };
                let tenants = format!("tenants: {}{more}", check.tenants.join(", "));
                text.push_str(&session.output.below(&tenants));
            }
        }
        text
    };
    session.output.report(&report, human);
    Ok(if grade == Grade::Failure {
        Code::Failed
    } else {
        Code::Ok
    })
}

/// Returns what to explain.
pub(crate) fn question(
    session: &Session<'_>,
    tenant: &InstallationKey,
    scopes: Option<&str>,
    user_scopes: Option<&str>,
) -> Question {
    let get = |name| session.variables.get(name);
    Question {
        tenant: tenant.clone(),
        scopes: scopes
            .or_else(|| get("SLACK_INSTALLS_SCOPES"))
            .map(Scopes::from),
        user_scopes: user_scopes
            .or_else(|| get("SLACK_INSTALLS_USER_SCOPES"))
            .map(Scopes::from),
        now: Clock::default().now(),
    }
}

/// Explains a tenant.
pub(crate) async fn explain(session: &Session<'_>, args: &Explain) -> Result<Code, Failure> {
    let mut tenant = args.tenant.clone();
    if let Some(org) = &args.org {
        tenant = tenant.within(org.clone());
    }
    let question = question(
        session,
        &tenant,
        args.scopes.as_deref(),
        args.user_scopes.as_deref(),
    );
    let store = session.store().await?;
    let explanation = explained(&store, &question).await?;
    let is_known = explanation.is_known() || !explanation.findings.is_empty();
    let of = explanation.served_by.as_ref().unwrap_or(&args.tenant);
    let audit = trail(&store, of, SHOWN_RECORDS, question.now).await?;
    #[derive(Serialize)]
    struct Report {
        #[serde(flatten)]
        explanation: Explanation,
        /// Absent if the database has no audit log.
        #[serde(skip_serializing_if = "Option::is_none")]
        audit: Option<Trail>,
    }
    let report = Report { explanation, audit };
    session.output.report(&report, |it| {
        person::explanation(&it.explanation, it.audit.as_ref(), session.output)
    });
    if is_known {
        Ok(Code::Ok)
    } else {
        Err(not_found(session, &store, &args.tenant).await)
    }
}

/// Shows the rows of a tenant.
pub(crate) async fn show(session: &Session<'_>, tenant: &InstallationKey) -> Result<Code, Failure> {
    let explanation = stored(session, tenant).await?;
    let own = session.store().await?.inspect_tenant(tenant).await?;
    let report = json!({
        "tenant": tenant,
        "rows": explanation.rows,
        "malformed": own.malformed,
    });
    session.output.report(&report, |_| {
        let mut text = String::new();
        for row in &explanation.rows {
            let (slot, state) = (shortened(&row.slot, 60), row.state);
            let key = row.key_id.as_deref().unwrap_or("none");
            let mut parts = vec![
                format!("{slot:<24} {state:<10}"),
                format!("key {key}"),
                format!("version {}", row.version),
            ];
            parts.extend(row.due_at.map(|at| format!("due {at}")));
            text.push_str(&session.output.parts(&parts));
        }
        for row in &own.malformed {
            text.push_str(&session.output.line(&format!("{row}  cannot be parsed")));
        }
        text
    });
    Ok(Code::Ok)
}

/// Counts.
pub(crate) async fn stats(session: &Session<'_>) -> Result<Code, Failure> {
    let store = session.store().await?;
    let now = Clock::default().now();
    let bar = counter("rows counted:");
    let mut stats = Stats::default();
    let mut from = None;
    loop {
        let page = store.inspect(from, AT_ONCE).await?;
        stats_of(&mut stats, &page, now);
        bar.set_position(stats.rows);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    session.output.report(&stats, |stats| {
        let mut text = String::new();
        for (name, count) in [
            ("workspaces", stats.workspaces),
            ("organisations", stats.organisations),
            ("bot tokens", stats.bots),
            ("user tokens", stats.users),
            ("rotating tokens", stats.rotating),
            ("dead chains", stats.dead),
            ("expired tokens", stats.expired),
            ("withdrawn tokens", stats.withdrawn),
            ("expire within an hour", stats.expiring),
            ("on hold", stats.on_hold),
            ("not delivered to hooks", stats.pending),
            ("rows of tenants", stats.rows),
            ("damaged rows", stats.damaged),
            ("rows without key", stats.without_key),
        ] {
            writeln!(text, "{name:<24} {count}").expect(FITS);
        }
        for (key, count) in &stats.rows_by_key {
            writeln!(text, "key {key} {}", counted(*count, "row")).expect(FITS);
        }
        text
    });
    Ok(Code::Ok)
}

/// What `verify` found.
#[derive(Default, Serialize)]
struct Verified {
    opened: usize,
    /// How many of them belong to tenants: these are the rows that `stats` and `doctor` count.
    of_tenants: usize,
    damaged: Vec<String>,
    without_key: Vec<String>,
}

/// Opens every row.
pub(crate) async fn verify(session: &Session<'_>) -> Result<Code, Failure> {
    let store = session.store().await?;
    let bar = counter("rows opened:");
    let mut verified = Verified::default();
    let mut from = None;
    loop {
        let page = store.verify(from, AT_ONCE).await?;
        verified.opened += page.opened;
        verified.of_tenants += page.of_tenants;
        verified.damaged.extend(page.unreadable);
        verified.without_key.extend(page.without_key);
        bar.set_position(u64::try_from(verified.opened).unwrap_or(u64::MAX));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    session.output.report(&verified, |verified| {
        let output = session.output;
        let others = verified.opened - verified.of_tenants;
        let mut text = output.line(&format!(
            "{} {}: {} of tenants, and {} of the app (data keys, OAuth states, handled requests, \
             audit log)",
            counted(verified.opened, "row"),
            if verified.opened == 1 {
                "opens"
            } else {
                "open"
            },
            verified.of_tenants,
            others
        ));
        for row in &verified.damaged {
            text.push_str(&output.line(&format!("damaged: {row}")));
        }
        for row in &verified.without_key {
            text.push_str(&output.line(&format!("without key: {row}")));
        }
        text
    });
    Ok(if !verified.damaged.is_empty() {
        Code::Damaged
    } else if !verified.without_key.is_empty() {
        Code::Keys
    } else {
        Code::Ok
    })
}

/// The records of the audit log that `explain` shows.
const SHOWN_RECORDS: usize = 5;

/// The rows of one page.
const AT_ONCE: usize = 1000;

const FITS: &str = "a String takes any text";
