//! Copies all rows of the app to another database.

use serde_json::json;
use slack_installs::AppStore;
use slack_installs::backend;
use slack_installs::inspect::counted;

use super::Session;
use crate::args::Copy;
use crate::failure::{Code, Failure};
use crate::progress::counter;

/// Copies every page, removes what the source no longer has, and finishes the copy.
pub(crate) async fn copy(session: &Session<'_>, args: &Copy) -> Result<Code, Failure> {
    let target = session.variables.database(&args.to)?;
    let source = session.variables.app(Some(&args.from))?;
    let source = source.open_store_read_only().await?;
    let target = backend::connect(&target).await?;
    let bar = counter("rows copied:");
    let (mut copied, mut present, mut replaced, mut removed) = (0, 0, 0, 0);
    let mut refused = Vec::new();
    let mut from = None;
    loop {
        let page = source.copy_to(&*target, from, AT_ONCE).await;
        let page = page.map_err(|error| {
            let rows = counted(copied + present + replaced, "row");
            unfinished(error.into(), &format!("at least {rows}"))
        })?;
        copied += page.copied;
        present += page.present;
        replaced += page.replaced;
        refused.extend(page.refused);
        let all = copied + present + replaced;
        bar.set_position(u64::try_from(all).unwrap_or(u64::MAX));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    loop {
        let page = source.prune(&*target, from, AT_ONCE).await;
        let page = page.map_err(|error| unfinished(error.into(), "each row"))?;
        removed += page.removed;
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    let is_finished = !args.no_finish && refused.is_empty();
    if is_finished {
        finish(&source, &*target).await?;
    }
    let rows = copied + present + replaced;
    let report = json!({
        "rows": rows,
        "copied": copied,
        "present": present,
        "replaced": replaced,
        "removed": removed,
        "refused": refused,
        "is_finished": is_finished,
    });
    session.output.report(&report, |_| {
        let state = if is_finished {
            "the copy is finished; `slack-installs verify --database …` opens every row of it"
        } else if refused.is_empty() {
            "the copy is not finished; run the same command again without --no-finish"
        } else {
            "the copy is not finished"
        };
        let output = session.output;
        let mut text = output.line(&format!(
            "{}, data keys included: {copied} copied, {present} present, {replaced} replaced, \
             {removed} removed",
            counted(rows, "row")
        ));
        for row in &refused {
            text.push_str(&output.line(&format!("refused: {row}")));
        }
        text.push_str(&output.line(state));
        text
    });
    if refused.is_empty() {
        Ok(Code::Ok)
    } else {
        Err(Failure::new(
            Code::Damaged,
            "some rows were not copied, so the copy is not finished: mend or delete them, and run \
             the same command again",
        ))
    }
}

/// Says how far a copy came before a database failed.
fn unfinished(failure: Failure, rows: &str) -> Failure {
    if failure.code != Code::Database {
        return failure;
    }
    failure.and(&format!(
        "the target has {rows} of the source, and the copy is not finished: run the same command \
         again to continue"
    ))
}

async fn finish(source: &AppStore, target: &dyn backend::Backend) -> Result<(), Failure> {
    Ok(source.finish_copy(target).await?)
}

/// The rows of one page.
const AT_ONCE: usize = 500;
