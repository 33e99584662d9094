//! What is looked at besides the envelope before a mail goes into the outbox (`[screen]`).
//!
//! It happens between the last octet of a body and its acknowledgement, so that a refusal reaches the caller and what is found out
//! stands in the header that crosses. First the mail is judged as it came ([`Screen::judge`]); what changes it for its path comes then;
//! and last what was found out is written into it, and sealed ([`Screen::seal`]), so that the seal is of what leaves. The body is in the
//! store by then and is read from there in pieces: nothing holds a large mail whole. Where header fields change, the mail is written into
//! the store once more ([`rewrite`]).

mod authenticate;
mod origin;
mod results;
mod rewrite;
mod rspamd;
mod seal;

use std::sync::Arc;

use ipnet::IpNet;
use lightpost_clock::Clock;
use lightpost_intake::{StoredBody, signed, spool};
use lightpost_mail::{EnhancedCode, Sender};
use lightpost_queue::Store;
use mail_auth::AuthenticationResults;

use crate::{
    accept::{Draft, Refusal, Source, Spooled},
    config::{Config, Seal},
    discover::{ResolverError, resolver},
};
use authenticate::Authenticator;
use origin::Origin;
use rspamd::Rspamd;

/// Octets of a header section in which the mail's origin is looked for.
const HEADERS: usize = 64 * 1024;
/// Message too big for system (RFC 3463).
const TOO_BIG: EnhancedCode = EnhancedCode::new(5, 3, 4);
/// Other or undefined security status, for now.
const LATER: EnhancedCode = EnhancedCode::new(4, 7, 0);

/// Looks at mails.
pub(crate) struct Screen {
    name: String,
    relays: Vec<IpNet>,
    authenticator: Option<Authenticator>,
    seal: Option<Seal>,
    rspamd: Option<Rspamd>,
}

/// What is to be written into a mail that was taken.
#[derive(Default)]
pub(crate) struct Judged<'s> {
    /// Our results, where senders are authenticated and could be.
    results: Option<AuthenticationResults<'s>>,
    /// A header field that marks it, without its line end.
    mark: Option<String>,
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
                Some(Authenticator::new(&config.name, authentication, resolver, clock))
            }
            None => None,
        };
        Ok(Some(Self {
            name: config.name.clone(),
            relays: settings.trusted_relays.clone(),
            authenticator,
            seal: settings.seal.clone(),
            rspamd: settings.rspamd.as_ref().map(|rspamd| Rspamd::new(rspamd, clock)),
        }))
    }

    /// Looks at a mail as it came: what is to be written into it, or why it does not leave.
    ///
    /// # Errors
    /// The mail is refused, for good or for now; its body is still there.
    pub(crate) async fn judge(
        &self,
        mail: &Mail<'_>,
        store: &Arc<dyn Store>,
        spooled: &mut Spooled,
    ) -> Result<Judged<'_>, Refusal> {
        // Others are asked, and meanwhile the caller may leave.
        let guard = spool::Guard::new(store.clone(), &spooled.body);
        let judged = self.look(mail, store, spooled).await;
        guard.keep();
        judged.inspect_err(|refusal| {
            tracing::info!(id = %mail.draft.id, sender = %mail.sender, %refusal, "refused for what it is");
        })
    }

    async fn look(
        &self,
        mail: &Mail<'_>,
        store: &Arc<dyn Store>,
        spooled: &mut Spooled,
    ) -> Result<Judged<'_>, Refusal> {
        let body = StoredBody::new(store.clone(), &spooled.body, spooled.facts.size);
        let mut judged = Judged::default();
        let origin = if let Some(authenticator) = &self.authenticator {
            let headers = headers(&body).await?;
            let origin = Origin::of(mail.source, &self.relays, &headers);
            let found = authenticator
                .judge(mail, &self.name, &origin, &headers, &body)
                .await?;
            spooled.notes.push(found.note);
            spooled.body_hash = found.body;
            judged.results = found.results;
            origin
        } else {
            Origin::of(mail.source, &self.relays, &body.headers(HEADERS).await?)
        };
        if let Some(rspamd) = &self.rspamd {
            let verdict = rspamd.judge(mail, &self.name, &origin, &body).await?;
            spooled.notes.push(verdict.note);
            spooled.hold = spooled.hold.take().or(verdict.hold);
            judged.mark = verdict.field;
        }
        Ok(judged)
    }

    /// The mail as it leaves, with what was found out about it in front; the body that it had is removed where it is written anew.
    ///
    /// # Errors
    /// It cannot be sealed or stored; the body that it had is still there.
    pub(crate) async fn seal(
        &self,
        mail: &Mail<'_>,
        store: &Arc<dyn Store>,
        judged: Judged<'_>,
        spooled: Spooled,
    ) -> Result<Spooled, Refusal> {
        let body = StoredBody::new(store.clone(), &spooled.body, spooled.facts.size);
        let (mut front, mut replaced) = (Vec::new(), 0);
        if let Some(mark) = judged.mark {
            front.extend_from_slice(format!("{mark}\r\n").as_bytes());
        }
        if let Some(authenticator) = &self.authenticator {
            let stored = headers(&body).await?;
            let seal = self.seal.as_ref().filter(|_| judged.results.is_some());
            let kept = results::without(&stored, &authenticator.id, seal.is_some());
            if let Some(results) = &judged.results {
                let headers = kept.as_deref().unwrap_or(&stored);
                let sealed = seal::Sealable {
                    headers,
                    stored: &stored,
                    body: &body,
                    hash: spooled.body_hash.as_ref(),
                };
                front.extend_from_slice(sealed.fields(results, seal, mail).await?.as_bytes());
            }
            if let Some(kept) = kept {
                replaced = stored.len();
                front.extend_from_slice(&kept);
            }
        }
        if front.is_empty() {
            return Ok(spooled);
        }
        let guard = spool::Guard::new(store.clone(), &spooled.body);
        let written = rewrite::with_front(store, &body, &front, replaced, spooled).await;
        guard.keep();
        written
    }
}

/// The header section of a mail whose senders are authenticated.
async fn headers(body: &StoredBody) -> Result<Vec<u8>, Refusal> {
    signed::whole_headers(body).await?.ok_or_else(|| {
        let text = format!("the header section exceeds {} octets", signed::HEADERS);
        Refusal::new(552, TOO_BIG, text)
    })
}
