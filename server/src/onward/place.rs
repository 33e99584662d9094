//! The place that a mail takes while it is worked on.

use std::sync::Arc;

use lightpost_queue::RecipientId;

use super::{Shared, line::Line};

/// Room in a line, and the recipients that nobody else may start with. Given back when it is dropped, whatever ended the work.
pub(super) struct Place {
    shared: Arc<Shared>,
    line: Arc<Line>,
    recipients: Vec<RecipientId>,
}

impl Place {
    /// Takes room in `line` for a mail whose `recipients` were entered as in flight.
    pub(super) fn take(shared: Arc<Shared>, line: Arc<Line>, recipients: Vec<RecipientId>) -> Self {
        line.take();
        Self {
            shared,
            line,
            recipients,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut flight = self.shared.flight();
            for recipient in &self.recipients {
                flight.remove(recipient);
            }
        }
        if self.line.give() {
            self.shared.room.notify_one();
        }
    }
}
