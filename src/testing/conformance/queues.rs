//! Rule 14: due rows.

use std::time::{Duration, SystemTime};

use super::kit::{
    LAG_ATTEMPTS, LAG_PAUSE, Pages, Tenant, assert_malformed, due, due_page, seconds, slot, slots,
    unique,
};
use super::scans::{foreign_cursors, others};
use crate::backend::{Backend, Change, Cursor, Due, Key, Lane, Queue, Row, Slot};

/// Checks that `due` returns the rows that are due, to the second, and no others.
pub async fn rule_14_due_returns_rows_whose_time_has_come(backend: &dyn Backend) {
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
    for (name, at) in times {
        let due = at.and_then(|at| due(Lane::Refresh, at));
        tenant.plant_due(&slot(name), due).await;
    }
    let wanted = |until: u64| -> Vec<Slot> {
        let due = times
            .iter()
            .filter(|(_, at)| at.is_some_and(|it| it <= until));
        due.map(|(name, _)| slot(name)).collect()
    };
    let almost = Duration::from_nanos(999_999_999);
    let queue = tenant.queue(Lane::Refresh);
    for (asked, until) in [
        (seconds(0), 0),
        (seconds(now - 1) + almost, now - 1),
        (seconds(now), now),
        (seconds(now) + almost, now),
        (seconds(now + 1), now + 1),
        (seconds(253_402_300_799), 253_402_300_799),
    ] {
        due_when(backend, &queue, asked, |due| *due == wanted(until)).await;
    }
    for (key, row) in waiting(backend, &queue, seconds(now), usize::MAX).await {
        let current = tenant.row(&key.slot).await;
        assert_eq!(Some(row), current, "{key} must be returned unchanged");
    }
}

/// Checks the order and the pages, for any order of the puts, any page size, and rows with the same
/// due time.
pub async fn rule_14_due_returns_the_earliest_first_page_by_page(backend: &dyn Backend) {
    let family = unique();
    let tenants = ["T2", "T1", "T"].map(|name| Tenant::named(backend, &family, name));
    let times = [5, 3, 9, 5, 1, 5, 2, 8, 5, 6, 5];
    let mut planted = Vec::new();
    for tenant in &tenants {
        // The order of names differs from the order of times.
        for (name, at) in slots("user/U", times.len()).iter().zip(times) {
            tenant.plant_due(name, due(Lane::Departure, at)).await;
            planted.push(tenant.key(name));
        }
    }
    planted.sort();
    let (queue, now) = (tenants[0].queue(Lane::Departure), seconds(20));
    due_when(backend, &queue, now, |due| due.len() == planted.len()).await;
    for limit in [0, 1, 2, 4, 5, 7, 33, 1000, usize::MAX] {
        let found = waiting(backend, &queue, now, limit).await;
        let mut keys: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
        keys.sort();
        assert_eq!(keys, planted, "every row once, with a limit of {limit}");
    }
}

/// Checks that each row is in the queue of its own app and lane, and in no other.
pub async fn rule_14_a_row_waits_in_its_own_queue_alone(backend: &dyn Backend) {
    let family = unique();
    let apps = [family.clone(), format!("{family}9"), format!("{family}.")];
    let mut planted = Vec::new();
    for app in &apps {
        let tenant = Tenant::named(backend, app, "T1");
        for lane in Lane::ALL {
            let name = slot(&format!("waits/{lane}"));
            tenant.plant_due(&name, due(lane, 100)).await;
            planted.push((tenant.queue(lane), tenant.key(&name)));
        }
        tenant.plant_due(&slot("never"), None).await;
    }
    for (queue, own) in &planted {
        let is_own = |due: &Vec<Slot>| *due == [own.slot.clone()];
        due_when(backend, queue, seconds(100), is_own).await;
        let found = waiting(backend, queue, seconds(100), 10).await;
        assert_eq!(found.len(), 1, "{queue:?}");
        assert_eq!(found[0].0, *own, "{queue:?}");
    }
}

/// Checks that hundreds of rows that are never due, or are in other lanes or apps and due earlier,
/// cause no delay: the only row of a queue is on its first page.
pub async fn rule_14_other_queues_delay_nothing(backend: &dyn Backend) {
    let family = unique();
    let tenant = Tenant::named(backend, &family, "T1");
    let other_app = Tenant::named(backend, &format!("{family}9"), "T1");
    let lane = Lane::Departure;
    for other in Lane::ALL.into_iter().filter(|it| *it != lane) {
        let prefix = format!("{other}/");
        tenant.plant_many(&prefix, 100, due(other, 1)).await;
    }
    other_app.plant_many("other/", 300, due(lane, 1)).await;
    tenant.plant_many("never/", 100, None).await;
    let own = slot("departure");
    tenant.plant_due(&own, due(lane, 100)).await;
    let (queue, now) = (tenant.queue(lane), seconds(100));
    due_when(backend, &queue, now, |due| *due == [own.clone()]).await;
    for limit in [1, 10, 1000] {
        let first = due_page(backend, &queue, now, None, limit).await;
        let first = first.expect("the first page of the queue").rows;
        assert_eq!(
            first.len(),
            1,
            "the row is on the first page, with a limit of {limit}"
        );
        assert_eq!(first[0].0, tenant.key(&own));
    }
}

