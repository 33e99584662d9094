//! The second stage: a mail whose body is spooled, before it goes into the outbox.

use lightpost_intake::spool;
use lightpost_mail::{Sender, lines::BodyFacts, trace::Hops};
use lightpost_queue::NewBody;

use super::{Acceptance, Draft, Refusal, Source};
use crate::screen::Mail;

/// A spooled body, our trace field in front of it.
#[derive(Clone, Debug)]
pub(crate) struct Spooled {
    /// Where it is.
    pub(crate) body: NewBody,
    /// What is known about it, trace field included.
    pub(crate) facts: BodyFacts,
    /// The hops in its header section, ours not included.
    pub(crate) hops: Hops,
    /// What was found out about it, for the history.
    pub(crate) notes: Vec<String>,
    /// Its place in the sending order, once it was judged.
    pub(crate) priority: i8,
    /// Why it has to wait for an operator, if it has.
    pub(crate) hold: Option<String>,
}

impl Spooled {
    /// A body about which nothing else is known.
    pub(crate) fn new(body: NewBody, facts: BodyFacts, hops: Hops) -> Self {
        Self {
            body,
            facts,
            hops,
            notes: Vec::new(),
            priority: 0,
            hold: None,
        }
    }
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
        match self.judge(draft, source, sender, spooled).await {
            Ok(mut judged) => {
                judged.priority = self.priority(sender, &judged).await;
                Ok(judged)
            }
            Err(refusal) => {
                spool::discard_new(&*self.store, &body).await;
                Err(refusal)
            }
        }
    }

    async fn judge(
        &self,
        draft: &Draft,
        source: &Source,
        sender: &Sender,
        spooled: Spooled,
    ) -> Result<Spooled, Refusal> {
        self.no_loop(draft, &spooled.hops).await?;
        let spooled = self.screened(draft, source, sender, spooled).await?;
        // Behind the screen, which verifies signatures over what came.
        let body = spooled.body.clone();
        let fitted = self.fit(draft, sender, spooled).await;
        if fitted.is_err() {
            // The screen may have written it anew.
            spool::discard_new(&*self.store, &body).await;
        }
        fitted
    }

    async fn screened(
        &self,
        draft: &Draft,
        source: &Source,
        sender: &Sender,
        spooled: Spooled,
    ) -> Result<Spooled, Refusal> {
        let Some(screen) = &self.screen else {
            return Ok(spooled);
        };
        // Others are asked, and meanwhile the caller may leave.
        let guard = spool::Guard::new(self.store.clone(), &spooled.body);
        let mail = Mail {
            draft,
            source,
            sender,
        };
        let screened = screen.mail(&mail, &self.store, spooled).await;
        guard.keep();
        screened
    }
}
