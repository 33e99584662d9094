//! What REST says about recipients and mails, and the order in which it asks [`Acceptance`].

use lightpost_mail::{EnhancedCode, Envelope, Recipient, envelope::ArgumentError};
use serde::Serialize;
use ulid::Ulid;

use crate::accept::{Acceptance, Draft, Refusal};

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
    pub(super) draft: Draft,
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

    pub(super) fn refused(address: &str, refusal: Refusal) -> Self {
        Self {
            address: address.to_owned(),
            status: "refused",
            code: refusal.code.to_string(),
            detail: refusal.text,
        }
    }

    pub(super) fn bad(argument: &str, error: &ArgumentError) -> Self {
        // An argument that is no address still has to be told from the others.
        let shown: String = argument.escape_debug().take(300).collect();
        Self::refused(&shown, Refusal::from(error))
    }

    /// Whether asking again later may help.
    pub(super) fn is_for_now(&self) -> bool {
        self.code.starts_with('4')
    }
}

impl Receipt {
    /// What is said about a mail that is refused as a whole.
    pub(super) fn refused(envelope: &Envelope, refusal: &Refusal) -> Self {
        let recipients = envelope.recipients.iter();
        Self {
            id: None,
            recipients: recipients
                .map(|recipient| Said::refused(recipient.address.as_str(), refusal.clone()))
                .collect(),
        }
    }
}

/// Asks for each recipient of an envelope.
pub(super) fn judge(acceptance: &Acceptance, envelope: &Envelope) -> Judged {
    let mut draft = acceptance.draft();
    let mut said = Vec::new();
    for recipient in &envelope.recipients {
        let answer = acceptance.recipient(&mut draft, &envelope.sender, recipient);
        said.push(match answer {
            Ok(()) => Said::queued(recipient),
            Err(refusal) => Said::refused(recipient.address.as_str(), refusal),
        });
    }
    Judged { draft, said }
}
