//! Rules 13 and 14: finding rows without knowing their names.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use super::kit::{Tenant, assert_malformed, due, page, row, seconds, slot, slots, unique};
use super::names::LOOK_ALIKES;
use crate::backend::{Backend, Change, Cursor, Expect, Key, Row, Slot};

/// Over pages of many sizes, with what was written in it.
pub async fn rule_13_scan_visits_every_row_once(backend: &dyn Backend) {
    let family = unique();
    let mut planted = BTreeMap::new();
    for (at, name) in LOOK_ALIKES.iter().enumerate() {
        let tenant = Tenant::named(backend, &family, name);
        for name in slots("user/U", at % 4) {
            planted.insert(key(&tenant, &name), tenant.plant(&name).await);
        }
    }
    for limit in [1, 2, 3, 7, 39, 1000, usize::MAX] {
        let mut seen = BTreeMap::new();
        let mut scan = Scan::new(backend, limit);
        while let Some(rows) = scan.next().await {
            for (key, row) in rows
                .into_iter()
                .filter(|(key, _)| planted.contains_key(key))
            {
                assert!(
                    seen.insert(key.clone(), row).is_none(),
                    "{key:?} twice by {limit}"
                );
            }
        }
        assert!(
            seen == planted,
            "{} of {} rows by {limit}",
            seen.len(),
            planted.len()
        );
    }
}

/// While rows before, after and at the cursor are put, deleted and overwritten.
pub async fn rule_13_scan_visits_rows_that_stand_throughout_once(backend: &dyn Backend) {
    for limit in [1, 2, 5] {
        let family = unique();
        let tenants = ["T1", "T2", "T3"].map(|name| Tenant::named(backend, &family, name));
        let mut standing = Vec::new();
        for tenant in &tenants {
            for name in slots("m", 8) {
                tenant.plant(&name).await;
                standing.push((tenant, name));
            }
            for name in slots("passing", 8) {
                tenant.plant(&name).await;
            }
        }
        let mut seen = HashSet::new();
        let mut scan = Scan::new(backend, limit);
        while let Some(rows) = scan.next().await {
            for (key, _) in rows {
                if standing
                    .iter()
                    .any(|(tenant, name)| self::key(tenant, name) == key)
                {
                    assert!(seen.insert(key.clone()), "{key:?} twice by {limit}");
                }
            }
            // Some of it lies before the cursor by now, and some after it.
            let nth = scan.pages;
            if nth < 30 {
                let (tenant, name) = &standing[nth * 7 % standing.len()];
                tenant.plant(name).await;
                let tenant = &tenants[nth % 3];
                tenant.plant(&slot(&format!("a{nth:03}"))).await;
                tenant.plant(&slot(&format!("z{nth:03}"))).await;
                let passing = slot(&format!("passing{:03}", nth % 8));
                tenant
                    .delete(&passing, None)
                    .await
                    .expect("what stands may be deleted");
                Tenant::named(backend, &family, &format!("S{nth}"))
                    .plant(name)
                    .await;
            }
        }
        for (tenant, name) in &standing {
            assert!(
                seen.contains(&key(tenant, name)),
                "{name} missed by {limit}"
            );
        }
    }
}

/// So it comes to an end, and finds everything.
pub async fn rule_13_a_limit_of_0_is_taken_as_1(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let names = slots("user/U", 3);
    for name in &names {
        tenant.plant(name).await;
    }
    let mut seen = Vec::new();
    let mut scan = Scan::new(backend, 0);
    while let Some(rows) = scan.next().await {
        seen.extend(rows.into_iter().map(|(key, _)| key));
    }
    for name in &names {
        assert!(seen.contains(&key(&tenant, name)), "{name} is missing");
    }
}

/// Since a cursor comes back from outside, as the parameter of a page, say.
pub async fn rule_13_a_foreign_cursor_is_malformed(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    tenant.plant(&slot("bot")).await;
    let long = "x ".repeat(10_000);
    for foreign in [
        "",
        " ",
        "nonsense",
        "{",
        "a b c",
        "ä ö",
        "\0",
        long.as_str(),
    ] {
        assert_malformed(&page(backend, Some(Cursor(foreign.into())), 10).await);
    }
}

