//! What every [`Store`] has to keep, whatever stands below it. Each check takes an empty store.

mod claims;
mod intake;
mod monitoring;
mod notices;
mod operations;
mod outcomes;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use lightpost_clock::add;
use lightpost_mail::{Address, Recipient, ReversePath, Sender, lines::BodyFacts};
use ulid::Ulid;

use crate::{
    Charge, Claim, ClaimedMessage, Disposition, ExchangeName, MessageView, NewBody, NewExchange, NewMessage,
    NewRecipient, RecipientId, RequestKey, Settlement, Store, StoredReply, Subject, Submission,
};

pub(crate) use self::{claims::*, intake::*, monitoring::*, notices::*, operations::*, outcomes::*};

pub(crate) type Shared = Arc<dyn Store>;

/// Seconds after the time at which every check begins.
pub(crate) fn at(seconds: u64) -> Timestamp {
    add(
        "2030-01-01T00:00:00Z".parse().unwrap(),
        Duration::from_secs(seconds),
    )
}

pub(crate) fn id(number: u128) -> Ulid {
    Ulid::from_parts(1_900_000_000_000, number)
}

pub(crate) fn recipient(local: &str, domain: &str) -> NewRecipient {
    NewRecipient {
        recipient: Recipient::new(Address::parse(&format!("{local}@{domain}")).unwrap()),
        destination: domain.to_owned(),
        due: at(0),
        expires: at(1_000_000),
        notice: None,
    }
}

pub(crate) fn mail(number: u128, recipients: Vec<NewRecipient>) -> NewMessage {
    NewMessage {
        id: id(number),
        sender: Sender::new(ReversePath::Address(Address::parse("a@earth.example").unwrap())),
        recipients,
        body: NewBody::Inline(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n")),
        facts: BodyFacts {
            size: 21,
            longest_line: 10,
            ..BodyFacts::default()
        },
        priority: 0,
        origin: "rest".to_owned(),
        origin_id: None,
        upstream: None,
        accepted: at(0),
        hold: None,
        notes: Vec::new(),
    }
}

/// A mail to b@moon.example.
pub(crate) fn simple(number: u128) -> NewMessage {
    mail(number, vec![recipient("b", "moon.example")])
}

pub(crate) fn submission(messages: Vec<NewMessage>) -> Submission {
    Submission {
        key: None,
        reply: StoredReply::default(),
        messages,
        charges: Vec::new(),
    }
}

/// A bundle node has it.
pub(crate) fn awaiting(until: Timestamp) -> Disposition {
    Disposition::Awaiting {
        until,
        custody: "ipn:1.26/1/0".to_owned(),
    }
}

/// What a submission of one message of `octets` uses up of an allowance.
pub(crate) fn charge(subject: Subject, name: &str, octets: u64) -> Charge {
    Charge {
        subject,
        name: name.to_owned(),
        messages: 1,
        octets,
        most_messages: Some(2),
        most_octets: Some(100),
    }
}

pub(crate) fn keyed(key: &str, digest: u8, reply: &str, messages: Vec<NewMessage>) -> Submission {
    Submission {
        key: Some(RequestKey {
            scope: "peer".to_owned(),
            key: key.to_owned(),
            digest: [digest; 32],
            expires: at(500),
        }),
        reply: StoredReply {
            status: 202,
            body: reply.into(),
        },
        messages,
        charges: Vec::new(),
    }
}

pub(crate) async fn put(store: &Shared, messages: Vec<NewMessage>) {
    store.enqueue(submission(messages)).await.unwrap();
}

pub(crate) async fn claim(store: &Shared, owner: &str, now: Timestamp, limit: usize) -> Vec<ClaimedMessage> {
    let claim = Claim {
        owner,
        destination: "moon.example",
        now,
        until: add(now, Duration::from_secs(60)),
        limit,
    };
    store.claim(claim).await.unwrap()
}

pub(crate) fn ids(messages: &[ClaimedMessage]) -> Vec<Ulid> {
    messages.iter().map(|message| message.id).collect()
}

pub(crate) fn settlement(recipient: RecipientId, disposition: Disposition, now: Timestamp) -> Settlement {
    Settlement {
        recipient,
        disposition,
        at: now,
        remote: Some("gw.moon.example".to_owned()),
        detail: "said".to_owned(),
    }
}

pub(crate) fn exchange(number: u128, message: &ClaimedMessage, until: Timestamp) -> NewExchange {
    NewExchange {
        id: id(number),
        message: message.id,
        gateway: "https://gw.moon.example/".to_owned(),
        digest: [7; 32],
        name: "relay.earth.example".to_owned(),
        terms: 5,
        recipients: message.recipients.iter().map(|recipient| recipient.id).collect(),
        until,
    }
}

pub(crate) async fn view(store: &Shared, number: u128) -> MessageView {
    store.message(id(number)).await.unwrap().unwrap()
}

pub(crate) fn kinds(view: &MessageView) -> Vec<&str> {
    view.history.iter().map(|event| event.kind.as_str()).collect()
}

pub(crate) async fn body(store: &Shared, message: &ClaimedMessage) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let part = store.read_body(message.body, all.len() as u64).await.unwrap();
        if part.is_empty() {
            return all;
        }
        all.extend_from_slice(&part);
    }
}

/// The history and the counts agree with each other after every check.
pub(crate) async fn audit(store: &Shared) {
    let mut counted = std::collections::BTreeMap::new();
    let mut open = 0;
    let filter = crate::Filter {
        limit: 1000,
        ..crate::Filter::default()
    };
    for message in store.list(filter).await.unwrap() {
        let mut waits = false;
        for recipient in message.recipients {
            let word = serde_json::to_value(recipient.status).unwrap();
            *counted.entry(word.as_str().unwrap().to_owned()).or_insert(0) += 1;
            waits |= matches!(
                recipient.status,
                crate::Status::Queued | crate::Status::Held | crate::Status::Leased | crate::Status::Awaiting
            );
        }
        open += u64::from(waits);
    }
    let totals = store.totals().await.unwrap();
    let seen: std::collections::BTreeMap<_, _> = totals
        .recipients
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!((seen, totals.messages), (counted, open));
}
