//! What a schema needs, and what of it exists: someone may have dropped a part by hand.

use crate::backend::{ConnectError, ConnectErrorKind as Kind};

/// The columns of `slack_rows`.
const COLUMNS: [&str; 7] = [
    "partition",
    "slot",
    "version",
    "metadata",
    "sealed",
    "lane",
    "due_at",
];

pub(in crate::backend) const ROWS: &str = "TABLE slack_rows";

/// The parts of a schema that do not exist.
#[derive(Debug, Default)]
pub(in crate::backend) struct Missing(Vec<String>);

impl Missing {
    /// Compares the objects of a schema, such as `INDEX slack_rows_due`, with those that exist, and
    /// the columns of `slack_rows` with its own.
    pub(in crate::backend) fn of(
        objects: &[&'static str],
        exists: impl Fn(&str) -> bool,
        columns: &[String],
    ) -> Self {
        let absent = objects.iter().filter(|object| !exists(object));
        let mut missing: Vec<_> = absent.map(|object| (*object).to_owned()).collect();
        if exists(ROWS) {
            let absent = COLUMNS
                .iter()
                .filter(|it| !columns.iter().any(|at| at == *it));
            missing.extend(absent.map(|it| format!("COLUMN {it} of slack_rows")));
        }
        Self(missing)
    }

    pub(in crate::backend) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the parts without which no row can be read or changed.
    pub(in crate::backend) fn needed(&self) -> Self {
        let is_needed = |it: &&String| !it.starts_with("INDEX ") && !it.starts_with("VIEW ");
        Self(self.0.iter().filter(is_needed).cloned().collect())
    }

    /// Returns the statements of a migration that create these parts. A column cannot be created
    /// again.
    pub(in crate::backend) fn statements(&self, migration: &'static str) -> Vec<&'static str> {
        let statements = migration.split("\n\n");
        let is_meant = |statement: &&str| self.0.iter().any(|it| creates(statement, it));
        statements.filter(is_meant).collect()
    }

    /// Returns the parts as an operator knows them: `table slack_rows`.
    pub(in crate::backend) fn names(&self) -> Vec<String> {
        let name = |it: &String| match it.split_once(' ') {
            Some((kind, name)) => format!("{} {name}", kind.to_lowercase()),
            None => it.clone(),
        };
        self.0.iter().map(name).collect()
    }

    /// Returns the error of a database that cannot be used without these parts.
    pub(in crate::backend) fn error(&self, database: &str) -> ConnectError {
        let names = self.names().join(", ");
        let (has_rows, is_whole) = (
            !self.0.iter().any(|it| it == ROWS),
            !self.0.iter().any(|it| it.starts_with("COLUMN ")),
        );
        let remedy = match (has_rows, is_whole) {
            (_, false) => "restore the database from a backup",
            (false, true) => {
                "restore the rows from a backup; `slack-installs migrate` creates the table again, \
                 empty"
            }
            (true, true) => "`slack-installs migrate` creates it again",
        };
        let text = format!(
            "{database} lacks {names}, which its schema has, so a part was dropped: {remedy}"
        );
        ConnectError::new(Kind::Incomplete, text)
    }
}

/// Returns whether a statement creates this object, such as `INDEX slack_rows_due`.
fn creates(statement: &str, object: &str) -> bool {
    let created = statement.split_once("CREATE ").map(|(_, rest)| rest);
    let rest = created.and_then(|rest| rest.strip_prefix(object));
    rest.is_some_and(|rest| rest.starts_with([' ', '(', '\n']))
}

/// Checks that a migration creates each of these objects, in a statement of its own.
#[cfg(test)]
pub(in crate::backend) fn check(objects: &[&'static str], migration: &'static str) {
    for object in objects {
        let missing = Missing(vec![(*object).to_owned()]);
        assert_eq!(missing.statements(migration).len(), 1, "{object}");
    }
    let all = Missing::of(objects, |_| false, &[]);
    assert_eq!(all.statements(migration).len(), objects.len());
}
