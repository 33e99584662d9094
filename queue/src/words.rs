//! The words of outcomes and of reasons to wait, in the database, in histories and in logs. They are stored and searched for: they stay.

use jiff::Timestamp;

use crate::{Disposition, WaitReason};

impl Disposition {
    /// Its word in histories and logs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed(_) => "failed",
            Self::Expired => "expired",
            Self::Retry { .. } => "deferred",
            Self::Held(_) => "held",
            Self::Awaiting { .. } => "awaiting",
        }
    }

    /// When the recipient is looked at again, where that is a matter of time.
    pub const fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Retry { due, .. } => Some(*due),
            Self::Awaiting { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// Why it waits to be tried again.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Retry { reason, .. } => Some(reason.word()),
            _ => None,
        }
    }
}

impl WaitReason {
    /// Its word in the database, in histories and in logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Discovery => "discovery",
            Self::Unreachable => "unreachable",
            Self::Busy => "busy",
            Self::NoReply => "no-reply",
            Self::NoContact => "no-contact",
            Self::Deferred => "deferred",
            Self::Operator => "operator",
            Self::Interrupted => "interrupted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reasons_word_is_the_one_that_is_read_back() {
        for reason in [
            WaitReason::New,
            WaitReason::Discovery,
            WaitReason::Unreachable,
            WaitReason::Busy,
            WaitReason::NoReply,
            WaitReason::NoContact,
            WaitReason::Deferred,
            WaitReason::Operator,
            WaitReason::Interrupted,
        ] {
            assert_eq!(serde_json::json!(reason), reason.word());
        }
    }
}
