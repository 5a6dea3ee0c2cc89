//! Rule 16: rows that must exist and are not written.

use futures_util::future::join_all;

use super::kit::{Tenant, assert_conflict, assert_malformed, check, delete, due, put, row, slot};
use crate::backend::{Backend, Change, Expect, Lane, Version};

/// Checks that another version, or no row, is a conflict.
pub async fn rule_16_a_check_commits_only_if_that_version_exists(backend: &dyn Backend) {
    let (tenant, bot, other) = (Tenant::new(backend), slot("bot"), slot("other"));
    assert_conflict(&tenant.commit(&[check(&bot, Version::mint())]).await);
    let old = tenant.plant(&bot).await;
    let current = tenant.plant(&bot).await;
    let beside = tenant.plant(&other).await;
    for wrong in [old.version, beside.version, Version::from_bytes([0; 16])] {
        assert_conflict(&tenant.commit(&[check(&bot, wrong)]).await);
    }
    let both = [check(&bot, current.version), check(&other, beside.version)];
    tenant.must_commit(&both).await;
    let one_wrong = [check(&bot, current.version), check(&other, old.version)];
    assert_conflict(&tenant.commit(&one_wrong).await);
    tenant.must_delete(&bot, None).await;
    assert_conflict(&tenant.commit(&[check(&bot, current.version)]).await);
}

/// Checks that neither the row nor its place in a queue changes.
pub async fn rule_16_a_check_writes_nothing(backend: &dyn Backend) {
    let (tenant, bot, other) = (Tenant::new(backend), slot("bot"), slot("other"));
    let current = tenant.plant_due(&bot, due(Lane::Notice, 5)).await;
    let alone = [check(&bot, current.version)];
    let new = row();
    let beside = [
        check(&bot, current.version),
        put(&other, &new, Expect::Absent),
    ];
    for changes in [&alone[..], &beside[..], &alone[..]] {
        tenant.must_commit(changes).await;
        assert_eq!(tenant.row(&bot).await.as_ref(), Some(&current));
    }
    assert_eq!(tenant.row(&other).await, Some(new));
}

/// Checks that a failed check leaves every row unchanged, whatever else the commit changes.
pub async fn rule_16_a_check_decides_over_what_is_beside_it(backend: &dyn Backend) {
    let names @ [bot, gone, install, user] = &["bot", "gone", "install", "user/U1"].map(slot);
    let tenant = Tenant::new(backend);
    let current = tenant.plant(bot).await;
    let facts = tenant.plant(install).await;
    let before = [Some(current.clone()), None, Some(facts.clone()), None];
    let with = |checked: Change, first: bool, clear: bool| {
        let mut changes = vec![
            put(user, &row(), Expect::Absent),
            delete(install, Some(facts.version)),
        ];
        changes.extend(clear.then_some(Change::Clear));
        let at = if first { 0 } else { changes.len() };
        changes.insert(at, checked);
        changes
    };
    for (first, clear) in [(true, false), (false, false), (true, true), (false, true)] {
        for failing in [check(bot, facts.version), check(gone, current.version)] {
            assert_conflict(&tenant.commit(&with(failing, first, clear)).await);
            assert_eq!(tenant.rows(names).await, before);
        }
    }
    let holds = with(check(bot, current.version), false, false);
    tenant.must_commit(&holds).await;
    let rows = tenant.rows(names).await;
    assert_eq!(rows[..3], [Some(current.clone()), None, None]);
    assert!(
        rows[3].is_some(),
        "the other change of the commit was written"
    );

    // A check does not exclude its row from the clear.
    let cleared = [check(bot, current.version), Change::Clear];
    // If a response is lost, the retry conflicts with the first attempt, which was applied.
    drop(tenant.commit(&cleared).await);
    assert_eq!(tenant.rows(names).await, [const { None }; 4]);
}

/// Checks that one of two commits succeeds, if each checks the row that the other writes.
pub async fn rule_16_a_check_conflicts_with_a_write_at_the_same_time(backend: &dyn Backend) {
    let names @ [one, other] = &["one", "other"].map(slot);
    for round in 0..20 {
        let tenant = Tenant::new(backend);
        let (first, second) = (tenant.plant(one).await, tenant.plant(other).await);
        let (new_first, new_second) = (row(), row());
        let crossed = [
            [
                check(one, first.version),
                put(other, &new_second, Expect::Version(second.version)),
            ],
            [
                put(one, &new_first, Expect::Version(first.version)),
                check(other, second.version),
            ],
        ];
        let mut both = crossed.each_ref().map(|changes| tenant.commit(changes));
        both.rotate_left(round % 2);
        let mut outcomes = join_all(both).await;
        outcomes.rotate_left(round % 2);
        let expected = match (&outcomes[0], &outcomes[1]) {
            (Ok(()), lost) => {
                assert_conflict(lost);
                [first, new_second]
            }
            (lost, won) => {
                assert_conflict(lost);
                assert!(won.is_ok(), "one of the two must succeed: {outcomes:?}");
                [new_first, second]
            }
        };
        assert_eq!(tenant.rows(names).await, expected.map(Some));
    }
}

/// Checks that rule 9 covers checks: two checks of one slot, or a check and another change of it,
/// are malformed.
pub async fn rule_16_a_check_is_a_change_of_its_slot(backend: &dyn Backend) {
    let (tenant, bot, other) = (Tenant::new(backend), slot("bot"), slot("other"));
    let current = tenant.plant(&bot).await;
    let checked = || check(&bot, current.version);
    let beside = || put(&other, &row(), Expect::Any);
    for changes in [
        vec![checked(), checked()],
        vec![checked(), beside(), checked()],
        vec![checked(), put(&bot, &row(), Expect::Any)],
        vec![
            put(&bot, &row(), Expect::Version(current.version)),
            checked(),
        ],
        vec![checked(), delete(&bot, None)],
        vec![delete(&bot, Some(current.version)), beside(), checked()],
    ] {
        assert_malformed(&tenant.commit(&changes).await);
        assert_eq!(tenant.row(&bot).await.as_ref(), Some(&current));
        assert_eq!(tenant.row(&other).await, None);
    }
}
