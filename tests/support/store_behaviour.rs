//! What `EncryptedStore` does, over any backend.
//!
//! Each check is a plain function over one database, which it may share with all other checks.
//! `tests/suite` runs them. Numbers and URLs refer to issues of other libraries that failed there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slack_installs::backend::{Backend, Change, Due, Expect, Partition, Row, Slot, Version};
use slack_installs::store::{Error, Facts, ListCursor, RotationStore, StateId};
use slack_installs::{
    Clock, Delete, EncryptedStore, Installation, InstallationKey, InstallationStore, StateStore,
    StoredInstallation,
};
use tokio::task::JoinSet;

use crate::support::backends::{Gathering, Interrupted, Unreliable};
use crate::support::checks::{Check, until};
use crate::support::installs::{
    With, bot_id, bot_token, enterprise, in_org, in_workspace, in_workspace_of, noon, org_key,
    rotating, user_id, user_token, webhook_urls, whole, with_both, workspace_key,
};
use crate::support::providers::{Remote, master_key};
use crate::support::{Db, Store};

#[path = "audit_behaviour.rs"]
mod audit;
#[path = "chain_behaviour.rs"]
mod chains;
#[path = "hold_behaviour.rs"]
mod hold;
#[path = "lifecycle_behaviour.rs"]
mod lifecycle;
#[path = "lost_behaviour.rs"]
mod lost;
#[path = "merge_behaviour.rs"]
mod merge;
#[path = "metadata_behaviour.rs"]
mod metadata;
#[path = "notice_behaviour.rs"]
mod notices;
#[path = "person_behaviour.rs"]
mod person;
#[path = "phase_behaviour.rs"]
mod phases;
#[path = "removal_behaviour.rs"]
mod removal;

pub(crate) use audit::*;
pub(crate) use chains::*;
pub(crate) use hold::*;
pub(crate) use lifecycle::*;
pub(crate) use lost::*;
pub(crate) use merge::*;
pub(crate) use metadata::*;
pub(crate) use notices::*;
pub(crate) use person::*;
pub(crate) use phases::*;
pub(crate) use removal::*;

