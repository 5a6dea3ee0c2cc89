//! Tests `commit`, `confirm` and `end`: how a new pair is saved, and what happens when the stored
//! pair has ended.

use super::*;

fn bought() -> Issued {
    Issued {
        refresh: Mark(60),
        by: Some(Mark(40)),
        issued_at: at(NOW + 1),
        expires_at: Some(at(NOW + 43_201)),
        is_ahead: false,
        is_late: false,
        is_uncounted: false,
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
        issued_at: at(NOW + 1),
        expires_at: Some(at(NOW + 43_201)),
        attempts: 0,
        attempted_at: None,
        retry_at: None,
        failures: 0,
        last_error: None,
        is_dead: false,
        unproven: None,
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
            // The alternates that this ticket names are removed. Later ones are kept.
            alternates: vec![Mark(50)],
            lease: lease_after,
            ..saved_over(&chain)
        };
        assert_eq!(
            committed(&chain, &bought()),
            (Some(saved), Committed::Saved)
        );
        // The refresh that stopped waiting for this response may still call Slack.
        let late = Issued {
            is_late: true,
            ..bought()
        };
        let (next, _) = committed(&chain, &late);
        assert_eq!(next.expect("the chain changes").lease, lease_before);
    }
}

#[test]
fn the_token_that_bought_a_pair_is_kept_until_the_pair_is_proven() {
    let called_at = at(NOW - 8);
    let uncounted = Issued {
        is_uncounted: true,
        ..bought()
    };
    let by = |mark| Issued {
        by: Some(Mark(mark)),
        ..bought()
    };
    // The ticket sends the tokens 40 and 51. The alternate 50 came later.
    let rows = [
        (2, bought(), vec![51, 40]),
        (3, bought(), vec![51, 40]),
        // Slack refused the primary, and the alternate bought the pair.
        (2, by(51), vec![51]),
        (1, uncounted, vec![51, 40]),
    ];
    for (attempts, fresh, kept) in rows {
        let chain = Chain { attempts, ..busy() };
        let kept: Vec<_> = kept.into_iter().map(Mark).collect();
        let saved = Chain {
            alternates: [&[Mark(50)], &*kept].concat(),
            lease: None,
            unproven: Some(Unproven { called_at, kept }),
            ..saved_over(&chain)
        };
        assert!(saved.is_suspect() && saved.is_unsettled());
        assert_eq!(committed(&chain, &fresh), (Some(saved), Committed::Saved));
    }
}

#[test]
fn a_token_that_was_kept_is_sent_once_more_and_its_pair_is_proven_too() {
    let before = Unproven {
        called_at: at(NOW - 30),
        kept: vec![Mark(51)],
    };
    let chain = Chain {
        attempts: 1,
        unproven: Some(before.clone()),
        ..busy()
    };
    let by = |mark| Issued {
        by: Some(Mark(mark)),
        ..bought()
    };
    let unproven = Unproven {
        kept: Vec::new(),
        ..before
    };
    for (mark, unproven) in [(51, Some(unproven.clone())), (40, None)] {
        let saved = Chain {
            alternates: vec![Mark(50)],
            lease: None,
            unproven,
            ..saved_over(&chain)
        };
        assert_eq!(
            committed(&chain, &by(mark)),
            (Some(saved), Committed::Saved),
            "{mark}"
        );
    }
    // Slack returns the stored pair again.
    let again = Issued {
        refresh: Mark(40),
        ..by(51)
    };
    let same = Chain {
        alternates: vec![Mark(50)],
        lease: None,
        unproven: Some(unproven),
        ..chain.clone()
    };
    assert_eq!(committed(&chain, &again), (Some(same), Committed::Saved));
}