/// As after a move to another database, when a page that was begun on the old one goes on.
pub async fn rule_13_a_cursor_of_another_kind_is_malformed(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    for name in slots("user/U", 3) {
        tenant.plant(&name).await;
    }
    let first = page(backend, None, 1).await.expect("a scan begins");
    let Cursor(ours) = first.next.expect("three rows are more than one page");
    let mut others = vec![Cursor(format!("another-{ours}"))];
    for kind in ["dynamodb", "memory", "postgres", "redis", "sqlite"] {
        if !ours.starts_with(&format!("{kind} ")) {
            others.push(Cursor::after(kind, &key(&tenant, &slot("user/U000"))));
        }
    }
    for other in others {
        assert_malformed(&page(backend, Some(other), 10).await);
    }
}

/// To the second, and no others.
pub async fn rule_14_due_answers_rows_whose_time_has_come(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let now = 1_700_000_000;
    let times = [
        ("first", Some(0)),
        ("long-since", Some(86_400)),
        ("just", Some(now - 1)),
        ("now", Some(now)),
        ("soon", Some(now + 1)),
        ("later", Some(1 << 33)),
        ("last", Some(253_402_300_799)),
        ("never", None),
    ];
    for (name, due_at) in times {
        plant_due(&tenant, &slot(name), due_at).await;
    }
    let wanted = |until: u64| -> Vec<Slot> {
        let due = times
            .iter()
            .filter(|(_, due_at)| due_at.is_some_and(|it| it <= until));
        due.map(|(name, _)| slot(name)).collect()
    };
    let almost = Duration::from_nanos(999_999_999);
    for (asked, until) in [
        (seconds(0), 0),
        (seconds(now - 1) + almost, now - 1),
        (seconds(now), now),
        (seconds(now) + almost, now),
        (seconds(now + 1), now + 1),
        (seconds(253_402_300_799), 253_402_300_799),
    ] {
        let due = due_when(&tenant, asked, |due| *due == wanted(until)).await;
        assert_eq!(
            due,
            wanted(until),
            "in this order, {until} seconds after 1970"
        );
    }
    let found = answered(&tenant, seconds(now), usize::MAX).await;
    let rows: Vec<_> = found
        .into_iter()
        .map(|(key, row)| (key.slot, Some(row)))
        .collect();
    for (slot, row) in rows {
        assert_eq!(
            row,
            tenant.row(&slot).await,
            "{slot} is answered as it stands"
        );
    }
}

/// Whatever the order in which they were put.
pub async fn rule_14_due_answers_the_earliest_up_to_the_limit(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let times = [5, 3, 9, 1, 7, 2, 8, 4, 6];
    // The order of names is not that of times.
    let names = slots("user/U", times.len());
    for (name, time) in names.iter().zip(times) {
        plant_due(&tenant, name, Some(time)).await;
    }
    let now = seconds(20);
    due_when(&tenant, now, |due| due.len() == times.len()).await;
    for limit in [0, 1, 2, 5, 9, 1000, usize::MAX] {
        let answered = due(backend, now, limit).await;
        assert!(answered.len() <= limit, "{} by {limit}", answered.len());
        assert!(
            answered.is_sorted_by_key(|(_, row)| row.due_at),
            "earliest first"
        );
        // Rows of others may be due as well; ours may be left out only for earlier ones.
        let last = answered.last().and_then(|(_, row)| row.due_at);
        let full = answered.len() == limit;
        for (name, time) in names.iter().zip(times) {
            let key = key(&tenant, name);
            let found = answered.iter().any(|(found, _)| *found == key);
            let crowded_out = full && last.is_none_or(|last| last <= seconds(time));
            assert!(found || crowded_out, "{key:?} is missing by {limit}");
        }
    }
}

