//! The commands that change tenants. Each says what it does, asks, and then calls the library.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};
use slack_installs::audit::AuditOptions;
use slack_installs::inspect::counted;
use slack_installs::operate::{
    Examined, OperateError, ReconcileConfig, Reconciled, RevokeOutcome, Verdict,
};
use slack_installs::store::{AuditContext, AuditStore as _, Credential};
use slack_installs::{
    Delete, InstallationKey, InstallationStore as _, OperatorOptions, OperatorParts, TokenRotator,
};

use super::tenant::{halted, named, stored, unrefreshed};
use super::{Session, interrupted};
use crate::args::{Act, Deleting, Reasoned, Reconcile, Refresh};
use crate::confirm::{Decision, confirmed};
use crate::failure::{Code, Failure};
use crate::output::{Output, shortened};

/// What a command did.
#[derive(Serialize)]
struct Done {
    action: &'static str,
    tenant: InstallationKey,
    is_dry_run: bool,
    /// A stable word.
    outcome: &'static str,
    /// The outcome, in a sentence.
    text: String,
    details: Value,
}

fn report(session: &Session<'_>, done: &Done) {
    session.output.report(done, |done| {
        let dry = if done.is_dry_run { "dry run: " } else { "" };
        let text = format!("{dry}{}: {}", done.tenant, done.text);
        session.output.line(&text)
    });
}

pub(super) async fn parts(
    session: &Session<'_>,
    calls_slack: bool,
    leaves_notes: bool,
) -> Result<OperatorParts, Failure> {
    let mut options = OperatorOptions::default();
    options.calls_slack = calls_slack;
    options.leaves_notes = leaves_notes;
    let mut builder = session.variables.app(session.args.database.as_deref())?;
    // Otherwise the log would not explain the rows that this program writes.
    let registry = session.store().await?.registry(None, 1).await?;
    if !registry.is_empty() {
        builder = builder.audit(AuditOptions::default().strict());
    }
    let parts = builder.open_operator(options).await?;
    if let Some(log) = &parts.audit {
        session.log.get_or_init(|| log.clone());
    }
    Ok(parts)
}

/// Returns who acts, and why, for the audit log. `Operator` does this itself.
pub(super) fn context(action: &str, reason: Option<&str>) -> AuditContext {
    let purpose = match reason {
        Some(reason) => format!("{action}: {reason}"),
        None => action.to_owned(),
    };
    AuditContext::actor("operator").because(&purpose)
}

/// Puts a tenant on hold, or ends the hold.
pub(crate) async fn hold(
    session: &Session<'_>,
    args: &Reasoned,
    is_on: bool,
) -> Result<Code, Failure> {
    let tenant = &args.tenant;
    let before = stored(session, tenant).await?;
    let (action, verb) = if is_on {
        ("freeze", "put on hold, so that no token is handed out")
    } else {
        (
            "thaw",
            "taken off hold, so that tokens are handed out again",
        )
    };
    let was_on = before.hold.as_ref().is_some_and(|hold| hold.is_on);
    let mut done = Done {
        action,
        tenant: tenant.clone(),
        is_dry_run: args.act.dry_run,
        outcome: "done",
        text: format!("{verb}: {}", args.reason),
        details: json!({ "reason": args.reason, "was_on_hold": was_on }),
    };
    if was_on == is_on {
        done.outcome = "nothing_to_do";
        done.text = if is_on {
            "already on hold; the first reason is kept".to_owned()
        } else {
            "not on hold".to_owned()
        };
        report(session, &done);
        return Ok(Code::Ok);
    }
    let what = format!("{} will be {verb}", named(&before));
    if confirmed(&args.act, &what, tenant.id()).await? == Decision::Act {
        let operator = parts(session, false, true).await?.operator;
        let held = if is_on {
            operator.freeze(tenant, &args.reason).await
        } else {
            operator.unfreeze(tenant, &args.reason).await
        };
        if let Err(error) = held {
            return Err(halted(session, &before, error.into()).await);
        }
    }
    report(session, &done);
    Ok(Code::Ok)
}

