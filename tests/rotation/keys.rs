//! The key provider fails while Slack is asked for a pair.

use std::time::SystemTime;

use slack_installs::testing::{Fault, Rotation};
use slack_installs::{Clock, InstallationStore as _, KeyId};

use super::support::providers::Remote;
use super::support::rotation::{BotToken as _, Stage, Store, alpha, secs, spawn_caller};

/// Returns a process whose key provider is down, and whose key can be used for two more seconds.
async fn with_a_key_that_ends(stage: &Stage) -> (Stage, Remote) {
    let provider = Remote::new();
    let process = stage.another_with(provider.clone()).await;
    let read = process.store.fetch(&alpha(), None).await;
    drop(read.expect("available"));
    provider.set_down(true);
    tokio::time::sleep(secs(15 * 60 - 2)).await;
    (process, provider)
}

/// Asserts that the process can read nothing. Then brings its provider back.
async fn recovers(process: &Stage, provider: &Remote) {
    let read = process.store.fetch(&alpha(), None).await;
    let error = read.expect_err("the key is too old");
    assert!(error.is_transient(), "{error:?}");
    provider.set_down(false);
    tokio::time::sleep(secs(60)).await;
    process.fetched().await;
}

#[tokio::test(start_paused = true)]
async fn a_pair_is_saved_although_the_data_key_ended_while_slack_was_asked() {
    // The row may be under a key that is not the primary any more.
    for is_retired in [false, true] {
        let stage = Stage::installed().await;
        if is_retired {
            stage.store.rotate_data_key().await.expect("available");
        }
        let (process, provider) = with_a_key_that_ends(&stage).await;
        process.expire();
        let (rotator, held) = process.held();
        let caller = spawn_caller(&rotator);
        held.answered().await;
        tokio::time::sleep(secs(4)).await;
        held.release();
        drop(caller.await.expect("no panic"));
        assert!(rotator.shutdown(secs(1)).await, "the pair is saved");
        assert_eq!(stage.bot_chain().await.chain.generation, 1);
        recovers(&process, &provider).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_pair_is_saved_although_the_data_key_ended_before_it_came() {
    let stage = Stage::installed().await;
    let (process, provider) = with_a_key_that_ends(&stage).await;
    process.expire();
    let late = Fault::delay(secs(10)).after_effect();
    process.inject(late.times(2));
    let rotator = process.rotator();
    // The second call has ended the late pair, which is replaced at once.
    let asked = rotator.bot_token().await;
    asked.expect("the spent refresh token bought another pair");
    assert!(rotator.shutdown(secs(30)).await);
    assert_eq!(stage.bot_chain().await.chain.generation, 2);
    recovers(&process, &provider).await;
}

#[tokio::test(start_paused = true)]
async fn slack_is_not_asked_for_a_pair_that_could_not_be_sealed() {
    let stage = Stage::installed().await;
    let (process, provider) = with_a_key_that_ends(&stage).await;
    process.expire();
    tokio::time::sleep(secs(2)).await;
    let asked = process.rotator().bot_token().await;
    asked.expect_err("the key is too old");
    assert_eq!(stage.refreshes(), 0);
    recovers(&process, &provider).await;
}

#[tokio::test(start_paused = true)]
async fn an_exchanged_token_is_saved_although_the_data_key_ended_during_the_exchange() {
    let stage = Stage::unrotated().await;
    stage.fleet(1).await;
    stage.fake.rotate_tokens(Rotation::default());
    let (process, _) = with_a_key_that_ends(&stage).await;
    let slow = Fault::delay(secs(4)).after_effect();
    stage.fake.inject("oauth.v2.exchange", slow);
    let page = process.rotator().migrate(None, 10).await.expect("a page");
    assert_eq!((page.exchanged, page.kept.len()), (1, 0), "{page:?}");
    let page = stage.rotator().migrate(None, 10).await.expect("a page");
    assert_eq!(page.already, 1, "the pair is stored");
}

/// Re-seals all rows, and returns how many were under another key.
async fn reseal(store: &Store) -> usize {
    let page = store.keys().reseal(None, 1000).await.expect("available");
    assert_eq!(
        (page.overtaken, page.skipped.len(), page.next),
        (0, 0, None)
    );
    page.resealed
}

async fn rows_under(store: &Store, id: KeyId) -> usize {
    let usage = store.keys().usage(None, 1000).await.expect("available");
    usage.rows.get(&id).copied().unwrap_or_default()
}

/// Its key is retired while Slack is asked, and the rows are re-sealed. The process either has the
/// old key in memory, or only in its flight, and gets the new one when the provider is back.
#[tokio::test(start_paused = true)]
async fn a_flight_that_began_before_its_key_was_retired_saves_after_the_re_seal() {
    for key_ends in [false, true] {
        let stage = Stage::installed().await;
        let (process, provider) = if key_ends {
            with_a_key_that_ends(&stage).await
        } else {
            let provider = Remote::new();
            (stage.another_with(provider.clone()).await, provider)
        };
        process.expire();
        let (rotator, held) = process.held();
        let caller = spawn_caller(&rotator);
        held.answered().await;
        let keys = stage.store.keys();
        let old = keys.list().await.expect("available").keys[0].id;
        let new = keys.add().await.expect("added");
        assert!(keys.promote(new, true).await.expect("promoted"));
        assert!(reseal(&stage.store).await > 0);
        assert_eq!(rows_under(&stage.store, old).await, 0);
        tokio::time::sleep(secs(4)).await;
        held.release();
        drop(caller.await.expect("no panic"));
        let recovery = tokio::spawn(async move {
            tokio::time::sleep(secs(60)).await;
            provider.set_down(false);
        });
        assert!(rotator.shutdown(secs(120)).await, "the pair is saved");
        recovery.await.expect("no panic");
        assert_eq!(stage.bot_chain().await.chain.generation, 1);

        let later = Clock::from_fn(|| SystemTime::now() + secs(31 * 60));
        let operator = stage.store.clone().with_clock(later);
        reseal(&operator).await;
        assert!(operator.keys().destroy(old).await.expect("destroyed"));
        assert_eq!(stage.bot_chain().await.chain.generation, 1);
        let fresh = stage.another().await;
        assert_eq!(fresh.bot_chain().await.chain.generation, 1);
        fresh.fetched().await;
        process.fetched().await;
    }
}
