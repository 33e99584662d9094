//! What is decided about a mail, whoever brings it: REST, SMTP and LMTP ask here, and get the same answers.
//!
//! A mail passes two stages. [`Acceptance::recipient`] is asked for each recipient (SMTP: at RCPT), has no I/O and answers at once;
//! [`Acceptance::message`] is asked once the body is spooled, may ask others, and may change the body. Each says no with the one
//! typed [`Refusal`], which becomes a problem document or an SMTP reply. What passes becomes a message of the outbox with
//! [`Draft::message`]; it is acknowledged after [`Store::enqueue`], not before.

mod fit;
mod loops;
mod message;
mod priority;
mod quota;
mod refusal;
mod spooling;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use lightpost_clock::{Clock, add};
use lightpost_config::duration_text;
use lightpost_mail::{
    EnhancedCode, Recipient, Sender,
    dsn::{self, Action},
    envelope::DeliverByMode,
    trace::Received,
};
use lightpost_queue::{Enqueued, NewMessage, NewRecipient, Store, StoreError, Submission};
use ulid::Ulid;

use crate::{config::Config, discover::Discovery, screen::Screen};

pub(crate) use message::Spooled;
pub(crate) use refusal::Refusal;
pub(crate) use spooling::{BodyError, Spooling};

/// Bad destination mailbox address.
const NO_MAILBOX: EnhancedCode = EnhancedCode::new(5, 1, 1);
/// Bad destination system address.
const NO_ROUTE: EnhancedCode = EnhancedCode::new(5, 1, 2);
/// Delivery time expired.
const TOO_LATE: EnhancedCode = EnhancedCode::new(5, 4, 7);

/// Decides what is taken into the outbox.
pub(crate) struct Acceptance {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) clock: Clock,
    /// Looks at contents; nobody does when `None`.
    pub(crate) screen: Option<Screen>,
}

/// Who hands a mail over, and how.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// For the history: `rest`, `smtp`, `lmtp`.
    pub(crate) origin: &'static str,
    /// The protocol in our trace field (RFC 3848, RFC 6531).
    pub(crate) with: &'static str,
    /// What the other side calls itself (HELO), where it does.
    pub(crate) helo: Option<String>,
    /// Its address, where it has one.
    pub(crate) address: Option<IpAddr>,
}

/// A mail that is being taken: its id, and the recipients that passed the first stage.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) id: Ulid,
    pub(crate) at: Timestamp,
    pub(crate) taken: Vec<NewRecipient>,
    /// Whether the path of one of them takes ASCII addresses only.
    pub(crate) ascii: bool,
}

impl Source {
    /// A request of the REST interface.
    pub(crate) const fn rest() -> Self {
        Self {
            origin: "rest",
            with: "HTTP",
            helo: None,
            address: None,
        }
    }
}

impl Acceptance {
    /// Starts a mail.
    pub(crate) fn draft(&self) -> Draft {
        let at = self.clock.now();
        Draft {
            id: crate::ids::new(at),
            at,
            taken: Vec::new(),
            ascii: false,
        }
    }

    /// The first stage: takes a recipient into the draft, if its destination has a route.
    ///
    /// # Errors
    /// The recipient is refused; the draft is as before.
    pub(crate) fn recipient(
        &self,
        draft: &mut Draft,
        sender: &Sender,
        recipient: &Recipient,
    ) -> Result<(), Refusal> {
        let destination = recipient.address.destination();
        let route = self.discovery.route(&destination);
        let Some((route, path)) = route.and_then(|route| Some((route, self.config.paths.get(&route.path)?)))
        else {
            let text =
                format!("mail for {destination} does not leave from here: no route is configured for it");
            return Err(Refusal::new(550, NO_ROUTE, text));
        };
        if route
            .recipients
            .as_ref()
            .is_some_and(|list| !list.contain(&recipient.address))
        {
            let text = format!("{} has no mailbox at its destination", recipient.address);
            return Err(Refusal::new(550, NO_MAILBOX, text));
        }
        let lifetime = match returned_after(sender) {
            Some(by) if by <= path.path.one_way_min => return Err(too_far(by, path.path.one_way_min)),
            // What leaves later is not there in time.
            Some(by) => path.lifetime.min(by.saturating_sub(path.path.one_way_min)),
            None => path.lifetime,
        };
        let fitted = path.accepts.recipient(sender, recipient)?;
        draft.ascii |= !path.accepts.smtputf8;
        let wants = dsn::wanted(sender, recipient, Action::Delayed);
        draft.taken.push(NewRecipient {
            recipient: fitted,
            destination,
            due: draft.at,
            expires: add(draft.at, lifetime),
            notice: path
                .notices(0)
                .first(draft.at, wants, dsn::notice_by(sender, recipient, draft.at)),
        });
        Ok(())
    }

    /// Stores what passed both stages, and says so in the log. The bodies of what is not stored are removed.
    ///
    /// # Errors
    /// It cannot be stored.
    pub(crate) async fn enqueue(&self, submission: Submission) -> Result<Enqueued, StoreError> {
        let messages = submission.messages.iter();
        let taken: Vec<_> = messages
            .map(|one| (one.id, one.origin.clone(), one.upstream.clone(), one.body.clone()))
            .collect();
        let enqueued = self.store.enqueue(submission).await;
        for (id, origin, upstream, body) in taken {
            if matches!(enqueued, Ok(Enqueued::Stored)) {
                tracing::info!(%id, origin, upstream, "on disk");
            } else {
                lightpost_intake::spool::discard_new(&*self.store, &body).await;
            }
        }
        enqueued
    }
}

/// When the mail is to be returned, if its sender has said so (RFC 2852, by-mode R).
fn returned_after(sender: &Sender) -> Option<Duration> {
    let by = sender.parameters.deliver_by?;
    let seconds = u64::try_from(by.seconds).unwrap_or_default();
    (by.mode == DeliverByMode::Return).then_some(Duration::from_secs(seconds))
}

fn too_far(by: Duration, light: Duration) -> Refusal {
    let text = format!(
        "it is to be delivered within {} and light alone needs {}",
        duration_text(by),
        duration_text(light)
    );
    Refusal::new(550, TOO_LATE, text)
}

impl Draft {
    /// Our trace field for the mail.
    pub(crate) fn received(&self, source: &Source, name: &str) -> String {
        let single = match self.taken.as_slice() {
            [one] => Some(one.recipient.address.as_str()),
            _ => None,
        };
        Received {
            from: source.helo.as_deref(),
            address: source.address,
            by: name,
            with: source.with,
            id: &self.id.to_string(),
            recipient: single,
            at: self.at,
        }
        .field()
    }

    /// The message for the outbox.
    pub(crate) fn message(
        self,
        source: &Source,
        mut sender: Sender,
        spooled: Spooled,
        origin_id: Option<String>,
    ) -> NewMessage {
        // What the caller declared about the size is not true of the body with our trace field.
        sender.parameters.size = None;
        if self.ascii {
            fit::ascii_sender(&mut sender);
        }
        NewMessage {
            id: self.id,
            priority: spooled.priority,
            sender,
            recipients: self.taken,
            body: spooled.body,
            facts: spooled.facts,
            origin: source.origin.into(),
            origin_id,
            upstream: spooled.hops.upstream,
            accepted: self.at,
            hold: spooled.hold,
            notes: spooled.notes,
        }
    }
}
