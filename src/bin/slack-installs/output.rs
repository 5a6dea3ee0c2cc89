//! Writes reports. Texts that tenants chose, such as names, never reach the terminal as they are.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

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
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            format,
            has_colours: io::stdout().is_terminal() && !no_colour && !is_dumb,
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

    /// Returns a grade as a word, coloured on a terminal.
    pub(crate) fn grade(&self, grade: Grade) -> String {
        let (word, colour) = match grade {
            Grade::Ok => ("ok", "32"),
            Grade::Warning => ("warning", "33"),
            Grade::Failure => ("failure", "31"),
        };
        let padded = format!("{word:<7}");
        if self.has_colours {
            format!("\u{1b}[{colour}m{padded}\u{1b}[0m")
        } else {
            padded
        }
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

/// A sentence of an error is shorter.
const LONGEST: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

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
