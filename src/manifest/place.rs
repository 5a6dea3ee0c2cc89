//! A place in a manifest, which may be empty.

use super::tree::{Node, Value};

/// A place in the manifest. If it is empty, its line is the line of the block where it belongs.
#[derive(Clone)]
pub(super) struct Place<'a> {
    pub(super) line: usize,
    pub(super) path: String,
    node: Option<&'a Node>,
}

impl<'a> Place<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self {
            line: node.line,
            path: String::new(),
            node: Some(node),
        }
    }

    /// Returns the place of this key. Of a key that is written twice, the last one counts.
    pub(super) fn key(&self, key: &str) -> Self {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        let entries = match self.node.map(|node| &node.value) {
            Some(Value::Map(entries)) => entries.as_slice(),
            _ => &[],
        };
        let entry = entries.iter().rev().find(|entry| entry.key == key);
        Self {
            line: entry.map_or(self.line, |entry| entry.line),
            path,
            node: entry.map(|entry| &entry.node),
        }
    }

    /// Returns the items of a list. What is not a list has none.
    pub(super) fn items(&self) -> Vec<Self> {
        let Some(Value::List(nodes)) = self.node.map(|node| &node.value) else {
            return Vec::new();
        };
        let item = |(at, node): (usize, &'a Node)| Self {
            line: node.line,
            path: format!("{}[{at}]", self.path),
            node: Some(node),
        };
        nodes.iter().enumerate().map(item).collect()
    }

    /// Returns a text. A number is one too, and nothing is not.
    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node?.value {
            Value::Text(text) => Some(text),
            Value::Word(word) if !is_nothing(word) => Some(word),
            _ => None,
        }
    }

    /// Returns a text that is not empty.
    pub(super) fn filled(&self) -> Option<&'a str> {
        self.text().filter(|text| !text.trim().is_empty())
    }

    /// Returns a truth value.
    pub(super) fn flag(&self) -> Option<bool> {
        match &self.node?.value {
            Value::Word(word) => match word.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn is_true(&self) -> bool {
        self.flag() == Some(true)
    }

    /// Returns whether the manifest says something here.
    pub(super) fn is_set(&self) -> bool {
        match self.node.map(|node| &node.value) {
            None => false,
            Some(Value::Word(word)) => !is_nothing(word),
            Some(_) => true,
        }
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.map(|node| &node.value), Some(Value::List(_)))
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.map(|node| &node.value), Some(Value::Map(_)))
    }
}

fn is_nothing(word: &str) -> bool {
    matches!(word, "" | "~" | "null" | "Null" | "NULL")
}
