//! A clock that differs from Slack's by more than 30 seconds is logged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use slack_installs::Clock;

use super::canned::Canned;
use super::token;
use crate::support::log::Log;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds)
}

/// Returns the log of a call. It is sent at `sent` and gets its response at `answered` by our
/// clock, at `slack` by Slack's clock.
async fn told(sent: u64, answered: u64, slack: u64) -> String {
    let date = httpdate::fmt_http_date(at(slack));
    let canned = Canned::of(200, &[("date", &date)], r#"{"ok":true}"#);
    let is_sent = AtomicBool::new(false);
    let clock = Clock::from_fn(move || {
        if is_sent.swap(true, Ordering::SeqCst) {
            at(answered)
        } else {
            at(sent)
        }
    });
    let (log, _logs) = Log::of_this_thread();
    let slack = canned.client().with_clock(clock);
    slack.auth_test(&token()).await.expect("known");
    log.text()
}

#[tokio::test]
async fn more_than_half_a_minute_either_way_is_told_and_less_is_not() {
    for (sent, answered, slack, expected) in [
        (1000, 1000, 1000, None),
        (1000, 1000, 1030, None),
        (1000, 1000, 970, None),
        (1000, 1000, 1031, Some("skew_s=31 is_behind=true")),
        (1000, 1000, 969, Some("skew_s=31 is_behind=false")),
        // Slack's time lies within the duration of the slow call, so the clocks may agree.
        (1000, 1100, 1000, None),
        (1000, 1100, 1050, None),
        (1000, 1100, 1100, None),
        (1000, 1100, 1130, None),
        (1000, 1100, 970, None),
        (1000, 1100, 1131, Some("skew_s=31 is_behind=true")),
        (1000, 1100, 969, Some("skew_s=31 is_behind=false")),
    ] {
        let text = told(sent, answered, slack).await;
        let what = format!("{sent} to {answered}, Slack {slack}: {text}");
        let is_told = text.contains("this machine's clock differs from Slack's");
        assert_eq!(is_told, expected.is_some(), "{what}");
        assert!(text.contains(expected.unwrap_or_default()), "{what}");
    }
}
