//! Collects what a check finds.

use std::collections::BTreeSet;

use super::finding::{Finding, Grade, MAX_FINDINGS};
use super::place::Place;

/// Collects the findings: one for each place, of which the first counts.
pub(super) struct Report {
    findings: Vec<Finding>,
    places: BTreeSet<String>,
}

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        let places = findings.iter().map(|it| it.path.clone()).collect();
        Self { findings, places }
    }

    pub(super) fn error(
        &mut self,
        place: &Place<'_>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Grade::Error, place, reason.into(), remedy.into());
    }

    pub(super) fn warning(
        &mut self,
        place: &Place<'_>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Grade::Warning, place, reason.into(), remedy.into());
    }

    fn add(&mut self, grade: Grade, place: &Place<'_>, reason: String, remedy: String) {
        if self.findings.len() < MAX_FINDINGS && self.places.insert(place.path.clone()) {
            self.findings.push(Finding {
                line: place.line,
                path: place.path.clone(),
                grade,
                reason,
                remedy,
            });
        }
    }

    pub(super) fn findings(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| finding.line);
        self.findings
    }
}
