//! Telling senders that their mail is late (RFC 3461 section 4.1, RFC 2852 by-mode N).
//!
//! Each recipient's row has the time at which its sender hears of a delay, derived from the path ([`Notices`]); it goes with the row when the
//! mail is there. A notice is stored in the transaction that takes that time away, so no crash loses or doubles it. What keeps notices from
//! coming in floods:
//!
//! - A sender who did not ask for notices (no NOTIFY) gets one per destination, and the next one not before a quarter of a lifetime has
//!   passed, however many of its mails wait there. Whom it told stands in the store with the notice, so a restart costs none.
//! - A notice that is found long after its time, as after a long stop, says nothing about mail that can leave now. It is put off until an
//!   exchange has had its time, and then spread over as long as notices take to come.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use lightpost_clock::{Clock, add, until};
use lightpost_mail::{
    EnhancedCode,
    dsn::{self, Action, RecipientStatus},
};
use lightpost_queue::{
    LateMessage, LateRecipient, Notice, Quiet, RecipientId, Status, StoreError, WaitReason, schedule::Notices,
};
use tokio_util::sync::CancellationToken;

use super::{Original, Reporter};

/// Messages that are looked at in one round.
const ROUND: usize = 64;
/// The longest and the shortest pause between two looks: a mail whose sender set a time of its own may be late before all others.
const LONGEST: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_millis(100);
/// Which part of the time after which notices come may pass between two looks.
const PRECISION: u32 = 32;
/// The pause after an error of the store.
const PAUSE: Duration = Duration::from_secs(5);
/// A sender who did not ask for notices hears of one destination once in this part of a lifetime.
const QUIET: u32 = 4;

/// Tells senders of late mail.
pub struct Delays<F> {
    reporter: Reporter,
    clock: Clock,
    /// When mail of so many octets for a destination is late; `None` where nobody hears of it.
    notices: F,
    pause: Duration,
}

/// A sender and a destination.
type Pair = (String, String);

/// What is said of one recipient now.
enum Word {
    /// The sender hears of it.
    Tell {
        /// When he does again.
        next: Option<Timestamp>,
        /// Whether the time that he set is over.
        over: bool,
    },
    /// Nothing; when it is looked at again.
    Wait(Option<Timestamp>),
}

