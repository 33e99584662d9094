//! Against a scripted server.

mod opening;
mod pool;
mod server;
mod transaction;

use std::io;

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use lightpost_clock::Clock;
use lightpost_mail::{Envelope, lines::BodyFacts};

use self::server::{Server, Step, script};
use super::*;

/// A body that needs no stuffing.
const BODY: &str = "Subject: x\r\n\r\nhello\r\n";

/// A greeting and what is usually offered.
const HELLO: &str = "
    S: 220 server.example ESMTP
    C: EHLO client.example
    S: 250-server.example
    S: 250-8BITMIME
    S: 250-SIZE 1000
    S: 250-DSN
";
const PIPELINING: &str = "S: 250 PIPELINING\n";
const NO_PIPELINING: &str = "S: 250 HELP\n";

fn envelope(recipients: usize) -> Envelope {
    Envelope {
        sender: "<from@earth.example>".parse().unwrap(),
        recipients: (0..recipients)
            .map(|number| format!("<r{number}@moon.example>").parse().unwrap())
            .collect(),
    }
}

fn facts(size: usize) -> BodyFacts {
    BodyFacts {
        size: size as u64,
        ..BodyFacts::default()
    }
}

fn body(text: &str) -> BoxStream<'static, io::Result<Bytes>> {
    stream::iter([Ok(Bytes::from(text.to_owned()))]).boxed()
}

async fn open(server: &Server) -> Session {
    Session::open(&server.target, &Clock::system()).await.unwrap()
}

async fn deliver(session: &mut Session, recipients: usize) -> Result<Delivery, SmtpError> {
    session
        .deliver(&envelope(recipients), &facts(BODY.len()), body(BODY))
        .await
}

/// Outcomes as short text: `+250`, `-550`, `?`, `!SMTPUTF8`.
fn short(delivery: &Delivery) -> String {
    let outcomes = delivery.recipients.iter().map(|outcome| match outcome {
        RecipientOutcome::Accepted(reply) => format!("+{}", reply.code),
        RecipientOutcome::Refused(reply) => format!("-{}", reply.code),
        RecipientOutcome::Unsupported(extension) => format!("!{extension}"),
        RecipientOutcome::Unknown(_) => "?".to_owned(),
    });
    outcomes.collect::<Vec<_>>().join(" ")
}

/// The result of a delivery as short text: the outcomes, or the error.
fn result(delivery: Result<Delivery, SmtpError>) -> String {
    match delivery {
        Ok(delivery) => short(&delivery),
        Err(SmtpError::Lost { during, .. }) => format!("lost {during}"),
        Err(SmtpError::Protocol { what, .. }) => format!("protocol {what}"),
        Err(error) => error.to_string(),
    }
}
