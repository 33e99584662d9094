//! SPF, DKIM, DMARC and ARC of a mail as it came, asked of the local resolver.

use std::{fmt::Write as _, net::IpAddr};

use hickory_resolver::TokioResolver;
use lightpost_clock::Clock;
use lightpost_config::duration_text;
use lightpost_intake::{
    StoredBody,
    signed::{self, BodyHash},
};
use lightpost_mail::EnhancedCode;
use mail_auth::{
    ArcOutput, AuthenticatedMessage, AuthenticationResults, DkimOutput, DkimResult, DmarcOutput, DmarcResult,
    MessageAuthenticator, SpfOutput,
    dmarc::{Policy, verify::DmarcParameters},
    spf::verify::SpfParameters,
};

use super::{LATER, Mail, origin::Origin};
use crate::{accept::Refusal, config::Authentication};

/// Delivery not authorised (RFC 3463).
const REFUSED: EnhancedCode = EnhancedCode::new(5, 7, 1);
/// Other or undefined media error.
const MEDIA: EnhancedCode = EnhancedCode::new(5, 6, 0);

/// Authenticates senders.
pub(super) struct Authenticator {
    settings: Authentication,
    /// Our name in results, for finding those that claim to be ours.
    pub(super) id: String,
    resolver: MessageAuthenticator,
    clock: Clock,
}

/// What follows for a mail that is taken.
pub(super) struct Authenticated<'s> {
    /// One line for the history.
    pub(super) note: String,
    /// Our results; none when nothing could be found out.
    pub(super) results: Option<AuthenticationResults<'s>>,
    /// The hash of the body as it came, where it was read.
    pub(super) body: Option<BodyHash>,
}

/// All results.
struct Findings<'x> {
    spf: Option<(SpfOutput, IpAddr, String)>,
    dkim: Vec<DkimOutput<'x>>,
    dmarc: DmarcOutput,
    arc: ArcOutput<'x>,
}

impl Authenticator {
    pub(super) fn new(name: &str, settings: &Authentication, resolver: TokioResolver, clock: &Clock) -> Self {
        Self {
            id: settings.authserv_id.clone().unwrap_or_else(|| name.to_owned()),
            settings: settings.clone(),
            resolver: MessageAuthenticator(resolver),
            clock: clock.clone(),
        }
    }

