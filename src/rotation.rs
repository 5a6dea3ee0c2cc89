//! Token rotation.
mod protocol;
