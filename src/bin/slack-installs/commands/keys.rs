//! The commands that change data keys: one for each phase of a rotation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};
use slack_installs::inspect::{Timestamp, counted};
use slack_installs::{AppStore, KeyId, KeyInfo, KeyList, KeyProcess};

use super::Session;
use super::act::{context, parts};
use crate::args::{Act, Keys};
use crate::confirm::{Decision, confirmed};
use crate::failure::{Code, Failure, chain};
use crate::output::Output;
use crate::progress::counter;

/// What a command did.
#[derive(Serialize)]
struct Done {
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    is_dry_run: bool,
    /// A stable word.
    outcome: &'static str,
    /// The outcome, in a sentence.
    text: String,
    details: Value,
}

impl Done {
    fn new(action: &'static str, key: Option<KeyId>, act: &Act, text: &str) -> Self {
        Self {
            action,
            key: key.map(|key| key.to_string()),
            is_dry_run: act.dry_run,
            outcome: "would_change",
            text: text.to_owned(),
            details: json!({}),
        }
    }

    fn report(&self, session: &Session<'_>) {
        session.output.report(self, |done| {
            let dry = if done.is_dry_run { "dry run: " } else { "" };
            session.output.line(&format!("{dry}{}", done.text))
        });
    }
}

/// Runs a command.
pub(crate) async fn run(session: &Session<'_>, keys: &Keys) -> Result<Code, Failure> {
    let (action, why) = match keys {
        Keys::List => return list(session).await,
        Keys::Add { why } => ("keys add", why),
        Keys::Promote { why, .. } => ("keys promote", why),
        Keys::Reseal { why } => ("keys reseal", why),
        Keys::Destroy { why, .. } => ("keys destroy", why),
        Keys::Rewrap { why } => ("keys rewrap", why),
    };
    let act = &why.act;
    let change = async {
        match keys {
            Keys::List => list(session).await,
            Keys::Add { .. } => add(session, act).await,
            Keys::Promote { key, force, .. } => promote(session, *key, *force, act).await,
            Keys::Reseal { .. } => reseal(session, act).await,
            Keys::Destroy { key, .. } => destroy(session, *key, act).await,
            Keys::Rewrap { .. } => rewrap(session, act).await,
        }
    };
    context(action, why.reason.as_deref()).scope(change).await
}

/// Opens the store for changes, with its audit log. `Session::store` comes first, which refuses an
/// empty database: this would make its first data key.
async fn writable(session: &Session<'_>) -> Result<AppStore, Failure> {
    Ok(parts(session, false, false).await?.store)
}

/// Returns the keys and their states; `None` if they cannot be read.
async fn listing(session: &Session<'_>) -> Option<Vec<KeyInfo>> {
    let store = session.store().await.ok()?;
    Some(store.keys().list().await.ok()?.keys)
}

/// Returns the result of a change. If it failed, says what is known about the keys.
async fn or_halted<T, E: Into<Failure>>(
    session: &Session<'_>,
    before: Option<Vec<KeyInfo>>,
    changed: Result<T, E>,
) -> Result<T, Failure> {
    let failure = match changed {
        Ok(changed) => return Ok(changed),
        Err(error) => error.into(),
    };
    let now = listing(session).await;
    Err(if before.is_some() && before == now {
        failure.and("no data key was changed")
    } else {
        failure.and("`slack-installs keys list` shows whether a data key was changed")
    })
}

async fn list(session: &Session<'_>) -> Result<Code, Failure> {
    let listed = session.store().await?.keys().list().await?;
    let report = json!({
        "keys": listed.keys.iter().map(key).collect::<Vec<_>>(),
        "processes": listed.processes.iter().map(process).collect::<Vec<_>>(),
    });
    session
        .output
        .report(&report, |_| shown(session.output, &listed));
    Ok(Code::Ok)
}

fn key(it: &KeyInfo) -> Value {
    json!({
        "id": it.id.to_string(),
        "epoch": it.epoch,
        "state": it.state,
        "added_at": it.added_at.map(Timestamp),
        "retired_at": it.retired_at.map(Timestamp),
    })
}

fn process(it: &KeyProcess) -> Value {
    json!({
        "id": it.id,
        "seen_at": Timestamp(it.seen_at),
        "keys": it.keys.iter().map(KeyId::to_string).collect::<Vec<_>>(),
    })
}

