//! What is looked at besides the envelope before a mail goes into the outbox (`[screen]`).
//!
//! It happens between the last octet of a body and its acknowledgement, so that a refusal reaches the caller and what is found out
//! stands in the header that crosses. The body is in the store by then and is read from there in pieces: nothing holds a large mail
//! whole. Where header fields change, the mail is written into the store once more ([`rewrite`]).

mod body;
mod origin;
mod rewrite;
mod rspamd;

use std::sync::Arc;

use ipnet::IpNet;
use lightpost_clock::Clock;
use lightpost_mail::Sender;
use lightpost_queue::Store;

use crate::{
    accept::{Draft, Refusal, Source, Spooled},
    config::Config,
};
use body::Body;
use origin::Origin;
use rspamd::Rspamd;

/// Octets of a header section in which the mail's origin is looked for.
const HEADERS: usize = 64 * 1024;

/// Looks at mails.
pub(crate) struct Screen {
    name: String,
    relays: Vec<IpNet>,
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
    pub(crate) fn new(config: &Config, clock: &Clock) -> Option<Self> {
        let settings = config.screen.as_ref()?;
        Some(Self {
            name: config.name.clone(),
            relays: settings.trusted_relays.clone(),
            rspamd: settings.rspamd.as_ref().map(|rspamd| Rspamd::new(rspamd, clock)),
        })
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
        let body = Body::new(store.clone(), &spooled);
        let origin = Origin::of(mail.source, &self.relays, &body.headers(HEADERS).await?);
        let mut front = String::new();
        if let Some(rspamd) = &self.rspamd {
            let verdict = rspamd.judge(mail, &self.name, &origin, &body).await;
            let verdict = verdict.inspect_err(|refusal| {
                tracing::info!(id = %mail.draft.id, sender = %mail.sender, %refusal, "refused by Rspamd");
            })?;
            spooled.notes.push(verdict.note);
            spooled.hold = spooled.hold.or(verdict.hold);
            if let Some(field) = verdict.field {
                front.push_str(&field);
                front.push_str("\r\n");
            }
        }
        if front.is_empty() {
            return Ok(spooled);
        }
        rewrite::with_front(store, &body, &front, spooled).await
    }
}
