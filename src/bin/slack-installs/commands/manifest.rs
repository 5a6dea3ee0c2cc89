//! Checks and writes app manifests. They need no credentials, no database and no runtime.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use slack_installs::inspect::counted;
use slack_installs::manifest::{Distribution, Expected, Finding, Grade, Starter, check};
use slack_installs::{RedirectUri, Scopes};

use crate::args::{CheckManifest, Command, Manifest};
use crate::failure::{Code, Failure};
use crate::output::{Output, for_errors, print_all};
use crate::variables::Variables;

/// Runs `check-manifest` or `manifest`.
pub(crate) fn run(
    command: &Command,
    variables: &Variables,
    output: &Output,
) -> Result<Code, Failure> {
    let expected = expected(variables)?;
    match command {
        Command::CheckManifest(args) => checked(args, expected, output),
        Command::Manifest(args) => written(args, expected, output),
        _ => unreachable!("only the commands about manifests are passed"),
    }
}

/// Returns what the variables say about the app.
fn expected(variables: &Variables) -> Result<Expected, Failure> {
    let scopes = |name| variables.get(name).map(Scopes::from);
    let redirect = variables.get("SLACK_REDIRECT_URI").map(RedirectUri::new);
    let redirect = redirect.transpose().map_err(|error| {
        Failure::usage(format!("SLACK_REDIRECT_URI has a wrong value: {error}"))
    })?;
    Ok(Expected {
        redirect_urls: redirect.into_iter().collect(),
        scopes: scopes("SLACK_INSTALLS_SCOPES"),
        user_scopes: scopes("SLACK_INSTALLS_USER_SCOPES"),
        ..Expected::default()
    })
}

fn checked(args: &CheckManifest, mut expected: Expected, output: &Output) -> Result<Code, Failure> {
    if args.unlisted {
        expected.distribution = Distribution::Unlisted;
    }
    expected.is_org_wide = args.org_wide.then_some(true);
    let findings = check(&read(&args.file)?, &expected);
    let errors = findings
        .iter()
        .filter(|it| it.grade == Grade::Error)
        .count();
    let warnings = findings.len() - errors;
    let report = json!({
        "errors": errors,
        "warnings": warnings,
        "findings": findings.iter().map(json_of).collect::<Vec<_>>(),
    });
    output.report(&report, |_| {
        let lines = findings.iter().map(|it| output.line(&it.to_string()));
        let mut text: String = lines.collect();
        let (errors, warnings) = (counted(errors, "error"), counted(warnings, "warning"));
        text.push_str(&format!("{errors}, {warnings}\n"));
        text
    });
    Ok(if errors > 0 { Code::Failed } else { Code::Ok })
}

fn json_of(it: &Finding) -> Value {
    json!({
        "line": it.line,
        "path": it.path,
        "grade": it.grade.to_string(),
        "reason": it.reason,
        "remedy": it.remedy,
    })
}

/// Reads a manifest. Of a longer file, only the beginning is read: the check refuses its length.
fn read(path: &Path) -> Result<String, Failure> {
    let wrong = |error: std::io::Error| {
        Failure::usage(format!("{} cannot be read: {error}", path.display()))
    };
    let from: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(wrong)?)
    };
    let mut bytes = Vec::new();
    from.take(LONGEST).read_to_end(&mut bytes).map_err(wrong)?;
    // The end of a text that was cut may be half a character.
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) if error.utf8_error().error_len().is_none() => {
            Ok(String::from_utf8_lossy(error.as_bytes()).into_owned())
        }
        Err(_) => Err(Failure::usage(format!("{} is not UTF-8", path.display()))),
    }
}

/// Prints a manifest. Refuses one that its own check would refuse.
fn written(args: &Manifest, mut expected: Expected, output: &Output) -> Result<Code, Failure> {
    expected.is_org_wide = args.org_wide.then_some(true);
    let mut starter = Starter::new(args.name.as_str(), &expected);
    for command in &args.slash_command {
        starter = starter.with_command(command.as_str());
    }
    let text = if output.is_json() {
        starter.to_json()
    } else {
        starter.to_yaml()
    };
    // Some scopes are refused only in the Marketplace.
    expected.distribution = Distribution::Unlisted;
    let findings = check(&text, &expected);
    if let Some(error) = findings.iter().find(|it| it.grade == Grade::Error) {
        return Err(Failure::usage(format!(
            "{} has a wrong value: {}. {}. Nothing was written",
            source(&error.path),
            error.reason,
            error.remedy
        )));
    }
    print_all(&text);
    for note in placeholders(&expected) {
        eprintln!("{}", for_errors(note, 0));
    }
    Ok(Code::Ok)
}

/// Names what the manifest has in the place of a value that is not set.
fn placeholders(expected: &Expected) -> Vec<&'static str> {
    let is_empty = |scopes: &Option<Scopes>| scopes.as_ref().is_none_or(Scopes::is_empty);
    let has_no_scope = is_empty(&expected.scopes) && is_empty(&expected.user_scopes);
    let mut notes = Vec::new();
    notes.extend(has_no_scope.then_some(
        "note: SLACK_INSTALLS_SCOPES is not set, so the only scope is a placeholder: replace it",
    ));
    notes.extend(expected.redirect_urls.is_empty().then_some(
        "note: SLACK_REDIRECT_URI is not set, so all URLs are placeholders: replace them",
    ));
    notes
}

/// Returns the argument or variable that a part of the manifest comes from.
fn source(path: &str) -> &'static str {
    if path.starts_with("oauth_config.redirect_urls") {
        "SLACK_REDIRECT_URI"
    } else if path.starts_with("oauth_config.scopes.user") {
        "SLACK_INSTALLS_USER_SCOPES"
    } else if path.starts_with("oauth_config.scopes") {
        "SLACK_INSTALLS_SCOPES"
    } else if path.starts_with("features.slash_commands") {
        "--slash-command"
    } else if path.starts_with("settings") {
        "SLACK_REDIRECT_URI"
    } else {
        "--name"
    }
}

/// More than the 1 MiB that a check accepts.
const LONGEST: u64 = 1024 * 1024 + 1;
