//! A progress bar on the standard error, if it is a terminal.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// Makes a bar that counts rows or tenants. Without a terminal, it shows nothing.
pub(crate) fn counter(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {msg} {human_pos} ({elapsed}, {rate})");
    if let Ok(style) = style {
        let rate = |state: &ProgressState, text: &mut dyn Write| {
            // A bar that cannot be written is not shown.
            write!(text, "{}/s", HumanCount(state.per_sec() as u64)).ok();
        };
        bar.set_style(style.with_key("rate", rate));
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
