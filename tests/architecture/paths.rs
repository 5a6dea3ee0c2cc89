//! The paths that code names.

use super::source::is_name;

/// Returns all paths of code that begin with one of these names: `crate::a::{b, c::D}` is two. If a
/// `use` renames a path, the new name follows it.
pub(crate) fn paths(code: &str, begins: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("::") {
        let before = code[..at].trim_end_matches(is_name);
        let first = &code[before.len()..at];
        if begins(first) && !before.ends_with("::") {
            follow(&code[before.len()..], &mut Vec::new(), &mut found);
        }
    }
    found
}

/// Reads one path, or a group of them, and returns the code after it.
fn follow<'a>(code: &'a str, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        while !rest.trim_start().starts_with('}') {
            let mut path = before.clone();
            rest = follow(rest, &mut path, found).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        return &rest.trim_start()[1..];
    }
    let name = if code.starts_with('*') {
        "*"
    } else {
        name(code)
    };
    let rest = &code[name.len()..];
    before.push(name.to_owned());
    if let Some(rest) = rest.strip_prefix("::")
        && !rest.starts_with('<')
    {
        return follow(rest, before, found);
    }
    found.push(before.clone());
    let renamed = rest.trim_start().strip_prefix("as ");
    renamed.map_or(rest, |rest| &rest[self::name(rest).len()..])
}

/// Returns the name at the beginning of code.
pub(crate) fn name(code: &str) -> &str {
    let end = code.find(|char| !is_name(char)).unwrap_or(code.len());
    &code[..end]
}
