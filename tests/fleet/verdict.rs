//! What must hold after a disturbance, and what must not happen.

use slack_installs::testing::GracePolicy;

use crate::slack::{ASKED, DONE};
use crate::trial::{Heard, Meanwhile, Outcome, Signal, Stored};

impl Outcome {
    /// Returns the violations. The numbers are those of the invariants in `docs/rotation.md`.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        let mut wrongs = Vec::new();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                wrongs.push(what.to_owned());
            }
        };
        match self.case.meanwhile {
            Meanwhile::Ask | Meanwhile::Work => {
                let lost = self.is_lost();
                must(
                    self.last.is_live() != lost,
                    "4: an installation is lost outside the window, or not lost inside it",
                );
                must(
                    (self.stored == Stored::Current) != lost,
                    "4: the stored token is not current outside the window, or current inside it",
                );
                must(
                    self.second.is_live() || self.second == self.excuse(),
                    "5: another process was refused, or handed out a stale token",
                );
            }
            Meanwhile::Reinstall => {
                must(
                    self.second.is_live() && self.second == self.last,
                    "2: the new installation's token was replaced",
                );
                must(
                    self.stored == Stored::Current,
                    "2: the stored row is not that of the new installation",
                );
            }
            Meanwhile::Uninstall => {
                let gone = [&self.second, &self.last];
                let is_gone = |it: &&Heard| matches!(it, Heard::Never(_));
                must(
                    gone.iter().all(is_gone) && self.stored == Stored::Nothing,
                    "3: the removed installation came back",
                );
                must(
                    self.live == 0,
                    "3: a token of the removed installation is alive",
                );
            }
        }
        must(
            self.first.as_ref().is_none_or(|it| self.may_wake_to(it)),
            "7: a process that continued gave up, or handed out a stale token",
        );
        let (calls, repeated) = self.expected_calls();
        must(
            self.counts.duplicates == repeated,
            "6: a refresh token was spent again too often, or not often enough",
        );
        // The stored pair of two that one token bought may be dead. The loser then replaces it.
        let mending = if self.is_loser() { MENDING } else { 0 };
        must(
            (calls..=calls + mending).contains(&self.counts.calls),
            "6: Slack was called too often, or not often enough",
        );
        let is_replaced = self.case.meanwhile == Meanwhile::Reinstall && self.reached.is_saved;
        let may_forget = usize::from(self.has_no_answer() || is_replaced);
        must(
            self.forgotten <= may_forget,
            "4: a pair was issued that no process knows",
        );
        must(self.live <= 2, "more than two access tokens are alive");
        wrongs
    }

    /// Reports whether the app must be installed again. The last refresh token bought a pair whose
    /// response was lost. Slack does not accept that token again, or issues only a dead pair for
    /// it.
    pub(crate) fn is_lost(&self) -> bool {
        let is_first_only = self.case.policy == GracePolicy::FirstOnly;
        self.has_no_answer() && (self.case.grace.is_zero() || is_first_only)
    }

    /// Reports whether Slack issued a pair whose response reached no living process.
    fn has_no_answer(&self) -> bool {
        match self.case.signal {
            Signal::Kill => self.reached.is_issued && !self.reached.is_saved,
            Signal::Stop => [ASKED, DONE].contains(&&*self.step),
        }
    }

    /// Reports whether the stopped process got a pair after another process had saved one.
    fn is_loser(&self) -> bool {
        let is_before = self.reached.is_leased && !self.reached.is_issued;
        let calls_late = is_before && self.step == BEFORE_THE_CALL;
        let saves_late = self.reached.is_issued && !self.reached.is_saved;
        self.case.signal == Signal::Stop && (calls_late || saves_late)
    }

    /// Reports whether the process that took over bought the second of two pairs.
    fn is_second(&self) -> bool {
        self.has_no_answer() || self.is_loser() && self.step != BEFORE_THE_CALL
    }

    /// Returns what the process that took over may return instead of a live token.
    fn excuse(&self) -> Heard {
        match (
            self.is_second(),
            self.case.grace.is_zero(),
            self.case.policy,
        ) {
            // Slack refuses the token. Another process has the next pair, or had it, and may still
            // save it.
            (true, true, _) => Heard::Later(REFUSED.to_owned()),
            // The second of two pairs is dead from the start, and the process that bought it found
            // out.
            (true, false, GracePolicy::FirstOnly) => Heard::Later(ENDED.to_owned()),
            _ => Heard::Later("nothing at all".to_owned()),
        }
    }

    /// Reports whether the stopped process may return this when it continues.
    fn may_wake_to(&self, heard: &Heard) -> bool {
        match (heard, self.case.meanwhile) {
            (Heard::Live(_) | Heard::Later(_), _) => true,
            (Heard::Never(_), Meanwhile::Uninstall) => true,
            // The process had its response before the app was removed.
            (Heard::Stale, Meanwhile::Uninstall) => self.reached.is_saved,
            // The process's own late call ends the other pair, which it may already have read.
            (Heard::Stale, Meanwhile::Ask | Meanwhile::Work) if self.step == BEFORE_THE_CALL => {
                self.case.policy == GracePolicy::NewestOnly && !self.case.grace.is_zero()
            }
            _ => *heard == self.excuse(),
        }
    }

    /// Returns the number of calls, and of calls with a refresh token that was sent before.
    fn expected_calls(&self) -> (usize, usize) {
        let stopped_calls = match self.case.signal {
            Signal::Kill => self.reached.is_issued,
            Signal::Stop => {
                self.reached.is_issued || [BEFORE_THE_CALL, ASKED].contains(&&*self.step)
            }
        };
        let calls = usize::from(stopped_calls);
        match (self.case.meanwhile, self.reached.is_saved) {
            (Meanwhile::Reinstall | Meanwhile::Uninstall, _) | (_, true) => (calls, 0),
            (Meanwhile::Ask | Meanwhile::Work, false) => {
                let is_grace = !self.case.grace.is_zero();
                let is_first_only = self.case.policy == GracePolicy::FirstOnly;
                if self.is_second() && is_grace && is_first_only {
                    // The second pair is dead from the start: its token is refused, and the token
                    // that bought it is sent once more.
                    (calls + 3, calls + 1)
                } else {
                    (calls + 1, calls)
                }
            }
        }
    }
}

impl Heard {
    fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }
}

const BEFORE_THE_CALL: &str = "before the call";

const ENDED: &str = "the token could not be refreshed (token_revoked): try again later";

const REFUSED: &str = "the token could not be refreshed (invalid_refresh_token): try again later";

/// The primary is refused, and the alternate is accepted.
const MENDING: usize = 2;
