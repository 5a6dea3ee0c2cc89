//! Tests `hand_out`, which decides what a caller gets from a chain.

use super::*;

const SERVE: Handout = Handout::Serve { refresh: false };

const SERVE_AND_REFRESH: Handout = Handout::Serve { refresh: true };

const WAIT: Handout = Handout::Wait { serves_on: false };

const WAIT_OR_SERVE: Handout = Handout::Wait { serves_on: true };

fn check(expected: Handout, demand: Demand, is_strict: bool, chains: &[Chain]) {
    for chain in chains {
        let handout = hand_out(chain, demand, is_strict, now());
        assert_eq!(handout, expected, "{demand:?}, {chain:?}");
    }
}

fn refused() -> Demand {
    Demand::NewerThan(InstallId(1), 4)
}

fn suspect() -> Chain {
    with(fresh(), |it| it.attempts = 2)
}

#[test]
fn a_token_that_serves_is_handed_out_and_one_that_is_due_and_free_is_refreshed_meanwhile() {
    let chains = [
        fresh(),
        with(soft(), |it| it.is_dead = true),
        with(soft(), |it| it.lease = lease(OTHERS, NOW + 1)),
        with(soft(), |it| it.retry_at = Some(at(NOW + 1))),
    ];
    check(SERVE, Demand::Current, false, &chains);
    let chains = [
        soft(),
        // A call of unknown outcome.
        with(fresh(), |it| it.attempts = 1),
        with(soft(), |it| it.attempts = 1),
        // A lapsed lease, and a retry time that has passed.
        with(soft(), |it| it.lease = lease(OTHERS, NOW)),
        with(soft(), |it| it.retry_at = Some(at(NOW))),
    ];
    check(SERVE_AND_REFRESH, Demand::Current, false, &chains);
}

#[test]
fn a_caller_waits_for_the_refresh_of_a_token_that_does_not_serve_or_is_under_suspicion() {
    check(WAIT, Demand::Current, false, &[hard()]);
    check(WAIT, refused(), false, &[fresh(), hard(), suspect()]);
    let older = Demand::NewerThan(InstallId(1), 3);
    check(SERVE, older, false, &[fresh()]);
    let tried_twice = with(soft(), |it| it.attempts = 2);
    check(
        WAIT_OR_SERVE,
        Demand::Current,
        false,
        &[suspect(), tried_twice],
    );
}

#[test]
fn a_strict_caller_waits_for_the_refresh_of_every_token_that_is_due() {
    check(SERVE, Demand::Current, true, &[fresh()]);
    check(WAIT, Demand::Current, true, &[soft(), hard(), suspect()]);
}

#[test]
fn without_a_refresh_token_that_works_only_a_reinstall_replaces_a_token() {
    let dead = |chain| with(chain, |it| it.is_dead = true);
    let single = |chain| with(chain, |it| it.refresh = None);
    check(
        SERVE,
        Demand::Current,
        false,
        &[dead(soft()), single(soft())],
    );
    let chains = [dead(hard()), single(hard())];
    check(Handout::Reinstall, Demand::Current, false, &chains);
    let chains = [dead(fresh()), single(fresh())];
    check(Handout::Reinstall, refused(), false, &chains);
}
