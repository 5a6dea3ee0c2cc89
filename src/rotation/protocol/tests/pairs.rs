//! Tests `commit`, `prove`, `step_back` and `end`: how a new pair is saved, and what happens when
//! the stored pair has ended.

use super::*;

fn bought() -> Issued {
    Issued {
        refresh: Mark(60),
        by: Some(Mark(40)),
        response: Response::Only,
        issued_at: at(NOW + 1),
        expires_at: Some(at(NOW + 43_201)),
        is_ahead: false,
    }
}

fn committed(chain: &Chain, fresh: &Issued) -> (Option<Chain>, Committed) {
    commit(Some(chain), &ticket(), fresh, now())
}

/// Returns the chain that is stored when the pair is saved over this one.
fn saved_over(chain: &Chain) -> Chain {
    Chain {
        generation: 5,
        refresh: Some(Mark(60)),
        // The alternates that this ticket names are removed. Later ones are kept.
        alternates: vec![Mark(50)],
        issued_at: at(NOW + 1),
        expires_at: Some(at(NOW + 43_201)),
        lease: None,
        attempts: 0,
        attempted_at: None,
        retry_at: None,
        failures: 0,
        last_error: None,
        is_dead: false,
        // One came during this refresh.
        is_unproven: true,
        spent: None,
        idle: 0,
        ..chain.clone()
    }
}

#[test]
fn a_pair_is_saved_over_the_pair_that_bought_it() {
    for (lease_before, lease_after) in [
        (lease(OURS, NOW + 7), None),
        (lease(OURS, NOW - 7), None),
        (lease(OTHERS, NOW + 7), lease(OTHERS, NOW + 7)),
        (None, None),
    ] {
        let chain = Chain {
            lease: lease_before,
            attempts: 1,
            is_dead: true,
            ..busy()
        };
        let saved = Chain {
            lease: lease_after,
            unheard_at: if lease_after.is_some() {
                chain.attempted_at
            } else {
                chain.unheard_at
            },
            ..saved_over(&chain)
        };
        assert_eq!(
            committed(&chain, &bought()),
            (Some(saved), Committed::Saved)
        );
        // The refresh that stopped waiting for this response may still call Slack.
        let late = Issued {
            response: Response::Late,
            ..bought()
        };
        let (next, _) = committed(&chain, &late);
        assert_eq!(next.expect("the chain changes").lease, lease_before);
    }
}

#[test]
fn the_token_that_bought_a_pair_is_kept_if_it_was_sent_more_than_once() {
    let rows = [
        (1, Response::Only, 40, false),
        (2, Response::Only, 40, true),
        (3, Response::Only, 51, true),
        // The other call could not be recorded.
        (1, Response::Second, 40, true),
        (1, Response::Late, 51, true),
    ];
    for (attempts, response, by, is_kept) in rows {
        let chain = Chain {
            attempts,
            alternates: vec![Mark(51)],
            ..busy()
        };
        let fresh = Issued {
            response,
            by: Some(Mark(by)),
            ..bought()
        };
        let kept = is_kept.then_some(Mark(by));
        let is_late = response == Response::Late;
        let saved = Chain {
            alternates: kept.into_iter().collect(),
            // The refresh that holds the lease may be making another call.
            unheard_at: if is_late {
                chain.attempted_at
            } else {
                chain.unheard_at
            },
            is_unproven: is_kept,
            spent: kept,
            lease: chain.lease.filter(|_| is_late),
            ..saved_over(&chain)
        };
        assert_eq!(
            (saved.is_suspect(), saved.is_unsettled()),
            (is_kept, is_kept)
        );
        assert_eq!(committed(&chain, &fresh), (Some(saved), Committed::Saved));
        // The token of an exchange is sent once.
        let exchanged = Issued { by: None, ..fresh };
        let (next, _) = committed(&chain, &exchanged);
        let next = next.expect("the chain changes");
        assert_eq!((next.is_unproven, next.spent), (false, None));
    }
}

