//! Tests `acquire`, `acquire_exchange`, `repeat` and their helper functions: they decide who may
//! call Slack, when, and with which tokens.

use super::*;

fn newer_than(install: u128, generation: u64) -> Demand {
    Demand::NewerThan(InstallId(install), generation)
}

#[test]
fn a_demand_refuses_the_token_that_slack_refused_and_older_ones_of_its_installation() {
    let rows = [
        (Demand::Current, false),
        (newer_than(1, 3), false),
        (newer_than(1, 4), true),
        (newer_than(1, 5), true),
        (newer_than(2, 4), false),
        (newer_than(2, 5), false),
    ];
    for (demand, expected) in rows {
        assert_eq!(demand.refuses(&fresh()), expected, "{demand:?}");
    }
}

#[test]
fn a_token_is_soft_and_hard_from_the_very_second_on() {
    let chain = fresh();
    let soft_at = chain.soft_at().expect("the token expires");
    let hard_at = chain.hard_at().expect("the token expires");
    let second = Duration::from_secs(1);
    let rows = [
        (soft_at - second, Freshness::Fresh),
        (soft_at, Freshness::Soft),
        (hard_at - second, Freshness::Soft),
        (hard_at, Freshness::Hard),
        (hard_at + second, Freshness::Hard),
    ];
    for (now, expected) in rows {
        assert_eq!(freshness(&chain, now), expected, "{now:?}");
    }
    let endless = with(fresh(), |it| it.expires_at = None);
    assert_eq!(
        freshness(&endless, at(i64::from(i32::MAX))),
        Freshness::Fresh
    );
    // A token that does not rotate also expires.
    let single = with(fresh(), |it| it.refresh = None);
    assert_eq!(freshness(&single, hard_at - second), Freshness::Fresh);
    assert_eq!(freshness(&single, hard_at), Freshness::Hard);
    assert!(Freshness::Fresh < Freshness::Soft && Freshness::Soft < Freshness::Hard);
}

#[test]
fn a_chain_waits_for_times_to_come_and_not_for_those_that_nobody_writes() {
    let rows = [
        (None, false),
        (Some(NOW - 1), false),
        (Some(NOW), false),
        (Some(NOW + 1), true),
        (Some(NOW + 720), true),
        (Some(NOW + 721), false),
    ];
    for (retry_at, expected) in rows {
        let retry_at = retry_at.map(at);
        let chain = with(hard(), |it| it.retry_at = retry_at);
        let waits = waits(&chain, now());
        assert_eq!(waits, retry_at.filter(|_| expected), "{retry_at:?}");
    }
}

/// Returns the name of a result of `acquire`.
fn kind(acquired: &Acquired) -> &'static str {
    match acquired {
        Acquired::Ask => "ask",
        Acquired::Current => "current",
        Acquired::Dead { .. } => "dead",
        Acquired::Go(_) => "go",
        Acquired::Held(_) => "held",
        Acquired::Missing => "missing",
        Acquired::Wait { .. } => "wait",
    }
}

fn acquired(chain: &Chain, demand: Demand, watched: Option<u128>) -> (Option<Chain>, Acquired) {
    let (next, acquired) = acquire(Some(chain), demand, OURS, watched, None, now());
    let goes = matches!(acquired, Acquired::Go(_));
    assert_eq!(
        next.is_some(),
        goes,
        "the chain is written only for `Go`: {acquired:?}"
    );
    (next, acquired)
}

