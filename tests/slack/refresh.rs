//! What a refresh does after each of Slack's errors.

use std::time::Duration;

use slack_installs::rotation::Error;
use slack_installs::store::Credential;
use slack_installs::testing::{Fault, Rotation};

use super::codes::{CODES, Refresh};
use super::support::rotation::{ALPHA, REFRESH, Stage, alpha};

/// Refreshes an expired token while Slack fails with this fault.
async fn refused(fault: Fault) -> (Stage, Result<(), Error>) {
    let stage = Stage::new(Rotation::default()).await;
    stage.install(ALPHA, "chat:write", "").await;
    stage.expire();
    stage.fake.inject(REFRESH, fault.always());
    let token = stage.rotator().token_for(&alpha(), Credential::Bot).await;
    (stage, token.map(drop))
}

#[tokio::test(start_paused = true)]
async fn every_code_has_its_consequence_for_a_refresh() {
    for (code, class, expected) in CODES {
        let (stage, outcome) = refused(Fault::error(*code)).await;
        let (did, told) = match &outcome {
            Err(Error::ReinstallNeeded { code }) => (Refresh::Dead, code),
            Err(Error::Configuration { code }) => (Refresh::Breaker, code),
            Err(Error::TryAgain { code, .. }) if asked(&stage) == 2 => (Refresh::AtOnce, code),
            Err(Error::TryAgain { code, .. }) => (Refresh::Later, code),
            other => panic!("{code}: {other:?}"),
        };
        assert_eq!(did, *expected, "{code}, {class:?}");
        assert_eq!(told.as_str(), *code);
        let calls = if did == Refresh::AtOnce { 2 } else { 1 };
        assert_eq!(asked(&stage), calls, "{code}");
        // After Slack works again, every chain is refreshed, except a dead one.
        stage.fake.clear_faults();
        stage.fake.advance(Duration::from_secs(120));
        let later = stage.rotator().token_for(&alpha(), Credential::Bot).await;
        assert_eq!(later.is_ok(), did != Refresh::Dead, "{code}: {later:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_code_of_slacks_is_asked_again_unless_nothing_was_issued() {
    let wait = Duration::from_secs(30);
    for (fault, calls) in [
        (Fault::lost(), 2),
        (Fault::unavailable(), 2),
        (Fault::rate_limited(wait), 1),
    ] {
        let (stage, outcome) = refused(fault.clone()).await;
        let Err(Error::TryAgain { at, .. }) = outcome else {
            panic!("{fault:?}: {outcome:?}");
        };
        assert_eq!(asked(&stage), calls, "{fault:?}");
        if calls == 1 {
            assert_eq!(
                at,
                stage.fake.clock().now() + wait,
                "the wait is as long as Slack says"
            );
        }
    }
}

/// Returns how many refreshes Slack received. The first call was the exchange of the installation.
fn asked(stage: &Stage) -> usize {
    stage.fake.calls(REFRESH) - 1
}
