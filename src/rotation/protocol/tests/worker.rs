//! Tests `scheduled` and `serve`, which decide when a worker checks a chain and what it does then.

use super::*;

const DAY: i64 = 24 * 3600;

/// Returns a parked chain: no caller has used its last two pairs.
fn parked() -> Chain {
    with(soft(), |it| it.idle = 2)
}

fn due_at(chain: &Chain) -> Option<SystemTime> {
    let due = scheduled(chain.clone());
    let expected = with(chain.clone(), |it| it.due_at = due.due_at);
    assert_eq!(due, expected, "nothing else changes");
    due.due_at
}

#[test]
fn a_chain_is_due_when_somebody_can_do_something_for_it() {
    let soft_at = soft().soft_at();
    let issued_at = soft().issued_at;
    let kept = Some(issued_at + Duration::from_secs(20 * 24 * 3600));
    let endless = with(soft(), |it| it.expires_at = None);
    let retry = |at_seconds| Some(at(at_seconds));
    let rows = [
        ("free", soft(), soft_at),
        (
            "free, tried before it was soft",
            with(soft(), |it| it.retry_at = retry(-90_000)),
            soft_at,
        ),
        (
            "failed",
            Chain {
                retry_at: retry(NOW + 9),
                failures: 1,
                ..soft()
            },
            retry(NOW + 9),
        ),
        ("dead", with(soft(), |it| it.is_dead = true), None),
        (
            "dead, with a lease and a recorded call",
            Chain {
                is_dead: true,
                lease: lease(OURS, NOW + 9),
                attempts: 1,
                ..soft()
            },
            None,
        ),
        (
            "does not rotate",
            with(soft(), |it| it.refresh = None),
            None,
        ),
        (
            "does not rotate, and is being exchanged",
            Chain {
                refresh: None,
                lease: lease(OURS, NOW + 9),
                attempts: 1,
                ..soft()
            },
            None,
        ),
        ("does not expire", endless.clone(), None),
        (
            "does not expire, and failed",
            with(endless, |it| it.retry_at = retry(NOW + 9)),
            None,
        ),
        (
            "held",
            with(soft(), |it| it.lease = lease(OURS, NOW + 9)),
            retry(NOW + 9),
        ),
        (
            "held, with a call of unknown outcome, idle and with a retry time",
            Chain {
                lease: lease(OURS, NOW + 9),
                attempts: 1,
                idle: 2,
                retry_at: retry(NOW + 99),
                ..soft()
            },
            retry(NOW + 9),
        ),
        (
            "a call of unknown outcome",
            with(fresh(), |it| it.attempts = 1),
            Some(fresh().issued_at),
        ),
        (
            "a call of unknown outcome, with a retry time",
            Chain {
                attempts: 1,
                retry_at: retry(NOW + 9),
                ..fresh()
            },
            retry(NOW + 9),
        ),
        (
            "a call of unknown outcome, and parked",
            with(parked(), |it| it.attempts = 1),
            Some(issued_at),
        ),
        (
            "a call of unknown outcome, parked and with a retry time",
            Chain {
                attempts: 1,
                retry_at: retry(NOW + 9),
                ..parked()
            },
            retry(NOW + 9),
        ),
        ("parked", parked(), kept),
        ("parked for longer", with(parked(), |it| it.idle = 3), kept),
        ("idle once", with(parked(), |it| it.idle = 1), soft_at),
        (
            "parked, with an earlier retry time",
            with(parked(), |it| it.retry_at = retry(NOW + 9)),
            kept,
        ),
        (
            "parked, with a later retry time",
            with(parked(), |it| it.retry_at = retry(NOW + 20 * DAY)),
            retry(NOW + 20 * DAY),
        ),
        (
            "parked and dead",
            with(parked(), |it| it.is_dead = true),
            None,
        ),
        (
            "parked without rotation",
            with(parked(), |it| it.refresh = None),
            None,
        ),
        (
            "parked and held",
            with(parked(), |it| it.lease = lease(OURS, NOW + 9)),
            retry(NOW + 9),
        ),
    ];
    for (name, chain, expected) in rows {
        assert_eq!(due_at(&chain), expected, "{name}");
    }
}

