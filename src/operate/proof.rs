//! Decides what is known of an installation, from Slack's responses about its tokens and from the
//! states of their chains. Pure functions: no I/O and no clock.

use crate::slack::{self, AuthTest, ErrorClass, ErrorCode};

/// What Slack reports about an installation.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// No token of the bot and the installing user can be used again, and at least one is certainly
    /// dead. The tenant is purged if the same is true of all other users.
    Gone,
    /// The installation is alive, but one of the two checked credentials is dead.
    PartlyGone,
    /// The installation is alive, but its stored organisation, URL or bot id is out of date.
    Outdated,
    /// The access token has expired. Token rotation handles this.
    Expired,
    /// An access token has expired, and Slack has refused every refresh token. The app must be
    /// installed again. The tenant is not purged, because the app may still be installed there.
    ReinstallNeeded,
    /// Slack's response proves nothing: `invalid_auth`, a migration, an unknown error, or
    /// `token_revoked` for a token that still rotates. Contains the error's code, if there is one.
    Unclear(Option<ErrorCode>),
    /// No token is stored, so Slack cannot be asked.
    Tokenless,
    /// A stored row cannot be decrypted.
    Unreadable,
    /// The data key of a stored row cannot be used, so Slack was not asked. The row is not damaged.
    WithoutKey,
}

/// What the store says about the chain of a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ChainState {
    /// Slack refused every refresh token, so the chain gets no further token.
    GivenUp,
    /// The same, perhaps just now: another process may still save a pair that Slack issued to it.
    JustGivenUp,
    /// The token does not rotate.
    LongLived,
    /// The chain may get another token, or has got one: the token is not the stored one.
    Rotating,
}

/// What is proven about one token.
#[derive(Debug)]
pub(super) enum Proof {
    /// Slack accepts the token.
    Alive(AuthTest),
    /// The authorisation does not exist any more.
    Dead,
    /// The access token has expired. The chain may get another one.
    Expired,
    /// No token of the chain can be used again. That does not prove that the app was removed.
    Spent,
    /// Nothing. Contains the error's code, if there is one.
    Unclear(Option<ErrorCode>),
}

impl Proof {
    /// Combines the response of `auth.test` with the state of the chain.
    ///
    /// `invalid_auth` proves nothing, because Slack also returns it to an address that is not on
    /// the app's allow-list. `token_revoked` proves nothing about a chain that still rotates,
    /// because a newer token may have replaced this one.
    pub(super) fn of(outcome: Result<AuthTest, slack::Error>, chain: ChainState) -> Self {
        let error = match outcome {
            Ok(test) => return Self::Alive(test),
            Err(error) => error,
        };
        match (error.class(), chain) {
            (ErrorClass::Dead, _)
            | (ErrorClass::Revoked, ChainState::LongLived | ChainState::GivenUp) => Self::Dead,
            (ErrorClass::TokenExpired, ChainState::GivenUp)
            | (ErrorClass::Revoked | ErrorClass::TokenExpired, ChainState::JustGivenUp) => {
                Self::Spent
            }
            (ErrorClass::TokenExpired, _) => Self::Expired,
            _ => Self::Unclear(match error {
                slack::Error::Api { code, .. } => Some(code),
                _ => None,
            }),
        }
    }

    /// Returns whether the chain of the token may still have, or get, a token that Slack accepts.
    pub(super) fn may_live(&self) -> bool {
        !matches!(self, Self::Dead | Self::Spent)
    }
}

