//! Mail that comes back: by the number of its hops, and by what our own trace fields say (RFC 5321 section 6.3).
//!
//! Forwarding brings a mail here more than once without a loop: from Earth to a user on the Moon, who has it sent on to another one on Earth, who has it
//! sent to a third one on the Moon. What never comes twice is the same mail for the same recipient. So a mail is refused at its first return, when each of its
//! recipients is one that it had on an earlier passage; our trace field names the recipient where there was one only, and the outbox still
//! knows the others by the field's id. Where neither tells, the hops are counted.

use lightpost_intake::{loops::recall, transactions};
use lightpost_mail::{EnhancedCode, trace::Hops};

use super::{Acceptance, Draft, Refusal};

/// Routing loop detected.
const LOOP: EnhancedCode = EnhancedCode::new(5, 4, 6);

impl Acceptance {
    /// Refuses a mail that runs in circles.
    ///
    /// # Errors
    /// It does.
    pub(super) async fn no_loop(&self, draft: &Draft, hops: &Hops) -> Result<(), Refusal> {
        if is_loop(hops) {
            let text = format!(
                "the mail runs in circles: {} Received fields, {} of them ours",
                hops.received,
                hops.own.len()
            );
            return Err(Refusal::new(554, LOOP, text));
        }
        if hops.own.is_empty() {
            return Ok(());
        }
        let mut hops = hops.clone();
        recall(&*self.store, &mut hops).await;
        if !draft
            .taken
            .iter()
            .all(|one| hops.were_for(&one.recipient.address))
        {
            return Ok(());
        }
        let ids: Vec<&str> = hops.own.iter().filter_map(|own| own.id.as_deref()).collect();
        let text = format!(
            "the mail has come back, it left here for the same recipient as {}; where it is sent to, its domain leads back to here",
            ids.join(", ")
        );
        Err(Refusal::new(554, LOOP, text))
    }
}

/// Whether a mail has come by too often, whoever it is for.
fn is_loop(hops: &Hops) -> bool {
    hops.own.len() > 2 || transactions::is_loop(hops)
}
