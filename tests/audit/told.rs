//! What a store tells its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slack_installs::audit::{Filter, LogRecord};
use slack_installs::backend::Sealed;
use slack_installs::store::{
    AuditContext, Error, SeenId, SeenStore as _, StateId, StateStore as _, Witness as _,
};
use slack_installs::{Clock, Delete, InstallationStore as _};

use super::log::write;
use super::world::World;
use crate::support::checks::until;
use crate::support::installs::{noon, user_id, with_both, workspace_key};
use crate::support::providers::{Fault, Remote};

fn act(
    event: &str,
    row: &str,
    outcome: &str,
    actor: Option<&str>,
) -> (String, String, String, Option<String>) {
    let (event, row, outcome) = (event.to_owned(), row.to_owned(), outcome.to_owned());
    (event, row, outcome, actor.map(str::to_owned))
}

#[tokio::test]
async fn each_release_change_and_removal_is_recorded_with_who_acted() {
    let world = World::new().await;
    let installation = with_both("T1", "xoxb-1", "U1", "xoxp-1");
    let key = workspace_key("T1");
    let install = world.store.store(&installation);
    AuditContext::actor("flow")
        .scope(install)
        .await
        .expect("stored");
    let user = user_id("U1");
    let report = world.store.as_actor("nightly-report");
    report.fetch(&key, Some(&user)).await.expect("fetched");
    let remove = Delete::user(user);
    world.store.delete(&key, &remove).await.expect("deleted");

    let acts = world.acts().await;
    let of = |actor: Option<&str>| {
        let acts = acts.iter().filter(|act| act.3.as_deref() == actor);
        let mut acts: Vec<_> = acts.cloned().collect();
        acts.sort();
        acts
    };
    let flow = Some("flow");
    let written = of(flow);
    for row in ["bot", "install", "user/U1"] {
        assert!(
            written.contains(&act("write", row, "done", flow)),
            "{written:?}"
        );
    }
    let nightly = Some("nightly-report");
    let expected = ["bot", "install", "user/U1"].map(|row| act("open", row, "done", nightly));
    assert_eq!(of(nightly), expected);
    let removed = of(None);
    assert!(
        removed.contains(&act("remove", "user/U1", "done", None)),
        "{removed:?}"
    );
}

#[tokio::test]
async fn a_recorded_version_is_the_rows_and_names_the_one_it_replaced() {
    let world = World::new().await;
    for bot in ["xoxb-1", "xoxb-2"] {
        let installation = with_both("T1", bot, "U1", "xoxp-1");
        world.store.store(&installation).await.expect("stored");
    }
    let written = world.records(Filter::default()).await.into_iter();
    let written = written.filter(|record| record.public.event == "write");
    let bots: Vec<_> = written
        .filter_map(|record| record.detail)
        .filter(|detail| detail.row == "bot")
        .collect();
    let [first, second] = &bots[..] else {
        panic!("two: {bots:?}");
    };
    assert_eq!(first.replaced, None);
    assert_eq!(second.replaced, first.version);
    let (_, row) = world.log.db.row("T1", "bot").await;
    assert_eq!(second.version, Some(format!("{:?}", row.version)));
}

#[tokio::test]
async fn a_row_that_does_not_open_is_recorded_as_failed() {
    let world = World::new().await;
    let installation = with_both("T1", "xoxb-1", "U1", "xoxp-1");
    world.store.store(&installation).await.expect("stored");
    let (key, mut row) = world.log.db.row("T1", "bot").await;
    row.sealed = Sealed::from_stored(&row.sealed.as_bytes()[..80]);
    world.log.db.overwrite(&key, row).await;
    let fetched = world.store.fetch(&workspace_key("T1"), None).await;
    assert!(matches!(fetched, Err(Error::Unreadable(_))));
    let acts = world.acts().await;
    assert!(
        acts.contains(&act("open", "bot", "failed", None)),
        "{acts:?}"
    );
}

