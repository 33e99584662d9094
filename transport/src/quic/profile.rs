//! From a path's figures to QUIC settings.

/// Settings that an operator fixed in `[path.NAME.quic]`; what is `None` is derived.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {}
