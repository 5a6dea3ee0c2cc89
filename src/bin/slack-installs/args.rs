//! The arguments. None of them takes a secret, because every user of a machine may read the
//! arguments of a program.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use slack_installs::{EnterpriseId, InstallationKey, KeyId, UserId};

/// Looks after the installations of a Slack app: finds what is wrong with a tenant, and mends it.
///
/// The app's values come from the same environment variables that the app reads, or from a file
/// (`--config`). `slack-installs init` makes one with comments.
#[derive(Debug, Parser)]
#[command(name = "slack-installs", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 ok, 1 failed or a check found a failure, 2 usage, \
    3 not found, 4 refused, 5 database, 6 keys, 7 Slack, 8 damaged data, 130 interrupted."
)]
pub(crate) struct Args {
    /// A file with lines `NAME=value`. The environment has precedence
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Another database than SLACK_INSTALLS_URL: a URL without a password, or env:NAME, file:PATH
    /// or fd:NUMBER to read the URL from there
    #[arg(long, global = true, value_name = "DATABASE")]
    pub(crate) database: Option<String>,

    /// The form of the output
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub(crate) format: Format,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Human,
    /// One JSON object; `list` prints one per line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks the database, the keys, all rows, Slack and the clock, and names the remedies
    Doctor,
    /// Explains how a request of a tenant resolves, and what is wrong with it
    Explain(Explain),
    /// Shows the stored rows of a tenant, without secrets
    Show {
        /// The id of a workspace (T…) or an organisation (E…)
        tenant: InstallationKey,
    },
    /// Lists tenants
    List(List),
    /// Counts tenants, their tokens and their rows
    Stats,
    /// Opens every row of the app, and names those that do not open
    Verify,
    /// Replaces the tokens of the bot or of a user by a new pair
    Refresh(Refresh),
    /// Puts a tenant on hold: its data is kept, and no token is handed out
    Freeze(Reasoned),
    /// Ends a hold
    Thaw(Reasoned),
    /// Uninstalls the app at Slack, or revokes its tokens, and deletes the tenant's data
    Revoke(Deleting),
    /// Deletes the tenant's data without a call to Slack
    Purge(Deleting),
    /// Asks Slack about every tenant, and deletes what Slack confirms as dead
    Reconcile(Reconcile),
    /// Changes a tenant's webhooks
    #[command(subcommand)]
    Webhook(Webhook),
    /// Lists, rotates and wraps the data keys
    #[command(subcommand)]
    Keys(Keys),
    /// Checks an app manifest, in YAML or JSON. It needs no credentials
    CheckManifest(CheckManifest),
    /// Prints a manifest for an app that has none. It needs no credentials
    Manifest(Manifest),
    /// Reads, verifies and exports the audit log
    #[command(subcommand)]
    Audit(Audit),
    /// Creates or migrates the tables of the database
    Migrate {
        /// Says what would be done, and changes nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Copies all rows to another database. Into a SQLite file, the copy is a backup
    Copy(Copy),
    /// Makes a master key and a configuration file
    Init {
        /// Where the files are made
        #[arg(long, default_value = ".")]
        directory: PathBuf,
    },
    /// Prints a script that completes commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page, or writes all pages into a directory
    Man {
        /// The directory
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Explain {
    /// The id of a workspace (T…) or an organisation (E…)
    pub(crate) tenant: InstallationKey,
    /// The organisation of the workspace (E…), if its requests name one
    #[arg(long, value_name = "ORGANISATION")]
    pub(crate) org: Option<EnterpriseId>,
    /// The bot scopes that the app requests. The default is SLACK_INSTALLS_SCOPES
    #[arg(long, value_name = "SCOPES")]
    pub(crate) scopes: Option<String>,
    /// The user scopes that the app requests. The default is SLACK_INSTALLS_USER_SCOPES
    #[arg(long, value_name = "SCOPES")]
    pub(crate) user_scopes: Option<String>,
}

/// Only tenants that meet every given condition.
#[derive(Debug, ClapArgs)]
pub(crate) struct List {
    /// Only tenants with an access token that expires within this many hours, or has expired
    #[arg(long, value_name = "HOURS", num_args = 0..=1, default_missing_value = "1")]
    pub(crate) expiring: Option<u32>,
    /// Only tenants with a dead chain of tokens
    #[arg(long)]
    pub(crate) dead: bool,
    /// Only tenants on hold
    #[arg(long)]
    pub(crate) on_hold: bool,
    /// Only tenants with a row that does not open
    #[arg(long)]
    pub(crate) damaged: bool,
    /// Only organisations, or only the tenants of this organisation
    #[arg(long, value_name = "ORGANISATION", num_args = 0..=1)]
    pub(crate) organisation: Option<Option<EnterpriseId>>,
    /// Only tenants with a row under this data key
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Act {
    /// Says what would be done, and changes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Does not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
}

/// A change that can have a reason.
#[derive(Debug, ClapArgs)]
pub(crate) struct Explained {
    /// The reason, for the audit log
    #[arg(long)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) act: Act,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Reasoned {
    /// The id of a workspace (T…) or an organisation (E…)
    pub(crate) tenant: InstallationKey,
    /// The reason, which is stored as plain text. At most 500 characters
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) act: Act,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Deleting {
    #[command(flatten)]
    pub(crate) reasoned: Reasoned,
    /// Leaves no note for the app's lifecycle hooks. Use it if the app has no hooks
    #[arg(long)]
    pub(crate) no_note: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Refresh {
    /// The id of a workspace (T…) or an organisation (E…)
    pub(crate) tenant: InstallationKey,
    /// The tokens of this user, instead of the bot's
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<UserId>,
    /// Clears the dead mark first, after Slack refused the refresh tokens by mistake
    #[arg(long)]
    pub(crate) revive: bool,
    /// Also revokes the old tokens, because they leaked
    #[arg(long, conflicts_with = "revive")]
    pub(crate) leaked: bool,
    /// The reason, for the audit log
    #[arg(long)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) act: Act,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Reconcile {
    /// The most tenants that are deleted. If more look dead, none is deleted
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub(crate) most_purges: usize,
    /// The largest share of all tenants that is deleted. One tenant may always be deleted
    #[arg(long, value_name = "PERCENT", default_value_t = 5)]
    pub(crate) most_percent: usize,
    /// The pause between two calls to Slack, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 200)]
    pub(crate) pause: u64,
    /// Leaves no note for the app's lifecycle hooks. Use it if the app has no hooks
    #[arg(long)]
    pub(crate) no_note: bool,
    /// The reason, for the audit log
    #[arg(long)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) act: Act,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Webhook {
    /// Removes the webhook of a channel
    Remove {
        /// The id of a workspace (T…) or an organisation (E…)
        tenant: InstallationKey,
        /// The channel's id (C…)
        #[arg(long)]
        channel: String,
        /// The reason, for the audit log
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        act: Act,
    },
}

/// Rotates a data key in phases, while the app runs: `add`, `promote` after 15 minutes, `reseal`
/// after 30 more, and `destroy` of the old key.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Lists the data keys, and the processes that use them
    List,
    /// Makes a data key that seals nothing yet
    Add {
        #[command(flatten)]
        why: Explained,
    },
    /// Makes a key the primary, which seals new rows. This also retires the old primary
    Promote {
        /// The key's id, from `keys list`
        key: KeyId,
        /// Does not wait until every process has the key. A process that cannot unwrap it then
        /// serves no tenant whose rows are sealed under it
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        why: Explained,
    },
    /// Seals all rows again under the primary key. A dry run counts the rows under each key
    Reseal {
        #[command(flatten)]
        why: Explained,
    },
    /// Deletes a retired key for ever, if no row needs it
    Destroy {
        /// The key's id, from `keys list`
        key: KeyId,
        #[command(flatten)]
        why: Explained,
    },
    /// Wraps all data keys again, for a new master key or key provider. No row changes
    Rewrap {
        #[command(flatten)]
        why: Explained,
    },
}

/// The log that an app writes if it calls `SlackAppBuilder::audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Prints the last records. They are not verified
    Tail {
        /// The number of records
        #[arg(long, value_name = "NUMBER", default_value_t = 20)]
        last: usize,
        #[command(flatten)]
        records: Records,
    },
    /// Verifies the log, and compares it with the stored rows
    Verify(VerifyAudit),
    /// Prints records, each as one line of JSON. An export of all records can be verified
    Export {
        #[command(flatten)]
        records: Records,
    },
    /// Records the versions of all rows, and accepts them as they are: those from before the log
    /// began, and those whose records were lost when a process crashed. Verify first
    Baseline {
        #[command(flatten)]
        why: Explained,
    },
    /// Makes a tenant's part of the log unreadable for ever. The records stay, as numbers
    Erase {
        /// The id of a workspace (T…) or an organisation (E…)
        tenant: InstallationKey,
        #[command(flatten)]
        why: Explained,
    },
}

/// Only records that meet every given condition.
#[derive(Debug, ClapArgs)]
pub(crate) struct Records {
    /// Only records of the last hours
    #[arg(long, value_name = "HOURS")]
    pub(crate) hours: Option<u32>,
    /// Only records of this tenant
    #[arg(long, value_name = "TENANT")]
    pub(crate) of: Option<InstallationKey>,
    /// Only records of this part of the app
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// Only records of this event
    #[arg(long, value_parser = EVENTS)]
    pub(crate) event: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyAudit {
    /// An export, instead of the log in the database. It needs only SLACK_CLIENT_ID
    pub(crate) file: Option<PathBuf>,
    /// The signed heads that a sink kept outside the database, one in each line
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Option<PathBuf>,
    /// A public key that signs heads: its epoch, a colon, and 64 hex digits. It can be given several
    /// times
    #[arg(long, value_name = "KEY")]
    pub(crate) public_key: Vec<String>,
}

/// The app's own configuration, with which a manifest is compared, comes from SLACK_REDIRECT_URI,
/// SLACK_INSTALLS_SCOPES and SLACK_INSTALLS_USER_SCOPES. What is not set is not compared.
#[derive(Debug, ClapArgs)]
pub(crate) struct CheckManifest {
    /// The manifest; `-` is the standard input
    pub(crate) file: PathBuf,
    /// The app is not for Slack's Marketplace, so the rules of its review do not apply
    #[arg(long)]
    pub(crate) unlisted: bool,
    /// Organisations are to install the app as a whole
    #[arg(long)]
    pub(crate) org_wide: bool,
}

/// The redirect URL and the scopes come from SLACK_REDIRECT_URI, SLACK_INSTALLS_SCOPES and
/// SLACK_INSTALLS_USER_SCOPES. `--format json` prints JSON instead of YAML.
#[derive(Debug, ClapArgs)]
pub(crate) struct Manifest {
    /// The app's name
    #[arg(long)]
    pub(crate) name: String,
    /// A slash command, such as /standup. It can be given several times
    #[arg(long, value_name = "COMMAND")]
    pub(crate) slash_command: Vec<String>,
    /// Organisations are to install the app as a whole
    #[arg(long)]
    pub(crate) org_wide: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Copy {
    /// The database with the rows: a URL without a password, or env:NAME, file:PATH or fd:NUMBER to
    /// read the URL from there. `env:SLACK_INSTALLS_URL` is the app's database
    pub(crate) from: String,
    /// The database that gets the rows, in the same forms. It must have no rows of this app
    pub(crate) to: String,
    /// Leaves the copy unfinished. Use it while the app still runs on the old database
    #[arg(long)]
    pub(crate) no_finish: bool,
}

/// The events of an audit log.
const EVENTS: [&str; 20] = [
    "baseline", "clear", "destroy", "end", "erase", "erased", "expired", "found", "gap", "head",
    "key", "open", "promote", "remove", "reseal", "rewrap", "saw", "start", "unwrap", "write",
];
