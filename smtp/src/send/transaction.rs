//! One mail on an open session.
//!
//! The commands of the envelope go out in groups where the server offers PIPELINING (RFC 2920): MAIL, every RCPT and DATA in
//! one write. So DATA is under way before the first recipient is known to be good, and a server may say 354 although it
//! refused them all; a lone dot then ends the mail that nobody gets. Until the final dot is out, every failure means that
//! nothing was accepted; behind it, silence means that nobody knows.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use lightpost_mail::{
    EnhancedCode, Envelope,
    lines::{BodyFacts, END_OF_DATA, Stuffer},
};

use super::{Delivery, Protocol, RecipientOutcome, Session, SmtpError, command};
use crate::Reply;

/// Most RCPT commands in one write: their replies must fit into the socket buffers while we write (RFC 2920 section 3.1).
const GROUP: usize = 100;
/// The body is written in pieces of about this size.
const WRITE: usize = 64 * 1024;

/// A recipient's outcome, once known.
type Slot = Option<RecipientOutcome>;
type Body = BoxStream<'static, io::Result<Bytes>>;

/// How the envelope was taken.
enum Taken {
    /// The server waits for the body, for these recipients.
    Go(Vec<usize>),
    /// Every recipient has its outcome; the transaction is still open.
    Reset,
    /// Every recipient has its outcome; nothing is left to undo.
    Over,
}

impl Session {
    /// [`Session::deliver`]; `body` is not touched before the server asks for it.
    pub(crate) async fn transact(
        &mut self,
        envelope: &Envelope,
        facts: &BodyFacts,
        body: &mut Body,
    ) -> Result<Delivery, SmtpError> {
        self.tried += 1;
        self.mail_accepted = false;
        let mut slots = self.outcomes_without_asking(envelope, facts);
        let wanted: Vec<usize> = (0..slots.len())
            .filter(|at| slots.get(*at).is_some_and(Option::is_none))
            .collect();
        if !wanted.is_empty() {
            let taken = if self.offered.pipelining {
                self.pipelined(envelope, facts, &wanted, &mut slots).await?
            } else {
                self.stepwise(envelope, facts, &wanted, &mut slots).await?
            };
            match taken {
                Taken::Go(accepted) => self.content(facts, body, &accepted, &mut slots).await?,
                Taken::Reset => self.reset().await,
                Taken::Over => {}
            }
        }
        let unanswered = || RecipientOutcome::Unknown("no reply for this recipient".to_owned());
        Ok(Delivery {
            recipients: slots
                .into_iter()
                .map(|slot| slot.unwrap_or_else(unanswered))
                .collect(),
            server: self.wire.server().to_owned(),
            dsn: self.offered.dsn,
        })
    }

    /// What is known before a command is sent: too large, or not to be had without SMTPUTF8.
    fn outcomes_without_asking(&self, envelope: &Envelope, facts: &BodyFacts) -> Vec<Slot> {
        let all = |outcome| vec![Some(outcome); envelope.recipients.len()];
        if let Some(limit) = self.offered.size_limit().filter(|limit| facts.size > *limit) {
            let text = format!("the mail has {} octets, the server takes {limit}", facts.size);
            return all(RecipientOutcome::Refused(Reply {
                code: 552,
                enhanced: Some(EnhancedCode::new(5, 3, 4)),
                text,
            }));
        }
        if facts.eight_bit && !self.offered.eight_bit_mime {
            // Every server of the last decades takes it; to convert would break signatures.
            tracing::debug!(
                server = self.wire.server(),
                "8BITMIME is not offered, sending 8-bit text as it is"
            );
        }
        if self.offered.smtputf8 {
            return vec![None; envelope.recipients.len()];
        }
        let unsupported = || RecipientOutcome::Unsupported("SMTPUTF8");
        let sender = &envelope.sender;
        let sender_needs_it = sender.path.address().is_some_and(|address| !address.is_ascii());
        if sender_needs_it || (sender.parameters.smtputf8 && facts.eight_bit_headers) {
            return all(unsupported());
        }
        let recipients = envelope.recipients.iter();
        recipients
            .map(|recipient| (!recipient.address.is_ascii()).then(unsupported))
            .collect()
    }

