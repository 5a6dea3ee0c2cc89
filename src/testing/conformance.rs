//! The contract of [`Backend`], as checks that any backend and any wrapper can run.
//!
//! Each check is a plain function, and its name begins with the number of its rule. It panics if
//! the rule is broken. Each check uses only its own partitions. So all checks can run at once, and
//! against a database that holds other rows. Checks accept lost responses, so a
//! [`Flaky`](crate::testing::Flaky) backend passes too. They do not delete their rows.
//!
//! [`conformance!`](crate::conformance) generates a test for each check; [`CHECKS`] lists them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::backend::Backend;

mod checks;
mod commits;
mod kit;
mod malformed;
mod names;
mod queues;
mod races;
mod rows;
mod scans;

pub use checks::*;
pub use commits::*;
pub use malformed::*;
pub use names::*;
pub use queues::*;
pub use races::*;
pub use rows::*;
pub use scans::*;

/// One check of the suite.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Check {
    /// The function's name.
    pub name: &'static str,
    /// The function.
    #[expect(
        clippy::type_complexity,
        reason = "an async fn over a reference has no shorter type"
    )]
    pub run: for<'a> fn(&'a dyn Backend) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

/// One check of the suite that requires rows which cannot be parsed.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct MalformedCheck {
    /// The function's name.
    pub name: &'static str,
    /// The function.
    #[expect(
        clippy::type_complexity,
        reason = "an async fn over two references has no shorter type"
    )]
    pub run:
        for<'a> fn(&'a dyn Backend, Spoil<'a>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl fmt::Debug for MalformedCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Generates the list of checks and the macro from one list of names. The inner macro uses `$`.
macro_rules! checks {
    ($dollar:tt $($name:ident)*; $($malformed:ident)*) => {
        /// All checks of the suite, except those of [`MALFORMED_CHECKS`].
        pub const CHECKS: &[Check] =
            &[$(Check { name: stringify!($name), run: |backend| Box::pin($name(backend)) }),*];

        /// The checks of the suite that require rows which cannot be parsed.
        pub const MALFORMED_CHECKS: &[MalformedCheck] = &[$(MalformedCheck {
            name: stringify!($malformed),
            run: |backend, spoil| Box::pin($malformed(backend, spoil)),
        }),*];

        /// Generates one `#[tokio::test]` for each check of the suite, for one way to open a
        /// backend.
        ///
        /// The argument names an `async fn` without arguments. It returns a new backend, and a
        /// value to keep while the check runs: a temporary directory, a server, or `()`. The tests
        /// are in a module of the same name. They require tokio's features `macros` and
        /// `rt-multi-thread`.
        ///
        /// A second argument names an `async fn` that makes a row unparseable; see
        /// [`Spoil`]($crate::testing::conformance::Spoil). It takes the backend, the value that is
        /// kept, and the row's key. Pass it in the test of a backend; the test of a wrapper may
        /// omit it.
        ///
        /// ```
        /// use slack_installs::backend::{Key, MemoryBackend};
        ///
        /// async fn memory() -> (MemoryBackend, ()) {
        ///     (MemoryBackend::default(), ())
        /// }
        ///
        /// async fn spoil(backend: &MemoryBackend, _: &(), key: Key) {
        ///     backend.spoil(&key);
        /// }
        ///
        /// slack_installs::conformance!(memory, spoil);
        /// ```
        #[macro_export]
        macro_rules! conformance {
            ($dollar open:ident) => {
                mod $dollar open {
                    $(
                        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                        async fn $name() {
                            let (backend, _keep) = super::$dollar open().await;
                            $crate::testing::conformance::$name(&backend).await;
                        }
                    )*
                }
            };
            ($dollar open:ident, $dollar spoil:ident) => {
                mod $dollar open {
                    $(
                        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                        async fn $name() {
                            let (backend, _keep) = super::$dollar open().await;
                            $crate::testing::conformance::$name(&backend).await;
                        }
                    )*
                    $(
                        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                        async fn $malformed() {
                            let (backend, keep) = super::$dollar open().await;
                            let (it, kept) = (&backend, &keep);
                            let spoil = |key| -> $crate::testing::conformance::Spoiling<'_> {
                                Box::pin(super::$dollar spoil(it, kept, key))
                            };
                            $crate::testing::conformance::$malformed(&backend, &spoil).await;
                        }
                    )*
                }
            };
        }
    };
}

