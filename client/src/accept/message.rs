//! The second stage: a mail whose body is spooled, before it goes into the outbox.

use lightpost_intake::{signed::BodyHash, spool};
use lightpost_mail::{Sender, lines::BodyFacts, trace::Hops};
use lightpost_queue::NewBody;

use super::{Acceptance, Draft, Refusal, Source, fit};
use crate::screen::{Judged, Mail};

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
    /// The hash of what is behind its header section, where somebody has made it.
    pub(crate) body_hash: Option<BodyHash>,
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
            body_hash: None,
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

    /// Judged as it came, changed for its path, and sealed as it leaves, in this order: no signature is verified over what we changed, and
    /// none of ours is over what we change afterwards.
    async fn judge(
        &self,
        draft: &Draft,
        source: &Source,
        sender: &Sender,
        mut spooled: Spooled,
    ) -> Result<Spooled, Refusal> {
        self.no_loop(draft, &spooled.hops).await?;
        let mut sender = sender.clone();
        if draft.ascii {
            // The results name the sender, and cross with the mail.
            fit::ascii_address(&mut sender);
        }
        let mail = Mail {
            draft,
            source,
            sender: &sender,
        };
        let judged = match &self.screen {
            Some(screen) => screen.judge(&mail, &self.store, &mut spooled).await?,
            None => Judged::default(),
        };
        let fitted = self.fit(draft, &sender, spooled).await?;
        let body = fitted.body.clone();
        let sealed = self.sealed(&mail, judged, fitted).await;
        if sealed.is_err() {
            // It may have been written anew.
            spool::discard_new(&*self.store, &body).await;
        }
        sealed
    }

    async fn sealed(&self, mail: &Mail<'_>, judged: Judged<'_>, fitted: Spooled) -> Result<Spooled, Refusal> {
        let sealed = match &self.screen {
            Some(screen) => screen.seal(mail, &self.store, judged, fitted).await?,
            None => fitted,
        };
        let fits = self.leaves(mail.draft, mail.sender, &sealed.facts);
        if fits.is_err() {
            spool::discard_new(&*self.store, &sealed.body).await;
        }
        fits.map(|()| sealed)
    }
}
