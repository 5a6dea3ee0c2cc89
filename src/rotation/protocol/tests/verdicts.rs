//! Tests `refuse` and `release`, which end a refresh without a pair, and `revive` and `touch`,
//! which reset a chain.

use super::*;

fn refused(chain: &Chain, marks: &[u64]) -> (Option<Chain>, Refused) {
    let marks: Vec<_> = marks.iter().copied().map(Mark).collect();
    refuse(
        Some(chain),
        &ticket(),
        &marks,
        &"invalid_refresh_token".into(),
        now(),
    )
}

#[test]
fn a_chain_is_dead_when_every_refresh_token_of_its_row_is_refused() {
    for lease_before in [lease(OURS, NOW + 7), None] {
        let chain = with(busy(), |it| it.lease = lease_before);
        let dead = Chain {
            is_dead: true,
            lease: None,
            attempts: 0,
            attempted_at: None,
            retry_at: None,
            failures: 7,
            last_error: Some("invalid_refresh_token".into()),
            ..chain.clone()
        };
        assert_eq!(refused(&chain, &[40, 51, 50]), (Some(dead), Refused::Dead));
    }
    // Slack has ended a pair that was not proven, so nobody gets its access token.
    let unproven = with(fresh(), |it| it.is_unproven = true);
    let (next, _) = refused(&unproven, &[40]);
    let next = next.expect("the chain changes");
    assert!(!next.is_unproven && next.expires_at < Some(next.issued_at));
    let failing = with(busy(), |it| it.failures = u32::MAX);
    let (next, _) = refused(&failing, &[40, 51, 50]);
    assert_eq!(next.expect("the chain changes").failures, u32::MAX);
}

#[test]
fn while_a_process_may_hold_a_pair_a_chain_waits_for_it_and_is_not_dead() {
    let rows = [
        (NOW - 661, None),
        (NOW - 660, None),
        (NOW - 659, Some(NOW + 1)),
        (NOW, Some(NOW + 660)),
        (NOW + 60, Some(NOW + 720)),
        // Only a wrong clock can have written it.
        (NOW + 61, None),
    ];
    for (unheard_at, until) in rows {
        let chain = with(busy(), |it| it.unheard_at = Some(at(unheard_at)));
        let (next, refused) = refused(&chain, &[40, 51, 50]);
        let next = next.expect("the chain changes");
        let Some(until) = until else {
            assert_eq!((refused, next.is_dead), (Refused::Dead, true));
            continue;
        };
        assert_eq!(refused, Refused::Later(at(until)));
        let waiting = Chain {
            lease: None,
            // The outcome of this ticket's call is known.
            attempts: 2,
            retry_at: Some(at(until)),
            failures: 7,
            last_error: Some("invalid_refresh_token".into()),
            ..chain
        };
        assert_eq!(next, waiting, "{unheard_at}");
    }
    // The process that holds the lease may get a pair too.
    let others = Chain {
        lease: lease(OTHERS, NOW + 7),
        ..busy()
    };
    let (next, refused_too) = refused(&others, &[40, 51, 50]);
    let next = next.expect("the chain changes");
    assert_eq!(refused_too, Refused::Later(at(NOW - 8 + 660)));
    assert_eq!((next.lease, next.attempts), (others.lease, 3));
    assert_eq!(next.unheard_at, others.attempted_at);
    // The access token of a pair that was not proven has ended.
    let unproven = Chain {
        is_unproven: true,
        unheard_at: Some(now()),
        ..fresh()
    };
    let (next, refused) = refused(&unproven, &[40]);
    let next = next.expect("the chain changes");
    assert_eq!(refused, Refused::Later(at(NOW + 660)));
    assert!(!next.is_unproven && !next.is_dead && next.expires_at < Some(next.issued_at));
}

#[test]
fn a_refresh_token_that_was_not_tried_keeps_the_chain_alive() {
    let others = with(busy(), |it| it.lease = lease(OTHERS, NOW + 7));
    for marks in [&[][..], &[40], &[50, 51], &[40, 51], &[40, 50]] {
        let moved = Chain {
            lease: None,
            attempts: 2,
            ..busy()
        };
        assert_eq!(
            refused(&busy(), marks),
            (Some(moved), Refused::Moved),
            "{marks:?}"
        );
        // This ticket does not know the outcome of another process's calls.
        assert_eq!(refused(&others, marks), (None, Refused::Moved), "{marks:?}");
    }
    let none = with(busy(), |it| it.attempts = 0);
    let (next, _) = refused(&none, &[40]);
    assert_eq!(next.expect("the chain changes").attempts, 0);
}