checks! { $
    rule_01_read_answers_each_slot_in_the_order_asked
    rule_01_read_answers_a_slot_asked_for_twice
    rule_01_read_of_no_slots_answers_nothing
    rule_02_metadata_comes_back_byte_for_byte
    rule_02_sealed_bytes_come_back
    rule_02_versions_come_back
    rule_02_due_comes_back_to_the_second
    rule_02_an_overwrite_leaves_nothing_of_the_old_row
    rule_03_absent_commits_only_where_no_row_stands
    rule_04_version_commits_only_over_that_version
    rule_04_a_row_made_anew_never_has_its_old_version
    rule_05_any_commits_in_either_case
    rule_06_delete_with_only_removes_exactly_that_version
    rule_06_delete_without_only_is_content_with_nothing
    rule_07_clear_removes_every_row_of_one_partition
    rule_07_clear_removes_hundreds_of_rows
    rule_07_rows_put_beside_a_clear_stand
    rule_08_one_failed_expectation_leaves_every_row
    rule_08_no_read_sees_a_part_of_a_commit
    rule_08_a_clear_and_a_put_happen_one_after_the_other
    rule_09_expectations_are_judged_before_the_commit
    rule_09_no_changes_at_all_is_a_success
    rule_09_two_changes_of_one_slot_are_malformed
    rule_10_one_of_many_that_expect_absence_wins
    rule_10_one_of_many_that_expect_a_version_wins
    rule_10_one_of_many_kinds_of_change_wins
    rule_10_no_update_is_lost
    rule_11_a_commit_is_seen_by_the_next_read
    rule_12_partitions_are_compared_byte_for_byte
    rule_12_slots_are_compared_byte_for_byte
    rule_12_partition_and_slot_do_not_run_into_each_other
    rule_12_the_longest_names_are_told_apart
    rule_13_scan_returns_every_row_of_its_scope_once
    rule_13_a_prefix_is_the_beginning_of_a_partition
    rule_13_a_scope_without_rows_comes_to_an_end
    rule_13_scan_returns_rows_that_exist_throughout_once
    rule_13_a_limit_of_0_is_taken_as_1
    rule_13_a_foreign_cursor_is_malformed
    rule_13_a_cursor_of_another_kind_is_malformed
    rule_14_due_returns_rows_whose_time_has_come
    rule_14_due_returns_the_earliest_first_page_by_page
    rule_14_a_row_waits_in_its_own_queue_alone
    rule_14_other_queues_delay_nothing
    rule_14_due_forgets_rows_that_are_put_off_moved_or_gone
    rule_14_rows_that_stay_due_are_returned_once
    rule_14_a_foreign_cursor_is_malformed
    rule_15_the_largest_row_fits
    rule_15_ninety_changes_fit_one_commit
    rule_15_two_mebibytes_fit_one_commit_and_one_read
    rule_15_what_is_too_much_is_refused_whole_or_taken_whole
    rule_16_a_check_commits_only_if_that_version_exists
    rule_16_a_check_writes_nothing
    rule_16_a_check_decides_over_what_is_beside_it
    rule_16_a_check_conflicts_with_a_write_at_the_same_time
    rule_16_a_check_is_a_change_of_its_slot
    rule_18_a_partition_is_scanned_alone
    ;
    rule_17_scan_skips_malformed_rows_and_returns_their_keys
    rule_17_due_skips_malformed_rows_and_returns_their_keys
    rule_17_read_of_a_malformed_row_is_malformed
    rule_17_a_malformed_row_can_be_replaced_and_deleted
}
