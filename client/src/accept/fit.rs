//! A mail against what its path takes: it fits, is made to fit where an RFC says how, or is refused here and not a light-hour later.
//!
//! With recipients behind several paths a mail is made to fit all of them: it is one mail, and goes to all of its recipients alike.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use lightpost_intake::{Spool, SpoolError, spool};
use lightpost_mail::{
    Address, EnhancedCode, Recipient, ReversePath, Sender,
    convert::{Conversion, Limits, Plan, Survey},
    lines::{BareLineEnds, BodyFacts, Canonicaliser},
};
use lightpost_queue::NewBody;

use super::{Acceptance, Draft, Refusal, Spooled};
use crate::config::{Accepts, Convert};

/// Message too big for the system.
const TOO_LARGE: EnhancedCode = EnhancedCode::new(5, 3, 4);
/// System not capable of selected features.
const INCAPABLE: EnhancedCode = EnhancedCode::new(5, 3, 3);
/// Conversion required and prohibited.
const PROHIBITED: EnhancedCode = EnhancedCode::new(5, 6, 2);
/// Conversion required but not supported.
const UNSUPPORTED: EnhancedCode = EnhancedCode::new(5, 6, 3);
/// Non-ASCII addresses not permitted for that sender or recipient (RFC 6531).
const ASCII_ONLY: EnhancedCode = EnhancedCode::new(5, 6, 7);
/// A header section in UTF-8 cannot be transferred (RFC 6531).
const UTF8_HEADER: EnhancedCode = EnhancedCode::new(5, 6, 9);

impl Accepts {
    /// The recipient as the path takes it.
    ///
    /// # Errors
    /// It does not take it, or the mail's sender, or what that asks for.
    pub(super) fn recipient(&self, sender: &Sender, recipient: &Recipient) -> Result<Recipient, Refusal> {
        if let Some(limit) = self.max_message
            && let Some(size) = sender.parameters.size.filter(|size| *size > limit)
        {
            return Err(too_large(size, limit));
        }
        let by = sender.parameters.deliver_by.is_some() && super::returned_after(sender).is_some();
        if by && !self.deliver_by {
            // RFC 2852 section 4.2: nobody would return it there.
            let text = "it is to be returned when its time is over, and the path does not take DELIVERBY";
            return Err(Refusal::new(550, INCAPABLE, text));
        }
        let mut recipient = recipient.clone();
        if !self.smtputf8 {
            let from = sender.path.address();
            if let Some(from) = from.filter(|from| ascii(from).is_none()) {
                return Err(ascii_only(from));
            }
            recipient.address = ascii(&recipient.address).ok_or_else(|| ascii_only(&recipient.address))?;
        }
        Ok(recipient)
    }
}

/// The address in ASCII, with the domain's A-labels (RFC 5890); `None` where the local part is not.
fn ascii(address: &Address) -> Option<Address> {
    if address.is_ascii() {
        return Some(address.clone());
    }
    let local = Some(address.local_part()).filter(|local| local.is_ascii())?;
    Address::parse(&format!("{local}@{}", address.destination())).ok()
}

/// The sender as it goes to recipients of whom one's path takes ASCII only.
pub(super) fn ascii_sender(sender: &mut Sender) {
    sender.parameters.smtputf8 = false;
    ascii_address(sender);
}

/// The sender's address as it goes to them.
pub(super) fn ascii_address(sender: &mut Sender) {
    if let ReversePath::Address(address) = &mut sender.path
        && let Some(ascii) = ascii(address)
    {
        *address = ascii;
    }
}

impl Acceptance {
    /// What the paths of all recipients take.
    pub(super) fn accepts(&self, draft: &Draft) -> Option<Accepts> {
        let paths = draft.taken.iter().filter_map(|recipient| {
            let path = &self.discovery.route(&recipient.destination)?.path;
            Some(self.config.paths.get(path)?.accepts)
        });
        paths.reduce(Accepts::and)
    }

