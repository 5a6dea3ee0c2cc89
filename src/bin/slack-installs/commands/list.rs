//! Lists tenants.

use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};
use console::measure_text_width;
use serde::Serialize;
use slack_installs::inspect::{Explanation, Timestamp, explain};
use slack_installs::{AppStore, Clock, InstallationKey};

use super::Session;
use super::look::question;
use crate::args::List;
use crate::failure::{Code, Failure};
use crate::output::{Output, print_all, shortened};
use crate::progress::counter;

/// One line of the list.
#[derive(Serialize)]
struct Line {
    tenant: InstallationKey,
    name: Option<String>,
    organisation: Option<String>,
    installed_at: Option<Timestamp>,
    /// The earliest expiry of its tokens.
    expires_at: Option<Timestamp>,
    is_dead: bool,
    /// Whether a token ended before it expired, and was not replaced yet.
    is_withdrawn: bool,
    is_on_hold: bool,
    damaged_rows: usize,
    keys: Vec<String>,
}

/// Lists the tenants that meet every condition, page by page.
pub(crate) async fn list(session: &Session<'_>, args: &List) -> Result<Code, Failure> {
    let store = session.store().await?;
    let bar = counter("tenants read:");
    let mut page = Vec::new();
    let mut is_first = true;
    let mut from = None;
    loop {
        let rows = store.inspect(from, AT_ONCE).await?;
        for row in &rows.rows {
            let is_listed = match row.slot.as_str() {
                "install" => true,
                // A tenant on hold may have no installation.
                "hold" => !is_installed(&store, &row.tenant).await?,
                _ => false,
            };
            if !is_listed {
                continue;
            }
            let line = line(session, &store, &row.tenant).await?;
            bar.inc(1);
            if is_wanted(&line, args) {
                page.push(line);
            }
            if page.len() >= SHOWN_AT_ONCE {
                bar.suspend(|| show(session.output, &mut page, &mut is_first));
            }
        }
        from = rows.next;
        if from.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    show(session.output, &mut page, &mut is_first);
    Ok(Code::Ok)
}

/// Returns whether the tenant has an installation's row, for which it is listed.
async fn is_installed(store: &AppStore, tenant: &InstallationKey) -> Result<bool, Failure> {
    let rows = store.inspect_tenant(tenant).await?.rows;
    Ok(rows.iter().any(|row| row.slot == "install"))
}

async fn line(
    session: &Session<'_>,
    store: &AppStore,
    tenant: &InstallationKey,
) -> Result<Line, Failure> {
    let explanation = explain(store, &question(session, tenant, None, None)).await?;
    Ok(Line::of(explanation))
}

impl Line {
    fn of(it: Explanation) -> Self {
        let mut keys: Vec<_> = it
            .rows
            .iter()
            .filter_map(|row| row.key_id.clone())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let install = it.installation;
        let name = install.as_ref().and_then(|install| {
            let name = install.team_name.as_ref();
            name.or(install.enterprise_name.as_ref()).cloned()
        });
        Self {
            tenant: it.tenant,
            name,
            organisation: install.as_ref().and_then(|it| it.enterprise_id.clone()),
            installed_at: install.as_ref().map(|it| it.installed_at),
            expires_at: it.chains.iter().filter_map(|chain| chain.expires_at).min(),
            is_dead: it.chains.iter().any(|chain| chain.is_dead),
            is_withdrawn: it.chains.iter().any(|chain| chain.is_withdrawn),
            is_on_hold: it.hold.is_some_and(|hold| hold.is_on),
            damaged_rows: it.rows.iter().filter(|row| row.state != "opens").count(),
            keys,
        }
    }
}

fn is_wanted(line: &Line, args: &List) -> bool {
    let soon = args.expiring.map(|hours| {
        let hours = Duration::from_secs(u64::from(hours) * 3600);
        Timestamp(Clock::default().now() + hours)
    });
    let expires =
        soon.is_none_or(|soon| line.is_withdrawn || line.expires_at.is_some_and(|at| at <= soon));
    let of_org = match &args.organisation {
        None => true,
        Some(None) => line.tenant.is_org(),
        Some(Some(org)) => line.organisation.as_deref() == Some(org.as_str()),
    };
    let has_key = args
        .key
        .as_ref()
        .is_none_or(|wanted| line.keys.contains(wanted));
    expires
        && of_org
        && has_key
        && (!args.dead || line.is_dead)
        && (!args.on_hold || line.is_on_hold)
        && (!args.damaged || line.damaged_rows > 0)
}

/// Writes the lines and forgets them.
fn show(output: &Output, page: &mut Vec<Line>, is_first: &mut bool) {
    let lines = std::mem::take(page);
    if output.is_json() {
        for line in &lines {
            output.report(line, |_| String::new());
        }
        return;
    }
    if lines.is_empty() && !*is_first {
        return;
    }
    let full = filled(&lines, *is_first, None).trim_fmt();
    let is_narrow = |columns| full.lines().any(|line| measure_text_width(line) > columns);
    let columns = output.columns().filter(|columns| is_narrow(*columns));
    let text = match columns {
        None => full + "\n",
        Some(columns) => narrow(output, &lines, *is_first, columns),
    };
    *is_first = false;
    print_all(&text);
}

/// Returns a table that fits into a terminal. Ids stay whole, so that they can be copied.
fn narrow(output: &Output, lines: &[Line], has_header: bool, columns: usize) -> String {
    let fits = |table: &Table| {
        let text = table.trim_fmt();
        let is_short = |line: &str| measure_text_width(line) <= columns;
        text.lines().all(is_short).then(|| text + "\n")
    };
    let mut table = filled(lines, has_header, Some(LEAST));
    let widths = table.column_max_content_widths();
    let used: usize = widths
        .iter()
        .map(|width| usize::from(*width) + PADDING)
        .sum();
    let name = widths.get(1).copied().unwrap_or_default();
    // A name gets the room that the other columns leave.
    let room = (columns + usize::from(name)).saturating_sub(used + 1);
    if let Some(text) = fits(&filled(lines, has_header, Some(room.max(LEAST)))) {
        return text;
    }
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(columns).unwrap_or(u16::MAX));
    for nth in WHOLE {
        if let Some(column) = table.column_mut(nth) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    // A column that is too narrow would break between letters.
    let is_readable = used <= columns + MOST_BROKEN;
    let text = fits(&table).filter(|_| is_readable);
    text.unwrap_or_else(|| lines.iter().map(|line| record(output, line)).collect())
}

/// Returns a tenant as lines, for a terminal without room for a table.
fn record(output: &Output, line: &Line) -> String {
    let mut parts = vec![line.tenant.to_string(), states(line).join(", ")];
    let name = line.name.as_deref().map(|name| shortened(name, NAME));
    parts.extend(name);
    let org = line.organisation.as_ref();
    parts.extend(org.map(|org| format!("organisation {org}")));
    parts.extend(line.installed_at.map(|at| format!("installed {at}")));
    parts.extend(line.expires_at.map(|at| format!("expires {at}")));
    output.parts(&parts)
}

/// Makes the table. With `name`, the longest name, the times are shorter too.
fn filled(lines: &[Line], has_header: bool, name: Option<usize>) -> Table {
    let is_narrow = name.is_some();
    let longest = name.unwrap_or(NAME).min(NAME);
    let mut table = Table::new();
    table.load_preset(NOTHING);
    if has_header {
        table.set_header([
            "TENANT",
            "NAME",
            "ORGANISATION",
            "INSTALLED",
            "EXPIRES",
            "STATE",
        ]);
    }
    for line in lines {
        let time = |time: Option<Timestamp>, kept: usize| {
            let text = time.map_or_else(|| "-".to_owned(), |it| it.to_string());
            if is_narrow && text.len() > kept {
                text[..kept].replace('T', " ")
            } else {
                text
            }
        };
        let name = line.name.as_deref().unwrap_or("-");
        let separator = if is_narrow { ", " } else { "," };
        table.add_row([
            line.tenant.to_string(),
            shortened(name, longest),
            line.organisation.clone().unwrap_or_else(|| "-".to_owned()),
            time(line.installed_at, DAY),
            time(line.expires_at, MINUTE),
            states(line).join(separator),
        ]);
    }
    table
}

fn states(line: &Line) -> Vec<&'static str> {
    let mut states = Vec::new();
    states.extend(line.is_dead.then_some("dead"));
    states.extend(line.is_withdrawn.then_some("withdrawn"));
    states.extend(line.is_on_hold.then_some("hold"));
    states.extend((line.damaged_rows > 0).then_some("damaged"));
    if states.is_empty() {
        states.push("ok");
    }
    states
}

/// The columns that are not broken: ids and times.
const WHOLE: [usize; 4] = [0, 2, 3, 4];

/// The least width of a name.
const LEAST: usize = 8;

/// The width that the names of states may lack: they are then broken between two states.
const MOST_BROKEN: usize = 8;

/// The spaces around the content of a cell.
const PADDING: usize = 2;

/// The length of a time without its hour, and without its seconds.
const DAY: usize = 10;
const MINUTE: usize = 16;

/// The rows of one page.
const AT_ONCE: usize = 1000;

/// The width of a name in the table.
const NAME: usize = 32;

/// The lines of one table, so that the memory does not grow with the number of tenants.
const SHOWN_AT_ONCE: usize = 500;