#[test]
fn what_keeps_failing_is_looked_at_more_and_more_seldom() {
    let rows = [
        (0, 0),
        (9, 0),
        (10, 120),
        (11, 240),
        (12, 480),
        (16, 7_680),
        (17, 15_360),
        (18, 21_600),
        (19, 21_600),
        (u32::MAX, 21_600),
    ];
    for (failures, seconds) in rows {
        for attempts in [0, 1] {
            let chain = Chain {
                failures,
                attempts,
                retry_at: Some(at(NOW + 9)),
                ..soft()
            };
            let expected = at(NOW + 9 + seconds);
            assert_eq!(due_at(&chain), Some(expected), "{failures}, {attempts}");
        }
        let parked = Chain {
            failures,
            retry_at: Some(at(NOW + 20 * DAY)),
            ..parked()
        };
        assert_eq!(due_at(&parked), Some(at(NOW + 20 * DAY + seconds)));
    }
}

const KEPT: Option<Duration> = Some(KEEP_ALIVE);

#[test]
fn a_worker_refreshes_what_is_due_and_free() {
    let lost = with(fresh(), |it| it.attempts = 1);
    let rows = [
        ("fresh", fresh(), Served::Nothing),
        ("soft", soft(), Served::Refresh),
        ("hard", hard(), Served::Refresh),
        (
            "dead",
            with(hard(), |it| it.is_dead = true),
            Served::Nothing,
        ),
        (
            "held",
            with(hard(), |it| it.lease = lease(OTHERS, NOW + 1)),
            Served::Nothing,
        ),
        (
            "lapsed",
            with(hard(), |it| it.lease = lease(OTHERS, NOW)),
            Served::Refresh,
        ),
        (
            "before the retry time",
            with(hard(), |it| it.retry_at = Some(at(NOW + 1))),
            Served::Nothing,
        ),
        (
            "after the retry time",
            with(hard(), |it| it.retry_at = Some(now())),
            Served::Refresh,
        ),
        ("a call of unknown outcome", lost, Served::Refresh),
        ("idle once", with(hard(), |it| it.idle = 1), Served::Refresh),
        (
            "a call of unknown outcome, parked",
            with(parked(), |it| it.attempts = 1),
            Served::Refresh,
        ),
        (
            "lapsed, parked",
            with(parked(), |it| it.lease = lease(OTHERS, NOW)),
            Served::Refresh,
        ),
        ("parked", parked(), Served::Nothing),
    ];
    for (name, chain, expected) in rows {
        for keep_alive in [None, KEPT] {
            // The chain as the last write has scheduled it.
            let chain = scheduled(chain.clone());
            let served = serve(Some(&chain), now(), keep_alive);
            assert_eq!(served, (None, expected), "{name}");
        }
    }
    assert_eq!(serve(None, now(), KEPT), (None, Served::Nothing));
}

#[test]
fn a_parked_chain_is_kept_alive_or_left_to_others_for_a_day() {
    let chain = scheduled(Chain {
        issued_at: at(NOW - 20 * DAY),
        expires_at: Some(at(NOW - 20 * DAY + 43_200)),
        ..parked()
    });
    let early = serve(Some(&chain), at(NOW - 1), KEPT);
    assert_eq!(early, (None, Served::Nothing));
    assert_eq!(serve(Some(&chain), now(), KEPT), (None, Served::Refresh));
    let left = with(chain.clone(), |it| it.due_at = Some(at(NOW + DAY)));
    assert_eq!(
        serve(Some(&chain), now(), None),
        (Some(left), Served::Nothing)
    );
}

#[test]
fn a_worker_puts_right_when_a_chain_is_due_in_whole_seconds() {
    let due_at = scheduled(fresh()).due_at.expect("the token expires");
    // `due_at` is some tenths of a second after a whole second.
    let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(to_epoch(due_at));
    let rows = [
        (Some(whole), false),
        (Some(whole + Duration::from_millis(999)), false),
        (Some(whole - Duration::from_secs(1)), true),
        (Some(whole + Duration::from_secs(1)), true),
        (None, true),
    ];
    for (stored, is_wrong) in rows {
        let chain = with(fresh(), |it| it.due_at = stored);
        let right = is_wrong.then(|| scheduled(chain.clone()));
        let served = serve(Some(&chain), now(), None);
        assert_eq!(served, (right, Served::Nothing), "{stored:?}");
    }
}
