//! Rules 13 and 18: scans of the rows of a scope.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::kit::{Pages, Tenant, assert_malformed, page, slot, slots, unique};
use super::names::LOOK_ALIKES;
use crate::backend::{Backend, Cursor, FORMS, Key, Partition, Prefix, Row, Scope};

/// Checks scans of a partition, a prefix and everything, with many page sizes. The names look like
/// patterns and begin with each other.
pub async fn rule_13_scan_returns_every_row_of_its_scope_once(backend: &dyn Backend) {
    let family = unique();
    let mut planted = BTreeMap::new();
    for (at, name) in LOOK_ALIKES.iter().enumerate() {
        let tenant = Tenant::named(backend, &family, name);
        for name in slots("user/U", at % 4) {
            planted.insert(tenant.key(&name), tenant.plant(&name).await);
        }
    }
    let whole = prefix(&format!("{family}/"));
    for limit in [1, 2, 3, 7, 39, 1000, usize::MAX] {
        let found = scanned(backend, &whole, limit).await;
        assert!(
            found == planted,
            "{} rows of the prefix, with a limit of {limit}",
            found.len()
        );
    }
    for limit in [39, usize::MAX] {
        let mut found = scanned(backend, &Scope::Everything, limit).await;
        found.retain(|key, _| planted.contains_key(key));
        assert!(
            found == planted,
            "{} rows of everything, with a limit of {limit}",
            found.len()
        );
    }
    for (at, name) in LOOK_ALIKES.iter().enumerate() {
        let name = format!("{family}/{name}");
        let partition = Partition::new(&name).expect("a plain name");
        for scope in [Scope::Partition(partition), prefix(&name)] {
            let found = scanned(backend, &scope, [1, 3, 1000][at % 3]).await;
            let is_wanted = |(key, _): &(&Key, &Row)| scope.contains(&key.partition);
            let wanted: Vec<_> = planted.iter().filter(is_wanted).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{scope:?}");
        }
    }
}

/// Checks prefixes that end in the app, at its slash, and in the name.
pub async fn rule_13_a_prefix_is_the_beginning_of_a_partition(backend: &dyn Backend) {
    let family = unique();
    let apps = [&family, &format!("{family}9"), &format!("{family}9x")];
    let mut all = BTreeSet::new();
    for app in apps {
        for name in ["T1", "T12", "t1", "state/1", "state/12"] {
            let tenant = Tenant::named(backend, app, name);
            tenant.plant(&slot("bot")).await;
            all.insert(tenant.partition);
        }
    }
    for (text, count) in [
        (family.clone(), 15),
        (format!("{family}/"), 5),
        (format!("{family}9"), 10),
        (format!("{family}9/"), 5),
        (format!("{family}/T"), 2),
        (format!("{family}/T1"), 2),
        (format!("{family}/T12"), 1),
        (format!("{family}/state/"), 2),
        (format!("{family}/U"), 0),
        (format!("{family}9x/t1"), 1),
    ] {
        for limit in [1, 4, 1000] {
            let found = scanned(backend, &prefix(&text), limit).await;
            let found: BTreeSet<_> = found.into_keys().map(|key| key.partition).collect();
            let is_wanted = |it: &&Partition| it.as_str().starts_with(&text);
            let wanted: BTreeSet<_> = all.iter().filter(is_wanted).cloned().collect();
            assert_eq!(wanted.len(), count, "{text}");
            assert_eq!(found, wanted, "prefix {text}, with a limit of {limit}");
        }
    }
}

/// Checks that a scan of a scope without rows ends and returns no rows.
pub async fn rule_13_a_scope_without_rows_comes_to_an_end(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let app = tenant.partition.app().to_owned();
    Tenant::named(backend, &app, "T2").plant(&slot("bot")).await;
    let scopes = [
        Scope::Partition(tenant.partition.clone()),
        prefix(&format!("{app}/T1")),
    ];
    for limit in [0, 1, 1000] {
        for scope in &scopes {
            assert_eq!(scanned(backend, scope, limit).await, BTreeMap::new());
        }
    }
}

/// Checks that rows which stay are returned once, while rows before, after and at the cursor are
/// put, deleted and overwritten.
pub async fn rule_13_scan_returns_rows_that_exist_throughout_once(backend: &dyn Backend) {
    for (limit, is_prefix) in [(1, true), (2, false), (2, true), (5, true)] {
        let family = unique();
        let tenants = ["T1", "T2", "T3"].map(|name| Tenant::named(backend, &family, name));
        let mut constant = Vec::new();
        for tenant in &tenants {
            for name in slots("m", 8) {
                tenant.plant(&name).await;
                constant.push((tenant, name));
            }
            for name in slots("passing", 8) {
                tenant.plant(&name).await;
            }
        }
        let scope = if is_prefix {
            prefix(&family)
        } else {
            Scope::Partition(tenants[1].partition.clone())
        };
        constant.retain(|(tenant, _)| scope.contains(&tenant.partition));
        let mut seen = HashSet::new();
        let mut pages = Pages::scan(backend, &scope, limit);
        while let Some(page) = pages.next().await {
            for (key, _) in page.rows {
                let is_constant = constant.iter().any(|(of, name)| of.key(name) == key);
                if is_constant {
                    assert!(
                        seen.insert(key.clone()),
                        "{key} was returned twice, with a limit of {limit}"
                    );
                }
            }
            // These changes are partly before the cursor and partly after it.
            let nth = pages.count();
            if nth < 30 {
                let (tenant, name) = &constant[nth * 7 % constant.len()];
                tenant.plant(name).await;
                let tenant = &tenants[nth % 3];
                tenant.plant(&slot(&format!("a{nth:03}"))).await;
                tenant.plant(&slot(&format!("z{nth:03}"))).await;
                let passing = slot(&format!("passing{:03}", nth % 8));
                tenant.must_delete(&passing, None).await;
                let other = Tenant::named(backend, &family, &format!("S{nth}"));
                other.plant(name).await;
            }
        }
        for (tenant, name) in &constant {
            assert!(
                seen.contains(&tenant.key(name)),
                "{name} was not returned, with a limit of {limit}"
            );
        }
    }
}