    /// The mail in the form that the paths of its recipients take; the body that it had is removed where it is written anew. How large it may be
    /// is asked when all is added ([`Acceptance::leaves`]).
    ///
    /// # Errors
    /// They do not take it, and it cannot or may not be converted. The body that it had is still there.
    pub(super) async fn fit(
        &self,
        draft: &Draft,
        sender: &Sender,
        spooled: Spooled,
    ) -> Result<Spooled, Refusal> {
        let Some(accepts) = self.accepts(draft) else {
            return Ok(spooled);
        };
        header_fits(&accepts, sender, &spooled.facts)?;
        if fits(&spooled.facts, accepts.limits()) {
            return Ok(spooled);
        }
        let guard = spool::Guard::new(self.store.clone(), &spooled.body);
        let converted = self.convert(draft, &accepts, &spooled).await;
        guard.keep();
        let converted = converted?;
        spool::discard_new(&*self.store, &spooled.body).await;
        Ok(converted)
    }

    /// Whether the paths of its recipients take the mail as it leaves, with all that was added to it.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn leaves(&self, draft: &Draft, sender: &Sender, facts: &BodyFacts) -> Result<(), Refusal> {
        let Some(accepts) = self.accepts(draft) else {
            return Ok(());
        };
        header_fits(&accepts, sender, facts)?;
        let limits = accepts.limits();
        if !fits(facts, limits) {
            let text = format!(
                "with our fields {}, and the path does not take that",
                needs(facts, limits)
            );
            return Err(Refusal::new(554, UNSUPPORTED, text));
        }
        size_fits(&accepts, facts)
    }

    async fn convert(&self, draft: &Draft, accepts: &Accepts, spooled: &Spooled) -> Result<Spooled, Refusal> {
        let limits = accepts.limits();
        let needs = needs(&spooled.facts, limits);
        if accepts.convert == Convert::Off {
            let text = format!("{needs}, the path does not take that, and mail is not converted here");
            return Err(Refusal::new(554, PROHIBITED, text));
        }
        let mut survey = Survey::new(limits);
        let mut offset = 0;
        while let Some(piece) = self.piece(&spooled.body, offset).await? {
            offset += piece.len() as u64;
            survey.push(&piece);
        }
        let plan = survey.finish().map_err(|obstacle| {
            let code = match obstacle {
                lightpost_mail::convert::Obstacle::EightBitHeader(_) => UTF8_HEADER,
                _ => UNSUPPORTED,
            };
            Refusal::new(
                554,
                code,
                format!("{needs}, the path does not take that, and {obstacle}"),
            )
        })?;
        permitted(&plan, accepts.convert)
            .map_err(|what| Refusal::new(554, PROHIBITED, format!("{needs}, and {what}")))?;
        tracing::info!(id = %draft.id, encodings = plan.encodings(), breaks_parts = plan.breaks_parts,
            breaks_dkim = plan.breaks_dkim, "converted: {needs}");
        let note = note(&plan, limits, &self.config.name, &draft.id.to_string());
        self.write(spooled, plan, limits, note).await
    }

    /// The second reading.
    async fn write(
        &self,
        spooled: &Spooled,
        plan: Plan,
        limits: Limits,
        note: String,
    ) -> Result<Spooled, Refusal> {
        let mut notes = spooled.notes.clone();
        notes.push(format!("converted to {} for its path", plan.encodings()));
        let mut conversion = Conversion::new(plan, limits, note);
        let mut canonical = Canonicaliser::new(BareLineEnds::Normalise);
        // What was read was within the limit; what is added is ours.
        let mut spool = Spool::new(self.store.clone(), u64::MAX);
        let (mut plain, mut out, mut offset) = (Vec::new(), Vec::new(), 0);
        while let Some(piece) = self.piece(&spooled.body, offset).await? {
            offset += piece.len() as u64;
            conversion.push(&piece, &mut plain);
            // A machine that normalises refuses nothing.
            let _ = canonical.push(&plain, &mut out);
            plain.clear();
            spool.push(&out).await.map_err(stored)?;
            out.clear();
        }
        conversion.finish(&mut plain);
        let _ = canonical.push(&plain, &mut out);
        let facts = canonical.finish(&mut out).unwrap_or(spooled.facts);
        spool.push(&out).await.map_err(stored)?;
        Ok(Spooled {
            body: spool.finish().await.map_err(stored)?,
            facts,
            notes,
            body_hash: None,
            ..spooled.clone()
        })
    }

    /// What is stored of a body from `offset` on; none at its end.
    async fn piece(&self, body: &NewBody, offset: u64) -> Result<Option<Bytes>, Refusal> {
        let piece = match body {
            NewBody::Inline(octets) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(octets.len());
                octets.slice(start..)
            }
            NewBody::Spooled(body) => self.store.read_body(*body, offset).await?,
        };
        Ok((!piece.is_empty()).then_some(piece))
    }
}

