//! The page about observability lists every event of the log, every span and every metric.
//!
//! The source is read as text: each call of a macro of `tracing`, with its level, message and
//! fields.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::sources;

const PAGE: &str = "docs/observability.md";

/// One call of a macro of `tracing`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Event {
    level: String,
    message: String,
    fields: Vec<String>,
}

/// A call, where it is, and the expressions of its fields.
struct Call {
    event: Event,
    path: String,
    expressions: Vec<String>,
}

#[test]
fn every_event_of_the_log_is_in_the_table_with_its_level_and_fields() {
    let logged: BTreeSet<_> = calls().into_iter().map(|call| call.event).collect();
    let listed: BTreeSet<_> = listed().into_iter().map(|(event, _)| event).collect();
    let missing: Vec<_> = logged.difference(&listed).collect();
    let surplus: Vec<_> = listed.difference(&logged).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "{PAGE} lacks {missing:#?} and has {surplus:#?}, which the source does not log"
    );
}

#[test]
fn the_table_says_of_every_error_what_a_person_must_do() {
    let errors = listed().into_iter().filter(|(it, _)| it.level == "ERROR");
    let errors: Vec<_> = errors.collect();
    assert!(errors.len() > 10, "the table was found");
    for (event, what_to_do) in errors {
        assert!(what_to_do.len() > 10, "{}", event.message);
    }
}

#[test]
fn a_fields_name_is_in_the_list_and_a_tenant_has_one_name_and_one_form() {
    let page = page();
    let known: BTreeSet<_> = names(section(&page, "## Fields")).collect();
    for call in calls() {
        let (path, message) = (&call.path, &call.event.message);
        for (field, expression) in call.event.fields.iter().zip(&call.expressions) {
            assert!(
                known.contains(field.as_str()),
                "{path}: the list of fields lacks `{field}`"
            );
            // Only a backend does not know tenants.
            let is_of_backend = path.starts_with("backend/");
            assert!(
                is_of_backend || field != "partition",
                "{path}: name the tenant of {message:?}"
            );
            // `Debug` of a tenant, and of an `Option`, has another form.
            let is_debug = expression.contains('?');
            assert!(
                field != "tenant" || !is_debug,
                "{path}: {message:?} shows a tenant as {expression}"
            );
        }
    }
}

#[test]
fn every_span_is_in_the_table_with_its_level() {
    let source = source("span.rs");
    let made = source.split("operations! {").nth(1).expect("the list");
    let made = made
        .split('}')
        .next()
        .expect("the list ends")
        .split_whitespace();
    let made: Vec<_> = made.collect();
    let made: BTreeSet<_> = made.chunks(2).map(|it| (it[1], it[0])).collect();
    let page = page();
    let rows = rows(section(&page, "## Spans"));
    let rows = rows.map(|cells| (cells[0].trim_matches('`'), cells[1]));
    let is_span = |(_, level): &(_, &str)| ["DEBUG", "INFO", "WARN"].contains(level);
    let listed: BTreeSet<_> = rows.filter(is_span).collect();
    assert_eq!(listed, made);
}

#[test]
fn every_metric_is_in_the_table_with_its_labels() {
    let source = source("metrics.rs");
    let made = source.split("\nmetrics! {").nth(1).expect("the list");
    let made = made.split("\n}").next().expect("the list ends").split(';');
    let quoted = |text: &str| {
        let texts = text.split('"').skip(1).step_by(2);
        texts.map(str::to_owned).collect::<Vec<_>>()
    };
    let made = made.map(quoted).filter(|texts| !texts.is_empty());
    let made: BTreeSet<_> = made
        .map(|texts| (texts[0].clone(), texts[1..texts.len() - 1].to_vec()))
        .collect();
    let page = page();
    let rows = rows(section(&page, "## Metrics")).filter(|cells| cells[0] != "metric");
    let of_row = |cells: Vec<&str>| {
        let labels = names(cells[2]).map(str::to_owned).collect::<Vec<_>>();
        (cells[0].trim_matches('`').to_owned(), labels)
    };
    let listed: BTreeSet<_> = rows.map(of_row).collect();
    assert!(made.len() > 10, "the list was found");
    assert_eq!(listed, made);
}

/// Returns the calls of the whole source.
fn calls() -> Vec<Call> {
    let mut calls = Vec::new();
    for file in sources() {
        let path = file.path.display().to_string();
        let text = source(&path);
        for level in ["error", "warn", "info", "debug", "trace"] {
            let start = format!("tracing::{level}!(");
            for (at, start) in text.match_indices(&start) {
                let parts = arguments(&text[at + start.len()..]);
                let (message, fields) = parts.split_last().expect("a message");
                let fields: Vec<_> = fields
                    .iter()
                    .filter(|it| !it.starts_with("target:"))
                    .collect();
                assert!(
                    message.starts_with('"') && !message.contains('{'),
                    "{path}: {message} is no constant text"
                );
                calls.push(Call {
                    event: Event {
                        level: level.to_uppercase(),
                        message: unquoted(message),
                        fields: fields.iter().map(|field| field_name(field)).collect(),
                    },
                    path: path.clone(),
                    expressions: fields.into_iter().cloned().collect(),
                });
            }
        }
    }
    assert!(calls.len() > 50, "the calls were found");
    calls
}

/// Returns the arguments of a call, from behind its opening parenthesis on.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                part.push(char);
                while let Some(char) = chars.next() {
                    part.push(char);
                    if char == '\\' {
                        part.extend(chars.next());
                    } else if char == '"' {
                        break;
                    }
                }
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part).trim().to_owned());
                continue;
            }
            _ => {}
        }
        part.push(char);
    }
    parts.push(part.trim().to_owned());
    parts.retain(|part| !part.is_empty());
    parts
}

/// Returns the name of a field: of `tenant = %key`, `%tenant` and `tenant`.
fn field_name(field: &str) -> String {
    let name = field.split_once('=').map_or(field, |(name, _)| name);
    name.trim().trim_start_matches(['%', '?']).to_owned()
}

/// Returns the text of a literal without its line breaks.
fn unquoted(literal: &str) -> String {
    let text = literal.trim_matches('"');
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

/// Returns the rows of the page's tables of events, with their last cell.
fn listed() -> Vec<(Event, String)> {
    let page = page();
    let mut listed = Vec::new();
    for level in ["ERROR", "WARN", "INFO", "DEBUG"] {
        for cells in rows(section(&page, &format!("### {level}"))) {
            if cells[0] == "event" {
                continue;
            }
            let event = Event {
                level: level.to_owned(),
                message: cells[0].to_owned(),
                fields: names(cells[1]).map(str::to_owned).collect(),
            };
            let last = cells.get(2).copied().unwrap_or_default();
            listed.push((event, last.to_owned()));
        }
    }
    listed
}

fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(PAGE)).expect("the page exists")
}

fn source(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    fs::read_to_string(root.join(path)).expect("the file exists")
}

/// Returns the text from this heading to the next heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let found = page.split_once(&format!("\n{heading}\n"));
    let (_, text) = found.unwrap_or_else(|| panic!("{PAGE} has no {heading:?}"));
    let end = text.find("\n## ").unwrap_or(text.len());
    let end = text.find("\n### ").unwrap_or(end).min(end);
    &text[..end]
}

/// Returns the cells of each row of a table, with its head.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
}

/// Returns the words in backticks.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