/// Revokes a tenant's tokens and deletes its data.
pub(crate) async fn revoke(session: &Session<'_>, args: &Deleting) -> Result<Code, Failure> {
    let (tenant, act) = (&args.reasoned.tenant, &args.reasoned.act);
    let before = stored(session, tenant).await?;
    let rows = before.rows.len();
    let what = format!(
        "The app will be uninstalled from {}, or its tokens revoked, and {} deleted",
        named(&before),
        counted(rows, "row")
    );
    let mut done = Done {
        action: "revoke",
        tenant: tenant.clone(),
        is_dry_run: act.dry_run,
        outcome: "would_revoke",
        text: what.clone(),
        details: json!({ "reason": args.reasoned.reason, "rows": rows }),
    };
    if confirmed(act, &what, tenant.id()).await? == Decision::Act {
        let operator = parts(session, true, !args.no_note).await?.operator;
        let revoked = match operator.revoke(tenant, &args.reasoned.reason).await {
            Ok(revoked) => revoked,
            Err(error) => {
                let next = after_revoke(tenant, &error);
                let failure = halted(session, &before, error.into()).await;
                return Err(failure.and(&next));
            }
        };
        (done.outcome, done.text) = match revoked {
            RevokeOutcome::Uninstalled => (
                "uninstalled",
                "Slack uninstalled the app, and the data is deleted".to_owned(),
            ),
            RevokeOutcome::TokensRevoked => (
                "tokens_revoked",
                "the tokens are revoked and the data is deleted; Slack may still list the app"
                    .to_owned(),
            ),
            _ => ("not_installed", "nothing was stored".to_owned()),
        };
    }
    report(session, &done);
    Ok(Code::Ok)
}

/// Says what a `revoke` that failed has done at Slack, and how to go on.
fn after_revoke(tenant: &InstallationKey, error: &OperateError) -> String {
    let purge = format!("`slack-installs purge {tenant} --reason …` deletes the data");
    match error {
        OperateError::Purge(_) => {
            format!("Slack has removed the app or revoked its tokens; {purge}")
        }
        OperateError::Slack(_) => format!(
            "run the same command again to revoke the tokens; if they are certainly dead, {purge}"
        ),
        _ => format!(
            "its tokens may be valid at Slack: run the same command again if the row can be \
             mended, or remove the app in Slack; then {purge}"
        ),
    }
}

/// Deletes a tenant's data.
pub(crate) async fn purge(session: &Session<'_>, args: &Deleting) -> Result<Code, Failure> {
    let (tenant, act) = (&args.reasoned.tenant, &args.reasoned.act);
    let before = stored(session, tenant).await?;
    let rows = before.rows.len();
    let what = format!(
        "{} of {} will be deleted; its tokens stay valid at Slack",
        counted(rows, "row"),
        named(&before)
    );
    let mut done = Done {
        action: "purge",
        tenant: tenant.clone(),
        is_dry_run: act.dry_run,
        outcome: "would_purge",
        text: what.clone(),
        details: json!({ "reason": args.reasoned.reason, "rows": rows }),
    };
    if confirmed(act, &what, tenant.id()).await? == Decision::Act {
        let operator = parts(session, false, !args.no_note).await?.operator;
        let any = match operator.purge(tenant, &args.reasoned.reason).await {
            Ok(any) => any,
            Err(error) => return Err(halted(session, &before, error.into()).await),
        };
        (done.outcome, done.text) = if any {
            ("purged", "the data is deleted".to_owned())
        } else {
            ("not_installed", "no installation was stored".to_owned())
        };
    }
    report(session, &done);
    Ok(Code::Ok)
}

/// Replaces a pair of tokens. Returns its expiry, and why the old ones could not be revoked.
async fn replaced(
    rotator: &TokenRotator,
    args: &Refresh,
    credential: Credential,
) -> Result<(Option<SystemTime>, Option<slack_installs::slack::Error>), Failure> {
    let tenant = &args.tenant;
    if args.revive {
        rotator.revive(tenant, credential.clone()).await?;
    }
    if args.leaked {
        let rotated = rotator.rotate_now(tenant, credential).await?;
        return Ok((rotated.token.expires_at, rotated.unrevoked));
    }
    let token = rotator.refresh_now(tenant, credential).await?;
    Ok((token.expires_at, None))
}