/// All checks.
pub(crate) const STORE: &[Check<Db>] = &checks! {
    a_batch_of_an_audit_log_is_appended_once_at_its_place
    a_persons_ids_are_erased_and_the_tenant_stays
    a_persons_ids_are_erased_from_what_the_app_is_still_to_be_told
    a_run_of_an_audit_log_is_removed_after_its_retention_and_no_other
    an_audit_log_is_read_in_order_and_verifies
    an_edited_or_deleted_batch_of_an_audit_log_is_found
    an_erased_tenant_of_an_audit_log_is_unreadable_and_the_log_verifies
    what_is_stored_about_a_person_is_exported_without_secrets
    rows_agree_with_the_audit_log_until_one_is_put_back
    a_bot_can_be_deleted_alone
    a_data_key_rotates_in_phases_while_the_app_works
    a_database_error_is_never_not_found
    a_delete_guarded_by_a_revision_conflicts_after_a_reinstall
    a_delete_names_exactly_what_goes_and_is_content_if_it_is_gone
    a_delete_of_a_bot_that_is_absent_spares_one_that_is_just_installed
    a_lost_answer_to_a_delete_is_unavailable_and_asking_again_is_safe
    a_lost_answer_to_a_store_is_found_out_by_reading
    a_lost_commit_is_unavailable_and_made_again_by_the_caller
    a_note_touches_no_token
    a_note_to_an_earlier_install_changes_nothing
    a_reinstall_without_metadata_keeps_what_was_there
    a_reinstall_heals_a_row_that_does_not_open
    a_request_without_a_user_gets_no_users_token
    a_state_is_consumed_by_one_of_64
    a_state_of_another_app_or_id_is_not_used
    a_state_that_was_released_can_be_used_once_more
    a_store_is_one_commit_and_a_failed_one_changes_nothing
    a_user_only_install_keeps_the_bot
    a_users_token_is_only_for_that_user
    a_workspace_that_joins_an_org_keeps_its_installation
    a_used_state_stays_used_until_its_time_is_over
    an_org_and_its_workspaces_have_installations_of_their_own
    an_org_wide_install_is_found_and_deleted_by_its_enterprise_id_alone
    an_org_wide_install_that_carries_a_team_id_is_found_without_it
    an_unknown_tenant_is_none_and_no_error
    an_unreadable_installation_can_be_deleted
    apps_that_look_alike_do_not_meet_in_one_database
    concurrent_stores_of_one_tenant_end_with_one_of_them_whole
    each_credential_is_stored_once
    ids_that_begin_alike_do_not_meet
    listing_is_complete_by_pages_of_any_size_and_opens_nothing
    nothing_secret_stands_in_the_clear
    of_two_stores_in_one_tick_the_later_wins
    of_two_stores_the_later_installation_wins_whichever_comes_last
    the_sweep_removes_expired_states_of_this_app_only
    webhooks_are_kept_one_for_each_channel
    what_is_due_is_found_behind_the_rows_of_other_apps
    what_was_stored_is_fetched_whole
    a_claim_that_is_released_or_over_may_be_taken_again
    a_departure_beside_a_due_refresh_is_found_once
    a_departure_that_another_worker_put_off_is_not_due
    a_departure_stands_until_it_is_settled_whatever_is_installed
    a_hold_outlives_a_reinstall_and_touches_no_token
    a_purge_leaves_no_row_and_spares_the_look_alike
    a_purge_of_another_revision_takes_nothing
    a_purge_of_an_installation_that_is_not_the_stored_one_takes_nothing
    a_request_is_claimed_by_one_of_64
    a_tenants_users_are_found_and_no_look_alikes
    a_workspace_taken_away_during_a_purge_is_not_kept
    a_workspaces_organisation_changes_alone_and_loses_to_a_reinstall
    an_outage_while_departures_are_read_is_an_error
    handled_requests_are_swept_when_their_time_is_over
    the_latest_word_on_a_workspaces_access_counts
    a_store_whose_answer_was_lost_undoes_no_purge
    a_store_that_cannot_look_for_its_rows_is_not_made_again
    rows_of_another_writer_are_not_taken_for_those_whose_answer_was_lost
    a_row_that_moved_before_it_was_confirmed_is_not_answered_for
    a_row_is_confirmed_twice_at_most
    a_refused_commit_ends_with_its_cause_and_is_not_made_again
    a_guarded_delete_whose_answer_was_lost_is_not_made_again
    what_a_database_does_not_take_is_no_outage_and_not_asked_again
    a_decision_is_taken_a_hundred_times_and_no_more
    a_guarded_delete_that_a_reinstall_overtakes_takes_nothing
    a_guarded_delete_conflicts_where_the_facts_are_gone
    a_delete_that_holds_a_token_takes_that_one_only
    a_delete_that_holds_a_token_spares_the_one_that_replaces_it_meanwhile
    a_note_that_a_reinstall_overtakes_adds_nothing
    a_guarded_delete_of_everything_leaves_nothing
    a_purge_opens_nothing_and_leaves_its_own_note_alone
    a_purge_that_a_reinstall_overtakes_takes_nothing
    a_purge_whose_answer_was_lost_is_found_out_by_its_note
    of_installations_of_one_time_or_a_later_one_the_last_ones_facts_stand
    a_late_installation_adds_what_the_later_one_lacks_and_no_more
    a_channel_keeps_one_webhook_by_its_id_whatever_its_name
    a_bots_id_is_kept_for_the_same_bot_only
    a_note_says_what_it_says_and_leaves_the_rest
    a_long_lived_token_that_is_stored_again_has_its_new_scopes
    a_hold_outlives_facts_that_do_not_open
    a_hold_outlives_whatever_removes_the_tenant_until_it_is_lifted
    a_hold_can_be_lifted_when_the_app_is_not_installed
    a_hold_that_cannot_be_read_is_on_and_stays_so
    a_tenant_whose_installation_does_not_open_can_be_put_on_hold
    each_persons_metadata_is_theirs_and_the_tenants_that_of_the_bots_installer
    the_last_flow_that_installed_the_bot_gives_the_tenants_metadata
    a_persons_last_metadata_is_kept_whichever_flow_is_stored_last
    a_persons_metadata_goes_with_their_token_and_with_the_tenant
    a_person_without_a_token_has_their_metadata_and_nobody_elses
    a_removed_webhook_stays_away_until_a_later_installation_brings_one
    a_webhook_is_removed_by_its_url_only_if_it_is_still_the_stored_one
    cleared_metadata_stays_away_until_a_later_installation_brings_it
    a_fact_is_removed_alone_and_of_the_named_revision_only
    a_persons_metadata_is_sealed_and_is_replaced_if_it_does_not_open
    an_organisations_name_goes_with_its_id
    scopes_and_ends_of_a_token_are_kept_as_they_are
    the_first_pair_stored_after_many_refreshes_brings_nothing_back
    another_installations_marks_are_not_ours
    the_pair_that_stands_stored_again_changes_nothing_of_its_chain
    a_pair_is_known_by_its_refresh_token
    tokens_that_do_not_rotate_take_no_late_pair_along
    a_dead_chain_gives_way_to_an_earlier_installations_pair
    every_member_of_a_chain_is_kept
    a_token_under_suspicion_is_fetched_as_such_unless_its_chain_is_dead
    a_chain_on_hold_says_so_until_the_hold_ends
    a_decision_is_shown_the_chain_that_stands_and_nothing_is_made_of_none
    chains_of_this_app_are_listed_and_nothing_else
    a_row_is_due_in_whole_seconds
    a_notice_is_written_in_the_commit_of_the_change_it_reports
    a_notice_says_whose_it_is_and_seals_what_the_flow_carried
    a_subject_has_one_notice_and_the_later_one_replaces_it
    a_conflict_writes_no_notice
    a_departure_replaces_the_notices
    a_notice_is_due_in_its_own_lane_until_it_is_settled
    two_apps_in_one_database_do_not_see_each_others_notices
    what_is_restored_takes_its_notice_along
    a_workspace_that_is_lost_is_told_once_and_not_if_it_is_granted_again
    a_hundred_workspaces_can_leave_at_once
    a_notice_that_does_not_open_keeps_no_other_from_being_found
};

// Installations: the contract, rule by rule.

pub(crate) async fn what_was_stored_is_fetched_whole(db: Db) {
    let store = db.store().await;
    let mut full = in_workspace_of("E0GRID00001", "T0ALPHA0001")
        .with_bot("xoxb-1")
        .with_user("W0ADMIN0001", "xoxp-1")
        .with_webhook("C0ALPHA0001", "https://hooks.slack.com/services/T/B/1");
    full.url = Some("https://alpha.slack.com/".to_owned());
    full.metadata = Some("{\"plan\":\"gold\"}\u{0}\u{1f600}".to_owned());
    let bot = full.bot.as_mut().expect("it was just set");
    bot.id = Some(bot_id("B0ALPHA0001"));
    bot.grant = rotating("xoxe.xoxb-1-a", "xoxe-1-a");
    let user = full.user.as_mut().expect("it was just set");
    user.grant = rotating("xoxe.xoxp-1-b", "xoxe-1-b");
    let bare = in_org("E0BARE00001", None);

    let revision = store.store(&full).await.expect("stored");
    store.store(&bare).await.expect("stored");

    let fetched = fetch(&store, &full.key(), Some("W0ADMIN0001")).await;
    assert_eq!(whole(&fetched), whole(&full));
    assert_eq!(fetched.revision, revision);
    let fetched = fetch(&store, &bare.key(), Some("U0ADMIN0001")).await;
    assert_eq!(whole(&fetched), whole(&bare));
}

/// A later install replaces the bot's token for every user who could fetch the earlier one.
pub(crate) async fn each_credential_is_stored_once(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    put(&store, with_both("T1", "xoxb-old", "U1", "xoxp-1")).await;
    put(&store, with_both("T1", "xoxb-new", "U2", "xoxp-2")).await;
    for user in [None, Some("U1"), Some("U2"), Some("U3")] {
        assert_bot(&store, &key, user, Some("xoxb-new")).await;
    }
    let slots = db.slots_of("T1").await;
    assert_eq!(slots, ["bot", "install", "user/U1", "user/U2"]);
}

