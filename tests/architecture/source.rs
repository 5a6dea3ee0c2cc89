//! The source of the crate as these checks read it: all code, except comments, the text of
//! literals, and the bodies of `#[cfg(test)] mod`.

use std::fs;
use std::path::{Path, PathBuf};

use super::paths;

/// One file of the source. The crate's root is left out.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The path below `src`.
    pub(crate) path: PathBuf,
    /// The names of the modules that lead to it: `["oauth", "state"]`.
    pub(crate) modules: Vec<String>,
    pub(crate) code: String,
    /// The comment at the top of the file.
    pub(crate) head: String,
}

impl Source {
    pub(crate) fn new(path: PathBuf, text: &str) -> Self {
        let modules = path.with_extension("");
        let modules = modules.iter().map(|it| it.to_string_lossy().into_owned());
        let head = text.lines().take_while(|line| line.starts_with("//!"));
        Self {
            modules: modules.collect(),
            code: without_tests(&plain(text)),
            head: head.collect::<Vec<_>>().join("\n"),
            path,
        }
    }

    /// Returns the top-level module of the file.
    pub(crate) fn module(&self) -> &str {
        &self.modules[0]
    }
}

/// Returns every file except the crate's root, its programs, and files that contain only tests.
pub(crate) fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![src.clone()];
    let mut sources = Vec::new();
    let mut tests = test_modules(&[], &read(&src.join("lib.rs")));
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the source directory exists") {
            let path = entry.expect("the source directory exists").path();
            let inside = path.strip_prefix(&src).expect("the path is below `src`");
            if inside == Path::new("bin") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") && inside != Path::new("lib.rs")
            {
                let text = read(&path);
                let source = Source::new(inside.to_owned(), &text);
                tests.extend(test_modules(&source.modules, &text));
                sources.push(source);
            }
        }
    }
    sources.retain(|it| !tests.iter().any(|test| it.modules.starts_with(test)));
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(sources.len() > 10, "the source files were found");
    sources
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the source is text")
}

/// Returns the modules that a file declares as tests and that have their own file.
fn test_modules(parent: &[String], text: &str) -> Vec<Vec<String>> {
    let code = plain(text);
    let files = tests_of(&code).filter_map(|(_, rest)| {
        let name = paths::name(rest);
        rest[name.len()..]
            .starts_with(';')
            .then(|| [parent, &[name.to_owned()]].concat())
    });
    files.collect()
}

/// Returns where each `#[cfg(test)] mod` begins, and the code from its name on.
fn tests_of(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = code.match_indices("#[cfg(test)]");
    tests.filter_map(|(at, test)| {
        let mut rest = code[at + test.len()..].trim_start();
        while rest.starts_with("#[") {
            rest = rest.split_once(']')?.1.trim_start();
        }
        let rest = rest.strip_prefix("pub(crate) ").unwrap_or(rest);
        rest.strip_prefix("mod ").map(|rest| (at, rest))
    })
}

/// Returns the code without the bodies of its test modules.
pub(crate) fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut from = 0;
    for (at, rest) in tests_of(code)
        .filter(|(at, _)| *at >= from)
        .collect::<Vec<_>>()
    {
        let body = &rest[paths::name(rest).len()..];
        if let Some(body) = body.trim_start().strip_prefix('{') {
            kept.push_str(&code[from..at]);
            from = code.len() - body.len() + block(body);
        }
    }
    kept + &code[from..]
}

/// Returns the length of a block after its opening brace.
fn block(body: &str) -> usize {
    let mut depth = 1;
    for (at, char) in body.char_indices() {
        depth += i32::from(char == '{') - i32::from(char == '}');
        if depth == 0 {
            return at + 1;
        }
    }
    panic!("a block without an end: {body}");
}

/// Returns the code without comments and with empty literals.
pub(crate) fn plain(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let begins_name = code.chars().next_back().is_none_or(|it| !is_name(it));
        rest = if rest.starts_with("//") {
            &rest[rest.find('\n').unwrap_or(rest.len())..]
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if let Some((hashes, text)) = raw(rest).filter(|_| begins_name) {
            code.push_str("\"\"");
            let end = format!("\"{hashes}");
            text.split_once(&end).expect("a raw string ends").1
        } else if char == '"' {
            code.push_str("\"\"");
            quoted(&rest[1..], '"')
        } else if char == '\'' && is_char(rest) {
            code.push_str("' '");
            quoted(&rest[1..], '\'')
        } else {
            code.push(char);
            &rest[char.len_utf8()..]
        };
    }
    code
}

/// Returns what follows a comment, which may contain nested comments.
fn comment(text: &str) -> &str {
    let (mut depth, mut at) = (1, 2);
    while depth > 0 {
        let rest = &text[at..];
        let step = rest.chars().next().expect("a comment ends").len_utf8();
        at += match &rest.as_bytes()[..2] {
            b"/*" => {
                depth += 1;
                2
            }
            b"*/" => {
                depth -= 1;
                2
            }
            _ => step,
        };
    }
    &text[at..]
}

/// Returns the hashes of a raw string, and what follows its first quotation mark.
fn raw(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let (hashes, rest) = text.split_once('"')?;
    hashes.chars().all(|it| it == '#').then_some((hashes, rest))
}

/// Returns what follows the end of a literal.
fn quoted(text: &str, end: char) -> &str {
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        if char == '\\' {
            chars.next();
        } else if char == end {
            return &text[at + 1..];
        }
    }
    panic!("a literal without an end");
}

/// Reports whether this is a character and not a lifetime.
fn is_char(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

pub(crate) fn is_name(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}
