//! The process ends at any point of an uninstallation, and the database loses commits and
//! responses.

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use slack_installs::backend::{Backend, Error, MemoryBackend};
use slack_installs::testing::{Faults, Flaky};
use slack_installs::{EncryptedStore, LocalKeyProvider, MasterKey};

use super::*;
use crate::support::app::{Store, world};
use crate::support::hooked::{Call, Hooked, Hooks};
use crate::support::life::{Host, lifecycle};

/// Yields before each read, and before and after each commit. The process can end at each of these
/// points.
#[derive(Default)]
struct Yielding;

#[async_trait]
impl Hooks for Yielding {
    async fn before(&self, call: Call<'_>) -> Result<(), Error> {
        if let Call::Read(_) | Call::Commit(_) = call {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn after(&self, call: Call<'_>) -> Result<(), Error> {
        if let Call::Commit(_) = call {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_crash_at_any_point_of_an_uninstall_ends_in_a_purge_that_the_host_was_told_of() {
    let mut points = 0;
    let mut resumed = 0;
    loop {
        let life = Life::with(
            world(),
            Arc::new(Hooked::<Yielding>::new(Arc::new(MemoryBackend::default()))),
        )
        .await;
        life.install(ADA).await;
        life.advance(3600);
        life.app.fake.uninstall(ALPHA);
        let event = life.app.fake.app_uninstalled(ALPHA);
        let request = life.request(&event);
        let ended = {
            let mut handling = pin!(life.lifecycle.handle(&request));
            let mut context = Context::from_waker(Waker::noop());
            (0..points).any(|_| matches!(handling.as_mut().poll(&mut context), Poll::Ready(_)))
        };
        let told_before = life.host.tenants().len();

        // Another process starts. Slack repeats the event if it got no response. After a completed
        // purge the test does not repeat the event, so the database alone must show what is left to
        // do.
        life.advance(61);
        if life.app.fetch(ALPHA, None).await.is_some() {
            assert!(!ended, "acknowledged without a purge, after {points} polls");
            life.handled(&event).await;
        } else {
            resumed += life
                .lifecycle
                .resume_pending()
                .await
                .expect("the database responds");
        }
        assert_eq!(life.slots(ALPHA).await, [""; 0], "after {points} polls");
        assert!(!life.host.tenants().is_empty(), "after {points} polls");
        assert!(life.host.tenants().len() <= 2, "after {points} polls");
        if ended {
            assert_eq!(told_before, 1);
            break;
        }
        points += 1;
    }
    assert!(points > 5, "only {points} points were tried");
    assert!(resumed > 2, "only {resumed} crashes came after the purge");
}

#[tokio::test]
async fn a_database_that_loses_commits_and_answers_loses_no_departure() {
    for nth in 1..=4 {
        for (lost_commits, lost_answers) in [(nth, 0), (0, nth)] {
            let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
            let life = Life::with(world(), Arc::clone(&backend) as Arc<dyn Backend>).await;
            life.install(ADA).await;
            life.advance(3600);
            life.app.fake.uninstall(ALPHA);
            let event = life.app.fake.app_uninstalled(ALPHA);
            backend.set_faults(Faults {
                lost_commits,
                lost_answers,
                lost_reads: 5,
            });
            // Slack repeats an event three times, and the worker runs occasionally.
            for _ in 0..4 {
                if life.deliver(&event).await.is_ok() {
                    break;
                }
            }
            backend.set_faults(Faults::none());
            life.advance(61);
            if life.app.fetch(ALPHA, None).await.is_some() {
                life.handled(&event).await;
            }
            life.lifecycle
                .resume_pending()
                .await
                .expect("the database responds");
            let case = format!("{lost_commits} {lost_answers}");
            assert_eq!(life.slots(ALPHA).await, [""; 0], "{case}");
            assert!(!life.host.tenants().is_empty(), "{case}");
        }
    }
}

#[tokio::test]
async fn another_process_resumes_what_one_has_left() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.host.set_failing(true);
    life.advance(3600);
    life.deliver(&life.app.fake.app_uninstalled(ALPHA))
        .await
        .expect_err("the hook fails");

    // With another key the note does not open. The note stays, and no wrong hook is called.
    let stranger = EncryptedStore::open(
        Arc::clone(&life.backend),
        LocalKeyProvider::new(MasterKey::generate()),
        life.app.fake.client_id(),
    );
    assert!(stranger.await.is_err());

    let store: Store = life.app.store.clone();
    let (host, other) = (Host::default(), Host::default());
    let process = lifecycle(&life.app, &store, &host);
    life.advance(61);
    assert_eq!(
        process
            .resume_pending()
            .await
            .expect("the database responds"),
        1
    );
    assert_eq!(host.tenants(), [ALPHA]);
    let late = lifecycle(&life.app, &store, &other);
    assert_eq!(
        late.resume_pending().await.expect("the database responds"),
        0
    );
}