pub(crate) async fn a_store_is_one_commit_and_a_failed_one_changes_nothing(db: Db) {
    let backend = Unreliable::new(Arc::clone(&db.backend));
    let store = db.store_over(backend.clone(), local()).await;
    let old = with_both("T1", "xoxb-old", "U1", "xoxp-old").with_webhook("C1", "https://hooks/old");
    let commits = backend.commits();
    store.store(&old).await.expect("stored");
    assert_eq!(backend.commits(), commits + 1);

    let new = with_both("T1", "xoxb-new", "U1", "xoxp-new").with_webhook("C1", "https://hooks/new");
    backend.lose_commits(usize::MAX);
    let failed = store.store(&new).await.expect_err("the database is down");
    assert!(failed.is_transient());
    assert_eq!(
        whole(&fetch(&store, &old.key(), Some("U1")).await.installation),
        whole(&old)
    );
}

// https://github.com/slackapi/python-slack-sdk/issues/1441
pub(crate) async fn a_user_only_install_keeps_the_bot(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    put(&store, with_both("T1", "xoxb-1", "U1", "xoxp-1")).await;
    put(&store, in_workspace("T1").with_user("U2", "xoxp-2")).await;
    for (user, token) in [("U1", "xoxp-1"), ("U2", "xoxp-2")] {
        let fetched = fetch(&store, &key, Some(user)).await;
        assert_eq!(bot_token(&fetched), Some("xoxb-1"));
        assert_eq!(user_token(&fetched), Some((user, token)));
    }
    put(&store, in_workspace("T2").with_user("U2", "xoxp-3")).await;
    assert_bot(&store, &workspace_key("T2"), None, None).await;
}

// The Python and Node SDKs hand the installer's token to a request that names no user.
pub(crate) async fn a_request_without_a_user_gets_no_users_token(db: Db) {
    let store = db.store().await;
    put(&store, with_both("T1", "xoxb-1", "U0ADMIN0001", "xoxp-1")).await;
    let fetched = fetch(&store, &workspace_key("T1"), None).await;
    assert_eq!(user_token(&fetched), None);
    assert_eq!(fetched.installed_by, Some(user_id("U0ADMIN0001")));
}

// https://github.com/slackapi/bolt-python/issues/584
pub(crate) async fn a_users_token_is_only_for_that_user(db: Db) {
    let store = db.store().await;
    let users = ["U1", "U12", "U2", "W1"];
    for user in &users[..3] {
        put(
            &store,
            in_workspace("T1").with_user(user, &format!("xoxp-{user}")),
        )
        .await;
    }
    for user in users {
        let fetched = fetch(&store, &workspace_key("T1"), Some(user)).await;
        let token = format!("xoxp-{user}");
        let expected = (user != "W1").then_some((user, token.as_str()));
        assert_eq!(user_token(&fetched), expected);
    }
}

// https://github.com/slackapi/python-slack-sdk/pull/1081
pub(crate) async fn ids_that_begin_alike_do_not_meet(db: Db) {
    let store = db.store().await;
    let tenants = ["T1", "T12", "T123"];
    for tenant in tenants {
        for user in ["U1", "U12"] {
            put(
                &store,
                of(tenant).with_user(user, &format!("xoxp-{tenant}-{user}")),
            )
            .await;
        }
    }
    let delete = Delete::user(user_id("U1"));
    assert!(deleted(&store, &workspace_key("T12"), &delete).await);
    assert!(deleted(&store, &workspace_key("T1"), &Delete::all()).await);

    assert!(gone(&store, &workspace_key("T1")).await);
    for (tenant, user, stays) in [
        ("T12", "U1", false),
        ("T12", "U12", true),
        ("T123", "U1", true),
        ("T123", "U12", true),
    ] {
        let fetched = fetch(&store, &workspace_key(tenant), Some(user)).await;
        let token = format!("xoxp-{tenant}-{user}");
        assert_eq!(
            user_token(&fetched),
            stays.then_some((user, token.as_str()))
        );
        assert_eq!(bot_token(&fetched), Some(format!("xoxb-{tenant}").as_str()));
    }
}

pub(crate) async fn apps_that_look_alike_do_not_meet_in_one_database(db: Db) {
    let other_db = db.look_alike();
    let (store, other) = (db.store().await, other_db.store().await);
    let key = workspace_key("T1");
    put(&store, with_both("T1", "xoxb-ours", "U1", "xoxp-ours")).await;
    assert!(gone(&other, &key).await);
    put(&other, in_workspace("T1").with_bot("xoxb-theirs")).await;

    let fetched = fetch(&other, &key, Some("U1")).await;
    assert_eq!(
        (bot_token(&fetched), user_token(&fetched)),
        (Some("xoxb-theirs"), None)
    );
    assert_bot(&store, &key, None, Some("xoxb-ours")).await;
    assert_eq!(listed(&store, 2).await, ["T1"]);
    assert!(deleted(&store, &key, &Delete::all()).await);
    assert_eq!(listed(&store, 2).await, [""; 0]);
    assert_bot(&other, &key, None, Some("xoxb-theirs")).await;
}

// The Python SDK's SQLite store deletes nothing if the team id is absent.
pub(crate) async fn an_org_wide_install_is_found_and_deleted_by_its_enterprise_id_alone(db: Db) {
    let store = db.store().await;
    let org = in_org("E0GRID00001", None)
        .with_bot("xoxb-org")
        .with_user("W1", "xoxp-org");
    store.store(&org).await.expect("stored");
    let key = InstallationKey::new(Some(enterprise("E0GRID00001")), None).expect("a key");
    let stored = fetch(&store, &key, Some("W1")).await;
    assert_eq!(whole(&stored.installation), whole(&org));
    assert!(deleted(&store, &key, &Delete::all()).await);
    assert!(gone(&store, &key).await);
    assert!(db.rows_of("E0GRID00001").await.is_empty());
}

