use super::*;
use crate::tenant::TeamId;

fn at(seconds: u64) -> SystemTime {
    from_epoch(1_780_000_000 + seconds)
}

fn grant(access: &str, refresh: Option<&str>) -> Grant {
    Grant {
        access_token: AccessToken::new(access).expect("the token is valid"),
        refresh_token: refresh.map(|token| RefreshToken::new(token).expect("the token is valid")),
        expires_at: Some(at(43_200)),
        scopes: "chat:write".split(',').collect(),
    }
}

fn one() -> Grant {
    grant("xoxe.xoxb-1-one", Some("xoxe-1-one"))
}

fn chain() -> Chain {
    Chain {
        install: InstallId(1),
        ..Chain::new(&one(), at(0))
    }
}

/// The offset depends only on the pair. If these values changed, processes of two versions would
/// refresh at different times.
#[test]
fn a_pair_is_soft_two_hours_before_its_end_give_or_take_half_an_hour_by_its_hash() {
    for (install, generation, millis) in [
        (1, 0, 35_802_795),
        (1, 4, 34_975_964),
        (1, 5, 36_568_432),
        (2, 4, 34_359_906),
    ] {
        let chain = Chain {
            install: InstallId(install),
            generation,
            ..chain()
        };
        let soft_at = chain.soft_at().expect("the token expires");
        let after = soft_at
            .duration_since(at(0))
            .expect("the time is later than 0");
        assert_eq!(after.as_millis(), millis, "{install}, {generation}");
    }
}

#[test]
fn with_any_threshold_a_pair_is_soft_in_its_second_half_and_before_callers_wait() {
    let minute = 60;
    for minutes in [10, 60, 120, 240] {
        let threshold = minutes * minute;
        for generation in 0..200 {
            let chain = Chain {
                generation,
                threshold: RefreshThreshold::new(Duration::from_secs(threshold)).expect("valid"),
                ..chain()
            };
            let soft_at = chain.soft_at().expect("the token expires");
            assert!(soft_at >= at(43_200 - threshold * 5 / 4));
            assert!(soft_at <= at(43_200 - threshold * 3 / 4));
            assert!(soft_at > at(43_200 / 2) && Some(soft_at) < chain.hard_at());
        }
    }
}

#[test]
fn a_pair_is_not_replaced_in_the_first_half_of_its_life() {
    for (life, soft) in [(1_200, 600), (7_200, 3_600), (10_800, 5_400), (0, 0)] {
        let chain = Chain {
            expires_at: Some(at(life)),
            ..chain()
        };
        assert_eq!(chain.soft_at(), Some(at(soft)), "{life}");
    }
    let over = Chain {
        issued_at: at(500),
        expires_at: Some(at(0)),
        ..chain()
    };
    assert_eq!(
        over.soft_at(),
        Some(at(500)),
        "the token expired before it was issued"
    );
}

#[test]
fn what_does_not_end_or_cannot_be_replaced_is_never_soft() {
    let endless = Chain {
        expires_at: None,
        ..chain()
    };
    let single = Chain {
        refresh: None,
        ..chain()
    };
    assert_eq!((endless.soft_at(), endless.hard_at()), (None, None));
    assert_eq!(single.soft_at(), None);
    assert_eq!(single.hard_at(), Some(at(43_200 - 300)));
}

#[test]
fn a_token_is_hard_five_minutes_before_its_end_or_in_the_last_quarter_of_its_life() {
    for (life, hard) in [
        (43_200, 42_900),
        (1_200, 900),
        (1_000, 750),
        (400, 300),
        (0, 0),
    ] {
        let chain = Chain {
            expires_at: Some(at(life)),
            ..chain()
        };
        assert_eq!(chain.hard_at(), Some(at(hard)), "{life}");
    }
}

#[test]
fn a_new_chain_is_due_when_its_pair_is_soft() {
    let chain = Chain::new(&one(), at(7));
    let expected = Chain {
        install: InstallId(0x69c2_622f_4bfb_5771_b67f_45ed_2cbd_36c0),
        generation: 0,
        refresh: Some(Mark(0x69c2_622f_4bfb_5771)),
        alternates: Vec::new(),
        issued_at: at(7),
        expires_at: Some(at(43_200)),
        lease: None,
        attempts: 0,
        attempted_at: None,
        unheard_at: None,
        retry_at: None,
        failures: 0,
        last_error: None,
        is_dead: false,
        is_unproven: false,
        spent: None,
        idle: 0,
        due_at: chain.soft_at(),
        threshold: RefreshThreshold::default(),
    };
    assert!(chain.due_at.is_some());
    assert_eq!(chain, expected);
}

/// The id is the hash of the refresh token, if there is one. A later pair may have the same access
/// token.
#[test]
fn an_installation_is_named_by_its_first_refresh_token_or_by_its_only_token() {
    let single = grant("xoxb-single", None);
    assert_eq!(
        InstallId::of(&single),
        InstallId(0xaa28_faa8_4e0a_b595_a318_ec78_55fe_8f8c)
    );
    let other_access = grant("xoxe.xoxb-1-other", Some("xoxe-1-one"));
    assert_eq!(InstallId::of(&other_access), InstallId::of(&one()));
    let token = &single.access_token;
    assert_eq!(Mark::of_access_token(token), Mark(0xaa28_faa8_4e0a_b595));
    assert_eq!(format!("{:?}", Mark(0xAB)), "00000000000000ab");
    assert_eq!(
        format!("{:?}", InstallId(0xAB)),
        "000000000000000000000000000000ab"
    );
}