fn shown(output: &Output, listed: &KeyList) -> String {
    let mut text = String::new();
    for it in &listed.keys {
        let state = format!("{:?}", it.state).to_lowercase();
        let mut line = format!("{} epoch {} {state}", it.id, it.epoch);
        for (verb, at) in [("added", it.added_at), ("retired", it.retired_at)] {
            if let Some(at) = at {
                write!(line, ", {verb} at {}", Timestamp(at)).expect(FITS);
            }
        }
        text.push_str(&output.line(&line));
    }
    for it in &listed.processes {
        let keys: Vec<_> = it.keys.iter().map(KeyId::to_string).collect();
        let (id, at) = (&it.id, Timestamp(it.seen_at));
        let noun = if keys.len() == 1 { "key" } else { "keys" };
        let keys = keys.join(", ");
        let line = format!("process {id}, seen at {at}, has the {noun} {keys}");
        text.push_str(&output.line(&line));
    }
    text
}

async fn add(session: &Session<'_>, act: &Act) -> Result<Code, Failure> {
    session.store().await?;
    let what = "A data key will be made, which seals nothing yet";
    let mut done = Done::new("keys add", None, act, what);
    if confirmed(act, what, "add").await? == Decision::Act {
        let before = listing(session).await;
        let added = writable(session).await?.keys().add().await;
        let key = or_halted(session, before, added).await?;
        done.key = Some(key.to_string());
        done.outcome = "added";
        done.text = format!(
            "the data key {key} was made; in 15 minutes, `slack-installs keys promote {key}`"
        );
    }
    done.report(session);
    Ok(Code::Ok)
}

async fn promote(
    session: &Session<'_>,
    key: KeyId,
    force: bool,
    act: &Act,
) -> Result<Code, Failure> {
    let what = format!("The data key {key} will seal new rows, and the old primary is retired");
    let mut done = Done::new("keys promote", Some(key), act, &what);
    done.details = json!({ "force": force });
    let is_new = session
        .store()
        .await?
        .keys()
        .check_promote(key, force)
        .await?;
    if is_new && confirmed(act, &what, &key.to_string()).await? == Decision::Act {
        let before = listing(session).await;
        let promoted = writable(session).await?.keys().promote(key, force).await;
        or_halted(session, before, promoted).await?;
        done.outcome = "promoted";
        done.text = format!(
            "the data key {key} is the primary, and the old one is retired; in 30 minutes, \
             `slack-installs keys reseal`"
        );
    } else if !is_new {
        done.outcome = "nothing_to_do";
        done.text = format!("the data key {key} is the primary already");
    }
    done.report(session);
    Ok(Code::Ok)
}

async fn destroy(session: &Session<'_>, key: KeyId, act: &Act) -> Result<Code, Failure> {
    let what = format!("The data key {key} will be deleted for ever");
    let mut done = Done::new("keys destroy", Some(key), act, &what);
    if !session.store().await?.keys().check_destroy(key).await? {
        return Err(Failure::new(
            Code::NotFound,
            format!("the keyring does not list the data key {key}: it may be destroyed already"),
        ));
    }
    if confirmed(act, &what, &key.to_string()).await? == Decision::Act {
        let before = listing(session).await;
        let destroyed = writable(session).await?.keys().destroy(key).await;
        or_halted(session, before, destroyed).await?;
        done.outcome = "destroyed";
        done.text = format!("the data key {key} is deleted");
    }
    done.report(session);
    Ok(Code::Ok)
}

async fn reseal(session: &Session<'_>, act: &Act) -> Result<Code, Failure> {
    session.store().await?;
    let what = "All rows that are not under the primary data key will be sealed again under it";
    let mut done = Done::new("keys reseal", None, act, what);
    let skipped = if confirmed(act, what, "reseal").await? == Decision::Act {
        resealed(&writable(session).await?, &mut done).await?
    } else {
        usage(&session.store().await?, &mut done).await?
    };
    done.report(session);
    if skipped.is_empty() {
        return Ok(Code::Ok);
    }
    let rows = skipped.join("; ");
    Err(Failure::new(
        Code::Damaged,
        format!("some rows cannot be sealed again: {rows}"),
    ))
}