#[test]
fn slack_is_called_only_for_a_chain_that_is_due_alive_free_and_not_asked_to_wait() {
    let (current, refused) = (Demand::Current, newer_than(1, 4));
    let young = Chain {
        issued_at: at(NOW - 299),
        expires_at: Some(at(NOW + 42_000)),
        ..fresh()
    };
    let held = |owner, until| with(hard(), |it| it.lease = lease(owner, until));
    let waiting = with(hard(), |it| it.retry_at = Some(at(NOW + 1)));
    let dead = with(hard(), |it| it.is_dead = true);
    let single = with(hard(), |it| it.refresh = None);
    let check = |expected: &str, demand, watched, chains: &[Chain]| {
        for chain in chains {
            let (_, acquired) = acquired(chain, demand, watched);
            assert_eq!(kind(&acquired), expected, "{demand:?}, {chain:?}");
        }
    };
    let fresh_and_dead = with(fresh(), |it| it.is_dead = true);
    let chains = [fresh(), single.clone(), young.clone(), fresh_and_dead];
    check("current", current, None, &chains);
    check("current", newer_than(1, 3), None, &[fresh()]);
    check("current", refused, None, &[single]);
    let chains = [
        soft(),
        hard(),
        // A call of unknown outcome.
        with(fresh(), |it| it.attempts = 1),
        with(young.clone(), |it| it.attempts = 1),
        // A lapsed lease, and the caller's own lease.
        held(OTHERS, NOW),
        held(OURS, NOW + 1),
    ];
    check("go", current, None, &chains);
    let chains = [
        fresh(),
        with(young.clone(), |it| it.expires_at = Some(now())),
        with(young.clone(), |it| it.issued_at = at(NOW - 300)),
    ];
    check("go", refused, None, &chains);
    check("go", current, Some(OTHERS), &[held(OTHERS, NOW + 1)]);
    check("wait", refused, None, &[waiting.clone(), young]);
    check("wait", current, None, std::slice::from_ref(&waiting));
    let chains = [
        with(dead.clone(), |it| it.lease = lease(OTHERS, NOW + 9)),
        with(dead.clone(), |it| it.retry_at = Some(at(NOW + 9))),
        dead,
    ];
    check("dead", current, None, &chains);
    check("held", current, Some(7), &[held(OTHERS, NOW + 1)]);
    let held_and_waiting = with(waiting, |it| it.lease = lease(OTHERS, NOW + 1));
    let chains = [held(OTHERS, NOW + 1), held_and_waiting];
    check("held", current, None, &chains);
    assert_eq!(
        acquire(None, current, OURS, None, None, now()),
        (None, Acquired::Missing)
    );
}

#[test]
fn a_pair_that_is_not_proven_is_asked_about_once_and_then_refreshed() {
    let unproven = |chain: Chain| with(chain, |it| it.is_unproven = true);
    let waiting = |chain: Chain| with(chain, |it| it.retry_at = Some(at(NOW + 1)));
    let held = |until| with(fresh(), |it| it.lease = lease(OTHERS, until));
    let (current, refused) = (Demand::Current, newer_than(1, 4));
    let ours = Some((InstallId(1), 4));
    let rows = [
        (fresh(), current, None, "ask"),
        (soft(), current, None, "ask"),
        (waiting(fresh()), current, None, "ask"),
        (fresh(), newer_than(1, 3), None, "ask"),
        (fresh(), current, Some((InstallId(1), 3)), "ask"),
        (fresh(), current, Some((InstallId(2), 4)), "ask"),
        // Slack did not say whether it is alive.
        (fresh(), current, ours, "go"),
        (waiting(fresh()), current, ours, "wait"),
        // It has ended anyway.
        (hard(), current, None, "go"),
        (fresh(), refused, None, "go"),
        // A call that is in progress may end it.
        (held(NOW + 1), current, None, "held"),
        (held(NOW - 1), current, None, "go"),
    ];
    for (place, (chain, demand, asked, expected)) in rows.into_iter().enumerate() {
        let chain = unproven(chain);
        let (next, acquired) = acquire(Some(&chain), demand, OURS, None, asked, now());
        assert_eq!(kind(&acquired), expected, "{place}");
        assert_eq!(next.is_some(), expected == "go", "{place}");
    }
}

#[test]
fn who_does_not_get_the_lease_hears_why() {
    let error = || Some("earlier".into());
    let young = Chain {
        issued_at: at(NOW - 100),
        expires_at: Some(at(NOW + 42_000)),
        ..fresh()
    };
    let waiting = Chain {
        retry_at: Some(at(NOW + 30)),
        lease: None,
        ..busy()
    };
    let dead = with(busy(), |it| it.is_dead = true);
    let held = with(busy(), |it| it.lease = lease(OTHERS, NOW + 7));
    let rows = [
        (
            young,
            newer_than(1, 4),
            Acquired::Wait {
                until: at(NOW + 200),
                error: Some("refreshed_just_now".into()),
            },
        ),
        (dead, Demand::Current, Acquired::Dead { error: error() }),
        (
            waiting,
            Demand::Current,
            Acquired::Wait {
                until: at(NOW + 30),
                error: error(),
            },
        ),
        (
            held,
            Demand::Current,
            Acquired::Held(Lease {
                owner: OTHERS,
                until: at(NOW + 7),
            }),
        ),
    ];
    for (chain, demand, expected) in rows {
        assert_eq!(acquired(&chain, demand, None), (None, expected));
    }
}