/// Returns what the proofs of an installation's tokens mean together. Returns `None` if one token
/// is alive and nothing else is known to be wrong.
///
/// An installation has ended only if no token of it may live, and at least one token is dead.
pub(super) fn verdict(proofs: &[Proof]) -> Option<Verdict> {
    let any = |is: fn(&Proof) -> bool| proofs.iter().any(is);
    let is_dead = any(|proof| matches!(proof, Proof::Dead));
    let is_spent = any(|proof| matches!(proof, Proof::Spent));
    if any(|proof| matches!(proof, Proof::Alive(_))) {
        let spent = is_spent.then_some(Verdict::ReinstallNeeded);
        return if is_dead {
            Some(Verdict::PartlyGone)
        } else {
            spent
        };
    }
    let unclear = proofs.iter().find_map(|proof| match proof {
        Proof::Unclear(code) => Some(Verdict::Unclear(code.clone())),
        _ => None,
    });
    Some(match unclear {
        Some(unclear) => unclear,
        None if any(|proof| matches!(proof, Proof::Expired)) => Verdict::Expired,
        None if is_dead => Verdict::Gone,
        None if is_spent => Verdict::ReinstallNeeded,
        None => Verdict::Tokenless,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installation::Scopes;

    const STATES: [ChainState; 4] = [
        ChainState::GivenUp,
        ChainState::JustGivenUp,
        ChainState::LongLived,
        ChainState::Rotating,
    ];

    fn test() -> AuthTest {
        AuthTest::default()
    }

    fn said(code: &str) -> Result<AuthTest, slack::Error> {
        if code.is_empty() {
            return Ok(test());
        }
        Err(slack::Error::Api {
            code: ErrorCode::new(code),
            needed: Scopes::default(),
        })
    }

    fn name(proof: &Proof) -> String {
        match proof {
            Proof::Alive(_) => "alive".to_owned(),
            Proof::Dead => "dead".to_owned(),
            Proof::Expired => "expired".to_owned(),
            Proof::Spent => "spent".to_owned(),
            Proof::Unclear(Some(code)) => code.to_string(),
            Proof::Unclear(None) => "unclear".to_owned(),
        }
    }

    #[test]
    fn each_response_is_weighed_together_with_the_state_of_the_chain() {
        let revoked = "token_revoked";
        for (code, expected) in [
            ("", ["alive"; 4]),
            ("account_inactive", ["dead"; 4]),
            ("authorization_not_found", ["dead"; 4]),
            (revoked, ["dead", "spent", "dead", revoked]),
            ("token_expired", ["spent", "spent", "expired", "expired"]),
        ] {
            let proofs = STATES.map(|state| name(&Proof::of(said(code), state)));
            assert_eq!(proofs, expected, "{code}");
        }
        for code in [
            "invalid_auth",
            "invalid_token",
            "team_added_to_org",
            "access_denied",
            "bad_client_secret",
            "missing_scope",
            "fatal_error",
            "not_authed",
            "team_access_not_granted",
            "some_new_error",
        ] {
            let proofs = STATES.map(|state| name(&Proof::of(said(code), state)));
            assert_eq!(proofs, [code; 4], "a chain's state proves nothing of it");
        }
        let lost = || Err(slack::Error::Http { status: 503 });
        let proofs = STATES.map(|state| name(&Proof::of(lost(), state)));
        assert_eq!(proofs, ["unclear"; 4]);
    }

    #[test]
    fn a_tenant_is_gone_only_if_no_token_may_live_and_one_is_dead() {
        let code = || Some(ErrorCode::new("some_new_error"));
        let kinds: [fn() -> Proof; 6] = [
            || Proof::Alive(test()),
            || Proof::Dead,
            || Proof::Expired,
            || Proof::Spent,
            || Proof::Unclear(Some(ErrorCode::new("some_new_error"))),
            || Proof::Unclear(None),
        ];
        let mut all: Vec<Vec<Proof>> = vec![Vec::new()];
        all.extend(kinds.iter().map(|one| vec![one()]));
        for one in kinds {
            for two in kinds {
                all.push(vec![one(), two()]);
                all.extend(kinds.iter().map(|three| vec![one(), two(), three()]));
            }
        }
        assert_eq!(all.len(), 1 + 6 + 36 + 216);
        for proofs in &all {
            let has = |name_: &str| proofs.iter().any(|proof| name(proof) == name_);
            let may_live =
                has("alive") || has("expired") || has("some_new_error") || has("unclear");
            let found = verdict(proofs);
            let is_gone = found == Some(Verdict::Gone);
            assert_eq!(is_gone, has("dead") && !may_live, "{proofs:?}: {found:?}");
            let is_partly = found == Some(Verdict::PartlyGone);
            assert_eq!(is_partly, has("dead") && has("alive"), "{proofs:?}");
            assert_eq!(proofs.iter().any(Proof::may_live), may_live, "{proofs:?}");
            let expected = match found {
                None => has("alive") && !has("dead") && !has("spent"),
                Some(Verdict::Tokenless) => proofs.is_empty(),
                Some(Verdict::Expired) => {
                    has("expired") && !has("alive") && !has("unclear") && !has(&name(&kinds[4]()))
                }
                Some(Verdict::ReinstallNeeded) => has("spent") && !has("dead"),
                Some(Verdict::Unclear(said)) => {
                    let name = if said == code() {
                        "some_new_error"
                    } else {
                        "unclear"
                    };
                    has(name) && !has("alive")
                }
                _ => is_gone || is_partly,
            };
            assert!(expected, "{proofs:?}");
        }
    }
}
