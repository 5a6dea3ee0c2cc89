//! Reads YAML or JSON into a tree that knows its lines. JSON is a part of YAML, so one parser reads
//! both.

use std::collections::BTreeSet;

use granit_parser::{Event, Parser, ScalarStyle};
use serde::de::IgnoredAny;

use super::finding::{Finding, Grade, MAX_FINDINGS, short, shown};

/// A value, and the line where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// A text in quotes, or a block of text.
    Text(String),
    /// A text without quotes: it may also be a number, a truth value or nothing.
    Word(String),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The line of the key.
    pub(super) line: usize,
    pub(super) node: Node,
}

/// Returns the manifest, with a finding for each key that is written twice. The last one counts.
pub(super) fn parse(text: &str) -> Result<(Node, Vec<Finding>), Finding> {
    if text.len() > MAX_BYTES {
        return Err(unreadable(
            1,
            "the manifest has more than 1 MiB",
            "Check that this is the right file",
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        // A YAML parser accepts more, such as a comma before the closing brace.
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| {
            let why = error.to_string();
            let why = why.split(" at line ").next().unwrap_or_default();
            let reason = format!("this is not JSON: {why}");
            unreadable(error.line().max(1), reason, "Correct the syntax")
        })?;
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let reason = format!("this is not YAML: {}", short(&error.info()));
            unreadable(error.marker().line().max(1), reason, "Correct the syntax")
        })?;
        builder.take(event, span.start.line())?;
    }
    let Builder { root, repeated, .. } = builder;
    match root {
        Some(root) if matches!(root.value, Value::Map(_)) => Ok((root, repeated)),
        root => Err(unreadable(
            root.map_or(1, |root| root.line),
            "this is not a manifest: it has no keys at its top",
            "Export the manifest from the app's page App Manifest, or write a starter",
        )),
    }
}

fn unreadable(line: usize, reason: impl Into<String>, remedy: &str) -> Finding {
    Finding {
        line,
        path: String::new(),
        grade: Grade::Error,
        reason: reason.into(),
        remedy: remedy.into(),
    }
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    repeated: Vec<Finding>,
    documents: usize,
}

/// A list or a mapping that has not ended.
enum Open {
    List(usize, Vec<Node>),
    Map {
        line: usize,
        entries: Vec<Entry>,
        keys: BTreeSet<String>,
        /// The key whose value comes next.
        key: Option<(usize, String)>,
    },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Finding> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(unreadable(
                        line,
                        "a second document begins here",
                        "Put each manifest into a file of its own",
                    ));
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                return Err(unreadable(
                    line,
                    "this is a YAML alias, which this check does not follow",
                    "Write the value itself",
                ));
            }
            Event::Scalar(text, style, ..) => self.scalar(line, text.into_owned(), style),
            Event::SequenceStart(..) => {
                self.refuse_as_key(line)?;
                self.open.push(Open::List(line, Vec::new()));
            }
            Event::MappingStart(..) => {
                self.refuse_as_key(line)?;
                self.open.push(Open::Map {
                    line,
                    entries: Vec::new(),
                    keys: BTreeSet::new(),
                    key: None,
                });
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(line, nodes)) => self.add(Node {
                    line,
                    value: Value::List(nodes),
                }),
                Some(Open::Map { line, entries, .. }) => self.add(Node {
                    line,
                    value: Value::Map(entries),
                }),
                None => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn scalar(&mut self, line: usize, text: String, style: ScalarStyle) {
        if !self.is_key(line, &text) {
            let value = match style {
                ScalarStyle::Plain => Value::Word(text),
                _ => Value::Text(text),
            };
            self.add(Node { line, value });
        }
    }

    /// Takes a text as a key, if a key comes next.
    fn is_key(&mut self, line: usize, text: &str) -> bool {
        let Some(Open::Map { key, keys, .. }) = self.open.last_mut() else {
            return false;
        };
        if key.is_some() {
            return false;
        }
        *key = Some((line, text.to_owned()));
        let is_new = keys.insert(text.to_owned());
        if !is_new && self.repeated.len() < MAX_FINDINGS {
            let finding = Finding {
                line,
                path: self.path(),
                grade: Grade::Error,
                reason: format!("the key {} is written twice", shown(text)),
                remedy: "Remove one of them".into(),
            };
            self.repeated.push(finding);
        }
        true
    }

    fn refuse_as_key(&self, line: usize) -> Result<(), Finding> {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            let reason = "a list or a mapping is used as a key";
            return Err(unreadable(line, reason, "Use a text as the key"));
        }
        Ok(())
    }

    fn add(&mut self, node: Node) {
        match self.open.last_mut() {
            Some(Open::List(_, nodes)) => nodes.push(node),
            Some(Open::Map { entries, key, .. }) => {
                if let Some((line, key)) = key.take() {
                    entries.push(Entry { key, line, node });
                }
            }
            None => self.root = Some(node),
        }
    }

    /// Returns the path of the current key.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match open {
                Open::List(_, nodes) => path.push_str(&format!("[{}]", nodes.len())),
                Open::Map { key, .. } => {
                    if let Some((_, key)) = key {
                        if !path.is_empty() {
                            path.push('.');
                        }
                        path.push_str(&short(key));
                    }
                }
            }
        }
        path
    }
}

/// A manifest has a few KiB.
const MAX_BYTES: usize = 1 << 20;