// https://github.com/slackapi/python-slack-sdk/issues/1639
pub(crate) async fn an_org_wide_install_that_carries_a_team_id_is_found_without_it(db: Db) {
    let store = db.store().await;
    put(
        &store,
        in_org("E0GRID00001", Some("T0ALPHA0001")).with_bot("xoxb-org"),
    )
    .await;
    let fetched = fetch(&store, &org_key("E0GRID00001"), None).await;
    assert_eq!(bot_token(&fetched), Some("xoxb-org"));
    assert!(gone(&store, &workspace_key("T0ALPHA0001")).await);
}

// https://github.com/seratch/ChatGPT-in-Slack/issues/108
pub(crate) async fn a_workspace_that_joins_an_org_keeps_its_installation(db: Db) {
    let store = db.store().await;
    let (alone, joined) = (
        workspace_key("T1"),
        workspace_key("T1").within(enterprise("E1")),
    );
    put(&store, with_both("T1", "xoxb-1", "U1", "xoxp-1")).await;
    assert_bot(&store, &joined, None, Some("xoxb-1")).await;

    put(&store, in_workspace_of("E1", "T1").with_bot("xoxb-2")).await;
    for key in [&alone, &joined] {
        let fetched = fetch(&store, key, Some("U1")).await;
        assert_eq!(bot_token(&fetched), Some("xoxb-2"));
        assert_eq!(user_token(&fetched), Some(("U1", "xoxp-1")));
        assert_eq!(
            fetched.home.enterprise().map(|it| &it.id),
            Some(&enterprise("E1"))
        );
    }
    assert_eq!(listed(&store, 10).await, ["T1"]);
    assert!(deleted(&store, &joined, &Delete::all()).await);
    assert!(gone(&store, &alone).await);
}

pub(crate) async fn an_org_and_its_workspaces_have_installations_of_their_own(db: Db) {
    let store = db.store().await;
    put(&store, in_org("E1", None).with_bot("xoxb-org")).await;
    put(&store, in_workspace_of("E1", "T1").with_bot("xoxb-t1")).await;
    put(&store, in_workspace_of("E1", "T2").with_bot("xoxb-t2")).await;
    let t1 = workspace_key("T1").within(enterprise("E1"));
    assert_bot(&store, &org_key("E1"), None, Some("xoxb-org")).await;
    assert_bot(&store, &t1, None, Some("xoxb-t1")).await;

    assert!(deleted(&store, &org_key("E1"), &Delete::all()).await);
    assert!(gone(&store, &org_key("E1")).await);
    assert_bot(&store, &t1, None, Some("xoxb-t1")).await;
    put(&store, in_org("E1", None).with_bot("xoxb-org")).await;
    assert!(deleted(&store, &t1, &Delete::all()).await);
    assert_bot(&store, &org_key("E1"), None, Some("xoxb-org")).await;
    assert_bot(&store, &workspace_key("T2"), None, Some("xoxb-t2")).await;
}

// The Python SDK's SQLite store returns the older of two installations with the same timestamp.
pub(crate) async fn of_two_stores_in_one_tick_the_later_wins(db: Db) {
    let store = db.store().await;
    for round in 0..20 {
        let token = format!("xoxb-{round}");
        let revision = put(&store, in_workspace("T1").with_bot(&token)).await;
        let fetched = fetch(&store, &workspace_key("T1"), None).await;
        assert_eq!(bot_token(&fetched), Some(token.as_str()));
        assert_eq!((fetched.revision, fetched.installed_at), (revision, noon()));
    }
}

pub(crate) async fn of_two_stores_the_later_installation_wins_whichever_comes_last(db: Db) {
    let store = db.store().await;
    let mut early = with_both("T1", "xoxb-early", "U0ADMIN0001", "xoxp-early")
        .with_webhook("C0EARLY0001", "https://hooks.slack.com/services/T/B/1");
    early.metadata = Some("early".to_owned());
    let mut later = with_both("T1", "xoxb-later", "U0ADMIN0001", "xoxp-later");
    later.installed_at = noon() + Duration::from_secs(1);
    later.installed_by = Some(user_id("U0LATER0001"));
    store.store(&later).await.expect("stored");
    let revision = put(&store, early).await;
    let fetched = fetch(&store, &workspace_key("T1"), Some("U0ADMIN0001")).await;
    assert_eq!(bot_token(&fetched), Some("xoxb-later"));
    assert_eq!(user_token(&fetched), Some(("U0ADMIN0001", "xoxp-later")));
    assert_eq!(fetched.installed_at, later.installed_at);
    assert_eq!(fetched.installed_by, later.installed_by);
    assert_eq!(fetched.revision, revision);
    // Members that the later installation does not have come from the early one.
    assert_eq!(fetched.metadata.as_deref(), Some("early"));
    assert_eq!(fetched.incoming_webhooks.len(), 1);
}

pub(crate) async fn an_unknown_tenant_is_none_and_no_error(db: Db) {
    let store = db.store().await;
    for key in [
        workspace_key("T1"),
        org_key("E1"),
        workspace_key("T1").within(enterprise("E1")),
    ] {
        for user in [None, Some(user_id("U1"))] {
            let fetched = store.fetch(&key, user.as_ref()).await;
            assert!(
                fetched
                    .expect("an absent installation is not an error")
                    .is_none()
            );
        }
    }
}

pub(crate) async fn a_database_error_is_never_not_found(db: Db) {
    let backend = Unreliable::new(Arc::clone(&db.backend));
    let store = db.store_over(backend.clone(), local()).await;
    let installation = in_workspace("T1").with_bot("xoxb-1");
    let revision = store.store(&installation).await.expect("stored");
    backend.set_down(true);

    let (key, facts) = (installation.key(), Facts::default());
    let mut failures = Vec::new();
    for key in [&key, &workspace_key("T2")] {
        failures.push(store.fetch(key, None).await.map(drop));
        failures.push(store.fetch(key, Some(&user_id("U1"))).await.map(drop));
        failures.push(store.delete(key, &Delete::all()).await.map(drop));
        failures.push(store.delete(key, &Delete::bot()).await.map(drop));
        failures.push(store.note(key, revision, &facts).await.map(drop));
    }
    failures.push(store.store(&installation).await.map(drop));
    failures.push(store.list(None, 10).await.map(drop));
    failures.push(store.consume(&STATE, later()).await.map(drop));
    failures.push(store.release(&STATE).await);
    failures.push(store.sweep_expired_states().await.map(drop));
    for failure in failures {
        let error = failure.expect_err("the database is down");
        assert_matches!(&error, Error::Unavailable(_));
        assert!(error.is_transient());
    }
}