/// Checks that `due` no longer returns rows that are postponed, never due, moved to another lane,
/// deleted or cleared.
pub async fn rule_14_due_forgets_rows_that_are_put_off_moved_or_gone(backend: &dyn Backend) {
    let family = unique();
    let tenant = Tenant::named(backend, &family, "T1");
    let cleared = Tenant::named(backend, &format!("{family}9"), "T1");
    let lane = Lane::Refresh;
    let names @ [kept, put_off, settled, moved, deleted] =
        &["kept", "put-off", "settled", "moved", "deleted"].map(slot);
    for tenant in [&tenant, &cleared] {
        for name in names {
            tenant.plant_due(name, due(lane, 100)).await;
        }
        let queue = tenant.queue(lane);
        due_when(backend, &queue, seconds(100), |due| due.len() == 5).await;
    }

    tenant.plant_due(put_off, due(lane, 101)).await;
    tenant.plant_due(settled, None).await;
    tenant.plant_due(moved, due(Lane::Notice, 100)).await;
    tenant.must_delete(deleted, None).await;
    cleared.must_commit(&[Change::Clear]).await;

    let queue = tenant.queue(lane);
    let is_kept = |due: &Vec<Slot>| *due == [kept.clone()];
    due_when(backend, &queue, seconds(100), is_kept).await;
    let both = [kept.clone(), put_off.clone()];
    due_when(backend, &queue, seconds(101), |due| *due == both).await;
    let is_moved = |due: &Vec<Slot>| *due == [moved.clone()];
    due_when(backend, &tenant.queue(Lane::Notice), seconds(100), is_moved).await;
    due_when(backend, &cleared.queue(lane), seconds(100), Vec::is_empty).await;
}

/// Checks that rows are returned once, while returned rows are deleted or postponed, as a sweep and
/// a worker do, and other rows are added.
pub async fn rule_14_rows_that_stay_due_are_returned_once(backend: &dyn Backend) {
    for limit in [1, 2, 5] {
        let tenant = Tenant::new(backend);
        let (queue, now) = (tenant.queue(Lane::State), seconds(1000));
        let names = slots("state", 30);
        for (nth, name) in names.iter().enumerate() {
            // Three rows have the same time. The order of times is the reverse of the order of
            // names.
            let at = 100 - nth as u64 / 3;
            tenant.plant_due(name, due(Lane::State, at)).await;
        }
        due_when(backend, &queue, now, |due| due.len() == 30).await;
        let mut seen = Vec::new();
        let mut pages = Pages::due(backend, &queue, now, limit);
        while let Some(page) = pages.next().await {
            for (nth, (key, _)) in page.rows.into_iter().enumerate() {
                match (nth + pages.count()) % 3 {
                    _ if !names.contains(&key.slot) => continue,
                    0 => tenant.must_delete(&key.slot, None).await,
                    1 => drop(tenant.plant_due(&key.slot, due(Lane::State, 2000)).await),
                    _ => {}
                }
                assert!(
                    !seen.contains(&key.slot),
                    "{key} was returned twice, with a limit of {limit}"
                );
                seen.push(key.slot);
            }
            let early = slot(&format!("early{:03}", pages.count()));
            tenant.plant_due(&early, due(Lane::State, 1)).await;
        }
        seen.sort();
        assert_eq!(seen, names, "rows with a limit of {limit}");
    }
}

/// Checks the cursors of a queue, as rule 13 does those of a scan.
pub async fn rule_14_a_foreign_cursor_is_malformed(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    for name in slots("user/U", 3) {
        tenant.plant_due(&name, due(Lane::Refresh, 5)).await;
    }
    let (queue, now) = (tenant.queue(Lane::Refresh), seconds(10));
    due_when(backend, &queue, now, |due| due.len() == 3).await;
    let first = due_page(backend, &queue, now, None, 1).await;
    let Cursor(ours) = first
        .expect("the first page of the queue")
        .next
        .expect("three rows need more than one page");
    let key = tenant.key(&slot("user/U000"));
    let foreign = others(&ours, |kind| Cursor::after_due(kind, seconds(5), &key));
    for foreign in foreign_cursors().into_iter().chain(foreign) {
        assert_malformed(&due_page(backend, &queue, now, Some(foreign), 10).await);
    }
}

/// Waits until the due slots, in the order returned, are as wanted. The queue may lag, so it is
/// read again for a while. A backend without a lag is read once.
async fn due_when(
    backend: &dyn Backend,
    queue: &Queue,
    now: SystemTime,
    wanted: impl Fn(&Vec<Slot>) -> bool,
) {
    let mut slots = Vec::new();
    for _ in 0..LAG_ATTEMPTS {
        let found = waiting(backend, queue, now, usize::MAX).await;
        slots = found.into_iter().map(|(key, _)| key.slot).collect();
        if wanted(&slots) {
            return;
        }
        tokio::time::sleep(LAG_PAUSE).await;
    }
    panic!("the slots due at {now:?} are still {slots:?}");
}

/// Returns all rows of a queue. Even with a lag, each must be due and in this queue.
async fn waiting(
    backend: &dyn Backend,
    queue: &Queue,
    now: SystemTime,
    limit: usize,
) -> Vec<(Key, Row)> {
    let mut found = Vec::new();
    let mut pages = Pages::due(backend, queue, now, limit);
    while let Some(page) = pages.next().await {
        found.extend(page.rows);
    }
    let at = |row: &Row| row.due.map(|due: Due| due.at);
    assert!(
        found.is_sorted_by_key(|(_, row)| at(row)),
        "the earliest rows must come first"
    );
    for (key, row) in &found {
        assert!(at(row).is_some_and(|at| at <= now), "{key} is not due");
        assert!(
            queue.contains(&key.partition, row),
            "{key} is in another queue"
        );
    }
    found
}
