//! What the tests share.

#![allow(dead_code, unreachable_pub, clippy::clone_on_ref_ptr)]

pub mod app;