/// Checks that a scan with a limit of 0 ends and returns every row.
pub async fn rule_13_a_limit_of_0_is_taken_as_1(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    for name in slots("user/U", 3) {
        tenant.plant(&name).await;
    }
    let scope = Scope::Partition(tenant.partition.clone());
    assert_eq!(scanned(backend, &scope, 0).await.len(), 3);
    let scope = prefix(tenant.partition.app());
    assert_eq!(scanned(backend, &scope, 0).await.len(), 3);
}

/// Checks texts that are not cursors, because a cursor may come from outside, for example as a
/// parameter of a web page.
pub async fn rule_13_a_foreign_cursor_is_malformed(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    tenant.plant(&slot("bot")).await;
    for scope in scopes(&tenant) {
        for foreign in foreign_cursors() {
            assert_malformed(&page(backend, &scope, Some(foreign), 10).await);
        }
    }
}

/// Checks cursors of other backends, as after a move to another database during a scan.
pub async fn rule_13_a_cursor_of_another_kind_is_malformed(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    for name in slots("user/U", 3) {
        tenant.plant(&name).await;
    }
    for scope in scopes(&tenant) {
        let first = page(backend, &scope, None, 1)
            .await
            .expect("the first page of the scan");
        let Cursor(ours) = first.next.expect("three rows need more than one page");
        let key = tenant.key(&slot("user/U000"));
        for other in others(&ours, |kind| Cursor::after(kind, &key)) {
            assert_malformed(&page(backend, &scope, Some(other), 10).await);
        }
    }
}

/// Checks that the rows of a partition fit one page, whatever rows the database has before and
/// after them.
pub async fn rule_18_a_partition_is_scanned_alone(backend: &dyn Backend) {
    let family = unique();
    let tenant = Tenant::named(backend, &family, "T1");
    let names = slots("user/U", 3);
    for name in &names {
        tenant.plant(name).await;
    }
    for other in ["T", "T0", "T11", "T2", "state/1"] {
        Tenant::named(backend, &family, other)
            .plant_many("user/U", 60, None)
            .await;
    }
    let scope = Scope::Partition(tenant.partition.clone());
    let first = page(backend, &scope, None, 10)
        .await
        .expect("the first page of the scan");
    let mut found: Vec<_> = first.rows.into_iter().map(|(key, _)| key.slot).collect();
    found.sort();
    assert_eq!(found, names, "the partition's rows on the first page");
}

/// Returns the rows of this scope, and asserts that no others are returned.
async fn scanned(backend: &dyn Backend, scope: &Scope, limit: usize) -> BTreeMap<Key, Row> {
    let mut seen = BTreeMap::new();
    let mut pages = Pages::scan(backend, scope, limit);
    while let Some(page) = pages.next().await {
        for (key, row) in page.rows {
            assert!(scope.contains(&key.partition), "{key} is not in {scope:?}");
            let again = seen.insert(key.clone(), row);
            assert!(
                again.is_none(),
                "{key} was returned twice, with a limit of {limit} in {scope:?}"
            );
        }
    }
    seen
}

/// Returns one scope of each kind that contains this tenant's rows.
fn scopes(tenant: &Tenant<'_>) -> [Scope; 3] {
    [
        Scope::Everything,
        Scope::Partition(tenant.partition.clone()),
        prefix(tenant.partition.app()),
    ]
}

fn prefix(text: &str) -> Scope {
    Scope::Prefix(Prefix::new(text).expect("a plain prefix"))
}

/// Returns texts that are not cursors of any backend.
pub(super) fn foreign_cursors() -> Vec<Cursor> {
    let long = "x ".repeat(10_000);
    ["", " ", "nonsense", "{", "a b c", "ä ö", "\0", &long]
        .into_iter()
        .map(|text| Cursor(text.into()))
        .collect()
}

/// Returns cursors of kinds of backends other than the one that made `ours`.
pub(super) fn others(ours: &str, of: impl Fn(&str) -> Cursor) -> Vec<Cursor> {
    let kinds = FORMS.iter().map(|form| form.name);
    let foreign = kinds.filter(|kind| !ours.starts_with(kind));
    foreign
        .map(of)
        .chain([Cursor(format!("another-{ours}"))])
        .collect()
}
