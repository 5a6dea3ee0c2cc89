//! What a refresh that did not fail leads to.

use std::sync::Arc;

use crate::store::StoredChain;

/// The outcome of a refresh that did not fail.
pub(super) enum Step {
    /// The chain has changed in the meantime and must be read again.
    Again,
    /// The stored chain, with the new pair.
    Done(Arc<StoredChain>),
    /// The pair is stored, but not proven: the chain must be read again.
    Unproven,
}
