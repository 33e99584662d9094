//! A dot between Earth and the Moon: where the signal is while nothing can be known.

/// Characters between the two.
const WIDTH: usize = 40;

/// What is on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Flight {
    /// Light times since it left.
    pub(super) light_times: f64,
    /// Whether the connection was there before: then no handshake comes first.
    pub(super) connected: bool,
    /// Light times since the gateway had it, once it has.
    pub(super) answered: Option<f64>,
}

impl Flight {
    /// What is on its way, and which share of the way to the Moon it has behind it.
    fn place(self) -> (&'static str, f64) {
        if let Some(back) = self.answered {
            return ("the reply", 1.0 - back.min(1.0));
        }
        let words: &[&str] = if self.connected {
            &["the mail", "nothing: a lost packet is waited for"]
        } else {
            &[
                "hello",
                "hello back",
                "the mail",
                "nothing: a lost packet is waited for",
            ]
        };
        let leg = self.light_times.max(0.0) as usize;
        let word = words.get(leg.min(words.len() - 1)).copied().unwrap_or_default();
        let share = self.light_times.max(0.0).fract();
        (word, if leg.is_multiple_of(2) { share } else { 1.0 - share })
    }

    /// One line: `Earth ····•···· Moon  the mail is on its way`.
    pub(super) fn line(self) -> String {
        let (what, share) = self.place();
        let dot = ((WIDTH - 1) as f64 * share.clamp(0.0, 1.0)).round() as usize;
        let way: String = (0..WIDTH)
            .map(|place| if place == dot { '●' } else { '·' })
            .collect();
        format!("Earth {way} Moon  {what}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(light_times: f64, connected: bool, answered: Option<f64>) -> (&'static str, f64) {
        let flight = Flight {
            light_times,
            connected,
            answered,
        };
        flight.place()
    }

    #[test]
    fn a_first_mail_greets_before_it_leaves() {
        assert_eq!(at(0.25, false, None), ("hello", 0.25));
        assert_eq!(at(1.25, false, None), ("hello back", 0.75));
        assert_eq!(at(2.5, false, None), ("the mail", 0.5));
        assert_eq!(at(3.0, false, Some(0.0)), ("the reply", 1.0));
        assert_eq!(at(3.75, false, Some(0.75)), ("the reply", 0.25));
    }

    #[test]
    fn a_later_mail_does_not() {
        assert_eq!(at(0.5, true, None), ("the mail", 0.5));
        assert_eq!(at(9.5, true, None).0, "nothing: a lost packet is waited for");
    }

    #[test]
    fn the_line_has_one_dot() {
        for light_times in [0.0, 0.5, 0.999, 1.0, 17.3] {
            let flight = Flight {
                light_times,
                connected: false,
                answered: None,
            };
            assert_eq!(flight.line().matches('●').count(), 1);
        }
    }
}