#[test]
fn the_lease_is_15_seconds_and_every_call_but_a_repeated_step_is_one_attempt_more() {
    let rows = [
        (None, 4, NOW - 2_000),
        // The process whose lease has lapsed may hold a pair.
        (lease(OTHERS, NOW - 1), 4, NOW - 8),
        (lease(OURS, NOW + 7), 3, NOW - 2_000),
        (lease(OURS, NOW - 1), 3, NOW - 2_000),
    ];
    for (before, attempts, unheard_at) in rows {
        let chain = with(busy(), |it| it.lease = before);
        let (next, acquired) = acquired(&chain, Demand::Current, None);
        let expected = Chain {
            lease: lease(OURS, NOW + 15),
            attempts,
            attempted_at: Some(now()),
            unheard_at: Some(at(unheard_at)),
            ..chain
        };
        assert_eq!(next, Some(expected));
        let ticket = Ticket {
            install: InstallId(1),
            generation: 4,
            owner: OURS,
            // The primary first, then the alternates, the newest first.
            candidates: vec![Mark(40), Mark(51), Mark(50)],
        };
        assert_eq!(acquired, Acquired::Go(ticket));
    }
    let tried = Chain {
        attempts: u32::MAX,
        lease: None,
        ..busy()
    };
    let (next, _) = acquired(&tried, Demand::Current, None);
    assert_eq!(next.expect("the chain changes").attempts, u32::MAX);
}

/// Returns a chain with a long-lived token.
fn long_lived() -> Chain {
    Chain {
        refresh: None,
        expires_at: None,
        last_error: Some("earlier".into()),
        failures: 6,
        ..fresh()
    }
}

#[test]
fn a_long_lived_token_is_exchanged_once() {
    let wait = |until| Acquired::Wait {
        until: at(until),
        error: Some("earlier".into()),
    };
    let with = |attempts, lease, retry_at: Option<i64>| Chain {
        attempts,
        lease,
        retry_at: retry_at.map(at),
        ..long_lived()
    };
    let held = Acquired::Held(Lease {
        owner: OTHERS,
        until: at(NOW + 1),
    });
    let go = || {
        Acquired::Go(Ticket {
            install: InstallId(1),
            generation: 4,
            owner: OURS,
            candidates: Vec::new(),
        })
    };
    let rows = [
        ("rotates", hard(), Acquired::Current),
        ("free", with(0, None, None), go()),
        ("held", with(1, lease(OTHERS, NOW + 1), None), held.clone()),
        (
            "held, with a retry time",
            with(1, lease(OTHERS, NOW + 1), Some(NOW + 9)),
            held,
        ),
        ("lapsed", with(1, lease(OTHERS, NOW), None), wait(NOW)),
        (
            "lapsed earlier",
            with(1, lease(OTHERS, NOW - 9), None),
            wait(NOW - 9),
        ),
        ("its own lease", with(1, lease(OURS, NOW + 1), None), go()),
        (
            "its own lapsed lease",
            with(1, lease(OURS, NOW - 9), None),
            go(),
        ),
        ("a call of unknown outcome", with(1, None, None), wait(NOW)),
        (
            "a call of unknown outcome, with a retry time",
            with(1, None, Some(NOW + 9)),
            wait(NOW),
        ),
        (
            "before the retry time",
            with(0, None, Some(NOW + 9)),
            wait(NOW + 9),
        ),
        ("after the retry time", with(0, None, Some(NOW)), go()),
    ];
    for (name, chain, expected) in rows {
        let (next, acquired) = acquire_exchange(Some(&chain), OURS, now());
        assert_eq!(acquired, expected, "{name}");
        let noted = Chain {
            lease: lease(OURS, NOW + 15),
            attempts: 1,
            attempted_at: Some(now()),
            ..chain
        };
        let goes = matches!(acquired, Acquired::Go(_));
        assert_eq!(next, goes.then_some(noted), "{name}");
    }
    assert_eq!(
        acquire_exchange(None, OURS, now()),
        (None, Acquired::Missing)
    );
}

#[test]
fn one_more_call_is_noted_only_under_the_lease_of_the_same_pair() {
    let chain = busy();
    for (may_come, unheard_at) in [(false, chain.unheard_at), (true, chain.attempted_at)] {
        let noted = Chain {
            attempts: 4,
            attempted_at: Some(now()),
            unheard_at,
            ..chain.clone()
        };
        let next = repeat(Some(&chain), &ticket(), may_come, now());
        assert_eq!(next, Some(noted), "{may_come}");
    }
    let rows = [
        with(busy(), |it| it.install = InstallId(2)),
        with(busy(), |it| it.generation = 3),
        with(busy(), |it| it.generation = 5),
        with(busy(), |it| it.lease = lease(OTHERS, NOW + 7)),
        with(busy(), |it| it.lease = None),
    ];
    for chain in rows {
        assert_eq!(
            repeat(Some(&chain), &ticket(), true, now()),
            None,
            "{chain:?}"
        );
    }
    assert_eq!(repeat(None, &ticket(), true, now()), None);
}