// Deleting: https://github.com/slackapi/python-slack-sdk/issues/976, /issues/995

pub(crate) async fn a_delete_names_exactly_what_goes_and_is_content_if_it_is_gone(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    put(&store, of("T1").with_user("U1", "xoxp-1")).await;
    put(&store, of("T1").with_user("U2", "xoxp-2")).await;
    let users = |fetched: &Installation| user_token(fetched).map(|(id, _)| id.to_owned());

    let user = Delete::user(user_id("U1"));
    assert!(store.delete(&key, &user).await.expect("deleted"));
    assert!(
        !store
            .delete(&key, &user)
            .await
            .expect("it was deleted already")
    );
    assert_eq!(
        users(&fetch(&store, &key, Some("U1")).await.installation),
        None
    );
    assert_eq!(
        users(&fetch(&store, &key, Some("U2")).await.installation).as_deref(),
        Some("U2")
    );
    assert_bot(&store, &key, None, Some("xoxb-T1")).await;

    assert!(deleted(&store, &key, &Delete::all()).await);
    assert!(
        !store
            .delete(&key, &Delete::all())
            .await
            .expect("it was deleted already")
    );
    assert!(
        !store
            .delete(&key, &user)
            .await
            .expect("it was deleted already")
    );
    assert!(gone(&store, &key).await);
    assert!(db.rows_of("T1").await.is_empty());

    // A new install restores nothing that was deleted.
    put(&store, in_workspace("T1").with_user("U3", "xoxp-3")).await;
    let fetched = fetch(&store, &key, Some("U2")).await;
    assert_eq!((bot_token(&fetched), users(&fetched)), (None, None));
}

pub(crate) async fn a_bot_can_be_deleted_alone(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    put(
        &store,
        of("T1")
            .with_user("U1", "xoxp-1")
            .with_webhook("C1", "https://hooks/1"),
    )
    .await;
    assert!(deleted(&store, &key, &Delete::bot()).await);
    assert!(
        !store
            .delete(&key, &Delete::bot())
            .await
            .expect("it was deleted already")
    );
    let fetched = fetch(&store, &key, Some("U1")).await;
    assert_eq!(
        (bot_token(&fetched), user_token(&fetched)),
        (None, Some(("U1", "xoxp-1")))
    );
    assert_eq!(webhook_urls(&fetched), ["https://hooks/1"]);
}

// https://github.com/slackapi/bolt-js/issues/1558
pub(crate) async fn a_delete_guarded_by_a_revision_conflicts_after_a_reinstall(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let judged = put(&store, of("T1").with_user("U1", "xoxp-1")).await;
    let current = put(&store, of("T1").with_user("U1", "xoxp-1")).await;
    assert_ne!(judged, current);
    for delete in [Delete::all(), Delete::bot(), Delete::user(user_id("U1"))] {
        let outcome = store.delete(&key, &delete.only(judged)).await;
        assert_matches!(outcome, Err(Error::Conflict));
    }
    let fetched = fetch(&store, &key, Some("U1")).await;
    assert_eq!(bot_token(&fetched), Some("xoxb-T1"));
    assert_eq!(user_token(&fetched), Some(("U1", "xoxp-1")));

    let user = Delete::user(user_id("U1")).only(current);
    assert!(
        store
            .delete(&key, &user)
            .await
            .expect("still that revision")
    );
    assert!(
        store
            .delete(&key, &Delete::bot().only(current))
            .await
            .expect("still")
    );
    assert!(
        store
            .delete(&key, &Delete::all().only(current))
            .await
            .expect("still")
    );
    assert!(
        !store
            .delete(&key, &Delete::all().only(current))
            .await
            .expect("it was deleted already")
    );
    assert!(gone(&store, &key).await);
}

pub(crate) async fn a_delete_of_a_bot_that_is_absent_spares_one_that_is_just_installed(db: Db) {
    let store = db.store().await;
    put(&store, in_workspace("T1").with_user("U1", "xoxp-1")).await;
    let backend = Arc::new(Interrupted::new(Arc::clone(&db.backend)));
    let deleting = db.store_over(Arc::clone(&backend), local()).await;
    let installing = store.clone();
    backend.meanwhile(move || {
        tokio::spawn(async move {
            put(&installing, of("T1")).await;
        })
    });
    let went = deleting.delete(&workspace_key("T1"), &Delete::bot()).await;
    assert!(!went.expect("there was no bot to delete"));
    assert_bot(&store, &workspace_key("T1"), None, Some("xoxb-T1")).await;
}

pub(crate) async fn an_unreadable_installation_can_be_deleted(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let revision = put(&store, of("T1").with_user("U1", "xoxp-1")).await;
    for delete in [
        Delete::bot(),
        Delete::user(user_id("U1")),
        Delete::all().only(revision),
    ] {
        for slot in ["install", "bot", "user/U1"] {
            damage(&db, "T1", slot).await;
        }
        assert!(
            store
                .delete(&key, &delete)
                .await
                .expect("deleting opens nothing")
        );
    }
    assert!(gone(&store, &key).await);
    assert!(db.rows_of("T1").await.is_empty());
}

pub(crate) async fn a_reinstall_heals_a_row_that_does_not_open(db: Db) {
    let store = db.store().await;
    put(&store, of("T1").with_user("U1", "xoxp-old")).await;
    for slot in ["install", "bot", "user/U1"] {
        damage(&db, "T1", slot).await;
    }
    let outcome = store
        .fetch(&workspace_key("T1"), Some(&user_id("U1")))
        .await;
    assert_matches!(outcome, Err(Error::Unreadable(_)));
    let new = with_both("T1", "xoxb-new", "U1", "xoxp-new");
    store
        .store(&new)
        .await
        .expect("an installation that does not open is replaced");
    assert_eq!(
        whole(&fetch(&store, &new.key(), Some("U1")).await.installation),
        whole(&new)
    );
}

// Facts that are learned after an install.

