//! Writes reports. Texts that tenants chose, such as names, never reach the terminal as they are.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use console::Term;
use serde::Serialize;
use serde_json::json;
use slack_installs::inspect::Grade;

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
            format!("error: {}\n", escaped(&failure.text))
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
        let text = escaped(text);
        let Some(columns) = self.columns else {
            return text;
        };
        let width = columns.saturating_sub(INDENT).max(NARROWEST);
        broken(&text, width).join(&format!("\n{:INDENT$}", ""))
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
    let mut line = String::with_capacity(text.len() + 1);
    // JSON has such characters only within texts, where an escape means the same.
    for char in text.chars() {
        if is_dangerous(char) {
            let mut units = [0; 2];
            for unit in char.encode_utf16(&mut units) {
                write!(line, "\\u{unit:04x}").expect("a String takes any text");
            }
        } else {
            line.push(char);
        }
    }
    line.push('\n');
    line
}

/// Returns YAML that a terminal can show. Only its quoted texts may have such characters.
pub(crate) fn safe_yaml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        if char != '\n' && is_dangerous(char) {
            write!(safe, "\\U{:08x}", u32::from(char)).expect("a String takes any text");
        } else {
            safe.push(char);
        }
    }
    safe
}

/// Returns a text with its control characters escaped, cut to [`LONGEST`] characters.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for (number, char) in text.chars().enumerate() {
        if number == LONGEST {
            safe.push('…');
            break;
        }
        if is_dangerous(char) {
            safe.extend(char.escape_unicode());
        } else {
            safe.push(char);
        }
    }
    safe
}

/// Returns the same, cut to this many characters.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    let mut short: String = text.chars().take(limit).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    escaped(&short)
}

/// Returns a text of several lines with each line escaped.
pub(crate) fn escaped_lines(text: &str) -> String {
    text.lines().fold(String::new(), |mut safe, line| {
        safe.push_str(&escaped(line));
        safe.push('\n');
        safe
    })
}

/// Breaks a text into lines between its words. A command in backticks is one word, so that it can be
/// copied.
fn broken(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut is_quoted = false;
    let words = text.split(|char| {
        is_quoted ^= char == '`';
        char == ' ' && !is_quoted
    });
    for word in words {
        let line = lines.last_mut().expect("one line at least");
        let needed = line.chars().count() + 1 + word.chars().count();
        if line.is_empty() {
            line.push_str(word);
        } else if needed <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Returns whether a character can move the cursor, or change the order or the look of a text.
fn is_dangerous(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
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
        assert_eq!(broken(text, 24), lines);
        assert_eq!(broken(text, 200), [text]);
        assert_eq!(broken("", 24), [""]);
    }

    #[test]
    fn control_characters_are_escaped_and_long_texts_are_cut() {
        let hostile = "a\u{1b}[2J\u{9b}31m\r\n\u{202e}\u{e0041}b";
        assert_eq!(
            escaped(hostile),
            "a\\u{1b}[2J\\u{9b}31m\\u{d}\\u{a}\\u{202e}\\u{e0041}b"
        );
        assert_eq!(escaped(&"x".repeat(65_536)).chars().count(), LONGEST + 1);
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("abcd", 3), "abc…");
        let line = json_line(&hostile);
        assert!(
            line.trim_end().chars().all(|it| !is_dangerous(it)),
            "{line}"
        );
        let back: String = serde_json::from_str(&line).expect("valid JSON");
        assert_eq!(back, hostile);
    }
}
