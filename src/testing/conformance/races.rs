//! Rule 10: many commits at once.

use futures_util::future::join_all;

use super::kit::{Tenant, assert_conflict, delete, put, row, row_with, slot};
use crate::backend::{Backend, Change, Error, Expect, Row, Slot};

/// Checks that exactly one commit succeeds, if 64 commits put the first row of a slot at once.
pub async fn rule_10_one_of_many_that_expect_absence_wins(backend: &dyn Backend) {
    let (tenant, bot) = (Tenant::new(backend), slot("bot"));
    for _ in 0..3 {
        let rows: Vec<_> = (0..RACERS).map(|_| row()).collect();
        let outcomes = join_all(rows.iter().map(|row| tenant.put(&bot, row, Expect::Absent))).await;
        let winner = only_winner(&outcomes);
        assert_eq!(tenant.row(&bot).await.as_ref(), Some(&rows[winner]));
        tenant.must_delete(&bot, None).await;
    }
}

/// Checks that exactly one commit succeeds, if 64 commits overwrite the same version at once.
pub async fn rule_10_one_of_many_that_expect_a_version_wins(backend: &dyn Backend) {
    let (tenant, bot) = (Tenant::new(backend), slot("bot"));
    let mut standing = tenant.plant(&bot).await;
    for _ in 0..3 {
        let expect = Expect::Version(standing.version);
        let rows: Vec<_> = (0..RACERS).map(|_| row()).collect();
        let outcomes = join_all(rows.iter().map(|row| tenant.put(&bot, row, expect))).await;
        standing = rows[only_winner(&outcomes)].clone();
        assert_eq!(tenant.row(&bot).await.as_ref(), Some(&standing));
    }
}

/// Checks that exactly one commit succeeds, if many overwrite, delete or clear the same version at
/// once. Each commit puts a receipt; only the winner's receipt exists.
pub async fn rule_10_one_of_many_kinds_of_change_wins(backend: &dyn Backend) {
    let (tenant, head) = (Tenant::new(backend), slot("head"));
    let receipts: Vec<_> = (0..RACERS)
        .map(|at| slot(&format!("receipt/{at}")))
        .collect();
    for _ in 0..3 {
        tenant.must_commit(&[Change::Clear]).await;
        let version = tenant.plant(&head).await.version;
        let attempts: Vec<_> = receipts
            .iter()
            .enumerate()
            .map(|(at, receipt)| {
                let receipt = put(receipt, &row(), Expect::Absent);
                match at % 3 {
                    0 => vec![put(&head, &row(), Expect::Version(version)), receipt],
                    1 => vec![receipt, delete(&head, Some(version))],
                    _ => vec![Change::Clear, delete(&head, Some(version)), receipt],
                }
            })
            .collect();
        let outcomes = join_all(attempts.iter().map(|changes| tenant.commit(changes))).await;
        let winner = only_winner(&outcomes);
        for some in receipts.chunks(32) {
            for (receipt, row) in some.iter().zip(tenant.rows(some).await) {
                assert_eq!(row.is_some(), *receipt == receipts[winner], "{receipt}");
            }
        }
    }
}

/// Checks that no update is lost: 8 writers add to one row 25 times each. The row lists its
/// additions, so that a writer whose response was lost can see whether its addition is in it.
pub async fn rule_10_no_update_is_lost(backend: &dyn Backend) {
    let (tenant, total) = (Tenant::new(backend), slot("total"));
    let writers = (0..8).map(|writer| {
        let (tenant, total) = (tenant.clone(), total.clone());
        async move {
            for nth in 0..25 {
                add(&tenant, &total, &format!("{writer}:{nth}")).await;
            }
        }
    });
    join_all(writers).await;
    let row = tenant
        .row(&total)
        .await
        .expect("the row exists after 200 additions");
    let mut listed = listed(&row);
    assert_eq!(listed.len(), 200);
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(listed.len(), 200, "no addition is listed twice");
}

async fn add(tenant: &Tenant<'_>, total: &Slot, item: &str) {
    for _ in 0..ATTEMPTS {
        let standing = tenant.row(total).await;
        let mut items = standing.as_ref().map(listed).unwrap_or_default();
        if items.iter().any(|listed| listed == item) {
            return;
        }
        items.push(item.into());
        let text = serde_json::to_string(&items).expect("strings always serialise");
        let expect = standing.map_or(Expect::Absent, |row| Expect::Version(row.version));
        let changes = [put(
            total,
            &row_with(&format!(r#"{{"items":{text}}}"#)),
            expect,
        )];
        match tenant.backend.commit(&tenant.partition, &changes).await {
            Ok(()) => return,
            Err(Error::Conflict | Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("the backend refused a valid row: {error:?}"),
        }
    }
    panic!("{item} could not be added in {ATTEMPTS} attempts");
}

fn listed(row: &Row) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Listed {
        items: Vec<String>,
    }

    let listed: Listed =
        serde_json::from_str(row.metadata.as_str()).expect("the row is unchanged since its writer");
    listed.items
}

/// Returns the index of the only success. All other outcomes must be conflicts.
fn only_winner(outcomes: &[Result<(), Error>]) -> usize {
    let winners: Vec<_> = (0..outcomes.len())
        .filter(|at| outcomes[*at].is_ok())
        .collect();
    assert_eq!(
        winners.len(),
        1,
        "exactly one of {} commits must succeed",
        outcomes.len()
    );
    outcomes
        .iter()
        .filter(|outcome| outcome.is_err())
        .for_each(assert_conflict);
    winners[0]
}

/// Without lost responses, each failed attempt is another writer's success, so 200 would be enough.
/// Lost responses need some more.
const ATTEMPTS: usize = 1000;

const RACERS: usize = 64;