pub(crate) async fn a_note_touches_no_token(db: Db) {
    let store = db.store().await;
    let mut installation = of("T1")
        .with_user("U1", "xoxp-1")
        .with_webhook("C1", "https://hooks/1");
    installation.metadata = Some("plan=gold".to_owned());
    let revision = store.store(&installation).await.expect("stored");
    let facts = Facts {
        bot_id: Some(bot_id("B1")),
        url: Some("https://alpha.slack.com/".to_owned()),
    };
    assert!(
        store
            .note(&installation.key(), revision, &facts)
            .await
            .expect("noted")
    );
    installation.bot.as_mut().expect("a bot").id = facts.bot_id;
    installation.url = facts.url;
    let fetched = fetch(&store, &installation.key(), Some("U1")).await;
    assert_eq!(whole(&fetched), whole(&installation));

    // An install that does not have these facts yet keeps them.
    put(&store, of("T1")).await;
    let fetched = fetch(&store, &installation.key(), Some("U1")).await;
    assert_eq!(whole(&fetched), whole(&installation));
}

pub(crate) async fn a_note_to_an_earlier_install_changes_nothing(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    let earlier = put(&store, of("T1")).await;
    put(&store, of("T1")).await;
    let before = db.rows_of("T1").await;
    let all = Facts {
        bot_id: Some(bot_id("B1")),
        url: Some("https://alpha.slack.com/".into()),
    };
    for facts in [
        Facts {
            bot_id: all.bot_id.clone(),
            url: None,
        },
        all,
    ] {
        assert!(!store.note(&key, earlier, &facts).await.expect("no error"));
        assert!(
            !store
                .note(&workspace_key("T2"), earlier, &facts)
                .await
                .expect("no error")
        );
    }
    assert_eq!(db.rows_of("T1").await, before);
    assert!(db.rows_of("T2").await.is_empty());
}

// Parts that installs keep.

pub(crate) async fn webhooks_are_kept_one_for_each_channel(db: Db) {
    let store = db.store().await;
    let key = workspace_key("T1");
    put(&store, of("T1").with_webhook("C1", "https://hooks/1a")).await;
    put(&store, of("T1").with_webhook("C2", "https://hooks/2a")).await;
    put(&store, of("T1").with_webhook("C1", "https://hooks/1b")).await;
    put(&store, of("T1")).await;
    let fetched = fetch(&store, &key, None).await;
    assert_eq!(
        webhook_urls(&fetched),
        ["https://hooks/1b", "https://hooks/2a"]
    );

    let twice = of("T1")
        .with_webhook("C3", "https://hooks/3")
        .with_webhook("C3", "https://hooks/3");
    put(&store, twice).await;
    assert_eq!(
        webhook_urls(&fetch(&store, &key, None).await.installation).len(),
        3
    );
}

pub(crate) async fn a_reinstall_without_metadata_keeps_what_was_there(db: Db) {
    let store = db.store().await;
    for (given, kept) in [(Some("a"), "a"), (None, "a"), (Some("b"), "b")] {
        let mut installation = of("T1");
        installation.metadata = given.map(str::to_owned);
        put(&store, installation).await;
        let fetched = fetch(&store, &workspace_key("T1"), None).await;
        assert_eq!(fetched.metadata.as_deref(), Some(kept));
    }
}