    /// The envelope in groups.
    async fn pipelined(
        &mut self,
        envelope: &Envelope,
        facts: &BodyFacts,
        wanted: &[usize],
        slots: &mut [Slot],
    ) -> Result<Taken, SmtpError> {
        let mut accepted = Vec::with_capacity(wanted.len());
        let last = wanted.len().div_ceil(GROUP) - 1;
        command::mail(&mut self.wire.output, envelope, facts, &self.offered);
        for (number, group) in wanted.chunks(GROUP).enumerate() {
            for recipient in group.iter().filter_map(|at| envelope.recipients.get(*at)) {
                command::rcpt(&mut self.wire.output, recipient, &self.offered);
            }
            if number == last {
                self.wire.output.extend_from_slice(b"DATA\r\n");
            }
            self.wire.flush(if number == 0 { "MAIL" } else { "RCPT" }).await?;
            if number == 0
                && let Some(refusal) = self.refusal("MAIL").await?
            {
                refuse(slots, &refusal);
                let answers = group.len() + usize::from(number == last);
                self.drain(&refusal, answers, number == last).await;
                return Ok(Taken::Over);
            }
            self.mail_accepted = true;
            if self.recipients(group, &mut accepted, slots).await? {
                return Ok(Taken::Over);
            }
        }
        let answer = self.wire.reply("DATA").await.map(Reply::from);
        match answer {
            // The refusals stand, whatever becomes of the session.
            Err(_) if accepted.is_empty() => Ok(Taken::Over),
            Err(error) => Err(error),
            Ok(reply) if reply.code == 354 && accepted.is_empty() => {
                self.lone_dot().await;
                Ok(Taken::Over)
            }
            Ok(reply) if accepted.is_empty() => {
                self.note_farewell(&reply);
                Ok(if self.wire.is_open() {
                    Taken::Reset
                } else {
                    Taken::Over
                })
            }
            Ok(reply) => self.data(reply, accepted, slots),
        }
    }

    /// The envelope command by command.
    async fn stepwise(
        &mut self,
        envelope: &Envelope,
        facts: &BodyFacts,
        wanted: &[usize],
        slots: &mut [Slot],
    ) -> Result<Taken, SmtpError> {
        command::mail(&mut self.wire.output, envelope, facts, &self.offered);
        self.wire.flush("MAIL").await?;
        if let Some(refusal) = self.refusal("MAIL").await? {
            refuse(slots, &refusal);
            return Ok(Taken::Over);
        }
        self.mail_accepted = true;
        let mut accepted = Vec::with_capacity(wanted.len());
        for at in wanted {
            let Some(recipient) = envelope.recipients.get(*at) else {
                continue;
            };
            command::rcpt(&mut self.wire.output, recipient, &self.offered);
            self.wire.flush("RCPT").await?;
            if self.recipients(&[*at], &mut accepted, slots).await? {
                return Ok(Taken::Over);
            }
        }
        if accepted.is_empty() {
            return Ok(Taken::Reset);
        }
        let reply = Reply::from(self.command("DATA", "DATA").await?);
        self.data(reply, accepted, slots)
    }

    /// Reads the replies to a group of RCPT. True when the server ended the session, so that every recipient is refused.
    async fn recipients(
        &mut self,
        group: &[usize],
        accepted: &mut Vec<usize>,
        slots: &mut [Slot],
    ) -> Result<bool, SmtpError> {
        for at in group {
            match self.refusal("RCPT").await? {
                None => accepted.push(*at),
                Some(reply) if reply.code == 421 => {
                    refuse(slots, &reply);
                    return Ok(true);
                }
                Some(reply) => set(slots, *at, RecipientOutcome::Refused(reply)),
            }
        }
        Ok(false)
    }

    /// What the reply to DATA means for the recipients accepted so far.
    fn data(&mut self, reply: Reply, accepted: Vec<usize>, slots: &mut [Slot]) -> Result<Taken, SmtpError> {
        match reply.code {
            354 => Ok(Taken::Go(accepted)),
            400..=599 => {
                self.note_farewell(&reply);
                refuse(slots, &reply);
                Ok(if self.wire.is_open() {
                    Taken::Reset
                } else {
                    Taken::Over
                })
            }
            _ => Err(self.wire.protocol(format!("DATA: unexpected reply {reply}"))),
        }
    }

    /// Sends the body and the final dot and reads what became of it.
    async fn content(
        &mut self,
        facts: &BodyFacts,
        body: &mut Body,
        accepted: &[usize],
        slots: &mut [Slot],
    ) -> Result<(), SmtpError> {
        if let Err(error) = self.send_body(facts, body).await {
            // No final dot, no further command.
            let was_open = self.wire.is_open();
            self.wire.shut();
            // A server that had enough says why before it hangs up.
            if !was_open
                && let Ok(reply) = self.wire.reply("body").await.map(Reply::from)
                && !reply.is_positive()
            {
                refuse(slots, &reply);
                return Ok(());
            }
            return Err(error);
        }
        match self.protocol {
            Protocol::Smtp => {
                let outcome = self.verdict().await;
                for at in accepted {
                    set(slots, *at, outcome.clone());
                }
            }
            Protocol::Lmtp => {
                for at in accepted {
                    let outcome = self.verdict().await;
                    set(slots, *at, outcome);
                }
            }
        }
        Ok(())
    }

