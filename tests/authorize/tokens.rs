//! Which tokens a request gets: current tokens within two seconds, or the reason why not.

use std::time::{Duration, SystemTime};

use slack_installs::rotation::Error;
use slack_installs::slack::ErrorCode;
use slack_installs::testing::{Fault, Rotation, Who};
use slack_installs::{Clock, ResolvedVia, store};
use tokio::time::Instant;

use super::support::app::{OLGA, SALES, key};
use super::support::serving::{Token, interrupted, keep, rotator};
use super::*;

const REFRESH: &str = "oauth.v2.access";

#[tokio::test]
async fn what_has_expired_is_left_out_and_what_serves_is_handed_out() {
    for bot in Token::ALL {
        for user in Token::ALL {
            let life = Life::new().await;
            keep(&life.app, bot, user).await;
            let case = format!("bot {bot:?}, user {user:?}");
            match life.authorize(&life.mention(ALPHA)).await {
                Ok(served) => {
                    let found = (served.bot_token().is_some(), served.user_token().is_some());
                    assert_eq!(found, (bot.serves(), user.serves()), "{case}");
                    assert_ne!(found, (false, false), "{case}");
                }
                Err(AuthorizeError::Expired) => {
                    assert!(!bot.serves() && !user.serves(), "{case}");
                    assert!(bot == Token::Over || user == Token::Over, "{case}");
                }
                Err(AuthorizeError::NoToken) => {
                    assert_eq!((bot, user), (Token::Missing, Token::Missing), "{case}");
                }
                Err(error) => panic!("{error}, {case}"),
            }
        }
    }
}

#[tokio::test]
async fn a_token_serves_until_the_moment_at_which_it_ends() {
    for (bot, user) in [(Token::Live, Token::Missing), (Token::Missing, Token::Live)] {
        let life = Life::new().await;
        keep(&life.app, bot, user).await;
        let installation = life.app.stored(ALPHA, Some(ADA)).await;
        let of_bot = installation
            .installation
            .bot
            .and_then(|bot| bot.grant.expires_at);
        let of_user = installation
            .installation
            .user
            .and_then(|user| user.grant.expires_at);
        let end = of_bot.or(of_user).expect("it ends");
        let instant = Duration::from_millis(1);
        for (at, is_served) in [(end - instant, true), (end, false), (end + instant, false)] {
            let at_that_time = Authorizer::new(life.app.store.clone());
            let at_that_time = at_that_time.with_clock(Clock::from_fn(move || at));
            let outcome = at_that_time
                .authorize(&life.request(&life.mention(ALPHA)))
                .await;
            assert_eq!(outcome.is_ok(), is_served, "{bot:?} {user:?} {outcome:?}");
        }
    }
}

/// A fault of the refresh, and a predicate that recognises the resulting error.
type Trouble = (Fault, fn(&Error) -> bool);

fn troubles() -> [Trouble; 3] {
    [
        (Fault::error("bad_client_secret").always(), |error| {
            matches!(error, Error::Configuration { .. })
        }),
        (Fault::error("invalid_refresh_token").always(), |error| {
            matches!(error, Error::ReinstallNeeded { .. })
        }),
        (Fault::unavailable().always(), |error| {
            matches!(error, Error::TryAgain { .. })
        }),
    ]
}

#[tokio::test]
async fn a_refresh_that_fails_is_the_error_unless_it_is_a_users_and_the_bot_serves() {
    use Token::{Lasting, Live, Missing, Over};
    for (bot, user, is_served) in [
        (Over, Missing, false),
        (Over, Lasting, false),
        (Over, Live, false),
        (Over, Over, false),
        (Missing, Over, false),
        (Lasting, Over, true),
        (Live, Over, true),
    ] {
        for (number, (fault, is_expected)) in troubles().into_iter().enumerate() {
            let life = Life::new().await;
            keep(&life.app, bot, user).await;
            life.app.fake.inject(REFRESH, fault);
            let authorizer = life.authorizer.clone().with_rotator(&rotator(&life.app));
            let case = format!("bot {bot:?}, user {user:?}, trouble {number}");
            match authorizer
                .authorize(&life.request(&life.mention(ALPHA)))
                .await
            {
                Ok(served) => {
                    assert!(is_served, "{case}");
                    assert!(served.bot_token().is_some(), "{case}");
                    assert!(served.user_token().is_none(), "{case}");
                }
                Err(AuthorizeError::Refresh(error)) => {
                    assert!(!is_served && is_expected(&error), "{error:?}, {case}");
                }
                Err(error) => panic!("{error}, {case}"),
            }
        }
    }
}