#[tokio::test]
async fn a_row_that_verification_cannot_open_is_recorded_as_failed() {
    let world = World::new().await;
    let installation = with_both("T1", "xoxb-1", "U1", "xoxp-1");
    world.log.store.store(&installation).await.expect("stored");
    let verify = async || world.store.verify(None, 1000).await.expect("read");
    let acts = async || {
        let acts = world.acts().await.into_iter();
        acts.filter(|it| it.0 == "open").collect::<Vec<_>>()
    };
    assert!(verify().await.unreadable.is_empty());
    // What was opened was handed to nobody.
    assert_eq!(acts().await, []);
    let (key, mut row) = world.log.db.row("T1", "bot").await;
    row.sealed = Sealed::from_stored(&row.sealed.as_bytes()[..80]);
    world.log.db.overwrite(&key, row).await;
    assert_eq!(verify().await.unreadable.len(), 1);
    assert_eq!(acts().await, [act("open", "bot", "failed", None)]);
}

#[tokio::test]
async fn what_a_stranger_can_cause_is_not_recorded() {
    let world = World::new().await;
    let (state, seen) = (StateId([1; 32]), SeenId([1; 32]));
    let until = noon() + Duration::from_secs(600);
    let consumed = world.store.consume(&state, until).await;
    assert!(consumed.expect("consumed"));
    world
        .store
        .claim(&seen, noon(), until)
        .await
        .expect("claimed");
    let key = workspace_key("T1");
    assert!(
        world
            .store
            .fetch(&key, None)
            .await
            .expect("fetched")
            .is_none()
    );
    assert_eq!(world.acts().await, []);
}

#[tokio::test]
async fn in_strict_mode_nothing_is_handed_out_without_a_record_and_a_change_stays() {
    let world = World::new().await;
    let installation = with_both("T1", "xoxb-1", "U1", "xoxp-1");
    world.store.store(&installation).await.expect("stored");
    assert!(world.audit.close().await);
    let key = workspace_key("T1");
    let fetched = world.store.fetch(&key, None).await;
    assert!(matches!(fetched, Err(Error::Unavailable(_))), "{fetched:?}");
    let changed = with_both("T1", "xoxb-2", "U1", "xoxp-1");
    let stored = world.store.store(&changed).await;
    assert!(matches!(stored, Err(Error::Unavailable(_))), "{stored:?}");
    let silent = &world.log.store;
    let fetched = silent
        .fetch(&key, None)
        .await
        .expect("fetched")
        .expect("stored");
    let bot = fetched.installation.bot.expect("a bot");
    assert_eq!(bot.grant.access_token.expose(), "xoxb-2");
}

/// A log that is opened before its store has a witness learns what happened until then.
#[tokio::test]
async fn each_data_key_that_is_made_or_unwrapped_is_recorded_also_the_first() {
    let world = World::new().await;
    let id = world.store.rotate_data_key().await.expect("rotated");
    let id = id.to_string();
    let wanted = act("unwrap", &id, "done", None);
    until("the keys are recorded", async || {
        world.acts().await.contains(&wanted)
    })
    .await;
    let mut acts = world.acts().await;
    assert!(acts.contains(&act("key", &id, "done", None)), "{acts:?}");
    acts.retain(|(_, row, ..)| *row != id);
    acts.sort();
    let first = acts[0].1.clone();
    let expected = ["key", "unwrap"].map(|event| act(event, &first, "done", None));
    assert_eq!(acts, expected);
}

#[tokio::test]
async fn a_refusal_of_the_key_provider_is_recorded() {
    let world = World::new().await;
    let provider = Remote::new();
    let store = world.log.db.look_alike().store_by(provider.clone()).await;
    let store = store.with_witness(world.audit.clone());
    provider.set_unwraps(Fault::Refused);
    assert!(
        store.rotate_data_key().await.is_err(),
        "a new key is unwrapped"
    );
    provider.set_down(true);
    assert!(
        store.rotate_data_key().await.is_err(),
        "a new key is wrapped"
    );
    until("the refusals are recorded", async || {
        let acts = world.acts().await.into_iter();
        let failed = acts.filter(|(_, _, outcome, _)| outcome == "failed");
        let mut failed: Vec<_> = failed.map(|(event, ..)| event).collect();
        failed.sort();
        failed == ["key", "unwrap"]
    })
    .await;
}