/// Runs `refresh`.
pub(crate) async fn refresh(session: &Session<'_>, args: &Refresh) -> Result<Code, Failure> {
    let tenant = &args.tenant;
    let credential = match &args.user {
        Some(user) => Credential::User(user.clone()),
        None => Credential::Bot,
    };
    let whose = args.user.as_ref().map_or("bot", |user| user.as_str());
    let asked = async {
        let before = stored(session, tenant).await?;
        let named = named(&before);
        let what = format!("The tokens of {whose} of {named} will be replaced");
        let opened = match confirmed(&args.act, &what, tenant.id()).await? {
            Decision::Act => Some(parts(session, true, true).await?),
            Decision::DryRun => None,
        };
        Ok::<_, Failure>((before, what, opened))
    };
    // A signal between the two halves is not lost.
    let mut signal = std::pin::pin!(interrupted());
    let (before, what, opened) = tokio::select! {
        biased;
        () = &mut signal => {
            return Err(Failure::new(Code::Interrupted, "interrupted; nothing was changed"));
        }
        asked = asked => asked?,
    };
    let mut done = Done {
        action: "refresh",
        tenant: tenant.clone(),
        is_dry_run: args.act.dry_run,
        outcome: "would_refresh",
        text: what.clone(),
        details: json!({ "credential": whose }),
    };
    let Some(OperatorParts { rotator, .. }) = opened else {
        report(session, &done);
        return Ok(Code::Ok);
    };
    let context = context("refresh", args.reason.as_deref());
    let refreshed = context.scope(replaced(&rotator, args, credential));
    let outcome = tokio::select! {
        biased;
        () = signal => Err(Failure::new(
            Code::Interrupted,
            "interrupted; a refresh that had begun was completed",
        )),
        outcome = refreshed => outcome,
    };
    // A pair that Slack issued must be stored before the program ends.
    rotator.shutdown(SHUTDOWN).await;
    let (expires_at, unrevoked) = match outcome {
        Ok(refreshed) => refreshed,
        Err(failure) => return Err(unrefreshed(session, &before, whose, failure).await),
    };
    if let Some(error) = unrevoked {
        let failure = Failure::from(error);
        let text = format!(
            "the pair was replaced, but the old tokens could not be revoked, so Slack may accept \
             them until they expire, at most 12 hours after their issue: {}",
            failure.text
        );
        return Err(Failure::new(Code::Slack, text));
    }
    let expires_at = expires_at.map(slack_installs::inspect::Timestamp);
    done.outcome = "refreshed";
    done.text = match expires_at {
        Some(at) => format!("the tokens of {whose} were replaced; they expire at {at}"),
        None => format!("the tokens of {whose} were replaced"),
    };
    done.details = json!({ "credential": whose, "expires_at": expires_at });
    report(session, &done);
    Ok(Code::Ok)
}

/// Removes the webhook of a channel.
pub(crate) async fn remove_webhook(
    session: &Session<'_>,
    tenant: &InstallationKey,
    channel: &str,
    reason: Option<&str>,
    act: &Act,
) -> Result<Code, Failure> {
    let before = stored(session, tenant).await?;
    let install = before.installation.as_ref();
    let hooks = install.map(|it| it.webhooks.as_slice()).unwrap_or_default();
    if !hooks.iter().any(|hook| hook.channel_id == channel) {
        let known = hooks.iter().take(NAMED);
        let known = known.map(|it| format!("{} ({})", it.channel_id, shortened(&it.channel, 40)));
        let known: Vec<_> = known.collect();
        let others = if known.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has those of {}", known.join(", "))
        };
        return Err(Failure::new(
            Code::NotFound,
            format!("{tenant} has no webhook of channel {channel}; {others}"),
        ));
    }
    let what = format!(
        "The webhook of {channel} of {} will be removed",
        named(&before)
    );
    let mut done = Done {
        action: "webhook remove",
        tenant: tenant.clone(),
        is_dry_run: act.dry_run,
        outcome: "would_remove",
        text: what.clone(),
        details: json!({ "channel": channel }),
    };
    if confirmed(act, &what, tenant.id()).await? == Decision::Act {
        let store = parts(session, false, true).await?.store;
        let context = context("webhook remove", reason);
        let webhook = Delete::webhook_of(channel);
        if let Err(error) = context.scope(store.delete(tenant, &webhook)).await {
            return Err(halted(session, &before, error.into()).await);
        }
        done.outcome = "removed";
        done.text = format!("the webhook of {channel} is removed");
    }
    report(session, &done);
    Ok(Code::Ok)
}

