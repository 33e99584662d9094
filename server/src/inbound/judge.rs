//! Which transactions and recipients are accepted. No I/O.

use jiff::Timestamp;
use lightpost_clock::add;
use lightpost_intake::{Transaction, transactions::is_loop};
use lightpost_mail::{
    EnhancedCode, Envelope, Recipient, ReversePath, Sender,
    dsn::{self, Action},
};
use lightpost_queue::{NewBody, NewMessage, NewRecipient};
use ulid::Ulid;

use super::Heading;
use crate::{
    Config,
    config::{Accept, Peer},
    new_id,
};

const SENDER_DENIED: EnhancedCode = EnhancedCode::new(5, 7, 1);
const RELAYING_DENIED: EnhancedCode = EnhancedCode::new(5, 7, 1);
const LOOP: EnhancedCode = EnhancedCode::new(5, 4, 6);

/// What is known of one recipient after judging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// The address, or what was given instead of one.
    pub(super) address: String,
    /// Why it is refused; `None` when it is accepted.
    pub(super) refusal: Option<(EnhancedCode, String)>,
}

/// What is known of one transaction after judging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// Its place in the object, from 1.
    pub(super) number: usize,
    /// The message that it became.
    pub(super) id: Option<Ulid>,
    /// Its recipients, the unreadable ones last.
    pub(super) recipients: Vec<Decision>,
}

/// The outcome for a whole object.
#[derive(Debug)]
pub(super) struct Verdicts {
    /// What goes into the inbox.
    pub(super) messages: Vec<NewMessage>,
    /// What the peer is told.
    pub(super) refusals: Vec<Judged>,
    /// Bodies that were stored and are not needed.
    pub(super) unused: Vec<NewBody>,
}

/// Whether the body is worth keeping while it arrives: the sender is allowed and a recipient is ours.
pub(super) fn is_wanted(envelope: &Envelope, peer: &Peer, accept: &Accept) -> bool {
    may_speak(&envelope.sender, peer)
        && envelope
            .recipients
            .iter()
            .any(|recipient| is_ours(recipient, accept))
}

/// Judges every transaction.
pub(super) fn judge(
    transactions: Vec<Transaction>,
    peer: &Peer,
    config: &Config,
    now: Timestamp,
    heading: &Heading<'_>,
) -> Verdicts {
    let mut verdicts = Verdicts {
        messages: Vec::new(),
        refusals: Vec::new(),
        unused: Vec::new(),
    };
    let begun = begun(&heading.id, now);
    for mut transaction in transactions {
        let sender = &mut transaction.envelope.sender;
        let return_by = dsn::return_by(sender, begun);
        if let Some(by) = &mut sender.parameters.deliver_by {
            *by = by.counted_from(now, by.deadline(begun));
        }
        let mut judged = decide(&transaction, peer, &config.accept);
        let accepted: Vec<NewRecipient> = transaction
            .envelope
            .recipients
            .into_iter()
            .zip(&judged.recipients)
            .filter(|(_, decision)| decision.refusal.is_none())
            .map(|(recipient, _)| {
                new_recipient(recipient, &transaction.envelope.sender, return_by, config, now)
            })
            .collect();
        match transaction.body {
            Some(body) if !accepted.is_empty() => {
                let id = new_id(now);
                judged.id = Some(id);
                verdicts.messages.push(NewMessage {
                    id,
                    priority: transaction
                        .envelope
                        .sender
                        .parameters
                        .mt_priority
                        .unwrap_or(heading.priority),
                    sender: transaction.envelope.sender,
                    recipients: accepted,
                    body,
                    facts: transaction.facts,
                    origin: peer.name.clone(),
                    origin_id: Some(heading.id.clone()),
                    upstream: transaction.hops.upstream,
                    accepted: now,
                    hold: None,
                    notes: Vec::new(),
                });
            }
            body => verdicts.unused.extend(body),
        }
        verdicts.refusals.push(judged);
    }
    verdicts
}

/// When an exchange was begun: its id tells, where it is a ULID and our clocks agree on what is past. `BY=` in its object counts from
/// then, not from its arrival a light time later.
fn begun(id: &str, now: Timestamp) -> Timestamp {
    let id = Ulid::from_string(id).ok();
    let milliseconds = id.and_then(|id| i64::try_from(id.timestamp_ms()).ok());
    milliseconds
        .and_then(|milliseconds| Timestamp::from_millisecond(milliseconds).ok())
        .filter(|begun| *begun <= now)
        .unwrap_or(now)
}

fn decide(transaction: &Transaction, peer: &Peer, accept: &Accept) -> Judged {
    let sender = &transaction.envelope.sender;
    let denied = !may_speak(sender, peer);
    let circles = is_loop(&transaction.hops);
    let refusal = |recipient: &Recipient| {
        if denied {
            let text = format!("{} may not send for <{}>", peer.name, sender.path);
            return Some((SENDER_DENIED, text));
        }
        if circles {
            let hops = transaction.hops.received;
            return Some((LOOP, format!("{hops} hops, the mail runs in circles")));
        }
        if transaction.hops.were_for(&recipient.address) {
            let text = format!(
                "the mail has been here for {} and has come back",
                recipient.address
            );
            return Some((LOOP, text));
        }
        let text = || format!("no mail is accepted here for {}", recipient.address.domain());
        (!is_ours(recipient, accept)).then(|| (RELAYING_DENIED, text()))
    };
    let known = transaction.envelope.recipients.iter().map(|recipient| Decision {
        address: recipient.address.to_string(),
        refusal: refusal(recipient),
    });
    let bad = transaction.bad.iter().map(|bad| Decision {
        address: bad.argument.clone(),
        refusal: Some((bad.error.code(), format!("line {}: {}", bad.line, bad.error))),
    });
    Judged {
        number: transaction.number,
        id: None,
        recipients: known.chain(bad).collect(),
    }
}

fn new_recipient(
    recipient: Recipient,
    sender: &Sender,
    return_by: Option<Timestamp>,
    config: &Config,
    now: Timestamp,
) -> NewRecipient {
    let destination = recipient.address.destination();
    let relay = config.onward.relay(&destination);
    let expires = add(now, relay.policy.lifetime);
    let wants = dsn::wanted(sender, &recipient, Action::Delayed);
    let by = dsn::notice_by(sender, &recipient, now);
    NewRecipient {
        expires: return_by.map_or(expires, |by| by.min(expires)),
        notice: relay.notices(config.away()).first(now, wants, by),
        recipient,
        destination,
        due: now,
    }
}

fn may_speak(sender: &Sender, peer: &Peer) -> bool {
    match &sender.path {
        ReversePath::Null => true,
        ReversePath::Address(address) => peer.senders.contain(&address.destination()),
    }
}

fn is_ours(recipient: &Recipient, accept: &Accept) -> bool {
    accept.domains.contain(&recipient.address.destination())
}
