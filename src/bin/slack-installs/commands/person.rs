//! Explanations for people.

use std::fmt::Write as _;

use slack_installs::inspect::{
    ChainReport, Explanation, InstallReport, Trail, TrailRecord, counted,
};

use crate::output::{Output, shortened};

/// Writes an explanation.
pub(crate) fn explanation(it: &Explanation, audit: Option<&Trail>, output: &Output) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(format!("tenant {}", it.tenant));
    for step in &it.steps {
        let mark = output.mark(step.is_ok);
        let step = format!("{}: {}", step.name, step.text);
        line(format!("  {mark} {}", output.laid(&step, 4, 8)));
    }
    if let Some(install) = &it.installation {
        line("installation".to_owned());
        line(installation(install, output));
    }
    for chain in &it.chains {
        line(format!("token of {}", chain.credential));
        line(token(chain, output));
    }
    if let Some(hold) = &it.hold {
        line(output.laid(&format!("hold {hold}"), 0, 2));
    }
    if !it.workspaces.is_empty() {
        line("workspaces".to_owned());
    }
    for access in &it.workspaces {
        let state = if access.is_granted { "granted" } else { "lost" };
        line(format!("  {} {state} at {}", access.team_id, access.at));
    }
    for pending in &it.pending {
        let attempts = counted(pending.attempts, "attempt");
        let text = format!(
            "not delivered: {} of {}, {attempts}: {}",
            pending.what, pending.at, pending.reason
        );
        line(output.laid(&text, 0, 2));
    }
    line(output.laid(&rows(it), 0, 2));
    if let Some(audit) = audit {
        line(trail(it, audit, output));
    }
    if it.findings.is_empty() && (!it.rows.is_empty() || it.served_by.is_some()) {
        line("nothing is wrong".to_owned());
    }
    for finding in &it.findings {
        text.push_str(&output.graded(finding.grade, &finding.text, &finding.remedy));
    }
    text
}

fn installation(install: &InstallReport, output: &Output) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            let value = output.laid(&shortened(value, NAME), FIELD, FIELD);
            writeln!(text, "  {name:<14} {value}").expect("a String takes any text");
        }
    };
    field("team", install.team_name.as_deref());
    field("organisation", install.enterprise_id.as_deref());
    field("org name", install.enterprise_name.as_deref());
    field("url", install.url.as_deref());
    field("app", Some(&install.app_id));
    let by = install.installed_by.as_ref().map(ToString::to_string);
    field("installed by", by.as_deref());
    field("installed at", Some(&install.installed_at.to_string()));
    for hook in &install.webhooks {
        let channel = format!("{} ({})", hook.channel_id, hook.channel);
        field("webhook", Some(&channel));
    }
    let metadata = if install.has_metadata {
        "stored"
    } else {
        "none"
    };
    field("metadata", Some(metadata));
    text.truncate(text.trim_end().len());
    text
}

fn token(chain: &ChainReport, output: &Output) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let value = output.laid(&value, FIELD, FIELD);
            writeln!(text, "  {name:<14} {value}").expect("a String takes any text");
        }
    };
    let time = |time: Option<slack_installs::inspect::Timestamp>| time.map(|it| it.to_string());
    let state = match (chain.is_dead, chain.rotates) {
        (true, _) => "dead",
        (false, true) if chain.is_withdrawn => "withdrawn",
        (false, true) => "rotates",
        (false, false) => "long-lived",
    };
    field("state", Some(state.to_owned()));
    field("scopes", Some(chain.scopes.join(",")));
    let missing = chain.missing_scopes.join(",");
    field("missing scopes", Some(missing).filter(|it| !it.is_empty()));
    field("issued at", Some(chain.issued_at.to_string()));
    field("expires at", time(chain.expires_at));
    field("refresh due", time(chain.due_at));
    if chain.rotates {
        let refreshes = format!("{} since the installation", chain.refreshes);
        field("refreshes", Some(refreshes));
        let outcome = match (chain.failures, &chain.last_error) {
            (0, _) => "succeeded".to_owned(),
            (n, Some(code)) => format!("failed ({code}), {n} in a row"),
            (n, None) => format!("failed, {n} in a row"),
        };
        field(
            "last refresh",
            Some(outcome).filter(|_| chain.refreshes + u64::from(chain.failures) > 0),
        );
    }
    field("retry at", time(chain.retry_at));
    field("lease until", time(chain.lease_until));
    text.truncate(text.trim_end().len());
    text
}

/// Writes the last records of the audit log.
fn trail(it: &Explanation, audit: &Trail, output: &Output) -> String {
    let tenant = it.served_by.as_ref().unwrap_or(&it.tenant);
    let head = match (audit.records.is_empty(), audit.is_complete) {
        (true, true) => "audit log: no record of this tenant".to_owned(),
        (_, true) => "audit log".to_owned(),
        (_, false) => format!(
            "audit log: it is long, so newer records may be missing; `slack-installs audit tail \
             --of {tenant}` reads all of it"
        ),
    };
    let mut text = output.hung(&head);
    for record in &audit.records {
        text.push_str("\n  ");
        text.push_str(&output.hung(&recorded(record)));
    }
    text
}

fn recorded(it: &TrailRecord) -> String {
    let mut text = format!("{} {} {} {}", it.at, it.event, it.outcome, it.row);
    if it.count > 1 {
        write!(text, ", {}", counted(it.count, "time")).expect("a String takes any text");
    }
    let parts = [("by", &it.actor), ("for", &it.purpose), ("user", &it.user)];
    for (label, value) in parts {
        if let Some(value) = value {
            write!(text, " {label} {value}").expect("a String takes any text");
        }
    }
    text
}

/// Summarises the stored rows by their keys.
fn rows(it: &Explanation) -> String {
    let mut keys: Vec<&str> = it
        .rows
        .iter()
        .filter_map(|row| row.key_id.as_deref())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let keys = if keys.is_empty() {
        "none".to_owned()
    } else {
        keys.join(", ")
    };
    format!("rows {}, data keys {keys}", it.rows.len())
}

/// Longer than a name that a person chose in good faith.
const NAME: usize = 200;

/// The column where the value of a field begins.
const FIELD: usize = 17;
