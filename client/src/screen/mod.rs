//! What is looked at besides the envelope before a mail goes into the outbox (`[screen]`).
//!
//! It happens between the last octet of a body and its acknowledgement, so that a refusal reaches the caller and what is found out
//! stands in the header that crosses. The body is in the store by then and is read from there in pieces: nothing holds a large mail
//! whole. Where header fields change, the mail is written into the store once more ([`rewrite`]).

mod authenticate;
mod origin;
mod results;
mod rewrite;
mod rspamd;

use std::sync::Arc;

use ipnet::IpNet;
use lightpost_clock::Clock;
use lightpost_intake::{StoredBody, signed};
use lightpost_mail::{EnhancedCode, Sender};
use lightpost_queue::Store;

use crate::{
    accept::{Draft, Refusal, Source, Spooled},
    config::Config,
    discover::{ResolverError, resolver},
};
use authenticate::Authenticator;
use origin::Origin;
use results::{authserv_id, fields};
use rspamd::Rspamd;

/// Octets of a header section in which the mail's origin is looked for.
const HEADERS: usize = 64 * 1024;
/// Message too big for system (RFC 3463).
const TOO_BIG: EnhancedCode = EnhancedCode::new(5, 3, 4);

/// Looks at mails.
pub(crate) struct Screen {
    name: String,
    relays: Vec<IpNet>,
    authenticator: Option<Authenticator>,
    rspamd: Option<Rspamd>,
}

/// A mail that is looked at.
pub(crate) struct Mail<'a> {
    pub(crate) draft: &'a Draft,
    pub(crate) source: &'a Source,
    pub(crate) sender: &'a Sender,
}

impl Screen {
    /// What the configuration asks for; `None` where that is nothing.
    ///
    /// # Errors
    /// There is no resolver for what has to be looked up.
    pub(crate) fn new(config: &Config, clock: &Clock) -> Result<Option<Self>, ResolverError> {
        let Some(settings) = config.screen.as_ref() else {
            return Ok(None);
        };
        let authenticator = match &settings.authentication {
            Some(authentication) => {
                let resolver = resolver(&config.resolver)?;
                Some(Authenticator::new(
                    &config.name,
                    authentication,
                    settings.seal.as_ref(),
                    resolver,
                    clock,
                ))
            }
            None => None,
        };
        Ok(Some(Self {
            name: config.name.clone(),
            relays: settings.trusted_relays.clone(),
            authenticator,
            rspamd: settings.rspamd.as_ref().map(|rspamd| Rspamd::new(rspamd, clock)),
        }))
    }

    /// The mail as it may leave, or why it does not.
    ///
    /// # Errors
    /// The mail is refused, for good or for now; its body is still there.
    pub(crate) async fn mail(
        &self,
        mail: &Mail<'_>,
        store: &Arc<dyn Store>,
        mut spooled: Spooled,
    ) -> Result<Spooled, Refusal> {
        let body = StoredBody::new(store.clone(), &spooled.body, spooled.facts.size);
        let (mut front, mut replaced) = (Vec::new(), 0);
        let origin = if let Some(authenticator) = &self.authenticator {
            let Some(headers) = signed::whole_headers(&body).await? else {
                let text = format!("the header section exceeds {} octets", signed::HEADERS);
                return Err(Refusal::new(552, TOO_BIG, text));
            };
            let origin = Origin::of(mail.source, &self.relays, &headers);
            let judged = authenticator
                .judge(mail, &self.name, &origin, &headers, &body)
                .await;
            let judged = judged.inspect_err(|refusal| refused(mail, refusal))?;
            spooled.notes.push(judged.note);
            front.extend_from_slice(judged.fields.as_bytes());
            if let Some(kept) = without(&headers, &authenticator.id, judged.drop_arc) {
                replaced = headers.len();
                front.extend_from_slice(&kept);
            }
            origin
        } else {
            Origin::of(mail.source, &self.relays, &body.headers(HEADERS).await?)
        };
        if let Some(rspamd) = &self.rspamd {
            let verdict = rspamd.judge(mail, &self.name, &origin, &body).await;
            let verdict = verdict.inspect_err(|refusal| refused(mail, refusal))?;
            spooled.notes.push(verdict.note);
            spooled.hold = spooled.hold.or(verdict.hold);
            if let Some(field) = verdict.field {
                front.splice(0..0, format!("{field}\r\n").into_bytes());
            }
        }
        if front.is_empty() {
            return Ok(spooled);
        }
        rewrite::with_front(store, &body, &front, replaced, spooled).await
    }
}

fn refused(mail: &Mail<'_>, refusal: &Refusal) {
    tracing::info!(id = %mail.draft.id, sender = %mail.sender, %refusal, "refused for what it is");
}

/// The header section without results that claim to be ours (RFC 8601 section 5) and, where ours are sealed anew, without ARC fields;
/// `None` when there are none of them.
fn without(headers: &[u8], id: &str, drop_arc: bool) -> Option<Vec<u8>> {
    let unwanted = |field: &[u8]| {
        let arc = field
            .get(..4)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"ARC-"));
        let forged = authserv_id(field).is_some_and(|found| found.eq_ignore_ascii_case(id.as_bytes()));
        forged || arc && drop_arc
    };
    if !fields(headers).any(unwanted) {
        return None;
    }
    let section: usize = fields(headers).map(<[u8]>::len).sum();
    let mut kept: Vec<u8> = fields(headers)
        .filter(|field| !unwanted(field))
        .flatten()
        .copied()
        .collect();
    kept.extend_from_slice(headers.get(section..).unwrap_or_default());
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_claim_to_be_ours_go() {
        let headers = "Received: by a\r\nAuthentication-Results: other.example; spf=fail\r\nauthentication-RESULTS: (x)\r\n EARTH.example 1;\r\n\tspf=pass\r\nARC-Seal: i=1\r\nSubject: x\r\n\r\n";
        let without = |headers: &str, arc| {
            without(headers.as_bytes(), "earth.example", arc).map(|kept| String::from_utf8(kept).unwrap())
        };
        let kept = without(headers, false).unwrap();
        assert_eq!(
            kept,
            "Received: by a\r\nAuthentication-Results: other.example; spf=fail\r\nARC-Seal: i=1\r\nSubject: x\r\n\r\n"
        );
        assert_eq!(without(&kept, false), None);
        assert!(!without(headers, true).unwrap().contains("ARC"));
        // Below the empty line it is text.
        assert_eq!(
            without(
                "Subject: x\r\n\r\nAuthentication-Results: earth.example; none\r\n",
                true
            ),
            None
        );
    }
}