/// Seals all pages again. Returns the rows that cannot be.
async fn resealed(store: &AppStore, done: &mut Done) -> Result<Vec<String>, Failure> {
    let bar = counter("rows sealed again:");
    let (mut resealed, mut current, mut overtaken) = (0, 0, 0);
    let (mut skipped, mut from) = (Vec::new(), None);
    loop {
        let page = store.keys().reseal(from, AT_ONCE).await.map_err(|error| {
            Failure::from(error).and(
                "the rows that were sealed again before stay so: run the same command again for \
                 the others",
            )
        })?;
        resealed += page.resealed;
        current += page.current;
        overtaken += page.overtaken;
        skipped.extend(page.skipped);
        bar.set_position(u64::try_from(resealed + current).unwrap_or(u64::MAX));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    done.outcome = "resealed";
    let were = |count| if count == 1 { "was" } else { "were" };
    done.text = format!(
        "of all rows of the app, {resealed} {} sealed again, and {current} {} current",
        were(resealed),
        were(current)
    );
    if overtaken > 0 {
        let rows = counted(overtaken, "row");
        write!(
            done.text,
            "; {rows} changed meanwhile: run the command again"
        )
        .expect(FITS);
    }
    done.details = json!({
        "resealed": resealed,
        "current": current,
        "overtaken": overtaken,
        "skipped": skipped,
    });
    Ok(skipped)
}

/// Counts the rows under each key. Returns the rows that cannot be parsed.
async fn usage(store: &AppStore, done: &mut Done) -> Result<Vec<String>, Failure> {
    let bar = counter("rows counted:");
    let mut rows: BTreeMap<String, usize> = BTreeMap::new();
    let (mut malformed, mut from) = (Vec::new(), None);
    loop {
        let page = store.keys().usage(from, AT_ONCE).await?;
        for (key, count) in page.rows {
            *rows.entry(key.to_string()).or_default() += count;
        }
        malformed.extend(page.malformed);
        let all = rows.values().sum::<usize>();
        bar.set_position(u64::try_from(all).unwrap_or(u64::MAX));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    let counts = rows
        .iter()
        .map(|(key, count)| format!("{count} under {key}"));
    done.outcome = "would_reseal";
    done.text = format!("rows of the app: {}", counts.collect::<Vec<_>>().join(", "));
    if rows.is_empty() {
        done.text = "no rows".to_owned();
    }
    done.details = json!({ "rows": rows, "malformed": malformed });
    Ok(malformed)
}

async fn rewrap(session: &Session<'_>, act: &Act) -> Result<Code, Failure> {
    let listed = session.store().await?.keys().list().await?.keys.len();
    let what = match listed {
        1 => "The data key will be wrapped again, unless it is already".to_owned(),
        _ => format!("{listed} data keys will be wrapped again, unless they are already"),
    };
    let mut done = Done::new("keys rewrap", None, act, &what);
    if confirmed(act, &what, "rewrap").await? == Decision::DryRun {
        done.report(session);
        return Ok(Code::Ok);
    }
    let wrapped = writable(session).await?.keys().rewrap().await?;
    let ids = |keys: &[KeyId]| keys.iter().map(KeyId::to_string).collect::<Vec<_>>();
    let failed = wrapped.failed.iter();
    let failed = failed.map(|(key, error)| (key.to_string(), chain(error)));
    let failed: BTreeMap<_, _> = failed.collect();
    done.outcome = if failed.is_empty() {
        "rewrapped"
    } else {
        "failed"
    };
    let (new, current) = (wrapped.rewrapped.len(), wrapped.current.len());
    let verb = |count| if count == 1 { "was" } else { "were" };
    done.text = format!(
        "{} {} wrapped again, and {current} {} current",
        counted(new, "data key"),
        verb(new),
        verb(current)
    );
    done.details = json!({
        "rewrapped": ids(&wrapped.rewrapped),
        "current": ids(&wrapped.current),
        "failed": failed,
    });
    done.report(session);
    if failed.is_empty() {
        return Ok(Code::Ok);
    }
    let failed = failed.iter().map(|(key, error)| format!("{key}: {error}"));
    let failed = failed.collect::<Vec<_>>().join("; ");
    Err(Failure::new(
        Code::Keys,
        format!("some data keys were not wrapped again, so keep the old master key: {failed}"),
    ))
}

/// The rows of one page.
const AT_ONCE: usize = 500;

const FITS: &str = "a String takes any text";
