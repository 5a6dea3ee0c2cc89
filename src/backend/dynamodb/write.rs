//! Conditional writes: one as a single call, several as one transaction.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, Put, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem, Update,
};

use super::item::{
    self, CLAIM, CLEAR_DONE, CLEAR_ID, CLEARED_BY, Claim, ClearId, Item, PK, VERSION,
};
use super::refusal::{Call, Refusal, Unmet, persist};
use super::table::Table;
use crate::backend::{Change, Error, Partition, Version};
use crate::random;

/// One write of an item.
#[derive(Clone, Debug)]
pub(super) struct Write {
    key: Item,
    action: Action,
    /// Empty if the write has no condition.
    condition: String,
    values: Vec<(&'static str, AttributeValue)>,
}

#[derive(Clone, Debug)]
enum Action {
    /// Checks only the condition.
    Check,
    Delete,
    Put(Item),
    Update(String),
}

impl Write {
    /// Returns a change as a write without its conditions; `None` for a `Clear`.
    pub(super) fn of(partition: &Partition, change: &Change) -> Option<Self> {
        Some(match change {
            Change::Check { slot, .. } => Self::check(partition, slot.as_str()),
            Change::Put { slot, row, .. } => {
                let item = item::item(partition, slot, row);
                Self::put(partition, slot.as_str(), item)
            }
            Change::Delete { slot, .. } => Self::delete(partition, slot.as_str()),
            Change::Clear => return None,
        })
    }

    pub(super) fn check(partition: &Partition, name: &str) -> Self {
        Self::new(partition, name, Action::Check)
    }

    pub(super) fn delete(partition: &Partition, name: &str) -> Self {
        Self::new(partition, name, Action::Delete)
    }

    pub(super) fn put(partition: &Partition, name: &str, item: Item) -> Self {
        Self::new(partition, name, Action::Put(item))
    }

    /// Adds a mark to a row.
    pub(super) fn mark(partition: &Partition, name: &str, id: ClearId) -> Self {
        let update = Action::Update(format!("ADD {CLEARED_BY} :mark"));
        Self::new(partition, name, update).with(":mark", id.set())
    }

    /// Sets a pending claim to done.
    pub(super) fn settle(partition: &Partition) -> Self {
        let update = Action::Update(format!("SET {CLEAR_DONE} = :done"));
        Self::new(partition, CLAIM, update).with(":done", AttributeValue::Bool(true))
    }

    /// Writes only if the item does not exist.
    pub(super) fn if_absent(self) -> Self {
        self.when(format!("attribute_not_exists({PK})"))
    }

    /// Writes only if a row of this version exists.
    pub(super) fn if_version(self, version: Version) -> Self {
        let value = item::version_value(version);
        self.when(format!("{VERSION} = :version"))
            .with(":version", value)
    }

    /// Writes only if the item exists and its version cannot be parsed.
    pub(super) fn if_malformed(self) -> Self {
        let length = AttributeValue::N("16".into());
        self.when(format!(
            "attribute_exists({PK}) \
             AND (attribute_not_exists({VERSION}) OR size({VERSION}) <> :length)"
        ))
        .with(":length", length)
    }

    /// Writes only if the row has no marks, or does not exist.
    pub(super) fn if_unmarked(self) -> Self {
        self.when(format!("attribute_not_exists({CLEARED_BY})"))
    }

    /// Writes only if the row has this mark.
    pub(super) fn if_marked(self, id: ClearId) -> Self {
        self.when(format!("contains({CLEARED_BY}, :id)"))
            .with(":id", id.value())
    }

    /// Writes only if this is the current claim.
    pub(super) fn if_claim(self, claim: Claim) -> Self {
        match claim {
            Claim::None => self.if_absent(),
            Claim::Pending(id) => self
                .when(format!(
                    "{CLEAR_ID} = :id AND attribute_not_exists({CLEAR_DONE})"
                ))
                .with(":id", id.value()),
            Claim::Done(id) => self
                .when(format!(
                    "{CLEAR_ID} = :id AND attribute_exists({CLEAR_DONE})"
                ))
                .with(":id", id.value()),
        }
    }

    /// Writes only if no claim is pending.
    pub(super) fn unless_pending(self) -> Self {
        self.when(format!(
            "(attribute_not_exists({CLEAR_ID}) OR attribute_exists({CLEAR_DONE}))"
        ))
    }

