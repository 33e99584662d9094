//! Which mail goes first: what its sender says (MT-PRIORITY, RFC 6710), or the first `[[priority]]` that fits.

use lightpost_mail::{Sender, trace::fields};
use lightpost_queue::NewBody;

use super::{Acceptance, Spooled};
use crate::config::PriorityRule;

impl Acceptance {
    /// The priority of a mail; its header section is looked at only where a rule asks for it.
    pub(super) async fn priority(&self, sender: &Sender, spooled: &Spooled) -> i8 {
        let said = sender.parameters.mt_priority;
        let counts = |rule: &&PriorityRule| {
            (said.is_none() || rule.always) && rule.fits(&sender.path, spooled.facts.size)
        };
        let mut head = None;
        for rule in self.config.priorities.iter().filter(counts) {
            let Some(field) = &rule.header else {
                return rule.priority;
            };
            if head.is_none() {
                head = Some(self.head(&spooled.body).await);
            }
            let mut all = fields(head.as_deref().unwrap_or_default());
            if all.any(|(name, value)| field.fits(name, value)) {
                return rule.priority;
            }
        }
        said.unwrap_or_default()
    }

    /// The beginning of a body.
    async fn head(&self, body: &NewBody) -> Vec<u8> {
        match body {
            NewBody::Inline(octets) => octets.to_vec(),
            NewBody::Spooled(body) => match self.store.read_body(*body, 0).await {
                Ok(octets) => octets.to_vec(),
                Err(error) => {
                    tracing::warn!(%error, "a mail's header section cannot be read; no rule for a field fits");
                    Vec::new()
                }
            },
        }
    }
}