#[test]
fn a_spent_token_is_sent_once_more_and_its_pair_is_asked_about_too() {
    let chain = Chain {
        attempts: 1,
        is_unproven: true,
        spent: Some(Mark(51)),
        ..busy()
    };
    for (attempts, by, is_unproven, spent) in [
        (1, 51, true, None),
        (2, 51, true, Some(Mark(51))),
        (1, 40, false, None),
        (2, 40, true, Some(Mark(40))),
    ] {
        let chain = Chain {
            attempts,
            alternates: vec![Mark(51)],
            ..chain.clone()
        };
        let fresh = Issued {
            by: Some(Mark(by)),
            ..bought()
        };
        let saved = Chain {
            alternates: spent.into_iter().collect(),
            is_unproven,
            spent,
            ..saved_over(&chain)
        };
        let expected = (Some(saved), Committed::Saved);
        assert_eq!(committed(&chain, &fresh), expected, "{attempts}, {by}");
    }
    // Slack returns the stored pair again. Its refresh token was refused before.
    let again = Issued {
        refresh: Mark(40),
        by: Some(Mark(51)),
        ..bought()
    };
    let without = Chain {
        alternates: vec![Mark(50)],
        spent: None,
        lease: None,
        ..chain.clone()
    };
    assert_eq!(committed(&chain, &again), (Some(without), Committed::Saved));
    // This is the same save once more.
    let saved = with(chain, |it| it.generation = 5);
    let free = with(saved.clone(), |it| it.lease = None);
    assert_eq!(committed(&saved, &again), (Some(free), Committed::Saved));
}

#[test]
fn a_pair_that_slack_calls_alive_is_proven_and_its_spent_token_is_dropped() {
    let chain = Chain {
        lease: None,
        is_unproven: true,
        spent: Some(Mark(51)),
        ..busy()
    };
    let proven = Chain {
        alternates: vec![Mark(50)],
        is_unproven: false,
        spent: None,
        retry_at: None,
        ..chain.clone()
    };
    let asked = Asked::of(&chain);
    assert_eq!(prove(Some(&chain), asked), Some(proven));
    let alone = with(chain.clone(), |it| it.spent = None);
    let next = prove(Some(&alone), Asked::of(&alone)).expect("the chain changes");
    assert_eq!(next.alternates, alone.alternates);
    for other in [
        with(chain.clone(), |it| it.generation = 3),
        with(chain.clone(), |it| it.generation = 5),
        with(chain.clone(), |it| it.install = InstallId(2)),
        with(chain.clone(), |it| it.is_unproven = false),
        // A call that is in progress may end it.
        with(chain.clone(), |it| it.lease = lease(OTHERS, NOW - 9)),
        with(chain.clone(), |it| it.lease = lease(OURS, NOW + 9)),
        // A late pair has come since Slack was asked, and may have ended it.
        with(chain, |it| it.alternates.push(Mark(52))),
    ] {
        assert_eq!(prove(Some(&other), asked), None);
    }
    assert_eq!(prove(None, asked), None);
}

#[test]
fn a_lease_whose_pair_was_replaced_meanwhile_is_given_back_without_a_failure() {
    let replaced = with(busy(), |it| it.generation = 5);
    let free = with(replaced.clone(), |it| it.lease = None);
    assert_eq!(step_back(Some(&replaced), &ticket()), Some(free));
    for chain in [
        busy(),
        with(replaced.clone(), |it| it.lease = lease(OTHERS, NOW + 7)),
        with(replaced, |it| it.install = InstallId(2)),
    ] {
        assert_eq!(step_back(Some(&chain), &ticket()), None, "{chain:?}");
    }
    assert_eq!(step_back(None, &ticket()), None);
}

#[test]
fn a_pair_that_was_bought_ahead_is_one_more_that_nobody_asked_for() {
    for (is_ahead, idle, expected) in [
        (true, 0, 1),
        (true, 1, 2),
        (true, u32::MAX, u32::MAX),
        (false, 1, 0),
    ] {
        let chain = with(busy(), |it| it.idle = idle);
        let fresh = Issued {
            is_ahead,
            ..bought()
        };
        let (next, _) = committed(&chain, &fresh);
        assert_eq!(
            next.expect("the chain changes").idle,
            expected,
            "{is_ahead}, {idle}"
        );
    }
}

#[test]
fn a_pair_of_another_installation_or_of_none_is_an_orphan() {
    let other = with(busy(), |it| it.install = InstallId(2));
    assert_eq!(committed(&other, &bought()), (None, Committed::Orphan));
    // The same with an alternate of the same mark.
    let beside = with(other, |it| it.alternates = vec![Mark(60)]);
    assert_eq!(committed(&beside, &bought()), (None, Committed::Orphan));
    let none = commit(None, &ticket(), &bought(), now());
    assert_eq!(none, (None, Committed::Orphan));
}

