//! The names, labels and descriptions of all metrics. Without the feature `metrics`, nothing here
//! does anything.
//!
//! The value of a label is a `&'static str`. So no label can have the id of a tenant, and the number
//! of series is limited by the source.
#![cfg_attr(
    not(feature = "metrics"),
    allow(dead_code, reason = "no recorder reads the names")
)]

/// The value of a label that says nothing.
pub(crate) const NONE: &str = "none";

/// A number of events, with these labels.
pub(crate) struct Counter<const N: usize> {
    name: &'static str,
    labels: [&'static str; N],
    help: &'static str,
}

/// A current value, with these labels.
pub(crate) struct Gauge<const N: usize> {
    name: &'static str,
    labels: [&'static str; N],
    help: &'static str,
}

/// Defines the metrics, and the function that describes all of them.
macro_rules! metrics {
    ($($constant:ident: $kind:ident<$n:literal> = $name:literal $labels:tt $help:literal;)*) => {
        $(pub(crate) const $constant: $kind<$n> = $kind {
            name: $name,
            labels: $labels,
            help: $help,
        };)*

        /// Describes all metrics to the recorder of the process.
        pub(crate) fn describe() {
            $($constant.describe();)*
        }
    };
}

metrics! {
    APP_REJECTED: Gauge<0> = "slack_installs_app_rejected" []
        "1 while Slack rejects the app's own configuration, and refreshes pause";
    AUDIT_LAG: Gauge<0> = "slack_installs_audit_lag_seconds" []
        "The age of the oldest record of the audit log that this process has not written yet";
    AUDIT_LOST: Counter<1> = "slack_installs_audit_lost_total" ["reason"]
        "Records that the audit log lacks";
    CACHE_READS: Counter<1> = "slack_installs_cache_reads_total" ["result"]
        "Reads of a store with a cache";
    CHAINS: Gauge<1> = "slack_installs_chains" ["state"]
        "Stored chains of tokens";
    CONFLICTS: Counter<0> = "slack_installs_conflicts_total" []
        "Commits that were decided again, because another caller had changed a row";
    DEPARTURES_WAITING: Gauge<0> = "slack_installs_departures_waiting" []
        "Purged tenants of which the app's hook has not heard";
    INSTALL_FLOWS: Counter<2> = "slack_installs_install_flows_total" ["outcome", "reason"]
        "Install flows that started and that ended";
    KEY_AGE: Gauge<0> = "slack_installs_key_age_seconds" []
        "The time since the primary data key was made or promoted";
    KEY_PROVIDER_CALLS: Counter<1> = "slack_installs_key_provider_calls_total" ["result"]
        "Calls to the key provider";
    LEASE_WAITS: Counter<0> = "slack_installs_lease_waits_total" []
        "Refreshes that waited for another process";
    LIFECYCLE_EVENTS: Counter<2> = "slack_installs_lifecycle_events_total" ["event", "outcome"]
        "Lifecycle events from Slack";
    NEAREST_EXPIRY: Gauge<0> = "slack_installs_nearest_expiry_seconds" []
        "The time until the next scheduled chain's token expires";
    OLDEST_OVERDUE: Gauge<0> = "slack_installs_oldest_overdue_seconds" []
        "How long the oldest overdue refresh has been due";
    QUEUE_LENGTH: Gauge<1> = "slack_installs_queue_length" ["lane"]
        "Rows that are due";
    REFRESH_ATTEMPTS: Counter<3> = "slack_installs_refresh_attempts_total" ["kind", "result", "cause"]
        "Refreshes that held the lease and called Slack";
    REQUESTS: Counter<2> = "slack_installs_requests_total" ["outcome", "reason"]
        "Requests that arrived as requests from Slack";
    REVOCATIONS: Counter<1> = "slack_installs_revocations_total" ["kind"]
        "Authorizations that were deleted, because Slack had revoked them";
    SCOPE_DRIFT: Gauge<0> = "slack_installs_scope_drift_tenants" []
        "Tenants whose bot lacks a scope that the app requests now";
    TENANTS: Gauge<0> = "slack_installs_tenants" []
        "Stored installations";
    UNINSTALLS: Counter<1> = "slack_installs_uninstalls_total" ["reason"]
        "Tenants that were purged";
}

#[cfg(feature = "metrics")]
mod recorded {
    use metrics::{Label, Unit};

