//! The last question before the outbox: whether the senders and the destinations have room left today.
//!
//! The outbox answers it in the transaction that stores the mail ([`Submission::charges`]), so no two mails get the same room.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use lightpost_mail::EnhancedCode;
use lightpost_queue::{Charge, NewMessage, Over, Subject};

use super::{Acceptance, Refusal};
use crate::config::{Quota, Whom, sender_key};

/// Delivery not authorised (RFC 3463), for today and for good.
const SPENT: EnhancedCode = EnhancedCode::new(4, 7, 1);
const REFUSED: EnhancedCode = EnhancedCode::new(5, 7, 1);
/// Seconds of a day.
const DAY: i64 = 86_400;

impl Acceptance {
    /// What messages use up of daily allowances. The null reverse-path has none: bounces are not held up for a sender.
    pub(crate) fn charges(&self, messages: &[NewMessage]) -> Vec<Charge> {
        if self.config.quotas.is_empty() {
            return Vec::new();
        }
        let mut all = BTreeMap::<(Subject, String), (u64, u64)>::new();
        for message in messages {
            let sender = message.sender.path.address().map(sender_key);
            let destinations: BTreeSet<&str> = message
                .recipients
                .iter()
                .map(|recipient| recipient.destination.as_str())
                .collect();
            let subjects = sender.map(|sender| (Subject::Sender, sender)).into_iter().chain(
                destinations
                    .into_iter()
                    .map(|destination| (Subject::Destination, destination.to_owned())),
            );
            for subject in subjects {
                let sum = all.entry(subject).or_default();
                sum.0 += 1;
                sum.1 = sum.1.saturating_add(message.facts.size);
            }
        }
        all.into_iter()
            .filter_map(|((subject, name), (messages, octets))| {
                let quota = self.quota(subject, &name)?;
                Some(Charge {
                    subject,
                    messages,
                    octets,
                    most_messages: quota.messages,
                    most_octets: quota.octets,
                    name,
                })
            })
            .collect()
    }

    /// What is said when an allowance does not suffice.
    pub(crate) fn over(&self, over: &Over) -> Refusal {
        let quota = self.quota(over.subject, &over.name);
        let what = match over.subject {
            Subject::Sender => format!("{} has used up what it may send in a day", over.name),
            Subject::Destination => format!("what may be sent to {} in a day is used up", over.name),
        };
        if quota.is_some_and(|quota| quota.refuse) {
            return Refusal::new(550, REFUSED, what);
        }
        let mut refusal = Refusal::new(452, SPENT, format!("{what}; there is room again at midnight UTC"));
        refusal.retry_after = Some(until_midnight(self.clock.now()));
        refusal
    }

    /// The quota that fits best.
    fn quota(&self, subject: Subject, name: &str) -> Option<&Quota> {
        let domain = name.rsplit_once('@').map_or(name, |(_, domain)| domain);
        let fit = |quota: &Quota| match (&quota.whom, subject) {
            (Whom::Sender(sender), Subject::Sender) => (sender == name).then_some(usize::MAX),
            (Whom::Senders(pattern), Subject::Sender)
            | (Whom::Destinations(pattern), Subject::Destination) => pattern.fits(domain),
            _ => None,
        };
        self.config
            .quotas
            .iter()
            .filter_map(|quota| Some((fit(quota)?, quota)))
            .max_by_key(|(fit, _)| *fit)
            .map(|(_, quota)| quota)
    }
}

fn until_midnight(now: Timestamp) -> Duration {
    let left = DAY - now.as_second().rem_euclid(DAY);
    Duration::from_secs(left.unsigned_abs())
}