#[tokio::test]
async fn a_filter_returns_what_it_names_and_no_more() {
    let world = World::new().await;
    for (team, actor) in [("T1", "one"), ("T2", "two"), ("T2", "one")] {
        let installation = with_both(team, "xoxb-1", "U1", "xoxp-1");
        let store = world.store.as_actor(actor);
        store.store(&installation).await.expect("stored");
        store
            .fetch(&workspace_key(team), None)
            .await
            .expect("fetched");
    }
    let filter = Filter {
        tenant: Some(workspace_key("T2")),
        actor: Some("one".into()),
        event: Some("open".into()),
        ..Filter::default()
    };
    let found = world.records(filter.clone()).await;
    assert!(!found.is_empty());
    for record in &found {
        let detail = record.detail.as_ref().expect("it opens");
        assert_eq!(detail.tenant, Some(workspace_key("T2")));
        assert_eq!(detail.actor.as_deref(), Some("one"));
        assert_eq!(
            (record.public.event.as_str(), record.time()),
            ("open", noon())
        );
    }
    let later = noon() + Duration::from_secs(1);
    let (from, until) = (Some(later), Some(noon()));
    let early = Filter {
        until,
        ..filter.clone()
    };
    assert!(world.records(early).await.is_empty());
    assert!(world.records(Filter { from, ..filter }).await.is_empty());
}

/// The registry learns of a run every ten seconds.
#[tokio::test]
async fn a_filter_by_time_reads_a_run_that_goes_on_although_its_entry_is_old() {
    let world = World::new().await;
    let is_later = Arc::new(AtomicBool::new(false));
    let clock = Arc::clone(&is_later);
    let minute = Duration::from_secs(60);
    let now = move || noon() + minute * u32::from(clock.load(Ordering::SeqCst));
    let options = world.log.options().strict();
    let options = options.with_clock(Clock::from_fn(now));
    let audit = world.log.open(options).await;
    is_later.store(true, Ordering::SeqCst);
    let reported = audit.report(AuditContext::default(), vec![write(1)]).await;
    reported.expect("reported");
    let from = Some(noon() + minute);
    let filter = Filter {
        from,
        ..Filter::default()
    };
    assert_eq!(world.records(filter.clone()).await.len(), 1);
    // A record of the last moment is not before it.
    let (from, until) = (None, filter.from);
    let filter = Filter {
        from,
        until,
        event: Some("write".into()),
        ..filter
    };
    assert!(world.records(filter).await.is_empty());
    assert!(audit.close().await);
}

#[tokio::test]
async fn the_log_has_no_token_and_no_part_of_one() {
    let world = World::new().await;
    let secrets = ["xoxb-SECRET-BOT-TOKEN", "xoxp-SECRET-USER-TOKEN"];
    let installation = with_both("T1", secrets[0], "U1", secrets[1]);
    world.store.store(&installation).await.expect("stored");
    let key = workspace_key("T1");
    world
        .store
        .fetch(&key, Some(&user_id("U1")))
        .await
        .expect("fetched");
    let records = world.records(Filter::default()).await;
    let text: String = records.iter().map(LogRecord::to_line).collect();
    assert!(
        text.contains("user/U1"),
        "the records have their sealed parts"
    );
    assert!(!text.contains("SECRET") && !text.contains("xox"), "{text}");
    let rows = world.log.db.rows().await;
    let audit = rows
        .iter()
        .filter(|(key, _)| key.partition.name().starts_with("audit"));
    for (key, row) in audit {
        assert!(
            !row.metadata.as_str().contains("T1"),
            "{key}: {:?}",
            row.metadata
        );
    }
}
