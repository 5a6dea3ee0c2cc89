//! The commands.

pub(crate) mod act;
pub(crate) mod audit;
pub(crate) mod copy;
pub(crate) mod keys;
pub(crate) mod list;
pub(crate) mod look;
pub(crate) mod manifest;
pub(crate) mod person;
pub(crate) mod setup;

use std::sync::OnceLock;

use slack_installs::AppStore;
use slack_installs::audit::Audit;

use crate::args::{Args, Command, Webhook};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::variables::Variables;

/// What a command works with.
pub(crate) struct Session<'a> {
    args: &'a Args,
    variables: &'a Variables,
    output: &'a Output,
    /// The log that this program writes.
    log: OnceLock<Audit>,
}

impl Session<'_> {
    /// Opens the store for reading.
    async fn store(&self) -> Result<AppStore, Failure> {
        let builder = self.variables.app(self.args.database.as_deref())?;
        Ok(builder.open_store_read_only().await?)
    }
}

/// Runs a command that needs the app's values.
pub(crate) async fn run(
    args: &Args,
    variables: &Variables,
    output: &Output,
) -> Result<Code, Failure> {
    let session = Session {
        args,
        variables,
        output,
        log: OnceLock::new(),
    };
    // A refresh waits for a pair that Slack may have issued, so it handles signals itself.
    let outcome = if let Command::Refresh(refresh) = &args.command {
        act::refresh(&session, refresh).await
    } else {
        tokio::select! {
            // The program waits for signals before it begins.
            biased;
            () = interrupted() => Err(Failure::new(
                Code::Interrupted,
                "interrupted; run the same command again to continue",
            )),
            outcome = carry_out(&session) => outcome,
        }
    };
    if let Some(log) = session.log.get() {
        log.close().await;
    }
    outcome
}

async fn carry_out(session: &Session<'_>) -> Result<Code, Failure> {
    match &session.args.command {
        Command::Doctor => look::doctor(session).await,
        Command::Explain(explain) => look::explain(session, explain).await,
        Command::Show { tenant } => look::show(session, tenant).await,
        Command::List(list) => list::list(session, list).await,
        Command::Stats => look::stats(session).await,
        Command::Verify => look::verify(session).await,
        Command::Freeze(reasoned) => act::hold(session, reasoned, true).await,
        Command::Thaw(reasoned) => act::hold(session, reasoned, false).await,
        Command::Revoke(deleting) => act::revoke(session, deleting).await,
        Command::Purge(deleting) => act::purge(session, deleting).await,
        Command::Reconcile(reconcile) => act::reconcile(session, reconcile).await,
        Command::Webhook(Webhook::Remove {
            tenant,
            channel,
            reason,
            act,
        }) => act::remove_webhook(session, tenant, channel, reason.as_deref(), act).await,
        Command::Audit(audit) => audit::run(session, audit).await,
        Command::Keys(keys) => keys::run(session, keys).await,
        Command::Migrate { dry_run } => setup::migrate(session, *dry_run).await,
        Command::Copy(copy) => copy::copy(session, copy).await,
        Command::Refresh(_)
        | Command::CheckManifest(_)
        | Command::Manifest(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Init { .. } => unreachable!("these commands were run before"),
    }
}

/// Waits for a signal that ends the program.
pub(crate) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};

        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    drop(tokio::signal::ctrl_c().await);
}
