//! The commands of the audit log.

use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use slack_installs::audit::{
    self, Detail, ExportedLog, Filter, LogRecord, Report, RowFault, RowReport, SignedHead,
    VerifyOptions, VerifyingKey,
};
use slack_installs::inspect::{Timestamp, counted};
use slack_installs::store::AuditStore;
use slack_installs::{AppStore, ClientId, Clock, InstallationKey};

use super::Session;
use super::act::{context, parts};
use super::tenant::logged_as;
use crate::args::{Act, Audit, Records, VerifyAudit};
use crate::confirm::{Decision, confirmed};
use crate::failure::{Code, Failure, chain};
use crate::output::{Output, print_all, print_part, safe_json};

/// Runs a command.
pub(crate) async fn run(session: &Session<'_>, audit: &Audit) -> Result<Code, Failure> {
    match audit {
        Audit::Tail { last, records } => tail(session, *last, records).await,
        Audit::Verify(args) => verify(session, args).await,
        Audit::Export { records } => export(session, records).await,
        Audit::Baseline { why } => {
            let baseline = baseline(session, &why.act);
            let who = context("audit baseline", why.reason.as_deref());
            who.scope(baseline).await
        }
        Audit::Erase { tenant, why } => {
            let erase = erase(session, tenant, &why.act);
            let who = context("audit erase", why.reason.as_deref());
            who.scope(erase).await
        }
    }
}

/// Opens the store for reading, and checks that it has a log.
async fn log(session: &Session<'_>) -> Result<AppStore, Failure> {
    let store = session.store().await?;
    if audit::has_log(&store).await? {
        return Ok(store);
    }
    Err(no_log())
}

fn no_log() -> Failure {
    Failure::new(
        Code::NotFound,
        "the database has no audit log of this app: `SlackAppBuilder::audit` begins one",
    )
}

fn filter(records: &Records) -> Filter {
    let age = records
        .hours
        .map(|hours| Duration::from_secs(3600 * u64::from(hours)));
    Filter {
        from: age.and_then(|age| Clock::default().now().checked_sub(age)),
        until: None,
        tenant: records.of.clone(),
        actor: records.actor.clone(),
        event: records.event.clone(),
    }
}

async fn tail(session: &Session<'_>, last: usize, args: &Records) -> Result<Code, Failure> {
    let store = log(session).await?;
    let stream = audit::records(&store, filter(args));
    let mut stream = std::pin::pin!(stream);
    let mut kept: Vec<LogRecord> = Vec::new();
    // Runs overlap, so the last records are known only when all runs are read.
    while let Some(record) = stream.try_next().await? {
        kept.push(record);
        if kept.len() > last.saturating_mul(2).saturating_add(1000) {
            shorten(&mut kept, last);
        }
    }
    shorten(&mut kept, last);
    if kept.is_empty() && !session.output.is_json() {
        let of = match &args.of {
            Some(tenant) => logged_as(session, &store, tenant).await?,
            None => String::new(),
        };
        eprintln!("no record meets the conditions{of}");
    }
    for record in &kept {
        if session.output.is_json() {
            print_all(&safe_json(&record.to_line()));
        } else {
            print_all(&session.output.line(&shown(record)));
        }
    }
    Ok(Code::Ok)
}

/// Keeps the last records, in the order of their time.
fn shorten(records: &mut Vec<LogRecord>, last: usize) {
    records.sort_by_key(|it| it.public.time);
    records.drain(..records.len().saturating_sub(last));
}

fn shown(record: &LogRecord) -> String {
    let public = &record.public;
    let mut words = vec![
        Timestamp(record.time()).to_string(),
        public.event.clone(),
        public.outcome.clone(),
    ];
    if public.count > 1 {
        words.push(counted(public.count, "time"));
    }
    match &record.detail {
        Some(detail) => words.extend(said(detail)),
        None if record.erased.is_some() => words.push("(erased)".to_owned()),
        None => {}
    }
    words.join(" ")
}

fn said(it: &Detail) -> impl Iterator<Item = String> {
    let tenant = it.tenant.as_ref().map(InstallationKey::to_string);
    let labelled = |label: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!("{label} {value}"))
    };
    let actor = labelled("by", &it.actor);
    let purpose = labelled("for", &it.purpose);
    let user = labelled("user", &it.user);
    let row = Some(it.row.clone());
    [tenant, row, actor, purpose, user].into_iter().flatten()
}