    fn new(partition: &Partition, name: &str, action: Action) -> Self {
        let key = item::key(partition, name);
        Self {
            key,
            action,
            condition: String::new(),
            values: Vec::new(),
        }
    }

    fn when(mut self, condition: String) -> Self {
        self.condition = if self.condition.is_empty() {
            condition
        } else {
            format!("{} AND {condition}", self.condition)
        };
        self
    }

    fn with(mut self, name: &'static str, value: AttributeValue) -> Self {
        self.values.push((name, value));
        self
    }

    fn condition(&self) -> Option<String> {
        Some(self.condition.clone()).filter(|condition| !condition.is_empty())
    }

    fn values(&self) -> Option<HashMap<String, AttributeValue>> {
        let values = self
            .values
            .iter()
            .map(|(name, value)| ((*name).into(), value.clone()));
        Some(values.collect()).filter(|values: &HashMap<_, _>| !values.is_empty())
    }
}

/// The outcome of writes whose response arrived.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All of them were written.
    Written,
    /// None of them was written, because these conditions were not met.
    Unmet(Vec<Unmet>),
}

/// Sets the table and the condition of a write, in any of the SDK's builders.
macro_rules! conditional {
    ($table:ident, $write:ident, $builder:expr) => {
        $builder
            .table_name(&*$table.name)
            .set_condition_expression($write.condition())
            .set_expression_attribute_values($write.values())
            .return_values_on_condition_check_failure(STANDING)
    };
}

impl Table {
    /// Writes all of these or none. They must be in one partition, each of a different item.
    pub(super) async fn write(&self, writes: &[Write]) -> Result<Outcome, Error> {
        let written = match writes {
            [write] => persist(Call::Writes, || self.write_one(write)).await,
            _ => self.write_all(writes).await,
        };
        match written {
            Ok(()) => Ok(Outcome::Written),
            Err(Refusal::Unmet(unmet)) => Ok(Outcome::Unmet(unmet)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn write_one(&self, write: &Write) -> Result<(), Refusal> {
        let client = &self.client;
        match &write.action {
            Action::Put(item) => {
                let put = conditional!(self, write, client.put_item());
                let put = put.set_item(Some(item.clone()));
                put.send().await.map(drop).map_err(Refusal::of_put)
            }
            Action::Update(update) => {
                let updated = conditional!(self, write, client.update_item());
                let updated = updated
                    .set_key(Some(write.key.clone()))
                    .update_expression(update);
                updated.send().await.map(drop).map_err(Refusal::of_update)
            }
            // Only a transaction can check a condition without a write.
            Action::Check => self.write_all(std::slice::from_ref(write)).await,
            Action::Delete => {
                let delete = conditional!(self, write, client.delete_item());
                let delete = delete.set_key(Some(write.key.clone()));
                delete.send().await.map(drop).map_err(Refusal::of_delete)
            }
        }
    }

    async fn write_all(&self, writes: &[Write]) -> Result<(), Refusal> {
        let actions: Vec<_> = writes.iter().map(|write| self.action(write)).collect();
        // All attempts have the same token, so that a request that is delivered twice is applied
        // once.
        let token = format!("{:032x}", u128::from_be_bytes(random::bytes()));
        let write = || async {
            let write = self
                .client
                .transact_write_items()
                .client_request_token(&token);
            let written = write.set_transact_items(Some(actions.clone())).send().await;
            written.map(drop).map_err(Refusal::of_transact_write)
        };
        persist(Call::Writes, write).await
    }

    fn action(&self, write: &Write) -> TransactWriteItem {
        let action = TransactWriteItem::builder();
        let complete = "the required fields are set";
        let key = Some(write.key.clone());
        match &write.action {
            Action::Check => {
                let check = conditional!(self, write, ConditionCheck::builder()).set_key(key);
                action.condition_check(check.build().expect(complete))
            }
            Action::Delete => {
                let delete = conditional!(self, write, Delete::builder()).set_key(key);
                action.delete(delete.build().expect(complete))
            }
            Action::Put(item) => {
                let put = conditional!(self, write, Put::builder()).set_item(Some(item.clone()));
                action.put(put.build().expect(complete))
            }
            Action::Update(update) => {
                let updated = conditional!(self, write, Update::builder()).set_key(key);
                let updated = updated.update_expression(update);
                action.update(updated.build().expect(complete))
            }
        }
        .build()
    }
}

/// If a condition is not met, the response has the stored item, at no cost.
const STANDING: ReturnValuesOnConditionCheckFailure = ReturnValuesOnConditionCheckFailure::AllOld;