#[tokio::test]
async fn an_org_wide_token_is_kept_current_whichever_way_it_was_found() {
    for (flag, via) in [
        (true, ResolvedVia::Named),
        (false, ResolvedVia::WorkspaceToOrg),
    ] {
        let life = Life::new().await;
        life.app.fake.rotate_tokens(Rotation::default());
        life.install(Who::user(OLGA).at(ORG)).await;
        life.advance(13 * 3600);
        let authorizer = life.authorizer.clone().with_rotator(&rotator(&life.app));
        let event = life
            .app
            .fake
            .event(SALES, json!({"type": "app_mention", "user": OLGA}));
        let event = event.edit(|event| {
            event["authorizations"][0]["team_id"] = json!(SALES);
            event["authorizations"][0]["is_enterprise_install"] = json!(flag);
        });
        let served = authorizer.authorize(&life.request(&event)).await;
        let served = served.expect("refreshed");
        assert_eq!(served.resolved_via, via);
        let token = served.bot_token().expect("a bot");
        assert!(life.app.fake.is_live(token.expose()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_two_seconds_at_most_for_a_token() {
    let life = Life::new().await;
    life.app.fake.rotate_tokens(Rotation::default());
    life.install(ADA).await;
    life.advance(13 * 3600);
    let slow = Fault::delay(Duration::from_secs(5)).always();
    life.app.fake.inject(REFRESH, slow);
    let authorizer = life.authorizer.clone().with_rotator(&rotator(&life.app));
    let request = life.request(&life.mention(ALPHA));
    // Tokio's paused clock, which advances only while all tasks wait.
    let began = Instant::now();
    let outcome = authorizer.authorize(&request).await;
    assert_matches!(outcome, Err(AuthorizeError::Refresh(Error::Busy)));
    let waited = began.elapsed();
    let (least, most) = (Duration::from_millis(1_990), Duration::from_millis(2_010));
    assert!((least..most).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn the_clock_and_the_rotator_are_kept_in_whichever_order_they_are_given() {
    let life = Life::new().await;
    keep(&life.app, Token::Live, Token::Missing).await;
    let later = life.app.fake.clock().now() + Duration::from_secs(13 * 3600);
    let later = Clock::from_fn(move || later);
    let bare = Authorizer::new(life.app.store.clone());
    // The token is valid by the rotator's clock and expired by the authorizer's.
    let rotator = rotator(&life.app);
    for authorizer in [
        bare.clone()
            .with_clock(later.clone())
            .with_rotator(&rotator),
        bare.with_rotator(&rotator).with_clock(later),
    ] {
        let request = life.request(&life.mention(ALPHA));
        let outcome = authorizer.authorize(&request).await;
        assert_matches!(outcome, Err(AuthorizeError::Expired));
    }
    life.advance(13 * 3600);
    let code = Fault::error("bad_client_secret").always();
    life.app.fake.inject(REFRESH, code);
    let authorizer = Authorizer::new(life.app.store.clone()).with_rotator(&rotator);
    let authorizer = authorizer.with_clock(life.app.fake.clock());
    let outcome = authorizer
        .authorize(&life.request(&life.mention(ALPHA)))
        .await;
    assert_matches!(outcome, Err(AuthorizeError::Refresh(_)));
}

#[tokio::test]
async fn a_store_that_fails_before_the_refresh_is_the_error() {
    let (life, backend) = interrupted().await;
    keep(&life.app, Token::Over, Token::Missing).await;
    let authorizer = life.authorizer.clone().with_rotator(&rotator(&life.app));
    backend.fail_read(2);
    let outcome = authorizer
        .authorize(&life.request(&life.mention(ALPHA)))
        .await;
    let Err(AuthorizeError::Refresh(Error::Store(error))) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(error.is_transient());
}

#[test]
fn only_what_may_pass_by_itself_is_transient() {
    let code = || ErrorCode::new("some_code");
    let lost = || store::Error::Unavailable("lost".into());
    let damaged = || store::Error::Unreadable("damaged".into());
    let transient = [
        AuthorizeError::Refresh(Error::Busy),
        AuthorizeError::Refresh(Error::Interrupted),
        AuthorizeError::Refresh(Error::TryAgain {
            at: SystemTime::UNIX_EPOCH,
            code: code(),
        }),
        AuthorizeError::Refresh(lost().into()),
        AuthorizeError::Store(lost()),
    ];
    for error in transient {
        assert!(error.is_transient(), "{error:?}");
    }
    let lasting = [
        AuthorizeError::Expired,
        AuthorizeError::NoTenant,
        AuthorizeError::NoToken,
        AuthorizeError::NotGranted,
        AuthorizeError::NotInstalled {
            tried: vec![key(ALPHA)],
        },
        AuthorizeError::OnHold,
        AuthorizeError::OtherApp,
        AuthorizeError::Refresh(Error::Configuration { code: code() }),
        AuthorizeError::Refresh(Error::NotExchanged { code: code() }),
        AuthorizeError::Refresh(Error::NotInstalled {
            chain: store::ChainKey {
                credential: store::Credential::Bot,
                tenant: key(ALPHA),
            },
        }),
        AuthorizeError::Refresh(Error::NotRotating),
        AuthorizeError::Refresh(Error::OnHold),
        AuthorizeError::Refresh(Error::ReinstallNeeded { code: code() }),
        AuthorizeError::Refresh(damaged().into()),
        AuthorizeError::Store(damaged()),
        AuthorizeError::Store(store::Error::Conflict),
    ];
    for error in lasting {
        assert!(!error.is_transient(), "{error:?}");
    }
}
