//! Each check of the conformance suite catches a backend that breaks its rule.