#[test]
fn a_pair_that_slack_calls_alive_is_proven_and_its_spent_token_is_dropped() {
    let unproven = Some(Unproven {
        called_at: at(NOW - 30),
        kept: vec![Mark(51)],
    });
    let chain = Chain {
        attempts: 1,
        unproven: unproven.clone(),
        ..busy()
    };
    let alive = Chain {
        alternates: vec![Mark(50)],
        lease: None,
        attempts: 0,
        attempted_at: None,
        retry_at: None,
        failures: 0,
        last_error: None,
        unproven: None,
        ..chain.clone()
    };
    assert_eq!(prove(Some(&chain), &ticket()), Some(alive));
    for other in [
        with(chain.clone(), |it| it.lease = lease(OTHERS, NOW + 7)),
        with(chain.clone(), |it| it.generation = 5),
        with(chain.clone(), |it| it.install = InstallId(2)),
    ] {
        assert_eq!(prove(Some(&other), &ticket()), None, "{other:?}");
    }
    assert_eq!(prove(None, &ticket()), None);
    // The process that saved the pair asks without a lease.
    let free = Chain {
        lease: None,
        attempts: 0,
        attempted_at: None,
        ..chain
    };
    let next = confirm(Some(&free), 4, true).expect("the chain changes");
    assert_eq!((next.unproven, next.alternates), (None, vec![Mark(50)]));
    let next = confirm(Some(&free), 4, false).expect("the chain changes");
    assert_eq!(
        (next.unproven, &next.alternates),
        (unproven, &free.alternates)
    );
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
fn a_pair_that_comes_second_is_kept_beside_the_first() {
    for generation in [3, 5] {
        for (attempts, expected) in [(0, 2), (1, 2), (2, 2), (3, 3)] {
            let chain = Chain {
                generation,
                attempts,
                is_dead: true,
                ..busy()
            };
            let kept = Chain {
                alternates: vec![Mark(50), Mark(51), Mark(60)],
                lease: None,
                attempts: expected,
                is_dead: false,
                retry_at: Some(at(NOW + 5)),
                expires_at: Some(now()),
                ..chain.clone()
            };
            assert_eq!(
                committed(&chain, &bought()),
                (Some(kept), Committed::Alternate)
            );
        }
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
fn slacks_word_ends_a_suspicion_of_this_generation_without_a_lease() {
    let suspect = Chain {
        lease: None,
        attempts: 2,
        attempted_at: None,
        retry_at: Some(at(NOW + 5)),
        ..busy()
    };
    let freed = |attempts| Chain {
        attempts,
        retry_at: None,
        ..suspect.clone()
    };
    assert_eq!(confirm(Some(&suspect), 4, true), Some(freed(0)));
    assert_eq!(confirm(Some(&suspect), 4, false), Some(freed(2)));
    let called = with(suspect.clone(), |it| it.attempted_at = Some(at(NOW - 8)));
    assert_eq!(confirm(Some(&called), 4, true), None);
    let told = with(called.clone(), |it| it.retry_at = None);
    assert_eq!(confirm(Some(&called), 4, false), Some(told));
    for is_alive in [true, false] {
        let held = with(suspect.clone(), |it| it.lease = lease(OTHERS, NOW - 9));
        let dead = with(suspect.clone(), |it| it.is_dead = true);
        for chain in [&held, &dead] {
            assert_eq!(confirm(Some(chain), 4, is_alive), None, "{chain:?}");
        }
        for generation in [3, 5] {
            assert_eq!(confirm(Some(&suspect), generation, is_alive), None);
        }
        assert_eq!(confirm(None, 4, is_alive), None);
    }
}

#[test]
fn a_token_that_slack_has_ended_is_over_by_every_clock() {
    let alone = with(busy(), |it| it.alternates = Vec::new());
    let rows = [
        (alone.clone(), true, Some(NOW + 30)),
        (alone, false, Some(NOW - 20)),
        (busy(), true, Some(NOW - 20)),
        (busy(), false, Some(NOW - 20)),
    ];
    for (chain, is_new, retry_at) in rows {
        let ended = Chain {
            expires_at: Some(chain.issued_at - Duration::from_secs(24 * 3600)),
            retry_at: retry_at.map(at),
            last_error: Some("token_revoked".into()),
            ..chain.clone()
        };
        let next = end(Some(&chain), InstallId(1), 4, is_new, now());
        assert_eq!(next, Some(ended), "{is_new}");
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