#[test]
fn a_pair_that_was_saved_already_is_written_again_as_it_is() {
    let saved = Chain {
        refresh: Some(Mark(60)),
        generation: 5,
        is_dead: true,
        ..busy()
    };
    let free = |chain: &Chain| with(chain.clone(), |it| it.lease = None);
    assert_eq!(
        committed(&saved, &bought()),
        (Some(free(&saved)), Committed::Saved)
    );
    // The installation was fetched with this pair and stored again.
    let stored_again = with(saved, |it| it.install = InstallId(2));
    assert_eq!(
        committed(&stored_again, &bought()),
        (Some(stored_again.clone()), Committed::Saved)
    );
    let beside = with(busy(), |it| it.alternates = vec![Mark(60), Mark(61)]);
    for generation in [4, 5] {
        let beside = with(beside.clone(), |it| it.generation = generation);
        assert_eq!(
            committed(&beside, &bought()),
            (Some(free(&beside)), Committed::Alternate)
        );
    }
}

#[test]
fn a_pair_that_comes_second_is_kept_beside_the_first_which_is_then_not_proven() {
    for generation in [3, 5] {
        let chain = Chain {
            generation,
            is_dead: true,
            ..busy()
        };
        let kept = Chain {
            alternates: vec![Mark(50), Mark(51), Mark(60)],
            lease: None,
            is_dead: false,
            is_unproven: true,
            retry_at: Some(at(NOW + 5)),
            ..chain.clone()
        };
        assert_eq!(
            committed(&chain, &bought()),
            (Some(kept), Committed::Alternate)
        );
    }
}

#[test]
fn a_chain_that_waits_for_a_pair_tries_the_one_that_comes() {
    for (waits, expected) in [(660, None), (659, Some(NOW + 659)), (661, Some(NOW + 661))] {
        let chain = Chain {
            generation: 5,
            unheard_at: Some(now()),
            retry_at: Some(at(NOW + waits)),
            expires_at: Some(at(NOW + 1)),
            issued_at: at(NOW - 43_200),
            ..busy()
        };
        let (next, _) = committed(&chain, &bought());
        let next = next.expect("the chain changes");
        assert_eq!(next.retry_at, expected.map(at), "{waits}");
    }
}

#[test]
fn beside_another_pair_slack_is_asked_for_5_seconds_unless_that_pair_is_over() {
    let (issued_at, life) = (NOW - 1_000, 43_200);
    let rows = [
        (None, Some(issued_at + life), Some(NOW + 5)),
        (Some(NOW + 4), Some(issued_at + life), Some(NOW + 5)),
        (Some(NOW + 6), Some(issued_at + life), Some(NOW + 6)),
        (Some(NOW + 6), Some(issued_at + 1), Some(NOW + 6)),
        (Some(NOW + 6), Some(issued_at), None),
        (Some(NOW + 6), Some(issued_at - 1), None),
    ];
    for (retry_at, expires_at, expected) in rows {
        let chain = Chain {
            generation: 5,
            issued_at: at(issued_at),
            retry_at: retry_at.map(at),
            expires_at: expires_at.map(at),
            ..busy()
        };
        let (next, _) = committed(&chain, &bought());
        assert_eq!(
            next.expect("the chain changes").retry_at,
            expected.map(at),
            "{expires_at:?}"
        );
    }
}

#[test]
fn a_token_that_slack_has_ended_is_over_by_every_clock() {
    let alone = with(busy(), |it| it.alternates = Vec::new());
    let rows = [
        (alone.clone(), true, Some(NOW + 30)),
        (alone, false, Some(NOW - 20)),
        (busy(), true, None),
        (busy(), false, Some(NOW - 20)),
    ];
    for (chain, was_unproven, retry_at) in rows {
        let ended = Chain {
            expires_at: Some(chain.issued_at - Duration::from_secs(24 * 3600)),
            retry_at: retry_at.map(at),
            last_error: Some("token_revoked".into()),
            ..chain.clone()
        };
        let next = end(Some(&chain), InstallId(1), 4, was_unproven, now());
        assert_eq!(next, Some(ended), "{was_unproven}");
    }
    let single = with(busy(), |it| it.refresh = None);
    for (chain, install, generation) in [
        (busy(), 2, 4),
        (busy(), 1, 3),
        (busy(), 1, 5),
        (single, 1, 4),
    ] {
        let next = end(Some(&chain), InstallId(install), generation, false, now());
        assert_eq!(next, None, "{install}, {generation}");
    }
    assert_eq!(end(None, InstallId(1), 4, true, now()), None);
}
