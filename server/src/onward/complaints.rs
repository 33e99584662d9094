//! What the postmaster is told of senders that cannot be answered: objects in bare bundles that were refused (RFC 2442 section 4).

use std::{fmt::Write, sync::Arc};

use bytes::Bytes;
use http::StatusCode;
use lightpost_clock::{Clock, add};
use lightpost_mail::{
    Recipient, ReversePath, Sender, date,
    lines::{BareLineEnds, Canonicaliser},
};
use lightpost_queue::{LOCAL, NewBody, NewMessage, NewRecipient, RequestKey, Store, StoredReply, Submission};

use crate::{Config, new_id};

/// Writes to the postmaster.
pub(crate) struct Complaints {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    clock: Clock,
}

impl Complaints {
    pub(crate) fn new(config: Arc<Config>, store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { config, store, clock }
    }

    fn message(&self, from: &str, bundle: &str, status: StatusCode, said: &[u8]) -> NewMessage {
        let now = self.clock.now();
        let id = new_id(now);
        let (postmaster, name) = (&self.config.postmaster, &self.config.name);
        let mut text = format!(
            "From: Mail Delivery System <{postmaster}>\r\nTo: <{postmaster}>\r\nSubject: Mail in a bundle was refused\r\n\
             Date: {date}\r\nMessage-ID: <{id}@{name}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=us-ascii\r\n\r\n\
             {from} sent a Batch SMTP object in bundle {bundle}.\r\n\
             Not all of it was accepted, and whoever sends bare objects cannot be answered.\r\n\r\n{status}\r\n",
            date = date::rfc5322(now),
        );
        for line in String::from_utf8_lossy(said).lines() {
            // Writing to a String cannot fail.
            for part in line.as_bytes().chunks(900) {
                let _ = writeln!(text, "{}\r", part.escape_ascii());
            }
        }
        let mut machine = Canonicaliser::new(BareLineEnds::Normalise);
        let mut body = Vec::with_capacity(text.len() + 2);
        // A normalising machine refuses nothing.
        let _ = machine.push(text.as_bytes(), &mut body);
        let facts = machine.finish(&mut body).unwrap_or_default();
        let relays = &self.config.onward;
        let lifetime = relays.notify.as_ref().unwrap_or(&relays.local).policy.lifetime;
        NewMessage {
            id,
            sender: Sender::new(ReversePath::Null),
            recipients: vec![NewRecipient {
                recipient: Recipient::new(postmaster.clone()),
                destination: LOCAL.to_owned(),
                due: now,
                notice: None,
                expires: add(now, lifetime),
            }],
            body: NewBody::Inline(body.into()),
            facts,
            priority: 0,
            origin: "bundle".into(),
            origin_id: None,
            upstream: None,
            notes: Vec::new(),
            accepted: now,
            hold: None,
        }
    }
}

#[async_trait::async_trait]
impl lightpost_transport::bundle::listener::Complaints for Complaints {
    async fn refused(&self, from: &str, bundle: &str, status: StatusCode, said: &Bytes) -> bool {
        tracing::warn!(from, bundle, %status, "mail in a bare bundle was refused; the postmaster is told");
        let message = self.message(from, bundle, status, said);
        let key = RequestKey {
            scope: "complaint".into(),
            key: bundle.to_owned(),
            digest: [0; 32],
            expires: add(message.accepted, self.config.accept.remember),
        };
        let submission = Submission {
            key: Some(key),
            reply: StoredReply::default(),
            messages: vec![message],
            charges: Vec::new(),
        };
        match self.store.enqueue(submission).await {
            Ok(_) => true,
            Err(error) => {
                tracing::error!(%error, bundle, "the postmaster cannot be told; the bundle comes again");
                false
            }
        }
    }
}
