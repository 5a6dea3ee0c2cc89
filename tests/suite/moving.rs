//! Moving house across real servers.
