//! Reports for an operator: what is wrong with a tenant, or with the whole store, and how to mend
//! it. The reports have no secrets, and `serde` writes them as JSON.
//!
//! Each report is made from rows that were opened, so everything in it is authenticated. Texts
//! such as a workspace's name come from Slack's customers: pass them to [`printable`] before you
//! show them.
//!
//! The command line `slack-installs` (feature `cli`) shows these reports. `docs/operations.md` in
//! the repository has examples.

mod explain;
mod finding;
mod health;
mod stats;
mod timestamp;
mod trail;

pub use crate::encrypted::{
    InspectedChain, InspectedInstall, InspectedKey, InspectedPage, InspectedRow, RowContents,
    RowFault,
};
pub use explain::{
    AccessReport, ChainReport, Explanation, HoldReport, InstallReport, PendingReport, Question,
    RowReport, Step, WebhookReport, explain,
};
pub use finding::{Finding, Grade};
pub use health::{Check, Diagnosis, HealthCheck, check_slack};
pub use stats::{Stats, stats_of};
pub use timestamp::Timestamp;
pub use trail::{Trail, TrailRecord, check_audit, trail};

pub use crate::wording::{counted, printable, printable_json};
