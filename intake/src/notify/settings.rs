//! `delay_notice` and `delay_notice_again`, the same for a path of the client and a server of the gateway.

use std::time::Duration;

use lightpost_config::Section;
use lightpost_queue::schedule::Notices;

/// When senders hear of late mail, as an operator set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoticeSettings {
    after: After,
    again: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum After {
    #[default]
    Derived,
    Fixed(Duration),
    Never,
}

impl NoticeSettings {
    /// Reads both keys; what is absent is as in `above`.
    pub fn read(section: &Section<'_>, above: Self) -> Self {
        let after = match section.get::<String>("delay_notice").as_deref() {
            Some("off") => Some(After::Never),
            Some(_) => section.get::<Duration>("delay_notice").map(After::Fixed),
            None => None,
        };
        if after == Some(After::Fixed(Duration::ZERO)) {
            section.wrong(
                "delay_notice",
                "is zero, so that every mail would be late".into(),
                "write a duration, or \"off\"".into(),
            );
        }
        let again = section.get::<Duration>("delay_notice_again");
        if again.is_some_and(|again| again.is_zero()) {
            section.wrong(
                "delay_notice_again",
                "is zero".into(),
                "leave it out: one notice is enough".into(),
            );
        }
        let settings = Self {
            after: after.unwrap_or(above.after),
            again: again.or(above.again),
        };
        if settings.after == After::Never && again.is_some() {
            section.wrong(
                "delay_notice_again",
                "says when to repeat what `delay_notice` switches off".into(),
                "leave one of the two out".into(),
            );
        }
        settings
    }

    /// When senders hear of late mail that is tried for `lifetime`, one exchange of which takes `exchange` and that is on its way for
    /// `travel` at least.
    pub fn notices(&self, lifetime: Duration, exchange: Duration, travel: Duration) -> Notices {
        let derived = Notices::derive(lifetime, exchange, travel);
        let after = match self.after {
            After::Derived => derived.after,
            After::Fixed(after) => Some(after),
            After::Never => None,
        };
        Notices {
            after,
            again: self.again.filter(|_| after.is_some()),
            ..derived
        }
    }
}
