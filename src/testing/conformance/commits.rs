//! Rules 3 to 9: commits that run one after the other.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{join, join_all};

use super::kit::{
    Tenant, assert_conflict, assert_malformed, delete, put, row, row_with, slot, slots, unique,
};
use super::names::LOOK_ALIKES;
use crate::backend::{Backend, Change, Expect, Slot, Version};

/// Checks that `Absent` succeeds only if no row exists, also after a row was deleted.
pub async fn rule_03_absent_commits_only_where_no_row_stands(backend: &dyn Backend) {
    let (tenant, bot) = (Tenant::new(backend), slot("bot"));
    for _ in 0..2 {
        let (first, second) = (row(), row());
        tenant.must_put(&bot, &first, Expect::Absent).await;
        assert_conflict(&tenant.put(&bot, &second, Expect::Absent).await);
        assert_eq!(tenant.row(&bot).await, Some(first));
        tenant.must_delete(&bot, None).await;
    }
}

/// Checks that another version, or no row, is a conflict.
pub async fn rule_04_version_commits_only_over_that_version(backend: &dyn Backend) {
    let (tenant, bot) = (Tenant::new(backend), slot("bot"));
    assert_conflict(
        &tenant
            .put(&bot, &row(), Expect::Version(Version::mint()))
            .await,
    );
    assert_eq!(tenant.row(&bot).await, None);

    let first = tenant.plant(&bot).await;
    let other = tenant.plant(&slot("other")).await;
    for wrong in [Version::mint(), other.version, Version::from_bytes([0; 16])] {
        assert_conflict(&tenant.put(&bot, &row(), Expect::Version(wrong)).await);
        assert_eq!(tenant.row(&bot).await.as_ref(), Some(&first));
    }

    let second = row();
    tenant
        .must_put(&bot, &second, Expect::Version(first.version))
        .await;
    assert_eq!(tenant.row(&bot).await.as_ref(), Some(&second));
    assert_conflict(
        &tenant
            .put(&bot, &row(), Expect::Version(first.version))
            .await,
    );
    assert_eq!(tenant.row(&bot).await, Some(second));
}

/// Checks that an old version never exists again, so that a writer from before an uninstall fails
/// after the new installation.
pub async fn rule_04_a_row_made_anew_never_has_its_old_version(backend: &dyn Backend) {
    let (tenant, bot) = (Tenant::new(backend), slot("bot"));
    let mut versions = vec![tenant.plant(&bot).await.version];
    let removals: [&[Change]; 2] = [&[delete(&bot, None)], &[Change::Clear]];
    for removal in removals.into_iter().cycle().take(6) {
        tenant.must_commit(removal).await;
        for old in &versions {
            assert_conflict(&tenant.put(&bot, &row(), Expect::Version(*old)).await);
        }
        let anew = row();
        tenant.must_put(&bot, &anew, Expect::Absent).await;
        for old in &versions {
            assert_conflict(&tenant.put(&bot, &row(), Expect::Version(*old)).await);
            assert_conflict(&tenant.delete(&bot, Some(*old)).await);
        }
        assert_eq!(tenant.row(&bot).await.as_ref(), Some(&anew));
        versions.push(anew.version);
    }
}

/// Checks that `Any` succeeds both with and without a row.
pub async fn rule_05_any_commits_in_either_case(backend: &dyn Backend) {
    let (tenant, bot) = (Tenant::new(backend), slot("bot"));
    for _ in 0..3 {
        let written = row();
        tenant.must_put(&bot, &written, Expect::Any).await;
        assert_eq!(tenant.row(&bot).await, Some(written));
    }
}

/// Checks that another version, or no row, is a conflict.
pub async fn rule_06_delete_with_only_removes_exactly_that_version(backend: &dyn Backend) {
    let (tenant, bot) = (Tenant::new(backend), slot("bot"));
    assert_conflict(&tenant.delete(&bot, Some(Version::mint())).await);

    let (standing, other) = (tenant.plant(&bot).await, tenant.plant(&slot("other")).await);
    for wrong in [Version::mint(), other.version] {
        assert_conflict(&tenant.delete(&bot, Some(wrong)).await);
        assert_eq!(tenant.row(&bot).await.as_ref(), Some(&standing));
    }

    tenant.must_delete(&bot, Some(standing.version)).await;
    assert_eq!(tenant.row(&bot).await, None);
    assert_eq!(tenant.row(&slot("other")).await, Some(other));
    assert_conflict(&tenant.delete(&bot, Some(standing.version)).await);
}

/// Checks that a delete without a version deletes any row, and succeeds if there is none.
pub async fn rule_06_delete_without_only_is_content_with_nothing(backend: &dyn Backend) {
    let (tenant, bot, other) = (Tenant::new(backend), slot("bot"), slot("bot/other"));
    tenant.must_delete(&bot, None).await;
    tenant.plant(&bot).await;
    let kept = tenant.plant(&other).await;
    for _ in 0..2 {
        tenant.must_delete(&bot, None).await;
        assert_eq!(
            tenant.rows(&[bot.clone(), other.clone()]).await,
            [None, Some(kept.clone())]
        );
    }
}

