//! Writes reports. Texts that tenants chose, such as names, never reach the terminal as they are.

use std::io::{self, IsTerminal as _, Write as _};

use console::{Term, measure_text_width};
use serde::Serialize;
use serde_json::json;
use slack_installs::inspect::{Grade, printable, printable_json};

use crate::args::Format;
use crate::failure::Failure;

/// How reports are written.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    has_colours: bool,
    /// The width of the terminal; `None` without one.
    columns: Option<usize>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            format,
            has_colours: io::stdout().is_terminal() && !no_colour && !is_dumb,
            columns: Term::stdout()
                .size_checked()
                .map(|(_, columns)| columns.into()),
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes a report: as one line of JSON, or as the text that `human` makes.
    pub(crate) fn report<T: Serialize>(&self, report: &T, human: impl FnOnce(&T) -> String) {
        let text = if self.is_json() {
            json_line(report)
        } else {
            human(report)
        };
        print_all(&text);
    }

    /// Writes why a command failed, to the standard error.
    pub(crate) fn failure(&self, failure: &Failure) {
        let text = if self.is_json() {
            json_line(&json!({
                "error": {
                    "code": failure.code as u8,
                    "name": failure.code.name(),
                    "text": failure.text,
                }
            }))
        } else {
            let head = "error: ";
            let text = for_errors(&escaped(&failure.text), head.len());
            format!("{head}{text}\n")
        };
        // An error of the standard error cannot be shown anywhere.
        drop(io::stderr().write_all(text.as_bytes()));
    }

    /// Returns a line that begins with a grade, with the remedy below it, if there is one.
    pub(crate) fn graded(&self, grade: Grade, text: &str, remedy: &str) -> String {
        let (word, colour) = match grade {
            Grade::Ok => ("ok", GREEN),
            Grade::Warning => ("warning", YELLOW),
            Grade::Failure => ("failure", RED),
        };
        let head = self.coloured(&format!("{word:<7}"), colour);
        let mut lines = format!("{head} {}\n", self.hung(text));
        if !remedy.is_empty() {
            lines.push_str(&self.below(&format!("remedy: {remedy}")));
        }
        lines
    }

    /// Returns a line below a grade.
    pub(crate) fn below(&self, text: &str) -> String {
        format!("{:INDENT$}{}\n", "", self.hung(text))
    }

    /// Returns the mark of a step: whether it succeeds.
    pub(crate) fn mark(&self, is_ok: bool) -> String {
        if is_ok {
            self.coloured("+", GREEN)
        } else {
            self.coloured("!", RED)
        }
    }

    fn coloured(&self, word: &str, colour: &str) -> String {
        if self.has_colours {
            format!("\u{1b}[{colour}m{word}\u{1b}[0m")
        } else {
            word.to_owned()
        }
    }

    /// Escapes a text that begins at [`INDENT`]. On a terminal, breaks it into lines that begin
    /// there too.
    pub(crate) fn hung(&self, text: &str) -> String {
        self.laid(text, INDENT, INDENT)
    }

    /// Returns a text as lines. On a terminal, breaks it into lines of which all but the first are
    /// indented.
    pub(crate) fn line(&self, text: &str) -> String {
        self.laid(text, 0, 2) + "\n"
    }

    /// Escapes a text that begins at the column `first`. On a terminal, breaks it into lines, which
    /// begin at the column `rest`.
    pub(crate) fn laid(&self, text: &str, first: usize, rest: usize) -> String {
        laid(&escaped(text), self.columns, first, rest)
    }

    /// Returns parts of a line, which are not broken. On a terminal, a part that has no room begins
    /// another line.
    pub(crate) fn parts(&self, parts: &[String]) -> String {
        let columns = self.columns.unwrap_or(usize::MAX);
        let mut text = String::new();
        let mut used = 0;
        for part in parts {
            let width = measure_text_width(part);
            if used > 0 && used + 2 + width > columns {
                text.truncate(text.trim_end().len());
                text.push('\n');
                used = 0;
            }
            if !text.is_empty() {
                text.push_str("  ");
                used += 2;
            }
            text.push_str(part);
            used += width;
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    /// Returns the width of the terminal, if there is one.
    pub(crate) fn columns(&self) -> Option<usize> {
        self.columns
    }
}

/// Writes a text to the standard output. If its reader has closed it, ends the process as `head` wants.
pub(crate) fn print_all(text: &str) {
    let mut out = io::stdout().lock();
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

/// Writes a part of a long output. While its reader does not read, the program can be interrupted.
pub(crate) async fn print_part(text: String) {
    // A write does not fail: it succeeds, or ends the process.
    drop(tokio::task::spawn_blocking(move || print_all(&text)).await);
}

fn json_line<T: Serialize>(report: &T) -> String {
    safe_json(&serde_json::to_string(report).unwrap_or_else(|_| "null".to_owned()))
}

/// Returns JSON as one line that a terminal can show.
pub(crate) fn safe_json(text: &str) -> String {
    printable_json(text) + "\n"
}

/// Returns a text with its control characters escaped, cut to [`LONGEST`] characters.
pub(crate) fn escaped(text: &str) -> String {
    shortened(text, LONGEST)
}

/// Returns the same, cut to this many characters.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    let mut short: String = text.chars().take(limit).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    printable(&short)
}

/// Returns a text of several lines with each line escaped.
pub(crate) fn escaped_lines(text: &str) -> String {
    text.lines().fold(String::new(), |mut safe, line| {
        safe.push_str(&escaped(line));
        safe.push('\n');
        safe
    })
}

/// Breaks a text for the standard error, if it is a terminal. It begins at the column `first`.
pub(crate) fn for_errors(text: &str, first: usize) -> String {
    let columns = Term::stderr().size_checked();
    laid(text, columns.map(|(_, columns)| columns.into()), first, 2)
}

fn laid(text: &str, columns: Option<usize>, first: usize, rest: usize) -> String {
    let Some(columns) = columns else {
        return text.to_owned();
    };
    let width = |indent: usize| columns.saturating_sub(indent).max(NARROWEST);
    broken(text, width(first), width(rest)).join(&format!("\n{:rest$}", ""))
}

/// Breaks a text into lines between its words. A command in backticks is one word, so that it can
/// be copied. A list that is too long for a line is also broken after its commas.
fn broken(text: &str, first: usize, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut is_quoted = false;
    let words = text.split(|char| {
        is_quoted ^= char == '`';
        char == ' ' && !is_quoted
    });
    for word in words {
        let is_list = !word.contains('`') && measure_text_width(word) > width;
        let parts: Vec<&str> = if is_list {
            word.split_inclusive(',').collect()
        } else {
            vec![word]
        };
        for (nth, part) in parts.into_iter().enumerate() {
            let room = if lines.len() == 1 { first } else { width };
            let line = lines.last_mut().expect("one line at least");
            let space = if nth == 0 && !line.is_empty() {
                " "
            } else {
                ""
            };
            let needed = measure_text_width(line) + space.len() + measure_text_width(part);
            if line.is_empty() || needed <= room {
                line.push_str(space);
                line.push_str(part);
            } else {
                lines.push(part.to_owned());
            }
        }
    }
    lines
}

const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";

/// The width of a grade, and of the space after it.
const INDENT: usize = 8;

/// On a narrower terminal, lines are broken by the terminal.
const NARROWEST: usize = 24;

/// A sentence of an error is shorter.
const LONGEST: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_broken_between_words_but_not_within_a_command() {
        let text = "restore it; if it left, `slack-installs purge T1 --reason …` now";
        let lines = [
            "restore it; if it left,",
            "`slack-installs purge T1 --reason …`",
            "now",
        ];
        assert_eq!(broken(text, 24, 24), lines);
        assert_eq!(broken(text, 200, 200), [text]);
        assert_eq!(broken("", 24, 24), [""]);
        // The first line has another width, and a list has no spaces.
        assert_eq!(broken("one two three", 3, 9), ["one", "two three"]);
        let list = "chat:write,commands,files:read";
        assert_eq!(broken(list, 20, 20), ["chat:write,commands,", "files:read"]);
        assert_eq!(
            broken("名前名前 名前名前", 16, 16),
            ["名前名前", "名前名前"]
        );
    }

    #[test]
    fn control_characters_are_escaped_and_long_texts_are_cut() {
        let hostile = "a\u{1b}[2J\u{9b}31m\r\n\u{202e}\u{e0041}b";
        assert_eq!(
            escaped(hostile),
            "a\\u{1b}[2J\\u{9b}31m\\r\\n\\u{202e}\\u{e0041}b"
        );
        assert_eq!(escaped(&"x".repeat(65_536)).chars().count(), LONGEST + 1);
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("abcd", 3), "abc…");
        let line = json_line(&hostile);
        assert!(line.trim_end().chars().all(|it| !it.is_control()), "{line}");
        let back: String = serde_json::from_str(&line).expect("valid JSON");
        assert_eq!(back, hostile);
    }
}
