//! Texts for people: characters that a terminal or a log must not get as they are, and counts.

use std::fmt::{Display, Write as _};

/// Returns a text in which a terminal and a log show every character as it is. Only control
/// characters, and characters that are invisible or change the order of a text, are escaped.
///
/// ```
/// use slack_installs::inspect::printable;
///
/// assert_eq!(printable("it's a `\\` \u{1b}[2J"), "it's a `\\` \\u{1b}[2J");
/// ```
#[must_use]
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '\n' | '\r' | '\t') {
            safe.extend(char.escape_default());
        } else if is_dangerous(char) {
            safe.extend(char.escape_unicode());
        } else {
            safe.push(char);
        }
    }
    safe
}

/// Returns JSON as one line that a terminal can show. The escaped texts mean the same.
#[must_use]
pub fn printable_json(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    // JSON has such characters only within texts, where an escape means the same.
    for char in json.chars() {
        if is_dangerous(char) {
            let mut units = [0; 2];
            for unit in char.encode_utf16(&mut units) {
                write!(line, "\\u{unit:04x}").expect("a String takes any text");
            }
        } else {
            line.push(char);
        }
    }
    line
}

/// Returns YAML that a terminal can show. Only its quoted texts may have such characters.
#[cfg(feature = "manifest")]
pub(crate) fn printable_yaml(yaml: &str) -> String {
    let mut safe = String::with_capacity(yaml.len());
    for char in yaml.chars() {
        if char != '\n' && is_dangerous(char) {
            write!(safe, "\\U{:08x}", u32::from(char)).expect("a String takes any text");
        } else {
            safe.push(char);
        }
    }
    safe
}

/// Returns a number with its noun, which is in the plural unless the number is one.
///
/// ```
/// use slack_installs::inspect::counted;
///
/// assert_eq!(counted(1, "row"), "1 row");
/// assert_eq!(counted(0, "refresh"), "0 refreshes");
/// ```
#[must_use]
pub fn counted<N: Copy + Display + From<u8> + PartialEq>(count: N, noun: &str) -> String {
    if count == N::from(1) {
        return format!("{count} {noun}");
    }
    let hisses = ["s", "sh", "ch", "x"];
    let ending = if hisses.iter().any(|end| noun.ends_with(end)) {
        "es"
    } else {
        "s"
    };
    format!("{count} {noun}{ending}")
}

/// Returns whether a character can move the cursor, or change the order or the look of a text.
fn is_dangerous(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_characters_that_a_terminal_does_not_show_are_escaped() {
        let harmless = "it's \"a\" \\ `b` é e\u{301} 名前 ❤\u{fe0f} \u{a0}<script>&";
        assert_eq!(printable(harmless), harmless);
        for (hostile, safe) in [
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\r\n\tb", "a\\r\\n\\tb"),
            ("\u{202e}abc", "\\u{202e}abc"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("\u{3164}\u{e0041}", "\\u{3164}\\u{e0041}"),
        ] {
            assert_eq!(printable(hostile), safe);
            let json = serde_json::to_string(hostile).expect("a text");
            let line = printable_json(&json);
            assert!(!line.chars().any(is_dangerous), "{line:?}");
            let back: String = serde_json::from_str(&line).expect("JSON");
            assert_eq!(back, hostile);
        }
    }

    #[test]
    fn a_count_of_one_has_its_noun_in_the_singular() {
        for (count, noun, text) in [
            (1, "row", "1 row"),
            (0, "row", "0 rows"),
            (2, "data key", "2 data keys"),
            (1, "refresh", "1 refresh"),
            (2, "refresh", "2 refreshes"),
            (2, "process", "2 processes"),
            (11, "day", "11 days"),
        ] {
            assert_eq!(counted(count, noun), text);
        }
    }
}
