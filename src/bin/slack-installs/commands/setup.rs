//! The commands that set things up: completions, manual pages, new files, and tables.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory as _;
use serde_json::json;
use slack_installs::MasterKey;
use slack_installs::backend::{self, ConnectErrorKind};

use super::Session;
use crate::args::Args;
use crate::failure::{Code, Failure};
use crate::output::{Output, print_all};

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell) -> Code {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "slack-installs", &mut script);
    print_all(&String::from_utf8_lossy(&script));
    Code::Ok
}

/// Prints the manual page, or writes one page for each command.
pub(crate) fn man(directory: Option<&Path>) -> Result<Code, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(
            Code::Failed,
            format!("the manual page cannot be written: {error}"),
        )
    };
    if let Some(directory) = directory {
        std::fs::create_dir_all(directory).map_err(failed)?;
        clap_mangen::generate_to(Args::command(), directory).map_err(failed)?;
    } else {
        let mut page = Vec::new();
        let man = clap_mangen::Man::new(Args::command());
        man.render(&mut page).map_err(failed)?;
        print_all(&String::from_utf8_lossy(&page));
    }
    Ok(Code::Ok)
}

/// Makes a master key and a configuration file. Replaces no file.
pub(crate) fn init(directory: &Path, output: &Output) -> Result<Code, Failure> {
    let directory = directory.canonicalize().map_err(|error| {
        let place = directory.display();
        Failure::usage(format!("the directory {place} cannot be used: {error}"))
    })?;
    let key = directory.join(KEY_FILE);
    let config = directory.join(CONFIG_FILE);
    for path in [&key, &config] {
        if path.exists() {
            return Err(Failure::new(
                Code::Refused,
                format!(
                    "{} exists already, and a new key would not open the old rows; nothing was \
                     changed",
                    path.display()
                ),
            ));
        }
    }
    let mut text = MasterKey::generate().to_base64();
    text.push('\n');
    private(&key, &text)?;
    let database = directory.join("installations.sqlite3");
    let text = CONFIG
        .replace("{key}", &key.display().to_string())
        .replace("{database}", &database.display().to_string());
    if let Err(failure) = private(&config, &text) {
        // Nothing uses the key yet, and with it the command would be refused the next time.
        return Err(match std::fs::remove_file(&key) {
            Ok(()) => failure.and("nothing was changed"),
            Err(_) => failure.and(&format!("delete the new {}, and try again", key.display())),
        });
    }
    let report = json!({ "master_key_file": key, "config_file": config });
    output.report(&report, |_| {
        let (key, config) = (key.display(), config.display());
        let lines = [
            format!("made {key}: keep it apart from the database and its backups, and keep a copy"),
            format!(
                "made {config}: fill in the values, then run `slack-installs --config {config} \
                 doctor`"
            ),
        ];
        lines.iter().map(|line| output.line(line)).collect()
    });
    Ok(Code::Ok)
}

/// Writes a new file that only its owner can read.
fn private(path: &Path, text: &str) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
    });
    written.map_err(|error| {
        let place = path.display();
        Failure::new(Code::Failed, format!("{place} cannot be written: {error}"))
    })
}

/// Creates or migrates the tables.
pub(crate) async fn migrate(session: &Session<'_>, is_dry_run: bool) -> Result<Code, Failure> {
    let database = session.args.database.as_deref();
    let url = match database {
        Some(place) => session.variables.database(place)?,
        None => session.variables.database("env:SLACK_INSTALLS_URL")?,
    };
    let lacks = lacking(&url).await?;
    let (outcome, text) = match (lacks, is_dry_run) {
        (None, _) => ("nothing_to_do", "the tables are current".to_owned()),
        (Some(why), true) => (
            "would_migrate",
            format!("the tables would be created or migrated: {why}"),
        ),
        (Some(why), false) => {
            backend::migrate(&url).await?;
            (
                "migrated",
                format!("the tables are current now; before: {why}"),
            )
        }
    };
    let report = json!({
        "action": "migrate",
        "outcome": outcome,
        "is_dry_run": is_dry_run,
        "text": text,
    });
    session
        .output
        .report(&report, |_| session.output.line(&text));
    Ok(Code::Ok)
}

/// Returns what the tables lack; `None` if they are current.
async fn lacking(url: &str) -> Result<Option<String>, Failure> {
    let missing = match backend::connect_read_only(url).await {
        Ok(_) => backend::missing(url).await?,
        Err(error) => {
            return match error.kind() {
                ConnectErrorKind::Incomplete
                | ConnectErrorKind::NotMigrated
                // The role that owns the tables may be one that the app must not use.
                | ConnectErrorKind::Misconfigured => Ok(Some(error.to_string())),
                _ => Err(error.into()),
            };
        }
    };
    let text = format!("the database lacks {}", missing.join(", "));
    Ok((!missing.is_empty()).then_some(text))
}

const CONFIG_FILE: &str = "slack-installs.conf";

const KEY_FILE: &str = "master-key";

const CONFIG: &str = "\
# The values of a Slack app, for `slack-installs --config FILE`. Each line is NAME=value.
# An environment variable of the same name has precedence. Your app reads the same variables.

# From the app's page Basic Information at https://api.slack.com/apps.
SLACK_CLIENT_ID=

# The client secret, for the commands that call Slack: refresh, revoke, reconcile.
# Better than the secret itself: a file (_FILE), a descriptor (_FD) or a program (_COMMAND).
#SLACK_CLIENT_SECRET_FILE=/run/secrets/slack-client-secret
#SLACK_CLIENT_SECRET_COMMAND=/usr/bin/pass show slack/client-secret

# Only while you replace the client secret: the previous one.
#SLACK_OLD_CLIENT_SECRET_FILE=

# Only for GovSlack.
#SLACK_URL=https://slack-gov.com

# The database. Put a URL with a password into a file (_FILE), or get it from a program (_COMMAND).
SLACK_INSTALLS_URL=sqlite:{database}
#SLACK_INSTALLS_URL_FILE=/run/secrets/slack-installs-url

# The master key, or the URL of another key provider. Set only one of them.
SLACK_INSTALLS_MASTER_KEY_FILE={key}
#SLACK_INSTALLS_KEYS=aws-kms:arn:aws:kms:REGION:ACCOUNT:key/ID

# The scopes that the app requests, so that `explain` names those that a tenant did not grant.
#SLACK_INSTALLS_SCOPES=commands,chat:write
#SLACK_INSTALLS_USER_SCOPES=
";
