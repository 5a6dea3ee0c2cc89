//! What a caller gets of a chain: `hand_out`.

use super::*;

const SERVE: Handout = Handout::Serve { refresh: false };

const SERVE_AND_REFRESH: Handout = Handout::Serve { refresh: true };

const WAIT: Handout = Handout::Wait { serves_on: false };

const WAIT_OR_SERVE: Handout = Handout::Wait { serves_on: true };

#[test]
fn a_token_that_serves_is_handed_out_and_one_that_is_due_and_free_is_refreshed_meanwhile() {
    let with = |change: &dyn Fn(&mut Chain)| {
        let mut chain = soft();
        change(&mut chain);
        chain
    };
    let once = Chain {
        attempts: 1,
        ..fresh()
    };
    let rows = [
        ("fresh", fresh(), SERVE),
        ("fresh, of unknown outcome", once, SERVE_AND_REFRESH),
        ("soft", soft(), SERVE_AND_REFRESH),
        ("soft and dead", with(&|it| it.is_dead = true), SERVE),
        (
            "soft and held",
            with(&|it| it.lease = lease(OTHERS, NOW + 1)),
            SERVE,
        ),
        (
            "soft and lapsed",
            with(&|it| it.lease = lease(OTHERS, NOW)),
            SERVE_AND_REFRESH,
        ),
        (
            "soft and asked to wait",
            with(&|it| it.retry_at = Some(at(NOW + 1))),
            SERVE,
        ),
        (
            "soft and waited",
            with(&|it| it.retry_at = Some(at(NOW))),
            SERVE_AND_REFRESH,
        ),
        (
            "soft and tried once",
            with(&|it| it.attempts = 1),
            SERVE_AND_REFRESH,
        ),
        ("suspect", with(&|it| it.attempts = 2), WAIT_OR_SERVE),
    ];
    for (name, chain, expected) in rows {
        let handout = hand_out(&chain, Demand::Current, false, now());
        assert_eq!(handout, expected, "{name}");
    }
}

#[test]
fn a_caller_waits_for_the_refresh_of_a_token_that_does_not_serve() {
    let refused = Demand::NewerThan(InstallId(1), 4);
    let older = Demand::NewerThan(InstallId(1), 3);
    let suspect = Chain {
        attempts: 2,
        ..fresh()
    };
    let rows = [
        ("hard", hard(), Demand::Current, WAIT),
        ("refused", fresh(), refused, WAIT),
        ("an older one refused", fresh(), older, SERVE),
        ("hard and refused", hard(), refused, WAIT),
        ("suspect", suspect.clone(), Demand::Current, WAIT_OR_SERVE),
        ("suspect and refused", suspect, refused, WAIT),
    ];
    for (name, chain, demand, expected) in rows {
        assert_eq!(hand_out(&chain, demand, false, now()), expected, "{name}");
    }
}

#[test]
fn a_strict_caller_waits_for_the_refresh_of_every_token_that_is_due() {
    let suspect = Chain {
        attempts: 2,
        ..fresh()
    };
    let rows = [
        ("fresh", fresh(), SERVE),
        ("soft", soft(), WAIT),
        ("hard", hard(), WAIT),
        ("suspect", suspect, WAIT),
    ];
    for (name, chain, expected) in rows {
        let handout = hand_out(&chain, Demand::Current, true, now());
        assert_eq!(handout, expected, "{name}");
    }
}

#[test]
fn without_a_refresh_token_that_works_only_a_reinstall_replaces_a_token() {
    let refused = Demand::NewerThan(InstallId(1), 4);
    let dead = |chain: Chain| Chain {
        is_dead: true,
        ..chain
    };
    let single = |chain: Chain| Chain {
        refresh: None,
        ..chain
    };
    let rows = [
        ("dead, and serves", dead(soft()), Demand::Current, SERVE),
        ("dead", dead(hard()), Demand::Current, Handout::Reinstall),
        (
            "dead and refused",
            dead(fresh()),
            refused,
            Handout::Reinstall,
        ),
        (
            "no token, and serves",
            single(soft()),
            Demand::Current,
            SERVE,
        ),
        (
            "no token",
            single(hard()),
            Demand::Current,
            Handout::Reinstall,
        ),
        (
            "no token, refused",
            single(fresh()),
            refused,
            Handout::Reinstall,
        ),
    ];
    for (name, chain, demand, expected) in rows {
        assert_eq!(hand_out(&chain, demand, false, now()), expected, "{name}");
    }
}
