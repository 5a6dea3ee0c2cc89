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
    assert_eq!(due, expected, "only `due_at` changes");
    due.due_at
}

fn due(expected: Option<SystemTime>, chains: &[Chain]) {
    for chain in chains {
        assert_eq!(due_at(chain), expected, "{chain:?}");
    }
}

#[test]
fn a_chain_is_due_when_somebody_can_do_something_for_it() {
    let (beyond, later) = (Some(at(NOW + 99)), Some(at(NOW + 9)));
    let tried = with(soft(), |it| it.retry_at = Some(at(-90_000)));
    due(soft().soft_at(), &[soft(), tried]);
    let endless = with(soft(), |it| it.expires_at = None);
    let dead_and_held = Chain {
        is_dead: true,
        lease: lease(OURS, NOW + 9),
        attempts: 1,
        ..soft()
    };
    let exchanged = Chain {
        refresh: None,
        lease: lease(OURS, NOW + 9),
        attempts: 1,
        ..soft()
    };
    let never = [
        with(soft(), |it| it.is_dead = true),
        dead_and_held,
        with(soft(), |it| it.refresh = None),
        exchanged,
        endless.clone(),
        with(endless, |it| it.retry_at = later),
    ];
    due(None, &never);
    let failed = Chain {
        retry_at: later,
        failures: 1,
        ..soft()
    };
    let idle_and_held = Chain {
        lease: lease(OURS, NOW + 9),
        attempts: 1,
        idle: 2,
        retry_at: beyond,
        ..soft()
    };
    let unknown = with(fresh(), |it| it.attempts = 1);
    due(Some(fresh().issued_at), std::slice::from_ref(&unknown));
    let waits = [
        failed,
        with(soft(), |it| it.lease = lease(OURS, NOW + 9)),
        idle_and_held,
        with(unknown, |it| it.retry_at = later),
    ];
    due(later, &waits);
}

#[test]
fn a_parked_chain_is_due_before_its_refresh_token_could_end() {
    let issued_at = soft().issued_at;
    let kept = Some(issued_at + Duration::from_secs(20 * 24 * 3600));
    let (later, beyond) = (Some(at(NOW + 9)), Some(at(NOW + 20 * DAY)));
    let kept_chains = [
        parked(),
        with(parked(), |it| it.idle = 3),
        with(parked(), |it| it.retry_at = later),
    ];
    due(kept, &kept_chains);
    due(beyond, &[with(parked(), |it| it.retry_at = beyond)]);
    due(soft().soft_at(), &[with(parked(), |it| it.idle = 1)]);
    let unknown = with(parked(), |it| it.attempts = 1);
    due(Some(issued_at), std::slice::from_ref(&unknown));
    let held = with(parked(), |it| it.lease = lease(OURS, NOW + 9));
    due(later, &[held, with(unknown, |it| it.retry_at = later)]);
    let never = [
        with(parked(), |it| it.is_dead = true),
        with(parked(), |it| it.refresh = None),
    ];
    due(None, &never);
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
        // A call of unknown outcome is repeated for longer, while Slack accepts its token again.
        for (attempts, more) in [(0, 0), (1, LONG_OUTAGE - PERSISTENT)] {
            let chain = Chain {
                failures: failures.saturating_add(more),
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
