//! From an envelope to a message of the outbox: which recipients are taken, and what is said about each.

use jiff::Timestamp;
use lightpost_clock::add;
use lightpost_mail::{
    EnhancedCode, Envelope, Recipient,
    envelope::ArgumentError,
    lines::BodyFacts,
    trace::{Hops, Received},
};
use lightpost_queue::{NewBody, NewMessage, NewRecipient};
use serde::Serialize;
use ulid::Ulid;

use super::Ingestion;

/// What is said about one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Said {
    pub(super) address: String,
    pub(super) status: &'static str,
    pub(super) code: String,
    pub(super) detail: String,
}

/// What is said about one mail.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Receipt {
    /// Absent when no recipient was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Ulid>,
    pub(super) recipients: Vec<Said>,
}

/// An envelope whose recipients were looked at.
pub(super) struct Judged {
    pub(super) id: Ulid,
    pub(super) at: Timestamp,
    pub(super) taken: Vec<NewRecipient>,
    pub(super) said: Vec<Said>,
}

impl Said {
    pub(super) fn queued(recipient: &Recipient) -> Self {
        Self {
            address: recipient.address.to_string(),
            status: "queued",
            code: EnhancedCode::new(2, 1, 5).to_string(),
            detail: "on disk here".into(),
        }
    }

    pub(super) fn refused(address: &str, code: EnhancedCode, detail: String) -> Self {
        Self {
            address: address.to_owned(),
            status: "refused",
            code: code.to_string(),
            detail,
        }
    }

    pub(super) fn bad(argument: &str, error: &ArgumentError) -> Self {
        // An argument that is no address still has to be told from the others.
        let shown: String = argument.escape_debug().take(300).collect();
        Self::refused(&shown, error.code(), error.to_string())
    }
}

impl Judged {
    /// The message, when a recipient was taken.
    pub(super) fn message(
        self,
        envelope: &Envelope,
        body: NewBody,
        facts: BodyFacts,
        key: Option<&str>,
    ) -> (NewMessage, Receipt) {
        let mut sender = envelope.sender.clone();
        // What the caller declared about the size is not true of the body with our trace field.
        sender.parameters.size = None;
        let message = NewMessage {
            id: self.id,
            priority: sender.parameters.mt_priority.unwrap_or_default(),
            sender,
            recipients: self.taken,
            body,
            facts,
            origin: "rest".into(),
            origin_id: key.map(str::to_owned),
            accepted: self.at,
            hold: None,
        };
        let receipt = Receipt {
            id: Some(self.id),
            recipients: self.said,
        };
        (message, receipt)
    }
}

impl Ingestion {
    /// Takes the recipients whose destination has a route.
    pub(super) fn judge(&self, envelope: &Envelope) -> Judged {
        let at = self.clock.now();
        let (mut taken, mut said) = (Vec::new(), Vec::new());
        for recipient in &envelope.recipients {
            let destination = recipient.address.destination();
            let path = self
                .discovery
                .route(&destination)
                .and_then(|route| self.config.paths.get(&route.path));
            if let Some(path) = path {
                said.push(Said::queued(recipient));
                taken.push(NewRecipient {
                    recipient: recipient.clone(),
                    destination,
                    due: at,
                    expires: add(at, path.lifetime),
                });
            } else {
                said.push(Said::refused(
                    recipient.address.as_str(),
                    NO_ROUTE,
                    format!("mail for {destination} does not leave from here: no route is configured for it"),
                ));
            }
        }
        Judged {
            id: crate::ids::new(at),
            at,
            taken,
            said,
        }
    }

    /// Our trace field for a mail.
    pub(super) fn received(&self, judged: &Judged) -> String {
        let single = match judged.taken.as_slice() {
            [one] => Some(one.recipient.address.as_str()),
            _ => None,
        };
        Received {
            from: None,
            by: &self.config.name,
            with: "HTTP",
            id: &judged.id.to_string(),
            recipient: single,
            at: judged.at,
        }
        .field()
    }
}

/// Bad destination system address.
const NO_ROUTE: EnhancedCode = EnhancedCode::new(5, 1, 2);
/// Routing loop detected.
pub(super) const LOOP: EnhancedCode = EnhancedCode::new(5, 4, 6);

/// Whether a mail has come by too often. Two visits are no loop: a mail may be forwarded back to a user here once.
pub(super) fn is_loop(hops: Hops) -> bool {
    hops.own > 2 || lightpost_intake::transactions::is_loop(hops)
}

/// What is said about a loop.
pub(super) fn loop_detail(hops: Hops) -> String {
    format!(
        "the mail runs in circles: {} Received fields, {} of them ours",
        hops.received, hops.own
    )
}