#[test]
fn a_refusal_says_nothing_of_another_installation() {
    let other = with(busy(), |it| it.install = InstallId(2));
    assert_eq!(refused(&other, &[40, 50, 51]), (None, Refused::Moved));
    let none = refuse(None, &ticket(), &[Mark(40)], &"error".into(), now());
    assert_eq!(none, (None, Refused::Moved));
}

fn released(fruitless: u32) -> Released {
    Released {
        fruitless,
        may_come: false,
        retry_at: at(NOW + 2),
        error: "no_answer".into(),
    }
}

#[test]
fn a_lease_that_is_given_back_keeps_the_calls_of_unknown_outcome() {
    for (fruitless, attempts) in [(0, 3), (1, 2), (3, 0), (4, 0)] {
        let chain = busy();
        let free = Chain {
            lease: None,
            attempts,
            retry_at: Some(at(NOW + 2)),
            failures: 7,
            last_error: Some("no_answer".into()),
            ..chain.clone()
        };
        let next = release(Some(&chain), &ticket(), &released(fruitless));
        assert_eq!(next, Some(free), "{fruitless}");
    }
    // A process that waits for the response may get a pair.
    let released_early = Released {
        may_come: true,
        ..released(0)
    };
    let next = release(Some(&busy()), &ticket(), &released_early);
    assert_eq!(
        next.expect("the chain changes").unheard_at,
        busy().attempted_at
    );
    let failing = with(busy(), |it| it.failures = u32::MAX);
    let next = release(Some(&failing), &ticket(), &released(0));
    assert_eq!(next.expect("the chain changes").failures, u32::MAX);
}

#[test]
fn nobody_gives_anothers_lease_back() {
    let rows = [
        with(busy(), |it| it.install = InstallId(2)),
        with(busy(), |it| it.lease = lease(OTHERS, NOW + 7)),
        with(busy(), |it| it.lease = None),
    ];
    for chain in rows {
        let next = release(Some(&chain), &ticket(), &released(0));
        assert_eq!(next, None, "{chain:?}");
    }
    assert_eq!(release(None, &ticket(), &released(0)), None);
}

#[test]
fn a_dead_chain_is_revived_without_its_failures() {
    let dead = with(busy(), |it| it.is_dead = true);
    let alive = Chain {
        is_dead: false,
        retry_at: None,
        failures: 0,
        last_error: None,
        ..dead.clone()
    };
    assert_eq!(revive(Some(&dead)), Some(alive));
    assert_eq!(revive(Some(&busy())), None);
    assert_eq!(revive(None), None);
}

#[test]
fn a_use_is_noted_of_a_chain_that_was_idle() {
    for idle in [1, 2, 9] {
        let chain = with(busy(), |it| it.idle = idle);
        let used = with(chain.clone(), |it| it.idle = 0);
        assert_eq!(touch(Some(&chain)), Some(used), "{idle}");
    }
    let used = with(busy(), |it| it.idle = 0);
    assert_eq!(touch(Some(&used)), None);
    assert_eq!(touch(None), None);
}

#[test]
fn a_leaked_token_has_expired_and_is_refreshed_at_once() {
    let chain = with(busy(), |it| it.expires_at = Some(at(NOW + 40_000)));
    let next = condemn(Some(&chain), chain.install, chain.generation).expect("it is the token");
    let now = at(NOW);
    assert_eq!(freshness(&next, now), Freshness::Hard);
    assert_eq!((next.retry_at, next.refresh), (None, chain.refresh));
    assert_eq!(next.alternates, chain.alternates);
    assert_eq!(next.lease, chain.lease);
    let handed_out = hand_out(&next, Demand::Current, false, now);
    assert_eq!(handed_out, Handout::Wait { serves_on: false });
    // Another token is not the one that leaked.
    assert_eq!(
        condemn(Some(&chain), chain.install, chain.generation + 1),
        None
    );
    let long_lived = with(chain.clone(), |it| it.refresh = None);
    assert_eq!(
        condemn(Some(&long_lived), chain.install, chain.generation),
        None
    );
    assert_eq!(condemn(None, chain.install, chain.generation), None);
}
