//! Limits the log lines of one cause that many requests or tenants share, so that they cannot fill
//! the log: a stranger's requests, or a database outage.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Admits [`LINES`] lines of each kind in [`INTERVAL`], and counts those that it leaves out.
///
/// The kinds are separate, so a flood of one kind does not hide another kind.
#[derive(Default)]
pub(crate) struct LogLimit(Mutex<HashMap<&'static str, Window>>);

struct Window {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl LogLimit {
    /// If a line of this kind may be logged now, returns how many were left out since the last one.
    pub(crate) fn admit(&self, kind: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(kind).or_insert(Window {
            began: now,
            lines: 0,
            left_out: 0,
        });
        if now.duration_since(window.began) >= INTERVAL {
            (window.began, window.lines) = (now, 0);
        }
        if window.lines == LINES {
            window.left_out = window.left_out.saturating_add(1);
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

/// Enough lines to recognise a cause.
const LINES: u32 = 10;

const INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_kind_gets_ten_lines_a_minute_and_the_next_line_counts_what_was_left_out() {
        let limit = LogLimit::default();
        for _ in 0..LINES {
            assert_eq!(limit.admit("stale"), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(limit.admit("stale"), None);
        }
        assert_eq!(limit.admit("forged"), Some(0), "another kind is not hidden");
        tokio::time::advance(INTERVAL - Duration::from_nanos(1)).await;
        assert_eq!(limit.admit("stale"), None);
        tokio::time::advance(Duration::from_nanos(1)).await;
        assert_eq!(limit.admit("stale"), Some(1001));
        assert_eq!(limit.admit("stale"), Some(0), "each line is counted once");
    }
}