/// Checks that `Clear` deletes no rows of a partition with a similar name.
pub async fn rule_07_clear_removes_every_row_of_one_partition(backend: &dyn Backend) {
    let family = unique();
    let tenants = LOOK_ALIKES.map(|name| Tenant::named(backend, &family, name));
    let names = ["install", "bot", "user/U1", "user/U12", "*"].map(slot);
    let mut standing = Vec::new();
    for tenant in &tenants {
        let rows = join_all(names.iter().map(|name| tenant.plant(name))).await;
        standing.push(rows.into_iter().map(Some).collect::<Vec<_>>());
    }
    for cleared in 0..tenants.len() {
        tenants[cleared].must_commit(&[Change::Clear]).await;
        standing[cleared] = vec![None; names.len()];
        for (tenant, standing) in tenants.iter().zip(&standing) {
            let cleared = &tenants[cleared].partition;
            let rows = tenant.rows(&names).await;
            assert_eq!(
                rows, *standing,
                "rows of {} after {cleared} was cleared",
                tenant.partition
            );
        }
    }
    tenants[0].must_commit(&[Change::Clear]).await;
}

/// Checks more rows than a database takes in one transaction or one page.
pub async fn rule_07_clear_removes_hundreds_of_rows(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let names = slots("user/U", 250);
    for some in names.chunks(50) {
        let changes: Vec<_> = some
            .iter()
            .map(|name| put(name, &row(), Expect::Absent))
            .collect();
        tenant.must_commit(&changes).await;
    }
    let kept = row();
    let changes = [Change::Clear, put(&names[0], &kept, Expect::Any)];
    tenant.must_commit(&changes).await;
    for (at, some) in names.chunks(50).enumerate() {
        let mut expected = vec![None; some.len()];
        if at == 0 {
            expected[0] = Some(kept.clone());
        }
        assert_eq!(tenant.rows(some).await, expected);
    }
    // A cleared row must not reappear when a new commit checks its slot.
    tenant.must_put(&names[249], &row(), Expect::Absent).await;
}

/// Checks puts before and after the clear in the list, in slots with and without a row.
pub async fn rule_07_rows_put_beside_a_clear_stand(backend: &dyn Backend) {
    let names @ [install, bot, user] = &["install", "bot", "user/U1"].map(slot);
    for clear_at in 0..=2 {
        let tenant = Tenant::new(backend);
        let standing = tenant.plant(install).await;
        tenant.plant(bot).await;
        let (over, beside) = (row(), row());
        let mut changes = vec![
            put(install, &over, Expect::Version(standing.version)),
            put(user, &beside, Expect::Absent),
        ];
        changes.insert(clear_at, Change::Clear);
        tenant.must_commit(&changes).await;
        assert_eq!(tenant.rows(names).await, [Some(over), None, Some(beside)]);
    }
    for clear_at in 0..=1 {
        let tenant = Tenant::new(backend);
        let standing = tenant.plant(install).await;
        tenant.plant(bot).await;
        let mut changes = vec![delete(install, Some(standing.version))];
        changes.insert(clear_at, Change::Clear);
        tenant.must_commit(&changes).await;
        assert_eq!(tenant.rows(names).await, [None, None, None]);
    }
}

/// Checks that one failed expectation changes nothing, for every change and every expectation.
pub async fn rule_08_one_failed_expectation_leaves_every_row(backend: &dyn Backend) {
    let (names, missing) = (slots("slot", 6), slot("missing"));
    let tenant = Tenant::new(backend);
    let mut standing = Vec::new();
    for name in &names[..4] {
        standing.push(Some(tenant.plant(name).await));
    }
    standing.extend([None, None, None]);
    let version = |at: usize| {
        standing[at]
            .as_ref()
            .map_or_else(Version::mint, |it| it.version)
    };
    let good = |clear: bool| {
        let mut changes = vec![
            put(&names[0], &row(), Expect::Version(version(0))),
            delete(&names[1], Some(version(1))),
            put(&names[2], &row(), Expect::Any),
            put(&names[4], &row(), Expect::Absent),
        ];
        if clear {
            changes.push(Change::Clear);
        }
        changes
    };
    let bad = [
        put(&names[3], &row(), Expect::Absent),
        put(&names[3], &row(), Expect::Version(version(0))),
        put(&missing, &row(), Expect::Version(version(0))),
        delete(&names[3], Some(version(0))),
        delete(&missing, Some(version(0))),
    ];
    let all: Vec<Slot> = names.iter().cloned().chain([missing.clone()]).collect();
    for clear in [false, true] {
        for failing in &bad {
            for at in 0..=good(clear).len() {
                let mut changes = good(clear);
                changes.insert(at, failing.clone());
                assert_conflict(&tenant.commit(&changes).await);
                assert_eq!(tenant.rows(&all).await, standing, "{failing:?} at {at}");
            }
        }
    }
    tenant.must_commit(&good(true)).await;
}