async fn export(session: &Session<'_>, args: &Records) -> Result<Code, Failure> {
    let store = log(session).await?;
    let stream = audit::records(&store, filter(args));
    let mut stream = std::pin::pin!(stream);
    let mut lines = String::new();
    while let Some(record) = stream.try_next().await? {
        lines.push_str(&safe_json(&record.to_line()));
        if lines.len() > AT_ONCE {
            print_part(std::mem::take(&mut lines)).await;
        }
    }
    print_part(lines).await;
    Ok(Code::Ok)
}

async fn verify(session: &Session<'_>, args: &VerifyAudit) -> Result<Code, Failure> {
    let keys = args.public_key.iter().map(|text| public_key(text));
    let options = VerifyOptions {
        keys: keys.collect::<Result<_, _>>()?,
        anchor: match &args.anchor {
            Some(path) => heads(path)?,
            None => Vec::new(),
        },
    };
    let (report, rows) = if let Some(path) = &args.file {
        let store = exported(session, path)?;
        (audit::verify(&store, &options).await?, None)
    } else {
        let store = log(session).await?;
        let report = audit::verify(&store as &dyn AuditStore, &options).await?;
        let now = Clock::default().now();
        let rows = audit::compare(&store, &store, &report, now).await?;
        (report, Some(rows))
    };
    let json = json_of(&report, rows.as_ref());
    session
        .output
        .report(&json, |_| found(session.output, &report, rows.as_ref()));
    let rows = rows.iter().flat_map(|rows| &rows.findings);
    let is_wrong = |fault| fault != RowFault::Unknown;
    let has_wrong_row = rows.into_iter().any(|row| is_wrong(row.fault));
    Ok(if has_wrong_row || !report.findings.is_empty() {
        Code::Damaged
    } else {
        Code::Ok
    })
}

fn json_of(report: &Report, rows: Option<&RowReport>) -> Value {
    let findings = report.findings.iter().map(|it| {
        let fault = format!("{:?}", it.fault);
        json!({ "run": it.run.to_string(), "record": it.record, "fault": fault })
    });
    let runs = report.runs.iter().map(|it| {
        json!({
            "run": it.run.to_string(),
            "records": it.records,
            "ending": format!("{:?}", it.ending),
            "erased": it.erased,
            "lost": it.lost,
            "anchored": it.anchored,
            "touched_at": it.touched.map(Timestamp),
        })
    });
    let rows = rows.map(|rows| {
        let findings = rows.findings.iter().map(|it| {
            let fault = format!("{:?}", it.fault);
            json!({ "tenant": it.tenant, "row": it.row, "fault": fault })
        });
        json!({
            "rows": rows.rows,
            "is_complete": rows.is_complete,
            "findings": findings.collect::<Vec<_>>(),
        })
    });
    json!({
        "is_anchored": report.is_anchored,
        "has_expired": report.has_expired,
        "findings": findings.collect::<Vec<_>>(),
        "runs": runs.collect::<Vec<_>>(),
        "rows": rows,
    })
}

fn found(output: &Output, report: &Report, rows: Option<&RowReport>) -> String {
    let records: u64 = report.runs.iter().map(|run| run.records).sum();
    let runs = counted(report.runs.len(), "run");
    let mut text = format!("{runs}, {}\n", counted(records, "record"));
    for it in &report.findings {
        text.push_str(&format!(
            "run {} record {}: {:?}\n",
            it.run, it.record, it.fault
        ));
    }
    if report.findings.is_empty() {
        text.push_str("the log is intact\n");
    }
    if !report.is_anchored {
        let anchor = "no anchor was given, so nothing shows whether the log was rolled back";
        text.push_str(&output.line(anchor));
    }
    if let Some(rows) = rows {
        let verb = if rows.rows == 1 { "was" } else { "were" };
        let count = counted(rows.rows, "row");
        text.push_str(&output.line(&format!("{count} of tenants {verb} compared with the log")));
        for it in &rows.findings {
            let line = format!("{} {}: {:?}", it.tenant, it.row, it.fault);
            text.push_str(&output.line(&line));
        }
        if rows
            .findings
            .iter()
            .any(|it| it.fault == RowFault::Unlogged)
        {
            text.push_str(&output.line(
                "Unlogged: no record has this version of the row; if the rows are from before the \
                 log began, `slack-installs audit baseline` accepts them",
            ));
        }
    }
    text
}