pub(crate) async fn nothing_secret_stands_in_the_clear(db: Db) {
    let store = db.store().await;
    let mut installation = in_workspace("T1")
        .with_user("U1", "xoxp-canary")
        .with_webhook("C1", "https://hooks.slack.com/services/canary");
    installation.metadata = Some("canary".to_owned());
    put(&store, of("T1")).await;
    put(&store, installation).await;
    assert!(consumed(&store).await);
    let fetched = fetch(&store, &workspace_key("T1"), Some("U1")).await;
    assert!(!format!("{fetched:?} {store:?}").contains("canary"));

    let rows = db.rows().await;
    assert!(rows.len() >= 5, "install, bot, user, state and data key");
    for (key, row) in rows {
        let sealed = row.sealed.as_bytes();
        let shown = format!(
            "{key:?} {row:?} {} {}",
            row.metadata.as_str(),
            sealed.escape_ascii()
        );
        for secret in ["canary", "xoxp", "xoxb", "hooks"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

// Listing.

pub(crate) async fn listing_is_complete_by_pages_of_any_size_and_opens_nothing(db: Db) {
    let store = db.store().await;
    let mut expected = BTreeSet::new();
    for number in 0..7 {
        let tenant = format!("T{number}");
        put(&store, of(&tenant).with_user("U1", "xoxp-1")).await;
        expected.insert(tenant);
    }
    put(&store, in_org("E1", None).with_bot("xoxb-1")).await;
    expected.insert("E1".to_owned());
    assert!(consumed(&store).await);
    damage(&db, "T3", "install").await;

    // A process that lost its key provider can still list.
    let provider = Remote::new();
    let listing = db.store_by(provider.clone()).await;
    let unwraps = provider.unwraps();
    provider.set_down(true);
    for limit in [1, 2, 3, 5, 1000, 0] {
        let found = listed(&listing, limit).await;
        assert_eq!(
            found.len(),
            expected.len(),
            "nothing is listed twice, limit {limit}"
        );
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    }
    assert_eq!(provider.unwraps(), unwraps);
}

// Concurrency.

pub(crate) async fn concurrent_stores_of_one_tenant_end_with_one_of_them_whole(db: Db) {
    let backend = Arc::new(Gathering::over(Arc::clone(&db.backend), 64));
    let storing = db.store_over(Arc::clone(&backend), local()).await;
    let store = db.store().await;
    backend.gather(64);
    let mut tasks = JoinSet::new();
    for round in 0..64 {
        let storing = storing.clone();
        tasks.spawn(async move {
            storing
                .store(&numbered(round))
                .await
                .map(drop)
                .expect("stored")
        });
    }
    for _ in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..20 {
                let user = user_id("U1");
                let fetched = store.fetch(&workspace_key("T1"), Some(&user)).await;
                let fetched = fetched.expect("a read in between is no error");
                assert_of_one_install(fetched.as_deref());
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no store fails, and no read sees half an installation");
    }
    // By the store that wrote: the cache of the other one may be older than the last commit.
    let fetched = fetch(&storing, &workspace_key("T1"), Some("U1")).await;
    assert_of_one_install(Some(&fetched));
    assert_eq!(
        webhook_urls(&fetched).len(),
        64,
        "no store overwrote rows that it had not read"
    );
    let slots = db.slots_of("T1").await;
    assert_eq!(slots, ["bot", "install", "user/U1"]);
}

fn numbered(round: u64) -> Installation {
    let mut installation = in_workspace("T1")
        .with_bot(&format!("xoxb-{round}"))
        .with_user("U1", &format!("xoxp-{round}"))
        .with_webhook(&format!("C{round}"), &format!("https://hooks/{round}"));
    installation.installed_at = noon() + Duration::from_secs(round);
    installation
}

fn assert_of_one_install(fetched: Option<&Installation>) {
    let Some(fetched) = fetched else { return };
    let round = fetched
        .installed_at
        .duration_since(noon())
        .expect("not before noon")
        .as_secs();
    assert_eq!(bot_token(fetched), Some(format!("xoxb-{round}").as_str()));
    assert_eq!(
        user_token(fetched),
        Some(("U1", format!("xoxp-{round}").as_str()))
    );
    assert!(webhook_urls(fetched).contains(&format!("https://hooks/{round}").as_str()));
}

// Lost responses.

pub(crate) async fn a_lost_answer_to_a_store_is_found_out_by_reading(db: Db) {
    let backend = Unreliable::new(Arc::clone(&db.backend));
    let store = db.store_over(backend.clone(), local()).await;
    let commits = backend.commits();
    backend.lose_answers(1);
    let revision = store
        .store(&of("T1"))
        .await
        .expect("the row says that it was stored");
    let standing = fetch(&store, &workspace_key("T1"), None).await.revision;
    assert_eq!(standing, revision, "the installation is not stored twice");
    assert_eq!(
        backend.commits(),
        commits + 2,
        "a second commit confirms it"
    );
    backend.lose_answers(1);
    let facts = Facts {
        url: Some("https://alpha.slack.com/".into()),
        ..Facts::default()
    };
    assert!(
        store
            .note(&workspace_key("T1"), revision, &facts)
            .await
            .expect("noted")
    );
    backend.lose_answers(1);
    assert!(consumed(&store).await, "the row is this call's own");
    assert!(!consumed(&store).await);
}

pub(crate) async fn a_lost_commit_is_unavailable_and_made_again_by_the_caller(db: Db) {
    let backend = Unreliable::new(Arc::clone(&db.backend));
    let store = db.store_over(backend.clone(), local()).await;
    backend.lose_commits(1);
    let lost = store.store(&of("T1")).await;
    assert_matches!(lost, Err(Error::Unavailable(_)));
    assert!(gone(&store, &workspace_key("T1")).await);
    let stored = store.store(&of("T1")).await;
    let revision = stored.expect("stored at the second attempt");
    let fetched = fetch(&store, &workspace_key("T1"), None).await;
    assert_eq!(
        (bot_token(&fetched), fetched.revision),
        (Some("xoxb-T1"), revision)
    );
}

pub(crate) async fn a_lost_answer_to_a_delete_is_unavailable_and_asking_again_is_safe(db: Db) {
    let backend = Unreliable::new(Arc::clone(&db.backend));
    let store = db.store_over(backend.clone(), local()).await;
    store.store(&of("T1")).await.expect("stored");
    backend.lose_answers(1);
    let outcome = store.delete(&workspace_key("T1"), &Delete::all()).await;
    assert_matches!(outcome, Err(Error::Unavailable(_)));
    store
        .delete(&workspace_key("T1"), &Delete::all())
        .await
        .expect("deleting an absent installation is a no-op");
    assert!(gone(&store, &workspace_key("T1")).await);
}

// OAuth states.

// The Python SDK's file store has two winners (slackapi/python-slack-sdk#1919).
pub(crate) async fn a_state_is_consumed_by_one_of_64(db: Db) {
    let backend = Arc::new(Gathering::over(Arc::clone(&db.backend), 64));
    // Two processes.
    let one = db.store_over(Arc::clone(&backend), local()).await;
    let other = db.store_over(Arc::clone(&backend), local()).await;
    backend.gather(64);
    let mut tasks = JoinSet::new();
    for nth in 0..64 {
        let store = if nth % 2 == 0 { &one } else { &other };
        let store = store.clone();
        tasks.spawn(async move { consumed(&store).await });
    }
    let firsts = tasks.join_all().await.into_iter().filter(|first| *first);
    assert_eq!(firsts.count(), 1);
    assert!(!consumed(&one).await && !consumed(&other).await);
}

pub(crate) async fn a_used_state_stays_used_until_its_time_is_over(db: Db) {
    let now = Arc::new(AtomicU64::new(0));
    let clock = {
        let now = Arc::clone(&now);
        Clock::from_fn(move || noon() + Duration::from_secs(now.load(Ordering::SeqCst)))
    };
    let store = db.store().await.with_clock(clock);
    for second in [0, 1, 599] {
        now.store(second, Ordering::SeqCst);
        assert_eq!(consumed(&store).await, second == 0, "{second} s");
    }
    let (_, row) = db.row(&format!("state/{}", "07".repeat(32)), "state").await;
    assert_eq!(row.due.map(|due| due.at), Some(later()));
}

pub(crate) async fn a_state_that_was_released_can_be_used_once_more(db: Db) {
    let (store, other) = (db.store().await, db.look_alike().store().await);
    assert!(consumed(&other).await);
    store.release(&STATE).await.expect("nothing to do");
    for _ in 0..2 {
        assert!(consumed(&store).await && !consumed(&store).await);
        store.release(&STATE).await.expect("available");
    }
    assert!(consumed(&store).await && !consumed(&other).await);
}

pub(crate) async fn a_state_of_another_app_or_id_is_not_used(db: Db) {
    let (store, other) = (db.store().await, db.look_alike().store().await);
    assert!(consumed(&store).await);
    assert!(consumed(&other).await);
    let mut id = STATE;
    id.0[31] ^= 1;
    assert!(store.consume(&id, later()).await.expect("available"));
    assert!(!consumed(&store).await && !consumed(&other).await);
}

pub(crate) async fn the_sweep_removes_expired_states_of_this_app_only(db: Db) {
    let now = Arc::new(AtomicU64::new(0));
    let clock = {
        let now = Arc::clone(&now);
        Clock::from_fn(move || noon() + Duration::from_secs(now.load(Ordering::SeqCst)))
    };
    let store = db.store().await.with_clock(clock);
    // For the other app it stays noon: its own background sweep finds no expired state.
    let other = db
        .look_alike()
        .store()
        .await
        .with_clock(Clock::from_fn(noon));
    let ids = [1, 2, 3].map(|id| StateId([id; 32]));
    for (minute, id) in (1..).zip(&ids) {
        let expires_at = noon() + Duration::from_secs(60 * minute);
        for store in [&store, &other] {
            assert!(store.consume(id, expires_at).await.expect("available"));
        }
    }
    put(&store, of("T1")).await;
    assert_eq!(store.sweep_expired_states().await.expect("swept"), 0);
    let left = db.rows().await.len() - ids.len();
    now.store(125, Ordering::SeqCst);
    store.sweep_expired_states().await.expect("swept");
    // Consuming also sweeps from time to time, and may have deleted the states already.
    assert_eq!(db.rows().await.len(), left + 1);
    assert_eq!(store.sweep_expired_states().await.expect("swept"), 0);

    assert!(!store.consume(&ids[2], later()).await.expect("available"));
    for id in &ids {
        let is_first = other.consume(id, later()).await.expect("available");
        assert!(!is_first, "another app's states are not swept");
    }
    assert_bot(&store, &workspace_key("T1"), None, Some("xoxb-T1")).await;
}

/// The rows of an app that no process runs any longer stay due.
pub(crate) async fn what_is_due_is_found_behind_the_rows_of_other_apps(db: Db) {
    let store = db.store().await;
    let mut installation = of("T1");
    installation.bot.as_mut().expect("a bot").grant = rotating("xoxe.xoxb-1-a", "xoxe-1-a");
    put(&store, installation).await;
    let chain = db.row("T1", "bot").await;
    let due = chain.1.due.expect("it rotates");
    let abandoned = Partition::new(format!("{}/T1", db.look_alike().app)).expect("a name");
    let row = |_| Row {
        version: Version::mint(),
        due: Some(Due {
            at: due.at - Duration::from_secs(3600),
            ..due
        }),
        ..chain.1.clone()
    };
    for page in 0..2 {
        let rows = (0..60).map(row).enumerate();
        let puts: Vec<_> = rows
            .map(|(nth, row)| Change::Put {
                slot: Slot::new(format!("user/U{page}{nth}")).expect("a name"),
                row,
                expect: Expect::Absent,
            })
            .collect();
        db.backend
            .commit(&abandoned, &puts)
            .await
            .expect("available");
    }
    // An index that lags may report a hint late.
    until("the chain is due", async || {
        let found = RotationStore::due(&store, due.at, None, 5).await;
        let (found, _) = found.expect("the store is up");
        found.iter().any(|key| key.tenant == workspace_key("T1"))
    })
    .await;
    let early = due.at - Duration::from_secs(1);
    let found = RotationStore::due(&store, early, None, 5).await;
    assert_eq!(found.expect("the store is up"), (Vec::new(), None));
}

const STATE: StateId = StateId([7; 32]);

fn later() -> std::time::SystemTime {
    noon() + Duration::from_secs(600)
}

/// Returns an installation in this workspace, whose bot's token contains the workspace's id.
fn of(tenant: &str) -> Installation {
    in_workspace(tenant).with_bot(&format!("xoxb-{tenant}"))
}

fn local() -> slack_installs::LocalKeyProvider {
    master_key().into()
}

/// Consumes the state, and returns whether this call was the first.
async fn consumed<B: Backend>(store: &EncryptedStore<B>) -> bool {
    store.consume(&STATE, later()).await.expect("available")
}

async fn deleted<B: Backend>(
    store: &EncryptedStore<B>,
    key: &InstallationKey,
    delete: &Delete,
) -> bool {
    store.delete(key, delete).await.expect("deleted")
}

/// Asserts which bot is fetched.
async fn assert_bot<B: Backend>(
    store: &EncryptedStore<B>,
    key: &InstallationKey,
    user: Option<&str>,
    token: Option<&str>,
) {
    let stored = fetch(store, key, user).await;
    assert_eq!(bot_token(&stored.installation), token);
}

async fn put(store: &Store, installation: Installation) -> slack_installs::Revision {
    store.store(&installation).await.expect("stored")
}

async fn fetch<B: Backend>(
    store: &EncryptedStore<B>,
    key: &InstallationKey,
    user: Option<&str>,
) -> StoredInstallation {
    let user = user.map(user_id);
    let fetched = store
        .fetch(key, user.as_ref())
        .await
        .expect("the store is up");
    fetched.expect("it was installed")
}

async fn gone<B: Backend>(store: &EncryptedStore<B>, key: &InstallationKey) -> bool {
    store
        .fetch(key, None)
        .await
        .expect("the store is up")
        .is_none()
}

/// Returns the ids of all installations in a listing, page by page.
async fn listed(store: &Store, limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut from: Option<ListCursor> = None;
    loop {
        let page = store.list(from, limit).await.expect("the store is up");
        assert!(page.installations.len() <= limit.max(1));
        ids.extend(
            page.installations
                .iter()
                .map(|summary| summary.home.key().to_string()),
        );
        from = page.next;
        if from.is_none() {
            return ids;
        }
    }
}

/// Changes one byte of a row's ciphertext.
async fn damage(db: &Db, partition: &str, slot: &str) {
    let rows = db.rows_of(partition).await;
    if !rows.iter().any(|(other, _)| other == slot) {
        return;
    }
    let (key, mut row) = db.row(partition, slot).await;
    let mut sealed = row.sealed.as_bytes().to_vec();
    *sealed.last_mut().expect("not empty") ^= 1;
    row.sealed = slack_installs::backend::Sealed::from_stored(sealed);
    db.overwrite(&key, row).await;
}