/// Checks that a reader always sees two rows of the same commit, while another task writes both.
pub async fn rule_08_no_read_sees_a_part_of_a_commit(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let names = ["bot", "install"].map(slot);
    let numbered = |number: usize| {
        let row = || row_with(&format!(r#"{{"n":{number}}}"#));
        [
            put(&names[0], &row(), Expect::Any),
            put(&names[1], &row(), Expect::Any),
        ]
    };
    tenant.must_commit(&numbered(0)).await;
    let done = AtomicBool::new(false);
    let writer = async {
        for number in 1..=60 {
            // Every third commit also clears the partition. No reader may see the gap.
            let mut changes = numbered(number).to_vec();
            if number % 3 == 0 {
                changes.push(Change::Clear);
            }
            tenant.must_commit(&changes).await;
            tokio::task::yield_now().await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let reader = async {
        while !done.load(Ordering::Relaxed) {
            let rows = tenant.rows(&names).await;
            let seen: Vec<_> = rows
                .iter()
                .flatten()
                .map(|row| row.metadata.as_str())
                .collect();
            assert!(
                seen.len() == 2 && seen[0] == seen[1],
                "the rows are from different commits: {seen:?}"
            );
            tokio::task::yield_now().await;
        }
    };
    join(writer, reader).await;
}

/// Checks a clear and a put that run at the same time. If the put comes first, it conflicts with
/// the existing rows; if it comes second, its rows stay. In both cases, the rows are those of whole
/// commits.
pub async fn rule_08_a_clear_and_a_put_happen_one_after_the_other(backend: &dyn Backend) {
    let names @ [bot, user, receipt] = &["bot", "user/U1", "receipt"].map(slot);
    for round in 0..20 {
        let tenant = Tenant::new(backend);
        tenant.plant(bot).await;
        let (cleared, new) = (row(), [row(), row()]);
        // If the response is lost, the receipt shows whether the clear was applied.
        let clear = [Change::Clear, put(receipt, &cleared, Expect::Absent)];
        let puts = [
            put(bot, &new[0], Expect::Absent),
            put(user, &new[1], Expect::Absent),
        ];
        let mut both = [tenant.commit(&clear), tenant.commit(&puts)];
        both.rotate_left(round % 2);
        let mut outcomes = join_all(both).await;
        outcomes.rotate_left(round % 2);
        assert!(outcomes[0].is_ok(), "a clear expects nothing: {outcomes:?}");
        let standing = match &outcomes[1] {
            Ok(()) => new.map(Some),
            refused => {
                assert_conflict(refused);
                [None, None]
            }
        };
        let [bot, user] = standing;
        assert_eq!(
            tenant.rows(names).await,
            [bot, user, Some(cleared)],
            "{outcomes:?}"
        );
    }
}

/// Checks that expectations are compared with the rows before the commit: not one after the other,
/// and not with the rows after its clear.
pub async fn rule_09_expectations_are_judged_before_the_commit(backend: &dyn Backend) {
    let names @ [here, gone] = &["bot", "gone"].map(slot);
    for clear_first in [true, false] {
        let tenant = Tenant::new(backend);
        let standing = tenant.plant(here).await;
        let with_clear = |change: Change| {
            if clear_first {
                [Change::Clear, change]
            } else {
                [change, Change::Clear]
            }
        };
        // After the clear the row is absent, but before the commit it exists.
        assert_conflict(
            &tenant
                .commit(&with_clear(put(here, &row(), Expect::Absent)))
                .await,
        );
        let expect = Expect::Version(standing.version);
        assert_conflict(&tenant.commit(&with_clear(put(gone, &row(), expect))).await);
        assert_eq!(tenant.rows(names).await, [Some(standing.clone()), None]);

        let new = row();
        tenant
            .must_commit(&with_clear(put(here, &new, expect)))
            .await;
        assert_eq!(tenant.rows(names).await, [Some(new), None]);
    }
}

/// Checks that two changes of one slot are malformed, and that neither is written.
pub async fn rule_09_two_changes_of_one_slot_are_malformed(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let names @ [here, gone, other] = &["bot", "gone", "other"].map(slot);
    let standing = tenant.plant(here).await;
    let put_here = || put(here, &row(), Expect::Any);
    let put_gone = || put(gone, &row(), Expect::Absent);
    let unlike = put(other, &row(), Expect::Any);
    for changes in [
        vec![put_here(), put_here()],
        vec![put_gone(), unlike.clone(), put_gone()],
        vec![put_here(), delete(here, Some(standing.version))],
        vec![delete(gone, None), put_gone()],
        vec![delete(here, None), unlike.clone(), delete(here, None)],
        vec![Change::Clear, Change::Clear],
        vec![Change::Clear, unlike, Change::Clear],
    ] {
        assert_malformed(&tenant.commit(&changes).await);
        assert_eq!(
            tenant.rows(names).await,
            [Some(standing.clone()), None, None]
        );
    }
}

/// Checks that an empty commit succeeds and changes nothing.
pub async fn rule_09_no_changes_at_all_is_a_success(backend: &dyn Backend) {
    let (tenant, bot) = (Tenant::new(backend), slot("bot"));
    tenant.must_commit(&[]).await;
    let standing = tenant.plant(&bot).await;
    tenant.must_commit(&[]).await;
    assert_eq!(tenant.row(&bot).await, Some(standing));
}