/// Reads an export. It needs no database.
fn exported(session: &Session<'_>, path: &Path) -> Result<ExportedLog, Failure> {
    let id = session.variables.get("SLACK_CLIENT_ID");
    let id = id.ok_or_else(|| Failure::usage("SLACK_CLIENT_ID is not set"))?;
    let id = ClientId::new(id).map_err(|error| Failure::usage(chain(&error)))?;
    let text = read(path)?;
    ExportedLog::read(id, text.lines())
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn heads(path: &Path) -> Result<Vec<SignedHead>, Failure> {
    let text = read(path)?;
    let heads = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(SignedHead::parse);
    heads
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))
}

/// Parses `EPOCH:HEX`. The key counts as valid at all times.
fn public_key(text: &str) -> Result<VerifyingKey, Failure> {
    let parsed = text.split_once(':').and_then(|(epoch, hex)| {
        let is_hex = hex.len() == 64 && hex.bytes().all(|it| it.is_ascii_hexdigit());
        let mut key = [0; 32];
        for (nth, byte) in key.iter_mut().enumerate() {
            let digits = is_hex.then(|| &hex[2 * nth..2 * nth + 2])?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some((epoch.parse().ok()?, key))
    });
    let (epoch, key) = parsed.ok_or_else(|| {
        Failure::usage("--public-key: expected the key's epoch, a colon, and 64 hex digits")
    })?;
    Ok(VerifyingKey::from_bytes(
        key,
        epoch,
        SystemTime::UNIX_EPOCH,
        None,
    ))
}

/// Opens the store and its log for changes.
async fn written(session: &Session<'_>) -> Result<(AppStore, audit::Audit), Failure> {
    let parts = parts(session, false, false).await?;
    // Another process may have removed the whole log.
    let log = parts.audit.ok_or_else(no_log)?;
    Ok((parts.store, log))
}

async fn baseline(session: &Session<'_>, act: &Act) -> Result<Code, Failure> {
    log(session).await?;
    let what = "The versions of all rows will be recorded, and accepted as they are";
    let (mut outcome, mut text, mut rows) = ("would_note", what.to_owned(), None);
    if confirmed(act, what, "baseline").await? == Decision::Act {
        let (store, audit) = written(session).await?;
        let count = audit.note_rows(&store).await?;
        outcome = "noted";
        text = match count {
            1 => "the version of 1 row of a tenant is recorded".to_owned(),
            _ => format!("the versions of {count} rows of tenants are recorded"),
        };
        rows = Some(count);
    }
    let report = json!({
        "action": "audit baseline",
        "is_dry_run": act.dry_run,
        "outcome": outcome,
        "text": text,
        "rows": rows,
    });
    session.output.report(&report, |_| {
        let dry = if act.dry_run { "dry run: " } else { "" };
        session.output.line(&format!("{dry}{text}"))
    });
    Ok(Code::Ok)
}

async fn erase(
    session: &Session<'_>,
    tenant: &InstallationKey,
    act: &Act,
) -> Result<Code, Failure> {
    let store = log(session).await?;
    if store.key_of(tenant).await?.is_none() {
        let of = logged_as(session, &store, tenant).await?;
        return Err(Failure::new(
            Code::NotFound,
            format!("the audit log has no readable part of {tenant}{of}"),
        ));
    }
    let what = format!("The part of the audit log about {tenant} will be unreadable for ever");
    let (mut outcome, mut text) = ("would_erase", what.clone());
    if confirmed(act, &what, tenant.id()).await? == Decision::Act {
        let (_, audit) = written(session).await?;
        audit.erase(tenant).await?;
        outcome = "erased";
        text = format!("the part of the audit log about {tenant} is unreadable");
    }
    let report = json!({
        "action": "audit erase",
        "tenant": tenant,
        "is_dry_run": act.dry_run,
        "outcome": outcome,
        "text": text,
    });
    session.output.report(&report, |_| {
        let dry = if act.dry_run { "dry run: " } else { "" };
        session.output.line(&format!("{dry}{text}"))
    });
    Ok(Code::Ok)
}

/// The characters that are written at once.
const AT_ONCE: usize = 65_536;
