//! What a check of a manifest found.

use std::fmt;

use crate::wording::printable;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Grade {
    /// The app works, but loses something or asks for more than it needs.
    Warning,
    /// Slack or a reviewer refuses it, or a part of the app cannot work.
    Error,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One fault of a manifest. Its text is one line, such as for a terminal.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// The line, from 1. If something is missing, the line of the block where it belongs.
    pub line: usize,
    /// The place in the manifest, such as `settings.token_rotation_enabled`.
    pub path: String,
    /// How grave it is.
    pub grade: Grade,
    /// What is wrong, and why it matters.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            path,
            grade,
            reason,
            remedy,
        } = self;
        write!(f, "line {line}: {grade}: ")?;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        write!(f, "{reason}. {remedy}.")
    }
}

/// Returns a text of the manifest for a message: short, on one line and quoted.
pub(super) fn shown(text: &str) -> String {
    format!("`{}`", short(text))
}

/// Returns the first characters of a text, on one line.
pub(super) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    printable(&shown)
}

/// Returns texts as a list for a message.
pub(super) fn listed<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let shown: Vec<_> = texts.into_iter().take(LISTED + 1).map(shown).collect();
    if shown.len() > LISTED {
        return format!("{} and more", shown[..LISTED].join(", "));
    }
    shown.join(", ")
}

pub(super) const MAX_FINDINGS: usize = 1000;

/// Enough for each name that Slack accepts.
const SHOWN: usize = 120;

const LISTED: usize = 12;