/// Asks Slack about every tenant.
pub(crate) async fn reconcile(session: &Session<'_>, args: &Reconcile) -> Result<Code, Failure> {
    let what = format!(
        "Slack will be asked about every tenant, and up to {} that it confirms as dead will be \
         deleted",
        counted(args.most_purges, "tenant")
    );
    let decision = confirmed(&args.act, &what, "reconcile").await?;
    let operator = parts(session, true, !args.no_note).await?.operator;
    let config = ReconcileConfig {
        repairs: decision == Decision::Act,
        pause: Duration::from_millis(args.pause),
        most_purges: args.most_purges,
        most_percent: args.most_percent,
        reason: args.reason.clone(),
    };
    let is_dry_run = decision == Decision::DryRun;
    let report = operator.reconcile(&config).await.map_err(|error| {
        Failure::from(error).and(if is_dry_run {
            "nothing was changed"
        } else {
            "tenants that were deleted or corrected before stay so: run the same command again for \
             the others"
        })
    })?;
    let json = json!({
        "action": "reconcile",
        "is_dry_run": is_dry_run,
        "reason": args.reason,
        "examined": report.examined,
        "purged": report.purged,
        "repaired": report.repaired,
        "is_guard_tripped": report.is_guard_tripped,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    });
    session
        .output
        .report(&json, |_| swept(session.output, &report, is_dry_run));
    if report.is_guard_tripped && !is_dry_run {
        return Err(Failure::new(
            Code::Refused,
            "more tenants look dead than one sweep may delete, so none was deleted: check the \
             app's allow-list of addresses, then raise --most-purges or --most-percent",
        ));
    }
    Ok(Code::Ok)
}

fn finding(it: &Examined) -> Value {
    json!({ "tenant": it.key, "verdict": verdict(&it.verdict) })
}

fn verdict(it: &Verdict) -> String {
    match it {
        Verdict::Unclear(Some(code)) => format!("Unclear({code})"),
        Verdict::Unclear(None) => "Unclear".to_owned(),
        other => format!("{other:?}"),
    }
}

fn swept(output: &Output, report: &Reconciled, is_dry_run: bool) -> String {
    let dry = if is_dry_run { "dry run: " } else { "" };
    let mut text = output.line(&format!(
        "{dry}{} examined, {} purged, {} repaired",
        counted(report.examined, "tenant"),
        report.purged,
        report.repaired
    ));
    for it in &report.findings {
        text.push_str(&output.line(&format!("{}: {}", it.key, verdict(&it.verdict))));
    }
    let is_silent = |it: &&Examined| it.verdict == Verdict::Unclear(None);
    let silent = report.findings.iter().filter(is_silent).count();
    if silent > 0 && silent == report.examined {
        text.push_str(&output.line(
            "Slack gave no usable response for any tenant; `slack-installs doctor` checks Slack",
        ));
    }
    if is_dry_run && report.is_guard_tripped {
        text.push_str(&output.line(
            "more tenants look dead than one sweep may delete (--most-purges, --most-percent), so \
             none would be deleted",
        ));
    }
    text
}

/// The channels that an error names.
const NAMED: usize = 5;

/// A refresh takes at most one lease (15 s). The rest allows for a slow database.
const SHUTDOWN: Duration = Duration::from_secs(30);
