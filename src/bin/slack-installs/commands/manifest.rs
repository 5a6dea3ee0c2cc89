//! Checks and writes app manifests. They need no credentials, no database and no runtime.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use slack_installs::manifest::{Distribution, Expected, Finding, Grade, Starter, check};
use slack_installs::{RedirectUri, Scopes};

use crate::args::{CheckManifest, Command, Manifest};
use crate::failure::{Code, Failure};
use crate::output::{Output, escaped, print_all, safe_json, safe_yaml};
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
        Command::Manifest(args) => Ok(written(args, expected, output)),
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
        let lines = findings.iter().map(|it| escaped(&it.to_string()) + "\n");
        let mut text: String = lines.collect();
        text.push_str(&format!("{errors} errors, {warnings} warnings\n"));
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

fn written(args: &Manifest, mut expected: Expected, output: &Output) -> Code {
    expected.is_org_wide = args.org_wide.then_some(true);
    let mut starter = Starter::new(args.name.as_str(), &expected);
    for command in &args.slash_command {
        starter = starter.with_command(command.as_str());
    }
    print_all(&if output.is_json() {
        starter.to_json().lines().map(safe_json).collect()
    } else {
        safe_yaml(&starter.to_yaml())
    });
    Code::Ok
}

/// More than the 1 MiB that a check accepts.
const LONGEST: u64 = 1024 * 1024 + 1;
