//! The second stage: a mail whose body is spooled, before it goes into the outbox.

use lightpost_intake::{spool, transactions};
use lightpost_mail::{EnhancedCode, Sender, lines::BodyFacts, trace::Hops};
use lightpost_queue::NewBody;

use super::{Acceptance, Draft, Refusal, Source};

/// Routing loop detected.
const LOOP: EnhancedCode = EnhancedCode::new(5, 4, 6);

/// A spooled body, our trace field in front of it.
#[derive(Clone, Debug)]
pub(crate) struct Spooled {
    /// Where it is.
    pub(crate) body: NewBody,
    /// What is known about it, trace field included.
    pub(crate) facts: BodyFacts,
    /// The hops in its header section, ours not included.
    pub(crate) hops: Hops,
}

impl Acceptance {
    /// The second stage: the mail as it goes into the outbox, or why it does not.
    ///
    /// # Errors
    /// The mail is refused as a whole, for good or for now; its body is removed.
    pub(crate) async fn message(
        &self,
        draft: &Draft,
        source: &Source,
        sender: &Sender,
        spooled: Spooled,
    ) -> Result<Spooled, Refusal> {
        let body = spooled.body.clone();
        let judged = self.judge(draft, source, sender, spooled);
        if judged.is_err() {
            spool::discard_new(&*self.store, &body).await;
        }
        judged
    }

    fn judge(
        &self,
        _draft: &Draft,
        _source: &Source,
        _sender: &Sender,
        spooled: Spooled,
    ) -> Result<Spooled, Refusal> {
        if is_loop(spooled.hops) {
            return Err(Refusal::new(554, LOOP, loop_text(spooled.hops)));
        }
        Ok(spooled)
    }
}

/// Whether a mail has come by too often. Two visits are no loop: a mail may be forwarded back to a user here once.
fn is_loop(hops: Hops) -> bool {
    hops.own > 2 || transactions::is_loop(hops)
}

fn loop_text(hops: Hops) -> String {
    format!(
        "the mail runs in circles: {} Received fields, {} of them ours",
        hops.received, hops.own
    )
}