    /// What becomes of a mail with these headers.
    ///
    /// # Errors
    /// It is refused, for good or for now.
    pub(super) async fn judge<'s>(
        &'s self,
        mail: &Mail<'_>,
        name: &str,
        origin: &Origin,
        headers: &[u8],
        body: &StoredBody,
    ) -> Result<Authenticated<'s>, Refusal> {
        let Some(message) = signed::signed(headers, body).await? else {
            return Err(Refusal::new(554, MEDIA, "the mail has no header section"));
        };
        let found = self
            .clock
            .timeout(self.settings.timeout, self.find(mail, name, origin, &message));
        let Ok(findings) = found.await else {
            let why = format!(
                "the resolver gave no answer within {}",
                duration_text(self.settings.timeout)
            );
            return self.unknown(&why);
        };
        let summary = findings.summary(origin);
        let result = findings.dmarc.result();
        if matches!(result, DmarcResult::TempError(_)) {
            return self.unknown(&format!("names could not be looked up: {summary}"));
        }
        let domain = findings.dmarc.domain();
        let failed = matches!(result, DmarcResult::Fail(_)) && findings.dmarc.policy() == Policy::Reject;
        if failed && self.settings.enforce && matches!(origin, Origin::Client { .. }) {
            let text = format!(
                "{} asks to refuse mail that is not from there: {summary}",
                plain(domain)
            );
            return Err(Refusal::new(550, REFUSED, text));
        }
        Ok(Authenticated {
            note: summary,
            results: Some(self.results(&findings, &message, mail)),
            body: BodyHash::of(&message),
        })
    }

    fn unknown(&self, why: &str) -> Result<Authenticated<'_>, Refusal> {
        tracing::warn!(
            why,
            accepted = self.settings.accept_when_down,
            "a sender cannot be authenticated"
        );
        if !self.settings.accept_when_down {
            let text = "the sender cannot be authenticated now; try again later";
            return Err(Refusal::new(451, LATER, text));
        }
        Ok(Authenticated {
            note: format!("taken without authentication: {why}"),
            results: None,
            body: None,
        })
    }

    async fn find<'x>(
        &self,
        mail: &Mail<'_>,
        name: &str,
        origin: &Origin,
        message: &'x AuthenticatedMessage<'x>,
    ) -> Findings<'x> {
        let sender = mail.sender.path.address().map_or("", |address| address.as_str());
        let spf = match origin {
            Origin::Client { address, helo } => {
                let helo = helo.as_deref().unwrap_or_default();
                let parameters = if sender.is_empty() {
                    SpfParameters::verify_ehlo(*address, helo, name)
                } else {
                    SpfParameters::verify_mail_from(*address, helo, name, sender)
                };
                Some((
                    self.resolver.verify_spf(parameters).await,
                    *address,
                    helo.to_owned(),
                ))
            }
            Origin::Local | Origin::Unknown => None,
        };
        let dkim = self.resolver.verify_dkim(message).await;
        let arc = self.resolver.verify_arc(message).await;
        let none = SpfOutput::default();
        let (output, helo) = spf
            .as_ref()
            .map_or((&none, ""), |(output, _, helo)| (output, helo.as_str()));
        let domain = sender.rsplit_once('@').map_or(helo, |(_, domain)| domain);
        let parameters = DmarcParameters::new(message, &dkim, domain, output);
        let dmarc = self.resolver.verify_dmarc(parameters).await;
        Findings {
            spf,
            dkim,
            dmarc,
            arc,
        }
    }

    fn results<'r>(
        &'r self,
        findings: &Findings<'_>,
        message: &AuthenticatedMessage<'_>,
        mail: &Mail<'_>,
    ) -> AuthenticationResults<'r> {
        let mut results = AuthenticationResults::new(&self.id);
        if let Some((spf, address, helo)) = &findings.spf {
            results = match mail.sender.path.address() {
                Some(sender) => results.with_spf_mailfrom_result(spf, *address, sender.as_str(), helo),
                None => results.with_spf_ehlo_result(spf, *address, helo),
            };
            if findings.arc.result() != &DkimResult::None {
                results = results.with_arc_result(&findings.arc, *address);
            }
        }
        results = results.with_dkim_results(&findings.dkim, message.from());
        if !findings.dmarc.domain().is_empty() {
            results = results.with_dmarc_result(&findings.dmarc);
        }
        results
    }
}

impl Findings<'_> {
    /// One line: `spf=pass dkim=pass (earth.example) dmarc=pass`.
    fn summary(&self, origin: &Origin) -> String {
        let mut line = match (&self.spf, origin) {
            (Some((spf, ..)), _) => format!("spf={}", spf.result()).to_ascii_lowercase(),
            (None, Origin::Local) => {
                "spf=none (handed over locally or by an authenticated client)".to_owned()
            }
            (None, _) => "spf=none (no trusted relay names the client)".to_owned(),
        };
        if self.dkim.is_empty() {
            line.push_str(" dkim=none");
        }
        for output in &self.dkim {
            let domain = output.signature().map_or("?", |signature| signature.d.as_str());
            // Writing to a String does not fail.
            let _ = write!(line, " dkim={} ({})", word(output.result()), plain(domain));
        }
        if self.arc.result() != &DkimResult::None {
            let _ = write!(line, " arc={}", word(self.arc.result()));
        }
        let _ = write!(
            line,
            " dmarc={}",
            match self.dmarc.result() {
                DmarcResult::Pass => "pass",
                DmarcResult::Fail(_) => "fail",
                DmarcResult::TempError(_) => "temperror",
                DmarcResult::PermError(_) => "permerror",
                DmarcResult::None => "none",
            }
        );
        line
    }
}

/// The result's word (RFC 8601 section 2.7.1).
fn word(result: &DkimResult) -> &'static str {
    match result {
        DkimResult::Pass => "pass",
        DkimResult::Neutral(_) => "neutral",
        DkimResult::Fail(_) => "fail",
        DkimResult::PermError(_) => "permerror",
        DkimResult::TempError(_) => "temperror",
        DkimResult::None => "none",
    }
}

/// A name from a header, for one line.
fn plain(name: &str) -> String {
    let fine = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    name.chars().take(100).map(fine).collect()
}
