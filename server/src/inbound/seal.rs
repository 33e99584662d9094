//! Seals on mail (ARC, RFC 8617): the last one of a chain is the agent's on the other side, and its key is in a file. No name is looked up.

use std::{borrow::Borrow, collections::HashMap, fmt, hash::Hash, sync::Arc, time::Instant};

use lightpost_intake::{StoredBody, signed};
use lightpost_mail::EnhancedCode;
use lightpost_queue::{Store, StoreError};
use mail_auth::{
    AuthenticatedMessage, DkimResult, DnsError, Error, MessageAuthenticator, Parameters, ResolverCache, Txt,
    common::verify::DomainKey,
    hickory_resolver::{
        config::{ResolverConfig, ResolverOpts},
        net::NetError,
        proto::op::ResponseCode,
    },
};

use super::judge::Verdicts;
use crate::config::Seals;

/// ARC validation failure (RFC 8617 section 11).
const BROKEN: EnhancedCode = EnhancedCode::new(5, 7, 29);
/// Characters of the sealed results that the history shows.
const SHOWN: usize = 500;

/// Verifies seals.
pub(crate) struct SealCheck {
    settings: Seals,
    verifier: MessageAuthenticator,
}

/// What is known of a seal.
enum Sealed {
    /// It is good, and these are the results that it covers.
    Good { by: String, results: String },
    /// There is none.
    Absent,
    /// It is not what it should be.
    Bad(String),
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good { by, results } => write!(f, "sealed by {by}: {results}"),
            Self::Absent => f.write_str("there is no seal"),
            Self::Bad(why) => write!(f, "the seal is not good: {why}"),
        }
    }
}

impl SealCheck {
    /// # Errors
    /// The system is short of what the verifier needs.
    pub(crate) fn new(settings: &Seals) -> Result<Self, NetError> {
        // It has no server to ask, and what it is asked the file of keys answers.
        let nobody = ResolverConfig::from_name_servers(Vec::new());
        let verifier = MessageAuthenticator::new(nobody, ResolverOpts::default())?;
        Ok(Self {
            settings: settings.clone(),
            verifier,
        })
    }

    /// Notes what is known of the seals of accepted mails, and refuses those without a good one where that is asked for.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn examine(
        &self,
        store: &Arc<dyn Store>,
        verdicts: &mut Verdicts,
    ) -> Result<(), StoreError> {
        let mut refused = Vec::new();
        for message in &mut verdicts.messages {
            let body = StoredBody::new(store.clone(), &message.body, message.facts.size);
            let sealed = self.verify(&body).await?;
            tracing::info!(id = %message.id, %sealed, "seal");
            message.notes.push(sealed.to_string());
            if self.settings.require && !matches!(sealed, Sealed::Good { .. }) {
                refused.push((message.id, sealed.to_string()));
            }
        }
        for (id, why) in refused {
            let messages = std::mem::take(&mut verdicts.messages);
            let (gone, kept) = messages.into_iter().partition(|message| message.id == id);
            verdicts.messages = kept;
            verdicts
                .unused
                .extend(gone.into_iter().map(|message| message.body));
            for judged in verdicts
                .refusals
                .iter_mut()
                .filter(|judged| judged.id == Some(id))
            {
                judged.id = None;
                for recipient in judged.recipients.iter_mut().filter(|one| one.refusal.is_none()) {
                    recipient.refusal = Some((BROKEN, why.clone()));
                }
            }
        }
        Ok(())
    }

    async fn verify(&self, body: &StoredBody) -> Result<Sealed, StoreError> {
        let Some(headers) = signed::whole_headers(body).await? else {
            let why = format!("the header section exceeds {} octets", signed::HEADERS);
            return Ok(Sealed::Bad(why));
        };
        let Some(message) = signed::signed(&headers, body).await? else {
            return Ok(Sealed::Absent);
        };
        let keys = Keys(&self.settings.keys);
        let output = self
            .verifier
            .verify_arc(Parameters::new(&message).with_txt_cache(&keys))
            .await;
        Ok(match output.result() {
            DkimResult::Pass => good(&message),
            DkimResult::None => Sealed::Absent,
            DkimResult::Neutral(error)
            | DkimResult::Fail(error)
            | DkimResult::PermError(error)
            | DkimResult::TempError(error) => Sealed::Bad(match error {
                Error::Dns(_) => "its key is not in the file".into(),
                error => error.to_string(),
            }),
        })
    }
}

fn good(message: &AuthenticatedMessage<'_>) -> Sealed {
    let by = message
        .as_headers
        .last()
        .map(|seal| format!("{} ({})", seal.header.d, seal.header.s));
    let results = message.aar_headers.last().map(|results| {
        let text = String::from_utf8_lossy(results.value).into_owned();
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.chars().take(SHOWN).collect()
    });
    Sealed::Good {
        by: by.unwrap_or_default(),
        results: results.unwrap_or_default(),
    }
}

/// The file of keys in the resolver's place: what it does not hold does not exist.
struct Keys<'a>(&'a HashMap<Box<str>, Arc<DomainKey>>);

impl ResolverCache<Box<str>, Txt> for Keys<'_> {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let absent = || Txt::Error(Error::Dns(DnsError::RecordNotFound(ResponseCode::NXDomain)));
        Some(
            self.0
                .get(name)
                .map_or_else(absent, |key| Txt::DomainKey(key.clone())),
        )
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}