impl<F: Fn(&str, u64) -> Option<Notices>> Delays<F> {
    /// `shortest` is the shortest time after which a notice comes.
    pub fn new(reporter: Reporter, clock: Clock, shortest: Duration, notices: F) -> Self {
        Self {
            reporter,
            clock,
            notices,
            pause: (shortest / PRECISION).clamp(SHORTEST, LONGEST),
        }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match self.round().await {
                Ok(0) => self.until_next().await,
                Ok(_) => continue,
                Err(error) => {
                    tracing::error!(%error, "senders of late mail cannot be told; trying again");
                    PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    async fn until_next(&self) -> Duration {
        match self.reporter.store.next_notice().await {
            Ok(Some(at)) => until(self.clock.now(), at).clamp(SHORTEST, self.pause),
            Ok(None) => self.pause,
            Err(error) => {
                tracing::error!(%error, "the queue cannot be read");
                PAUSE
            }
        }
    }

    /// Looks at some of what is late; returns how many messages that were.
    pub(super) async fn round(&self) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let late = self.reporter.store.late(now, ROUND).await?;
        let count = late.messages.len() + late.unreadable.len();
        let mut others: Vec<(RecipientId, Option<Timestamp>)> =
            late.unreadable.into_iter().map(|id| (id, None)).collect();
        // Whom this round has told: what it has read does not say so yet.
        let mut heard: HashSet<Pair> = HashSet::new();
        for message in late.messages {
            let (mut statuses, mut told) = (Vec::new(), Vec::new());
            let mut quiet = Vec::new();
            for recipient in &message.recipients {
                match self.word(&message, recipient, now, &heard) {
                    Word::Tell { next, over } => {
                        quiet.extend(self.quiet(&message, recipient, now));
                        statuses.push(status(recipient, over));
                        told.push((recipient.id, next));
                    }
                    Word::Wait(next) => others.push((recipient.id, next)),
                }
            }
            if statuses.is_empty() {
                continue;
            }
            let notification = self
                .reporter
                .write(&Original::from(&message), &statuses, now)
                .await;
            // Where it is not stored one of them is done by now; the others are looked at in the next round.
            let pairs = quiet
                .iter()
                .map(|one: &Quiet| (one.sender.clone(), one.destination.clone()));
            let pairs: Vec<Pair> = pairs.collect();
            let notice = Notice {
                recipients: told,
                message: Some(notification),
                quiet,
            };
            if self.reporter.store.notice(notice).await? {
                heard.extend(pairs);
            }
        }
        if !others.is_empty() {
            let notice = Notice {
                recipients: others,
                message: None,
                quiet: Vec::new(),
            };
            self.reporter.store.notice(notice).await?;
        }
        Ok(count)
    }

    fn word(
        &self,
        message: &LateMessage,
        recipient: &LateRecipient,
        now: Timestamp,
        heard: &HashSet<Pair>,
    ) -> Word {
        let Some(notices) = (self.notices)(&recipient.destination, message.facts.size) else {
            return Word::Wait(None);
        };
        if notices.is_stale(recipient.notice, now) {
            // Each recipient of a mail draws the same, so that they stay together.
            let draw = message.id.random() as u32;
            return Word::Wait(Some(notices.postponed(now, draw)));
        }
        let by = dsn::notice_by(&message.sender, &recipient.recipient, message.accepted);
        // What leaves now arrives later than its sender set and wants to hear of.
        let over = by.is_some_and(|by| notices.leaves_by(by) <= now);
        let wants =
            notices.after.is_some() && dsn::wanted(&message.sender, &recipient.recipient, Action::Delayed);
        // When it was accepted its size was not known.
        let first = notices.first(message.accepted, wants, by);
        if let Some(first) = first.filter(|first| *first > now) {
            return Word::Wait(Some(first));
        }
        let next = notices.next(now, wants, by).filter(|at| *at < recipient.expires);
        if !wants && !over {
            return Word::Wait(next);
        }
        let asked = over || recipient.recipient.parameters.notify.is_some();
        match notices.after {
            Some(after) if !asked && (recipient.quiet || heard.contains(&pair(message, recipient))) => {
                let again = add(now, after);
                Word::Wait((again < recipient.expires).then_some(again))
            }
            _ => Word::Tell { next, over },
        }
    }

    /// Until when a sender who is told now, and did not ask, hears of no other mail for the same destination.
    fn quiet(&self, message: &LateMessage, recipient: &LateRecipient, now: Timestamp) -> Option<Quiet> {
        let after = (self.notices)(&recipient.destination, message.facts.size)?.after?;
        let quiet = until(message.accepted, recipient.expires) / QUIET;
        let (sender, destination) = pair(message, recipient);
        Some(Quiet {
            sender,
            destination,
            until: add(now, quiet.max(after)),
        })
    }
}

fn pair(message: &LateMessage, recipient: &LateRecipient) -> Pair {
    (message.sender.path.to_string(), recipient.destination.clone())
}

fn status(recipient: &LateRecipient, over: bool) -> RecipientStatus {
    let code = match recipient.reason {
        // Delivery time expired (RFC 3463), whatever it waits for.
        _ if over => EnhancedCode::new(4, 4, 7),
        Some(WaitReason::Unreachable | WaitReason::NoContact) => EnhancedCode::new(4, 4, 1),
        Some(WaitReason::NoReply) => EnhancedCode::new(4, 4, 2),
        Some(WaitReason::Discovery) => EnhancedCode::new(4, 4, 3),
        Some(WaitReason::Busy) => EnhancedCode::new(4, 3, 2),
        _ => EnhancedCode::new(4, 4, 7),
    };
    RecipientStatus {
        recipient: recipient.recipient.clone(),
        action: Action::Delayed,
        status: code,
        remote_mta: None,
        diagnostic: said(recipient),
        smtp: false,
        last_attempt: None,
        retry_until: Some(recipient.expires),
    }
}

/// What is known of its way.
fn said(recipient: &LateRecipient) -> String {
    let detail = recipient.detail.as_deref().unwrap_or_default();
    let known = match (recipient.status, recipient.sent) {
        (Status::Awaiting, _) => "it has left, and no answer has come yet".to_owned(),
        (Status::Held, _) => "an operator keeps it back".to_owned(),
        (_, true) => "it has left at least once, and it is not known to have arrived".to_owned(),
        (_, false) if recipient.attempts == 0 => "it could not leave yet".to_owned(),
        (_, false) => format!("it was not taken in {} attempts", recipient.attempts),
    };
    match recipient.status {
        Status::Queued | Status::Leased if !detail.is_empty() => format!("{known}; last: {detail}"),
        _ => known,
    }
}
