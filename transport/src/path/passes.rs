//! Links that are open for a while again and again: an orbiter over its lander, a ground station's hours.

use std::time::Duration;

use lightpost_config::Section;

/// Contacts that come around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// From the begin of one to that of the next.
    pub every: Duration,
    /// How long one is open.
    pub length: Duration,
}

impl Passes {
    /// Reads `passes = { every = "6h", length = "60s" }`, where it stands.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        if !section.present() {
            return None;
        }
        let (every, length) = (section.require("every"), section.require("length"));
        Some(Self {
            every: every?,
            length: length?,
        })
    }

    /// Between two of them.
    pub fn closed(&self) -> Duration {
        self.every.saturating_sub(self.length)
    }

    /// How long what takes `open` on an open link takes from the begin of a pass to its end: it rests while the link is closed.
    pub fn stretch(&self, open: Duration) -> Duration {
        let rests = open.as_nanos() / self.length.as_nanos().max(1);
        let rests = u32::try_from(rests).unwrap_or(u32::MAX);
        open.saturating_add(self.closed().saturating_mul(rests))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_one_pass_rests_between_them() {
        const MINUTE: Duration = Duration::from_secs(60);
        let passes = Passes {
            every: 360 * MINUTE,
            length: MINUTE,
        };
        assert_eq!(passes.closed(), 359 * MINUTE);
        for (open, expected) in [
            (MINUTE / 2, MINUTE / 2),
            (MINUTE * 5 / 2, 2 * 360 * MINUTE + MINUTE / 2),
        ] {
            assert_eq!(passes.stretch(open), expected, "{open:?}");
        }
        let never = Passes {
            every: Duration::MAX,
            length: Duration::ZERO,
        };
        assert_eq!(never.stretch(Duration::MAX), Duration::MAX);
    }
}
