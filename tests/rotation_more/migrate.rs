//! Exchanges of long-lived tokens that do not go as they should.

use std::time::Duration;

use slack_installs::rotation::Error;
use slack_installs::testing::{Fault, Rotation};

use super::support::rotation::{HOUR, Stage};
use super::{Way, fleet, rotator_over};

const EXCHANGE: &str = "oauth.v2.exchange";

/// Tenants with long-lived tokens, of an app that has just turned rotation on.
async fn unrotated(size: usize) -> Stage {
    let stage = Stage::unrotated().await;
    fleet(&stage, size).await;
    stage.fake.rotate_tokens(Rotation::default());
    stage
}

/// Exchanged, already there, kept as they are.
async fn migrate(rotator: &slack_installs::TokenRotator) -> (usize, usize, usize) {
    let page = rotator.migrate(None, 100).await.expect("a page");
    (page.exchanged, page.already, page.kept.len())
}

#[tokio::test(start_paused = true)]
async fn an_exchange_whose_answer_comes_late_is_kept() {
    let stage = unrotated(1).await;
    let late = Duration::from_secs(10);
    stage
        .fake
        .inject(EXCHANGE, Fault::delay(late).after_effect());
    let rotator = stage.rotator();
    assert_eq!(migrate(&rotator).await, (0, 0, 1));
    assert!(rotator.shutdown(Duration::from_secs(30)).await);
    assert_eq!(migrate(&stage.rotator()).await, (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_for_a_moment_excludes_no_tenant_from_rotation() {
    // The intent is written and nobody hears of it; or it is not written.
    for way in [|| Way::Lost, || Way::Failed] {
        let stage = unrotated(1).await;
        let rotator = rotator_over(&stage, move |number| match number {
            0..4 => way(),
            _ => Way::Done,
        });
        assert_eq!(migrate(&rotator).await, (1, 0, 0));
        assert_eq!(stage.fake.calls(EXCHANGE), 1);
    }
    // Slack asks to wait, and the intent cannot be taken back at once.
    let stage = unrotated(1).await;
    let wait = Duration::from_secs(10);
    stage.fake.inject(EXCHANGE, Fault::rate_limited(wait));
    let rotator = rotator_over(&stage, |number| match number {
        1..4 => Way::Failed,
        _ => Way::Done,
    });
    assert_eq!(migrate(&rotator).await, (0, 0, 1));
    tokio::time::sleep(wait).await;
    assert_eq!(migrate(&stage.rotator()).await, (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_absurd_retry_after_delays_an_exchange_by_minutes() {
    let stage = unrotated(1).await;
    let absurd = Duration::from_secs(u64::MAX);
    stage.fake.inject(EXCHANGE, Fault::rate_limited(absurd));
    let rotator = stage.rotator();
    assert_eq!(migrate(&rotator).await, (0, 0, 1));
    tokio::time::sleep(HOUR).await;
    assert_eq!(migrate(&rotator).await, (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_odd_token_does_not_keep_the_others_of_its_page_from_rotating() {
    for code in ["not_allowed_token_type", "invalid_arguments"] {
        let stage = unrotated(3).await;
        stage.fake.inject(EXCHANGE, Fault::error(code));
        let page = stage.rotator().migrate(None, 100).await.expect("a page");
        assert_eq!((page.exchanged, page.kept.len()), (2, 1), "{code}");
        let (_, error) = &page.kept[0];
        assert!(
            matches!(error, Error::NotExchanged { code: found } if found.as_str() == code),
            "{error:?}"
        );
    }
}
