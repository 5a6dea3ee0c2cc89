use std::time::{Duration, SystemTime};

use super::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000 + seconds)
}

/// Returns a chain in which every field has another value.
fn full() -> Chain {
    Chain {
        install: InstallId(0x1122),
        generation: 3,
        refresh: Some(Mark(0x44)),
        alternates: vec![Mark(5)],
        issued_at: at(6),
        expires_at: Some(at(7)),
        lease: Some(Lease {
            owner: 8,
            until: at(9),
        }),
        attempts: 10,
        attempted_at: Some(at(11)),
        unheard_at: Some(at(16)),
        retry_at: Some(at(12)),
        failures: 13,
        last_error: Some("error".into()),
        is_dead: true,
        is_unproven: true,
        spent: Some(Mark(5)),
        idle: 14,
        due_at: Some(at(15)),
        threshold: crate::store::RefreshThreshold::default(),
    }
}

fn empty() -> Chain {
    Chain::unused(InstallId(0x1122), None, at(1), None)
}

fn read_back(chain: &Chain) -> RotationFacts {
    let text = serde_json::to_string(&RotationFacts::after(None, chain));
    serde_json::from_str(&text.expect("plain fields")).expect("its own form")
}

#[test]
fn every_member_of_a_chain_comes_back() {
    for (chain, mut issued) in [(full(), empty()), (empty(), full())] {
        // These members are stored in other parts of the row.
        issued.refresh = chain.refresh;
        issued.alternates = chain.alternates.clone();
        issued.expires_at = chain.expires_at;
        issued.due_at = chain.due_at;
        issued.install = InstallId(7);
        read_back(&chain).onto(&mut issued).expect("its own form");
        assert_eq!(issued, chain);
    }
}

#[test]
fn ids_that_are_no_numbers_are_an_unknown_form() {
    for (from, to) in [
        ("\"00000000000000000000000000001122\"", "\"x\""),
        ("\"00000000000000000000000000000008\"", "\"\""),
        ("\"0000000000000005\"", "\"y\""),
    ] {
        let text = serde_json::to_string(&RotationFacts::after(None, &full()));
        let text = text.expect("plain fields");
        assert!(text.contains(from), "{text}");
        let facts: RotationFacts = serde_json::from_str(&text.replace(from, to)).expect("JSON");
        let outcome = facts.onto(&mut empty());
        assert!(matches!(outcome, Err(Error::Unreadable(_))), "{outcome:?}");
    }
}

#[test]
fn two_calls_of_unknown_outcome_or_an_unproven_pair_make_a_living_chain_suspect() {
    for (attempts, is_dead, expected) in [
        (0, false, false),
        (1, false, false),
        (2, false, true),
        (9, false, true),
        (2, true, false),
    ] {
        let chain = Chain {
            attempts,
            is_dead,
            ..empty()
        };
        let facts = RotationFacts::after(None, &chain);
        assert_eq!(facts.is_suspect(), expected, "{attempts}, {is_dead}");
        assert_eq!(facts.is_suspect(), chain.is_suspect());
        let is_unproven = true;
        let chain = Chain {
            is_unproven,
            ..chain
        };
        let facts = RotationFacts::after(None, &chain);
        assert_eq!(facts.is_suspect(), !is_dead, "{attempts}, {is_dead}");
        assert_eq!(facts.is_suspect(), chain.is_suspect());
    }
}

#[test]
fn the_last_five_refresh_tokens_before_the_primary_are_known() {
    let mut facts = None;
    for mark in 1..=8 {
        let chain = Chain {
            refresh: Some(Mark(mark)),
            ..full()
        };
        // These steps keep the pair.
        for _ in 0..3 {
            facts = Some(RotationFacts::after(facts, &chain));
        }
    }
    let facts = facts.expect("eight pairs");
    let known: Vec<_> = (1..=9)
        .filter(|mark| facts.has_replaced(Mark(*mark)))
        .collect();
    assert_eq!(known, [3, 4, 5, 6, 7]);
    assert_eq!(facts.past[0], "0000000000000003", "oldest first");

    let single = Chain {
        refresh: None,
        ..full()
    };
    let facts = RotationFacts::after(Some(facts), &single);
    assert!(facts.has_replaced(Mark(8)));
    assert!(!facts.has_replaced(Mark(3)));
}
