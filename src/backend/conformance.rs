//! Checks of the contract.
