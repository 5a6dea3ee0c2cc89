//! Asks before a change.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::args::Act;
use crate::failure::{Code, Failure};
use crate::output::{escaped, for_errors};

/// Whether to make the change, or only to say what it would be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Decision {
    Act,
    DryRun,
}

/// Asks the operator to type this word, unless the arguments already decide. `what` says in a
/// sentence what will happen.
pub(crate) async fn confirmed(act: &Act, what: &str, word: &str) -> Result<Decision, Failure> {
    if act.dry_run {
        return Ok(Decision::DryRun);
    }
    if act.yes {
        return Ok(Decision::Act);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            Code::Refused,
            format!(
                "{what}: not confirmed, because there is no terminal; add --yes, or --dry-run to \
                 see what would be done"
            ),
        ));
    }
    let what = for_errors(&escaped(what), 0);
    let question = format!("{what}.\nType {word} to continue: ");
    let typed = tokio::task::spawn_blocking(move || ask(&question)).await;
    let typed = typed.ok().and_then(Result::ok).unwrap_or_default();
    if typed.trim() == word {
        Ok(Decision::Act)
    } else {
        Err(Failure::new(
            Code::Refused,
            "not confirmed; nothing was changed",
        ))
    }
}

fn ask(question: &str) -> io::Result<String> {
    // Nothing is locked while this waits, because an interrupt is reported meanwhile.
    let mut err = io::stderr();
    err.write_all(question.as_bytes())?;
    err.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line)
}