fn header_fits(accepts: &Accepts, sender: &Sender, facts: &BodyFacts) -> Result<(), Refusal> {
    if accepts.smtputf8 || !sender.parameters.smtputf8 || !facts.eight_bit_headers {
        return Ok(());
    }
    let text = "its header section is UTF-8, and the path does not take SMTPUTF8";
    Err(Refusal::new(554, UTF8_HEADER, text))
}

fn fits(facts: &BodyFacts, limits: Limits) -> bool {
    (limits.eight_bit || !facts.eight_bit) && facts.longest_line <= limits.line
}

/// What a mail needs that the limits do not allow.
fn needs(facts: &BodyFacts, limits: Limits) -> String {
    if facts.eight_bit && !limits.eight_bit {
        return "the mail has octets above 127".to_owned();
    }
    format!("the mail has a line of {} octets", facts.longest_line)
}

/// Whether the policy lets it be converted; else what stands in the way.
fn permitted(plan: &Plan, convert: Convert) -> Result<(), &'static str> {
    if plan.breaks_parts && convert < Convert::All {
        return Err("a part that would have to be converted is signed or encrypted");
    }
    if plan.breaks_dkim && convert < Convert::Dkim {
        return Err("its DKIM signature would not fit any more");
    }
    Ok(())
}

/// The header field that says what was done, as mail systems have named it for long.
fn note(plan: &Plan, limits: Limits, name: &str, id: &str) -> String {
    let from = if limits.eight_bit { "long lines" } else { "8bit" };
    let broken = match (plan.breaks_parts, plan.breaks_dkim) {
        (false, false) => "",
        (false, true) => ";\r\n its DKIM signature was made before",
        (true, false) => ";\r\n a signed or encrypted part was changed",
        (true, true) => ";\r\n a signed or encrypted part was changed, its DKIM signature was made before",
    };
    format!(
        "X-MIME-Autoconverted: from {from} to {}\r\n by {name} id {id}{broken}\r\n",
        plan.encodings()
    )
}

fn size_fits(accepts: &Accepts, facts: &BodyFacts) -> Result<(), Refusal> {
    match accepts.max_message {
        Some(limit) if facts.size > limit => Err(too_large(facts.size, limit)),
        _ => Ok(()),
    }
}

fn too_large(size: u64, limit: u64) -> Refusal {
    let text = format!("the mail has {size} octets, its path takes {limit}");
    Refusal::new(552, TOO_LARGE, text)
}

fn ascii_only(address: &Address) -> Refusal {
    let text = format!("{address} is not ASCII, and the path does not take SMTPUTF8");
    Refusal::new(553, ASCII_ONLY, text)
}

fn stored(error: SpoolError) -> Refusal {
    match error {
        SpoolError::Store(error) => error.into(),
        SpoolError::TooLarge(limit) => super::BodyError::TooLarge(limit).into(),
    }
}
