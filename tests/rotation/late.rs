//! A response that is late: the repeated call has ended its pair, and the response to that call is
//! lost.

use slack_installs::testing::{Fault, GracePolicy, Rotation};

use super::support::hooked_chains::Way;
use super::support::rotation::{
    BotToken as _, Stage, millis, refresh_token, secs, settle, spawn_caller,
};

/// Makes the first response late, and the response to the repeated call lost.
fn disturb(stage: &Stage, lost: Fault) {
    stage.expire();
    stage.inject(Fault::delay(millis(6_300)).after_effect());
    stage.inject(lost.after_effect());
}

fn lost() -> [Fault; 2] {
    [Fault::lost(), Fault::lost().delayed(secs(3))]
}

/// Asserts that the stored pair is alive and settled.
async fn is_settled(stage: &Stage) {
    let stored = stage.bot_chain().await;
    assert!(stage.fake.is_live(stored.grant.access_token.expose()));
    assert!(stage.fake.is_refreshable(refresh_token(&stored).expose()));
    let chain = stored.chain;
    assert_eq!(
        (chain.is_unproven, chain.spent, chain.attempts),
        (false, None, 0)
    );
    assert_eq!((chain.alternates, chain.lease), (Vec::new(), None));
}

#[tokio::test(start_paused = true)]
async fn a_late_pair_that_is_dead_does_not_cost_the_refresh_token_that_slack_still_accepts() {
    for lost in lost() {
        let stage = Stage::installed().await;
        disturb(&stage, lost);
        let rotator = stage.rotator();
        let asked = rotator.bot_token().await;
        if let Ok(token) = asked {
            assert!(stage.fake.is_live(token.access_token.expose()));
        }
        // Nobody asks again within the grace.
        tokio::time::sleep(secs(5)).await;
        is_settled(&stage).await;
        let token = rotator.bot_token().await.expect("a token");
        assert!(stage.fake.is_live(token.access_token.expose()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_pair_that_is_alive_is_proven_once_and_no_further_pair_is_bought() {
    for policy in [
        GracePolicy::AllLive,
        GracePolicy::FirstOnly,
        GracePolicy::SameChild,
    ] {
        for lost in lost() {
            let stage = Stage::installed_under(policy).await;
            disturb(&stage, lost);
            let rotator = stage.rotator();
            drop(rotator.bot_token().await);
            tokio::time::sleep(secs(5)).await;
            is_settled(&stage).await;
            assert_eq!(stage.refreshes(), 2, "{policy:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_pair_keeps_its_token_although_the_repeated_call_could_not_be_recorded() {
    let stage = Stage::installed().await;
    disturb(&stage, Fault::lost().delayed(secs(1)));
    let rotator = stage.rotator_with_updates(|number| match number {
        1 => Way::Failed,
        _ => Way::Done,
    });
    drop(rotator.bot_token().await);
    tokio::time::sleep(secs(5)).await;
    is_settled(&stage).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_before_it_proves_its_pair_leaves_the_token_to_the_next_one() {
    let stage = Stage::installed_with(Rotation {
        grace: secs(60),
        ..Rotation::default()
    })
    .await;
    disturb(&stage, Fault::lost().delayed(secs(3)));
    // The third update saves the late pair. The process does nothing after it.
    let rotator = stage.rotator_with_updates(|number| match number {
        0..=2 => Way::Done,
        _ => Way::Failed,
    });
    let hurried = rotator.within(secs(7));
    hurried.bot_token().await.expect_err("no token is proven");
    let chain = stage.bot_chain().await.chain;
    assert_eq!((chain.generation, chain.alternates.len()), (1, 1));
    assert!(chain.is_suspect());
    let next = stage.another().await.rotator();
    let token = next.bot_token().await.expect("a token");
    assert!(stage.fake.is_live(token.access_token.expose()));
}

#[tokio::test(start_paused = true)]
async fn while_slack_does_not_say_whether_a_pair_is_alive_another_one_is_bought() {
    let stage = Stage::installed().await;
    stage.fake.inject("auth.test", Fault::lost().always());
    disturb(&stage, Fault::lost());
    let caller = spawn_caller(&stage.rotator());
    drop(caller.await);
    tokio::time::sleep(secs(5)).await;
    settle().await;
    let token = stage.rotator().bot_token().await.expect("a token");
    assert!(stage.fake.is_live(token.access_token.expose()));
}