    /// Streams the body, stuffed, and the final dot: a small mail in one write, a large one with constant memory.
    async fn send_body(&mut self, facts: &BodyFacts, body: &mut Body) -> Result<(), SmtpError> {
        let mut stuffer = Stuffer::new();
        let mut size = 0u64;
        let mut ended = true;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| SmtpError::Body(error.to_string()))?;
            size += chunk.len() as u64;
            ended = chunk.last().map_or(ended, |octet| *octet == b'\n');
            // A chunk may be large: pieces keep the buffer small.
            for piece in chunk.chunks(WRITE) {
                stuffer.push(piece, &mut self.wire.output);
                if self.wire.output.len() >= WRITE {
                    self.wire.flush("body").await?;
                }
            }
        }
        // The size stands in MAIL and in the digest: a body cut short or an open last line must never get its final dot.
        if size != facts.size {
            let promised = facts.size;
            return Err(SmtpError::Body(format!("{size} octets instead of {promised}")));
        }
        if !ended {
            return Err(SmtpError::Body("the last line has no end".to_owned()));
        }
        self.wire.output.extend_from_slice(END_OF_DATA);
        // An error here means that the system has not taken all octets, and the last of them end the dot's line: it has not left.
        self.wire.flush("body").await
    }

    /// Reads one reply to the final dot. A failure ends the session.
    async fn verdict(&mut self) -> RecipientOutcome {
        if !self.wire.is_open() {
            return RecipientOutcome::Unknown(
                "connection lost before the reply for this recipient".to_owned(),
            );
        }
        match self.wire.reply("end of data").await.map(Reply::from) {
            Ok(reply) => {
                self.note_farewell(&reply);
                match reply.code {
                    200..=299 => RecipientOutcome::Accepted(reply),
                    400..=599 => RecipientOutcome::Refused(reply),
                    _ => {
                        self.wire.shut();
                        RecipientOutcome::Unknown(format!("unexpected reply {reply}"))
                    }
                }
            }
            Err(error) => RecipientOutcome::Unknown(error.to_string()),
        }
    }

    /// Reads the reply to MAIL or RCPT: `None` where it is 2xx.
    async fn refusal(&mut self, during: &'static str) -> Result<Option<Reply>, SmtpError> {
        let reply = Reply::from(self.wire.reply(during).await?);
        match reply.code {
            200..=299 => Ok(None),
            400..=599 => {
                self.note_farewell(&reply);
                Ok(Some(reply))
            }
            _ => Err(self.wire.protocol(format!("{during}: unexpected reply {reply}"))),
        }
    }

    /// 421: the server closes the connection (RFC 5321 section 3.8).
    fn note_farewell(&mut self, reply: &Reply) {
        if reply.code == 421 {
            self.wire.shut();
        }
    }

    /// Reads the answers to commands that were under way when MAIL was refused.
    async fn drain(&mut self, refusal: &Reply, answers: usize, data: bool) {
        let mut last = refusal.code;
        for _ in 0..answers {
            if !self.wire.is_open() {
                return;
            }
            let Ok(reply) = self.wire.reply("MAIL").await.map(Reply::from) else {
                return;
            };
            self.note_farewell(&reply);
            last = reply.code;
        }
        if data && last == 354 {
            self.lone_dot().await;
        }
    }

    /// Ends a mail that has no recipients.
    async fn lone_dot(&mut self) {
        self.wire.output.extend_from_slice(END_OF_DATA);
        if self.wire.flush("end of data").await.is_err() {
            return;
        }
        // LMTP answers once per accepted recipient: how many answers a server gives that accepted none is anybody's guess.
        if self.protocol == Protocol::Lmtp {
            self.wire.shut();
            return;
        }
        if let Ok(reply) = self.wire.reply("end of data").await.map(Reply::from) {
            self.note_farewell(&reply);
        }
    }

    async fn reset(&mut self) {
        match self.command("RSET", "RSET").await.map(Reply::from) {
            Ok(reply) if reply.code / 100 == 2 => {}
            // Without a clean state no mail may follow.
            Ok(_) | Err(_) => self.wire.shut(),
        }
    }
}

fn set(slots: &mut [Slot], at: usize, outcome: RecipientOutcome) {
    if let Some(slot) = slots.get_mut(at) {
        *slot = Some(outcome);
    }
}

/// Gives `reply` to everyone without an outcome.
fn refuse(slots: &mut [Slot], reply: &Reply) {
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = Some(RecipientOutcome::Refused(reply.clone()));
    }
}
