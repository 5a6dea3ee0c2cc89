//! The app's values: environment variables, and a file of lines `NAME=value`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use slack_installs::{SlackApp, SlackAppBuilder};
use zeroize::Zeroizing;

use crate::failure::{Code, Failure};

/// A secret variable `NAME` may also be given as `NAME_FILE`, `NAME_FD` or `NAME_COMMAND`.
const SECRETS: &[&str] = &[
    "SLACK_CLIENT_SECRET",
    "SLACK_INSTALLS_KEYS",
    "SLACK_INSTALLS_URL",
    "SLACK_OLD_CLIENT_SECRET",
    "SLACK_SIGNING_SECRET",
];

/// The variables that only this program reads.
const OWN: &[&str] = &["SLACK_INSTALLS_SCOPES", "SLACK_INSTALLS_USER_SCOPES"];

/// Values by their names.
pub(crate) struct Variables(BTreeMap<String, Zeroizing<String>>);

impl Variables {
    pub(crate) fn read(config: Option<&Path>) -> Result<Self, Failure> {
        let mut variables = Self::read_plain(config)?;
        for name in SECRETS {
            variables.resolve(name)?;
        }
        Ok(variables)
    }

    /// Reads the values without those that `NAME_FILE`, `NAME_FD` and `NAME_COMMAND` lead to.
    pub(crate) fn read_plain(config: Option<&Path>) -> Result<Self, Failure> {
        let mut values = match config {
            Some(path) => file(path)?,
            None => BTreeMap::new(),
        };
        for name in names() {
            let value = std::env::var_os(&name).filter(|value| !value.is_empty());
            if let Some(value) = value {
                let value = value
                    .into_string()
                    .map_err(|_| Failure::usage(format!("the variable {name} is not UTF-8")))?;
                values.insert(name, Zeroizing::new(value));
            }
        }
        Ok(Self(values))
    }

    /// Returns the value of one of our variables.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str())
    }

    /// Returns a builder with the values, and this database instead of the app's.
    pub(crate) fn app(&self, database: Option<&str>) -> Result<SlackAppBuilder, Failure> {
        let builder = SlackApp::from_variables(|name| self.get(name).map(OsString::from));
        Ok(match database {
            Some(place) => builder.database(self.database(place)?.as_str()),
            None => builder,
        })
    }

    /// Returns the URL of a database that an argument names.
    pub(crate) fn database(&self, place: &str) -> Result<Zeroizing<String>, Failure> {
        let (form, rest) = place.split_once(':').unwrap_or((place, ""));
        let what = "the database URL";
        match form {
            "env" => match self.0.get(rest) {
                Some(value) => Ok(value.clone()),
                None => {
                    let value = std::env::var(rest).ok().filter(|value| !value.is_empty());
                    let missing = || Failure::usage(format!("the variable {rest} is not set"));
                    value.map(Zeroizing::new).ok_or_else(missing)
                }
            },
            "file" => read_file(Path::new(rest), what),
            "fd" => read_descriptor(rest, what),
            _ if has_password(place) => Err(Failure::usage(
                "the argument has a password, which every user of this machine may read: put the \
                 URL into a variable or a file, and write env:NAME or file:PATH",
            )),
            _ => Ok(Zeroizing::new(place.to_owned())),
        }
    }

    /// Replaces `NAME_FILE`, `NAME_FD` and `NAME_COMMAND` by the value that they lead to.
    fn resolve(&mut self, name: &str) -> Result<(), Failure> {
        let forms = FORMS.map(|form| format!("{name}{form}"));
        let mut given: Vec<_> = forms
            .iter()
            .filter(|form| self.0.contains_key(*form))
            .collect();
        if self.0.contains_key(name) && !given.is_empty() || given.len() > 1 {
            return Err(Failure::usage(format!(
                "{name} is given twice: set only one of {name}, {}",
                forms.join(", ")
            )));
        }
        let Some(form) = given.pop() else {
            return Ok(());
        };
        let place = self.0.remove(form).unwrap_or_default();
        let value = match form.strip_prefix(name) {
            Some("_FILE") => read_file(Path::new(place.as_str()), form)?,
            Some("_FD") => read_descriptor(&place, form)?,
            _ => read_command(&place, form)?,
        };
        self.0.insert(name.to_owned(), value);
        Ok(())
    }
}