/// And those that are no longer to be looked at.
pub async fn rule_14_due_forgets_rows_that_are_put_off_or_gone(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let names @ [kept, put_off, settled, deleted] =
        &["kept", "put-off", "settled", "deleted"].map(slot);
    let cleared = Tenant::new(backend);
    for name in names {
        plant_due(&tenant, name, Some(100)).await;
        plant_due(&cleared, name, Some(100)).await;
    }
    due_when(&tenant, seconds(100), |due| due.len() == 4).await;
    due_when(&cleared, seconds(100), |due| due.len() == 4).await;

    plant_due(&tenant, put_off, Some(101)).await;
    plant_due(&tenant, settled, None).await;
    tenant
        .delete(deleted, None)
        .await
        .expect("what stands may be deleted");
    cleared
        .commit(&[Change::Clear])
        .await
        .expect("rows may be cleared");

    due_when(&tenant, seconds(100), |due| *due == [kept.clone()]).await;
    due_when(&tenant, seconds(101), |due| {
        *due == [kept.clone(), put_off.clone()]
    })
    .await;
    due_when(&cleared, seconds(100), Vec::is_empty).await;
}

/// Page after page, each within the limit.
struct Scan<'a> {
    backend: &'a dyn Backend,
    limit: usize,
    pages: usize,
    next: Option<Cursor>,
}

impl<'a> Scan<'a> {
    fn new(backend: &'a dyn Backend, limit: usize) -> Self {
        Self {
            backend,
            limit,
            pages: 0,
            next: None,
        }
    }

    /// The rows of the next page; `None` after the last.
    async fn next(&mut self) -> Option<Vec<(Key, Row)>> {
        if self.pages > 0 && self.next.is_none() {
            return None;
        }
        let page = page(self.backend, self.next.take(), self.limit).await;
        let page = page.expect("a scan goes on from its cursor");
        assert!(
            page.rows.len() <= self.limit.max(1),
            "{} by {}",
            page.rows.len(),
            self.limit
        );
        assert!(self.pages < MOST_PAGES, "the scan comes to an end");
        self.pages += 1;
        self.next = page.next;
        Some(page.rows)
    }
}

async fn plant_due(tenant: &Tenant<'_>, slot: &Slot, due_at: Option<u64>) {
    let planted = Row {
        due_at: due_at.map(seconds),
        ..row()
    };
    tenant
        .put(slot, &planted, Expect::Any)
        .await
        .expect("any row may be put");
}

/// This tenant's slots that are due, in the order answered, once they are as wanted. What is due
/// may lag behind, so it asks again for a while; a backend that does not lag is asked once.
async fn due_when(
    tenant: &Tenant<'_>,
    now: SystemTime,
    wanted: impl Fn(&Vec<Slot>) -> bool,
) -> Vec<Slot> {
    let mut slots = Vec::new();
    for _ in 0..LAG_ATTEMPTS {
        let found = answered(tenant, now, usize::MAX).await;
        slots = found.into_iter().map(|(key, _)| key.slot).collect();
        if wanted(&slots) {
            return slots;
        }
        tokio::time::sleep(LAG_PAUSE).await;
    }
    panic!("what is due at {now:?} stayed {slots:?}");
}

/// This tenant's rows that are due. What is answered must be due, lag or not.
async fn answered(tenant: &Tenant<'_>, now: SystemTime, limit: usize) -> Vec<(Key, Row)> {
    let found = due(tenant.backend, now, limit).await;
    assert!(
        found.is_sorted_by_key(|(_, row)| row.due_at),
        "earliest first"
    );
    for (key, row) in &found {
        assert!(
            row.due_at.is_some_and(|due_at| due_at <= now),
            "{key:?} is not due"
        );
    }
    found
        .into_iter()
        .filter(|(key, _)| key.partition == tenant.partition)
        .collect()
}

fn key(tenant: &Tenant<'_>, slot: &Slot) -> Key {
    Key {
        partition: tenant.partition.clone(),
        slot: slot.clone(),
    }
}

/// A scan goes round in circles if it has more pages than any database that tests share has rows.
const MOST_PAGES: usize = 100_000;

/// With the pause, ten seconds: an index that lags by more is of no use to a worker.
const LAG_ATTEMPTS: usize = 100;
const LAG_PAUSE: Duration = Duration::from_millis(100);
