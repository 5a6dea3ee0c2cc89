//! Rule 12: names that a database might confuse if it does not compare bytes.

use super::kit::{Tenant, slot, unique};
use crate::backend::{Backend, MAX_NAME_LEN, Row, Slot};

/// Checks partition names that differ by a prefix, by case, or by characters of patterns and
/// quotes.
pub async fn rule_12_partitions_are_compared_byte_for_byte(backend: &dyn Backend) {
    let (family, bot) = (unique(), slot("bot"));
    let tenants = LOOK_ALIKES.map(|name| Tenant::named(backend, &family, name));
    let mut planted = Vec::new();
    for tenant in &tenants {
        assert_eq!(tenant.row(&bot).await, None, "{}", tenant.partition);
        planted.push(tenant.plant(&bot).await);
    }
    for (at, tenant) in tenants.iter().enumerate() {
        assert_eq!(
            tenant.row(&bot).await.as_ref(),
            Some(&planted[at]),
            "{}",
            tenant.partition
        );
    }
}

/// Checks the same names as slots, for reads, overwrites and deletes.
pub async fn rule_12_slots_are_compared_byte_for_byte(backend: &dyn Backend) {
    let tenant = Tenant::new(backend);
    let names: Vec<Slot> = LOOK_ALIKES.iter().map(|name| slot(name)).collect();
    let mut standing: Vec<Option<Row>> = vec![None; names.len()];
    for _ in 0..2 {
        for (at, name) in names.iter().enumerate() {
            standing[at] = Some(tenant.plant(name).await);
            assert_eq!(
                tenant.rows(&names).await,
                standing,
                "rows after a put to {name}"
            );
        }
    }
    for (at, name) in names.iter().enumerate() {
        tenant.must_delete(name, None).await;
        standing[at] = None;
        assert_eq!(
            tenant.rows(&names).await,
            standing,
            "rows after a delete of {name}"
        );
    }
}

/// Checks that no two keys are confused, whatever character a backend uses to join partition and
/// slot.
pub async fn rule_12_partition_and_slot_do_not_run_into_each_other(backend: &dyn Backend) {
    for mark in "/:|,#-_.~%\\'\"".chars() {
        let family = unique();
        let tenants = ["x", &format!("x{mark}a"), &format!("x{mark}a{mark}b")]
            .map(|name| Tenant::named(backend, &family, name));
        let names = [
            "b",
            &format!("a{mark}b"),
            &format!("b{mark}c"),
            &format!("a{mark}b{mark}c"),
        ];
        let names = names.map(slot);
        let mut planted = Vec::new();
        for tenant in &tenants {
            for name in &names {
                planted.push((tenant, name, tenant.plant(name).await));
            }
        }
        for (tenant, name, planted) in planted {
            assert_eq!(
                tenant.row(name).await,
                Some(planted),
                "{} {name}",
                tenant.partition
            );
        }
    }
}

/// Checks that names of the maximum length are compared up to their last byte.
pub async fn rule_12_the_longest_names_are_told_apart(backend: &dyn Backend) {
    let family = unique();
    let taken = format!("{family}/").len();
    let long = |len: usize, end: &str| format!("{}{end}", "x".repeat(len - end.len()));
    let tenants =
        ["a", "b"].map(|end| Tenant::named(backend, &family, &long(MAX_NAME_LEN - taken, end)));
    let names = ["a", "b"].map(|end| slot(&long(MAX_NAME_LEN, end)));
    let mut planted = Vec::new();
    for tenant in &tenants {
        for name in &names {
            planted.push((tenant, name, tenant.plant(name).await));
        }
    }
    for (tenant, name, planted) in planted {
        assert_eq!(tenant.row(name).await, Some(planted));
    }
}

pub(super) const LOOK_ALIKES: [&str; 26] = [
    "T1", "T12", "T", "t1", "T1/", "T1/2", "T1:", "T1*", "T*", "*", "T_", "T%", "%", "_", "T?",
    "T[1]", "[T1]", "T1'", "T1\"", "\\T1", "T1--", "T1;", "T1|", "1", "01", "1.0",
];