/// Returns the names of all variables.
fn names() -> Vec<String> {
    let forms = SECRETS
        .iter()
        .flat_map(|name| FORMS.map(|form| format!("{name}{form}")));
    let plain = SlackApp::VARIABLES.iter().chain(OWN);
    plain.map(|name| (*name).to_owned()).chain(forms).collect()
}

fn file(path: &Path) -> Result<BTreeMap<String, Zeroizing<String>>, Failure> {
    let text = read_file(path, "the configuration file")?;
    let known = names();
    let mut values = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| {
            let line = number + 1;
            Failure::usage(format!("{} line {line}: {why}", path.display()))
        };
        let pair = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| wrong("expected NAME=value"))?;
        let (name, value) = (name.trim(), value.trim());
        if !known.iter().any(|known| known == name) {
            let known = known.join(", ");
            return Err(wrong(&format!(
                "the name is unknown; the names are {known}"
            )));
        }
        if value.is_empty() {
            continue;
        }
        let value = Zeroizing::new(unquoted(value).to_owned());
        if values.insert(name.to_owned(), value).is_some() {
            return Err(wrong(&format!("{name} is set twice")));
        }
    }
    Ok(values)
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        let inner = value
            .strip_prefix(quote)
            .and_then(|it| it.strip_suffix(quote));
        if let Some(inner) = inner {
            return inner;
        }
    }
    value
}

fn read_file(path: &Path, what: &str) -> Result<Zeroizing<String>, Failure> {
    let file = File::open(path).map_err(|error| {
        Failure::usage(format!("{what} {} cannot be read: {error}", path.display()))
    })?;
    text_of(file, what)
}

fn read_descriptor(number: &str, what: &str) -> Result<Zeroizing<String>, Failure> {
    let number: u16 = number
        .trim()
        .parse()
        .map_err(|_| Failure::usage(format!("{what}: expected the number of a descriptor")))?;
    let file = File::open(format!("/dev/fd/{number}")).map_err(|error| {
        Failure::usage(format!("{what}: the descriptor cannot be read: {error}"))
    })?;
    text_of(file, what)
}

/// Runs a program, without a shell, and returns its output.
fn read_command(line: &str, what: &str) -> Result<Zeroizing<String>, Failure> {
    let mut words = line.split_whitespace();
    let program = words
        .next()
        .ok_or_else(|| Failure::usage(format!("{what} names no program")))?;
    let ran = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::usage(format!("{what}: the program does not run: {error}")))?;
    let output = Zeroizing::new(ran.stdout);
    if !ran.status.success() {
        return Err(Failure::usage(format!(
            "{what}: the program failed ({})",
            ran.status
        )));
    }
    text_of(output.as_slice(), what)
}

/// Reads a text, without the white space around it.
fn text_of(from: impl std::io::Read, what: &str) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(LONGEST + 1));
    let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    let read = from.take(limit).read_to_string(&mut text);
    read.map_err(|error| Failure::new(Code::Usage, format!("{what} cannot be read: {error}")))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Returns whether a database URL holds a password.
fn has_password(url: &str) -> bool {
    let authorities = url.split("://").skip(1);
    let has_user = |rest: &str| {
        let end = rest.find(['/', '?', ',']).unwrap_or(rest.len());
        let user = rest[..end].rsplit_once('@');
        user.is_some_and(|(user, _)| user.contains(':'))
    };
    url.to_ascii_lowercase().contains("password=") || authorities.into_iter().any(has_user)
}

const FORMS: [&str; 3] = ["_FILE", "_FD", "_COMMAND"];

/// Longer than any configuration file.
const LONGEST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_recognised() {
        for (url, is_secret) in [
            ("postgres://user:pw@host/db", true),
            ("postgres://:pw@host/db", true),
            ("postgres://host/db?password=x", true),
            ("postgres://host/db?PassWord=x", true),
            ("cluster:rediss://a:6379,rediss://:pw@b:6379", true),
            ("postgres://user@host:5432/db", false),
            ("redis://host:6379", false),
            ("sqlite:/tmp/a@b:c.sqlite3", false),
            ("postgres://host/db?sslrootcert=/a@b:c", false),
        ] {
            assert_eq!(has_password(url), is_secret, "{url}");
        }
    }

    #[test]
    fn quotes_around_a_value_are_removed() {
        for (value, inner) in [("\"a b\"", "a b"), ("'a'", "a"), ("a'", "a'"), ("\"", "\"")] {
            assert_eq!(unquoted(value), inner);
        }
    }
}
