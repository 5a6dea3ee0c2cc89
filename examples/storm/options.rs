//! The options of the command line.

use std::collections::HashMap;
use std::time::Duration;

use crate::Failure;
use crate::orders::{Each, Step};
use crate::steady::Steady;

pub(crate) struct Options {
    pub(crate) backend: String,
    pub(crate) processes: usize,
    pub(crate) callers: usize,
    pub(crate) each: Each,
    pub(crate) workspaces: usize,
    pub(crate) latency: Duration,
    pub(crate) grace: Duration,
    pub(crate) kills: usize,
    pub(crate) kill_at: Step,
    pub(crate) token_life: Duration,
    pub(crate) steady: Option<Steady>,
}

impl Options {
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut given = pairs(words)?;
        let mut number = |name: &str, default: u64| match given.remove(name) {
            Some(text) => text
                .parse()
                .map_err(|_| format!("--{name} is `{text}`: expected a number")),
            None => Ok(default),
        };
        let (processes, callers) = (number("processes", 1)?, number("callers", 1000)?);
        let (workspaces, kills) = (number("workspaces", 1)?, number("kill", 0)?);
        let (token_life, apart) = (number("token-life", 16)?, number("apart", 0)?);
        let pause = number("pause-ms", u64::MAX)?;
        let rate = number("rate", 1)?;
        let latency = Duration::from_millis(number("latency-ms", 100)?);
        let grace = match given.remove("grace").as_deref() {
            None => 2,
            Some("none") => 0,
            Some(text) => text
                .parse()
                .map_err(|_| "--grace: expected a number of seconds, or `none`")?,
        };
        let kill_at = match given.remove("kill-at").as_deref() {
            None | Some("answer") => Step::Answer,
            Some("call") => Step::Call,
            Some(_) => return Err("--kill-at: expected `call` or `answer`".into()),
        };
        let each = match given.remove("each").as_deref() {
            None | Some("caller") => Each::Caller,
            Some("process") => Each::Process,
            Some(_) => return Err("--each: expected `caller` or `process`".into()),
        };
        let options = Self {
            each,
            backend: given
                .remove("backend")
                .unwrap_or_else(|| "memory".to_owned()),
            processes: usize::try_from(processes)?,
            callers: usize::try_from(callers)?,
            workspaces: usize::try_from(workspaces)?,
            latency,
            grace: Duration::from_secs(grace),
            kills: usize::try_from(kills)?,
            kill_at,
            token_life: Duration::from_secs(token_life),
            steady: (pause != u64::MAX).then_some(Steady {
                pause: Duration::from_millis(pause),
                apart: usize::try_from(apart)?,
                has_rate: rate != 0,
            }),
        };
        if let Some(unknown) = given.keys().next() {
            return Err(format!("unknown option: --{unknown}").into());
        }
        if options.processes == 0 || options.callers == 0 || options.workspaces == 0 {
            return Err("--processes, --callers and --workspaces must be at least 1".into());
        }
        if options.backend == "memory" && (options.processes > 1 || options.kills > 0) {
            return Err(
                "--backend memory cannot be shared by processes or survive a kill; use --backend with \
                 the URL of a database, for example sqlite:PATH"
                    .into(),
            );
        }
        Ok(options)
    }
}

fn pairs(mut words: impl Iterator<Item = String>) -> Result<HashMap<String, String>, Failure> {
    let mut given = HashMap::new();
    while let Some(word) = words.next() {
        let name = word
            .strip_prefix("--")
            .ok_or("expected an option that starts with --")?;
        let value = words
            .next()
            .ok_or_else(|| format!("--{name} has no value"))?;
        given.insert(name.to_owned(), value);
    }
    Ok(given)
}
