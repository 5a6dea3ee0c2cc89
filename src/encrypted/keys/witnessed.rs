//! Reports to the witness what the key provider did, and how the keyring was changed.
//!
//! A caller waits for the record of a change of the keyring. No caller waits for the record of a call
//! to the key provider: such a call releases no credential by itself, and the log seals its own rows
//! with these keys, so waiting could never end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::encrypted::reporter::tell;
use crate::seal::KeyId;
use crate::store::{Act, ActKind, AuditContext, Error, Witness};

/// The witness of a store's data keys, and what happened before there was one.
#[derive(Default)]
pub(super) struct KeyWitness(Mutex<State>);

#[derive(Default)]
struct State {
    witness: Option<Arc<dyn Witness>>,
    early: Vec<(AuditContext, Act)>,
}

impl KeyWitness {
    /// Reports to this witness from now on, and what happened before.
    pub(super) fn set(&self, witness: &Arc<dyn Witness>) {
        let early = {
            let mut state = self.state();
            state.witness = Some(Arc::clone(witness));
            std::mem::take(&mut state.early)
        };
        for (context, act) in early {
            tell(Arc::clone(witness), context, vec![act]);
        }
    }

    /// Begins a change of the keyring with these acts.
    pub(super) fn begin<'a>(&'a self, acts: &'a [(ActKind, KeyId)]) -> Begun<'a> {
        Begun {
            witness: self,
            acts,
        }
    }

    /// Reports a call to the key provider, or a change whose outcome is unknown.
    pub(super) fn report(&self, kind: ActKind, id: KeyId, is_done: bool) {
        let act = Act {
            is_done,
            ..Act::new(kind, None, id.to_string())
        };
        let context = AuditContext::current();
        if let Some((witness, act)) = self.with_witness(&context, act) {
            tell(witness, context, vec![act]);
        }
    }

    /// Reports a change of the keyring that was done, and waits for the witness.
    pub(super) async fn report_change(&self, kind: ActKind, id: KeyId) -> Result<(), Error> {
        let act = Act::new(kind, None, id.to_string());
        let context = AuditContext::current();
        match self.with_witness(&context, act) {
            Some((witness, act)) => witness.report(context, vec![act]).await,
            None => Ok(()),
        }
    }

    /// Returns the act with its witness. Without one, keeps it.
    fn with_witness(&self, context: &AuditContext, act: Act) -> Option<(Arc<dyn Witness>, Act)> {
        let mut state = self.state();
        if let Some(witness) = &state.witness {
            return Some((Arc::clone(witness), act));
        }
        // A store without a witness unwraps keys for as long as it lives.
        if state.early.len() < MOST_EARLY {
            state.early.push((context.clone(), act));
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of the keyring that has begun. If the call is cancelled before it ends, the database may
/// have applied it, so dropping this value reports that its outcome is unknown.
pub(super) struct Begun<'a> {
    witness: &'a KeyWitness,
    acts: &'a [(ActKind, KeyId)],
}

impl Begun<'_> {
    /// Says that the outcome is known.
    pub(super) fn end(mut self) {
        self.acts = &[];
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        for &(kind, id) in self.acts {
            self.witness.report(kind, id, false);
        }
    }
}

/// What is kept until a store gets its witness: usually one key, which is made and unwrapped.
const MOST_EARLY: usize = 64;
