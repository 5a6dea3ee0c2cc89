//! The contract of [`Backend`] as checks that any backend and any wrapper can run.
//!
//! Each check is a plain function, named after the number of its rule. It panics where the rule is
//! broken. It keeps to partitions of its own, so all of them can run at once, and against a
//! database that holds other rows; and it puts up with lost answers, so a
//! [`Flaky`](crate::backend::Flaky) backend passes too. It leaves its rows behind.
//!
//! [`conformance!`](crate::conformance) makes a test of each; [`CHECKS`] lists them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::Backend;

mod commits;
mod kit;
mod names;
mod races;
mod rows;
mod sweeps;

pub use commits::*;
pub use names::*;
pub use races::*;
pub use rows::*;
pub use sweeps::*;

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

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Makes the list of checks and the macro, of one list of names. The `$` is for the macro inside.
macro_rules! checks {
    ($dollar:tt $($name:ident)*) => {
        /// All checks of the suite.
        pub const CHECKS: &[Check] =
            &[$(Check { name: stringify!($name), run: |backend| Box::pin($name(backend)) }),*];

        /// Makes one `#[tokio::test]` of each check of the suite, for one way to open a backend.
        ///
        /// The argument names an `async fn` of no arguments that answers a fresh backend, and
        /// something to keep while the check runs: a temporary directory, a server, or `()`. The
        /// tests stand in a module of the same name. They need tokio's features `macros` and
        /// `rt-multi-thread`.
        ///
        /// ```
        /// use slack_installs::backend::MemoryBackend;
        ///
        /// async fn memory() -> (MemoryBackend, ()) {
        ///     (MemoryBackend::default(), ())
        /// }
        ///
        /// slack_installs::conformance!(memory);
        /// ```
        #[macro_export]
        macro_rules! conformance {
            ($dollar open:ident) => {
                mod $dollar open {
                    $(
                        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                        async fn $name() {
                            let (backend, _keep) = super::$dollar open().await;
                            $crate::backend::conformance::$name(&backend).await;
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
    rule_02_due_at_comes_back_to_the_second
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
    rule_13_scan_visits_every_row_once
    rule_13_scan_visits_rows_that_stand_throughout_once
    rule_13_a_limit_of_0_is_taken_as_1
    rule_13_a_foreign_cursor_is_malformed
    rule_13_a_cursor_of_another_kind_is_malformed
    rule_14_due_answers_rows_whose_time_has_come
    rule_14_due_answers_the_earliest_up_to_the_limit
    rule_14_due_forgets_rows_that_are_put_off_or_gone
    rule_15_the_largest_row_fits
    rule_15_ninety_changes_fit_one_commit
    rule_15_two_mebibytes_fit_one_commit_and_one_read
    rule_15_what_is_too_much_is_refused_whole_or_taken_whole
}