    use super::{Counter, Gauge};

    fn labels<const N: usize>(names: [&'static str; N], values: [&'static str; N]) -> Vec<Label> {
        let pairs = names.into_iter().zip(values);
        pairs
            .map(|(name, value)| Label::from_static_parts(name, value))
            .collect()
    }

    impl<const N: usize> Counter<N> {
        /// Counts one event.
        pub(crate) fn add(&self, values: [&'static str; N]) {
            self.add_many(values, 1);
        }

        /// Counts this many events. With none, the series begins at 0, so that Prometheus sees its
        /// first increase.
        pub(crate) fn add_many(&self, values: [&'static str; N], count: u64) {
            metrics::counter!(self.name, labels(self.labels, values)).increment(count);
        }

        pub(super) fn describe(&self) {
            metrics::describe_counter!(self.name, self.help);
        }
    }

    impl<const N: usize> Gauge<N> {
        /// Sets the current value.
        pub(crate) fn set(&self, values: [&'static str; N], value: f64) {
            metrics::gauge!(self.name, labels(self.labels, values)).set(value);
        }

        pub(super) fn describe(&self) {
            if self.name.ends_with("_seconds") {
                metrics::describe_gauge!(self.name, Unit::Seconds, self.help);
            } else {
                metrics::describe_gauge!(self.name, self.help);
            }
        }
    }
}

#[cfg(not(feature = "metrics"))]
#[allow(clippy::unused_self, reason = "the other form uses it")]
impl<const N: usize> Counter<N> {
    pub(crate) fn add(&self, _: [&'static str; N]) {}

    pub(crate) fn add_many(&self, _: [&'static str; N], _: u64) {}

    fn describe(&self) {}
}

#[cfg(not(feature = "metrics"))]
#[allow(clippy::unused_self, reason = "the other form uses it")]
impl<const N: usize> Gauge<N> {
    pub(crate) fn set(&self, _: [&'static str; N], _: f64) {}

    fn describe(&self) {}
}

/// Returns the label of an error code from Slack, or of this crate's own codes. Slack may add codes,
/// and a label needs a fixed list.
pub(crate) fn code(code: &str) -> &'static str {
    let known = CODES.iter().find(|it| **it == code);
    known.copied().unwrap_or("other")
}

/// Returns the label of the reason of a purge. An operator's reason is free text.
pub(crate) fn purge_reason(reason: &str) -> &'static str {
    if reason == "app_uninstalled" {
        "app_uninstalled"
    } else if reason.ends_with(": its tokens are dead") {
        "dead_tokens"
    } else {
        "operator"
    }
}

/// The codes that a refresh ends with.
const CODES: [&str; 24] = [
    "accesslimited",
    "account_inactive",
    "bad_client_secret",
    "bad_redirect_uri",
    "fatal_error",
    "http_status",
    "internal_error",
    "invalid_auth",
    "invalid_client_id",
    "invalid_grant",
    "invalid_grant_type",
    "invalid_refresh_token",
    "malformed_answer",
    "no_answer",
    "other_app",
    "other_team",
    "other_token_type",
    "ratelimited",
    "request_timeout",
    "service_unavailable",
    "stalled",
    "token_expired",
    "token_revoked",
    "token_rotation_not_enabled",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_never_has_a_text_from_outside() {
        assert_eq!(code("bad_client_secret"), "bad_client_secret");
        assert_eq!(code("some_future_code"), "other");
        assert_eq!(
            purge_reason("reconcile: its tokens are dead"),
            "dead_tokens"
        );
        assert_eq!(purge_reason("ticket 4711"), "operator");
    }
}