#[test]
fn a_key_names_the_tenant_and_whose_token_it_is() {
    let tenant = InstallationKey::workspace(TeamId::new("T0ALPHA0001").expect("the id is valid"));
    let user = UserId::new("U0ADMIN0001").expect("the id is valid");
    for (credential, end) in [
        (Credential::Bot, "bot"),
        (Credential::User(user), "U0ADMIN0001"),
    ] {
        let tenant = tenant.clone();
        let expected = format!("{tenant}/{end}");
        let key = ChainKey { credential, tenant };
        assert_eq!(key.to_string(), expected);
    }
}

fn mark(token: &str) -> Mark {
    Mark::of(&RefreshToken::new(token).expect("the token is valid"))
}

/// Returns a chain on hold with the pair `one` and two alternates.
fn stored() -> StoredChain {
    let alternates = ["xoxe-1-a", "xoxe-1-b"];
    let chain = Chain {
        alternates: alternates.map(mark).to_vec(),
        ..chain()
    };
    let app_id = AppId::new("A0APP000001").expect("the id is valid");
    let alternates = alternates.map(|token| RefreshToken::new(token).expect("the token is valid"));
    let mut stored = StoredChain::new(app_id, chain, one(), alternates.into());
    assert!(!stored.is_on_hold);
    stored.is_on_hold = true;
    stored
}

fn texts(stored: &StoredChain) -> (String, String, Vec<String>) {
    let refresh = stored
        .grant
        .refresh_token
        .as_ref()
        .expect("the grant is a pair");
    let alternates = stored.alternates.iter();
    (
        stored.grant.access_token.expose().to_owned(),
        refresh.expose().to_owned(),
        alternates.map(|token| token.expose().to_owned()).collect(),
    )
}

fn two() -> Grant {
    Grant {
        expires_at: Some(at(99_999)),
        scopes: "users:read".split(',').collect(),
        ..grant("xoxe.xoxb-1-two", Some("xoxe-1-two"))
    }
}

#[test]
fn a_chain_finds_its_refresh_tokens_by_their_marks() {
    for token in ["xoxe-1-one", "xoxe-1-a", "xoxe-1-b"] {
        let stored = stored();
        let found = stored
            .refresh_token(mark(token))
            .expect("the chain has the token");
        assert_eq!(found.expose(), token);
    }
    assert!(stored().refresh_token(mark("xoxe-1-two")).is_none());
}

#[test]
fn a_chain_that_keeps_its_pair_keeps_what_the_pair_is() {
    let next = Chain {
        alternates: ["xoxe-1-b", "xoxe-1-two"].map(mark).to_vec(),
        expires_at: Some(at(5)),
        attempts: 2,
        ..chain()
    };
    let moved = stored().moved(next.clone(), Some(&two()));
    let moved = moved.expect("all tokens exist");
    assert_eq!(moved.chain, next);
    let (access, refresh, alternates) = texts(&moved);
    assert_eq!((&*access, &*refresh), ("xoxe.xoxb-1-one", "xoxe-1-one"));
    assert_eq!(alternates, ["xoxe-1-b", "xoxe-1-two"]);
    assert_eq!(moved.grant.scopes.to_string(), "chat:write");
    assert_eq!(moved.grant.expires_at, Some(at(5)));
    assert_eq!(moved.app_id.as_str(), "A0APP000001");
    assert!(moved.is_on_hold);
}

#[test]
fn a_chain_that_takes_the_offered_pair_takes_it_whole() {
    let next = Chain {
        generation: 1,
        refresh: Some(mark("xoxe-1-two")),
        alternates: vec![mark("xoxe-1-a")],
        expires_at: Some(at(86_400)),
        ..chain()
    };
    for (scopes, expected) in [("users:read", "users:read"), ("", "chat:write")] {
        let offered = Grant {
            scopes: scopes.split(',').filter(|it| !it.is_empty()).collect(),
            ..two()
        };
        let moved = stored().moved(next.clone(), Some(&offered));
        let moved = moved.expect("all tokens exist");
        let (access, refresh, alternates) = texts(&moved);
        assert_eq!((&*access, &*refresh), ("xoxe.xoxb-1-two", "xoxe-1-two"));
        assert_eq!(alternates, ["xoxe-1-a"]);
        assert_eq!(moved.grant.scopes.to_string(), expected);
        // The chain's expiry wins over the one in Slack's response.
        assert_eq!(moved.grant.expires_at, Some(at(86_400)));
        assert!(moved.is_on_hold);
    }
}

#[test]
fn a_chain_cannot_have_tokens_that_nobody_has() {
    let unknown = Chain {
        alternates: ["xoxe-1-a", "xoxe-1-c"].map(mark).to_vec(),
        ..chain()
    };
    let other_pair = Chain {
        refresh: Some(mark("xoxe-1-c")),
        ..chain()
    };
    let no_pair = Chain {
        refresh: None,
        ..chain()
    };
    for next in [&unknown, &other_pair, &no_pair] {
        for offered in [None, Some(two())] {
            assert!(stored().moved(next.clone(), offered.as_ref()).is_none());
        }
    }
    // The access token of an alternate is unknown.
    let alternate = Chain {
        refresh: Some(mark("xoxe-1-a")),
        ..chain()
    };
    assert!(stored().moved(alternate, None).is_none());
}
