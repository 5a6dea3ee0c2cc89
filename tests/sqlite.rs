//! What only a database in a file can promise.
