//! Exchanges of long-lived tokens that fail.

use slack_installs::InstallationStore as _;
use slack_installs::rotation::Error;
use slack_installs::store::{Credential, RotationStore as _};
use slack_installs::testing::{Fault, Rotation};

use super::support::hooked_chains::Way;
use super::support::rotation::{Stage, millis, secs};

const EXCHANGE: &str = "oauth.v2.exchange";

/// Returns tenants with long-lived tokens, of an app that has just turned rotation on.
async fn unrotated(size: usize) -> Stage {
    let stage = Stage::unrotated().await;
    stage.fleet(size).await;
    stage.fake.rotate_tokens(Rotation::default());
    stage
}

/// Migrates a page. Returns how many tokens were exchanged, already rotated, and kept.
async fn migrate(rotator: &slack_installs::TokenRotator) -> (usize, usize, usize) {
    let page = rotator.migrate(None, 100).await.expect("a page");
    (page.exchanged, page.already, page.kept.len())
}

#[tokio::test(start_paused = true)]
async fn an_exchange_whose_answer_comes_late_is_kept() {
    let stage = unrotated(1).await;
    let late = secs(10);
    stage
        .fake
        .inject(EXCHANGE, Fault::delay(late).after_effect());
    let rotator = stage.rotator();
    assert_eq!(migrate(&rotator).await, (0, 0, 1));
    assert!(rotator.shutdown(secs(30)).await);
    assert_eq!(migrate(&stage.rotator()).await, (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_for_a_moment_excludes_no_tenant_from_rotation() {
    // The intent is written and its response is lost, or it is not written.
    for way in [|| Way::Lost, || Way::Failed] {
        let stage = unrotated(1).await;
        let rotator = stage.rotator_with_updates(move |number| match number {
            0..4 => way(),
            _ => Way::Done,
        });
        assert_eq!(migrate(&rotator).await, (1, 0, 0));
        assert_eq!(stage.fake.calls(EXCHANGE), 1);
    }
    // Slack asks to wait, and the intent cannot be removed at once.
    let stage = unrotated(1).await;
    let wait = secs(10);
    stage.fake.inject(EXCHANGE, Fault::rate_limited(wait));
    let rotator = stage.rotator_with_updates(|number| match number {
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
    let absurd = secs(u64::MAX);
    stage.fake.inject(EXCHANGE, Fault::rate_limited(absurd));
    let rotator = stage.rotator();
    assert_eq!(migrate(&rotator).await, (0, 0, 1));
    tokio::time::sleep(secs(290)).await;
    assert_eq!(migrate(&rotator).await, (0, 0, 1));
    tokio::time::sleep(secs(20)).await;
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
        assert_matches!(error, Error::NotExchanged { code: found } if found.as_str() == code);
    }
}

#[tokio::test(start_paused = true)]
async fn exchanges_are_begun_fifty_times_a_minute() {
    let stage = unrotated(5).await;
    let slow = Fault::delay(millis(700)).always();
    stage.fake.inject(EXCHANGE, slow);
    assert_eq!(migrate(&stage.rotator()).await, (5, 0, 0));
    let calls = stage.fake.call_log();
    let calls = calls.iter().filter(|call| call.method == EXCHANGE);
    let times: Vec<_> = calls.map(|call| call.at).collect();
    for pair in times.windows(2) {
        let gap = pair[1].duration_since(pair[0]).expect("later");
        assert!((1200..1210).contains(&gap.as_millis()), "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_goes_on_where_its_page_ended() {
    let stage = unrotated(5).await;
    let rotator = stage.rotator();
    let (mut exchanged, mut pages, mut from) = (0, 0, None);
    loop {
        let page = rotator.migrate(from, 4).await.expect("a page");
        exchanged += page.exchanged;
        pages += 1;
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(exchanged, 5);
    assert!(pages > 1);
}

#[tokio::test(start_paused = true)]
async fn a_migration_ends_with_its_process() {
    let stage = unrotated(2).await;
    let rotator = stage.rotator();
    assert!(rotator.shutdown(secs(1)).await);
    let page = rotator.migrate(None, 100).await;
    assert_matches!(page, Err(Error::Interrupted));
    assert_eq!(stage.fake.calls(EXCHANGE), 0);
}

#[tokio::test(start_paused = true)]
async fn only_an_exchange_that_certainly_brought_nothing_is_tried_again() {
    let lost = |fault: Fault| (fault, false);
    let refused = |fault: Fault| (fault, true);
    for (fault, is_tried) in [
        refused(Fault::error("service_unavailable")),
        refused(Fault::error("ekm_access_denied")),
        refused(Fault::error("account_inactive")),
        refused(Fault::error("invalid_auth")),
        refused(Fault::rate_limited(secs(1))),
        lost(Fault::error("some_future_error")),
        lost(Fault::error("internal_error")),
        lost(Fault::unavailable()),
        lost(Fault::lost()),
    ] {
        let case = format!("{fault:?}");
        let stage = unrotated(1).await;
        stage.fake.inject(EXCHANGE, fault);
        assert_eq!(migrate(&stage.rotator()).await, (0, 0, 1), "{case}");
        tokio::time::sleep(secs(30)).await;
        let again = migrate(&stage.rotator()).await;
        let expected = (usize::from(is_tried), 0, usize::from(!is_tried));
        assert_eq!(again, expected, "{case}");
        let calls = stage.fake.calls(EXCHANGE);
        assert_eq!(calls, 1 + usize::from(is_tried), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_to_wait_is_kept_before_the_next_exchange_of_a_token() {
    let stage = unrotated(1).await;
    let wait = secs(30);
    stage.fake.inject(EXCHANGE, Fault::rate_limited(wait));
    assert_eq!(migrate(&stage.rotator()).await, (0, 0, 1));
    let page = stage.rotator().migrate(None, 100).await.expect("a page");
    let (_, error) = &page.kept[0];
    assert_matches!(error, Error::NotExchanged { code } if code.as_str() == "ratelimited");
    assert_eq!(stage.fake.calls(EXCHANGE), 1);
    tokio::time::sleep(wait).await;
    assert_eq!(migrate(&stage.rotator()).await, (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_another_process_exchanges_is_left_to_it() {
    let stage = unrotated(1).await;
    let slow = Fault::delay(secs(5)).after_effect();
    stage.fake.inject(EXCHANGE, slow);
    let first = stage.rotator();
    let first = tokio::spawn(async move { migrate(&first).await });
    tokio::time::sleep(secs(1)).await;
    let page = stage.rotator().migrate(None, 100).await.expect("a page");
    let (_, error) = &page.kept[0];
    assert_matches!(error, Error::Busy);
    assert_eq!(first.await.expect("no panic"), (1, 0, 0));
    assert_eq!(stage.fake.calls(EXCHANGE), 1);
    // An exchanged pair counts as used.
    let (keys, _) = stage.store.chains(None, 10).await.expect("available");
    let stored = stage.store.chain(&keys[0]).await.expect("available");
    assert_eq!(stored.expect("installed").chain.idle, 0);
}

#[tokio::test(start_paused = true)]
async fn long_lived_tokens_are_exchanged_once_and_serve_until_the_first_refresh() {
    let stage = Stage::unrotated().await;
    let tenants = stage.fleet(5).await;
    let old = stage
        .store
        .fetch(&tenants[0], None)
        .await
        .expect("available")
        .expect("installed");
    let old = old.installation.bot.expect("a bot").grant.access_token;
    let rotator = stage.rotator();
    let error = rotator
        .migrate(None, 100)
        .await
        .expect_err("rotation is not turned on");
    assert_matches!(error, Error::Configuration { .. });
    stage.fake.rotate_tokens(Rotation::default());
    // After a lost response, that token is kept and not exchanged again.
    let lost = Fault::lost().after_effect();
    stage.fake.inject("oauth.v2.exchange", lost);
    let first = rotator.migrate(None, 100).await.expect("a page");
    assert_eq!(
        (first.exchanged, first.already, first.kept.len()),
        (4, 0, 1)
    );
    assert!(first.next.is_none());
    let calls = stage.fake.calls("oauth.v2.exchange");
    let again = stage.rotator().migrate(None, 100).await.expect("a page");
    assert_eq!(
        (again.exchanged, again.already, again.kept.len()),
        (0, 4, 1)
    );
    assert_eq!(
        stage.fake.calls("oauth.v2.exchange"),
        calls,
        "never twice for one token"
    );
    for tenant in &tenants {
        let token = rotator
            .token_for(tenant, Credential::Bot)
            .await
            .expect("a token");
        assert!(stage.fake.is_live(token.access_token.expose()));
    }
    assert!(stage.fake.is_live(old.expose()), "nothing was revoked");
    assert_eq!(stage.fake.calls("auth.revoke"), 0);
    stage.expire();
    for (number, tenant) in tenants.iter().enumerate() {
        let token = rotator
            .token_for(tenant, Credential::Bot)
            .await
            .expect("a token");
        assert!(
            stage.fake.is_live(token.access_token.expose()),
            "tenant {number}"
        );
    }
    assert_eq!(stage.refreshes(), 4);
}
