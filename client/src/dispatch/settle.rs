//! Storing what became of recipients, many at once, together with the notifications that follow from it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use lightpost_clock::Clock;
use lightpost_intake::{Original, Reporter};
use lightpost_mail::{
    EnhancedCode,
    dsn::{self, Action, RecipientStatus},
};
use lightpost_queue::{ClaimedRecipient, Disposition, NewMessage, Settlement, Store};
use lightpost_transport::Late;
use tokio::sync::{Notify, mpsc};

use crate::{config::Config, discover::Discovery};

/// Settlements in one transaction.
const BATCH: usize = 512;
/// The wait before a store that refused is asked again.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Handed on.
const RELAYED: EnhancedCode = EnhancedCode::new(2, 0, 0);

/// What became of one recipient.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) recipient: ClaimedRecipient,
    pub(crate) disposition: Disposition,
    pub(crate) remote: Option<String>,
    pub(crate) detail: String,
}

/// What became of recipients of one message.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) original: Arc<Original>,
    pub(crate) at: Timestamp,
    pub(crate) fates: Vec<Fate>,
    /// The news that it follows from.
    pub(crate) late: Option<Late>,
}

/// Takes verdicts until the last sender is gone.
pub(crate) struct Settler {
    pub(crate) config: Arc<Config>,
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) reporter: Reporter,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    /// Told when something may have become due.
    pub(crate) wake: Arc<Notify>,
}

impl Settler {
    pub(crate) async fn run(self, mut verdicts: mpsc::Receiver<Verdict>) {
        let mut batch = Vec::with_capacity(BATCH);
        while verdicts.recv_many(&mut batch, BATCH).await > 0 {
            let (mut settlements, mut notifications, mut news) = (Vec::new(), Vec::new(), Vec::new());
            let mut done = HashSet::new();
            for mut verdict in batch.drain(..) {
                // Two replies may come at once: the first one counts, and the sender hears of that alone.
                verdict.fates.retain(|fate| !done.contains(&fate.recipient.id));
                let last = verdict.fates.iter().filter(|fate| is_final(&fate.disposition));
                done.extend(last.map(|fate| fate.recipient.id));
                if let Some(notification) = self.notification(&verdict).await {
                    notifications.push(notification);
                }
                for fate in &verdict.fates {
                    tracing::info!(
                        id = %verdict.original.id,
                        recipient = %fate.recipient.recipient.address,
                        server = fate.remote,
                        outcome = fate.disposition.word(),
                        reason = fate.disposition.reason(),
                        until = fate.disposition.until().map(tracing::field::display),
                        detail = fate.detail
                    );
                }
                news.extend(verdict.late.take());
                settlements.extend(verdict.fates.into_iter().map(|fate| Settlement {
                    recipient: fate.recipient.id,
                    disposition: fate.disposition,
                    at: verdict.at,
                    remote: fate.remote,
                    detail: fate.detail,
                }));
            }
            self.store(settlements, notifications).await;
            news.into_iter().for_each(Late::done);
        }
    }

    /// Stores them, however long that takes: what is not stored is sent or said again after a restart.
    async fn store(&self, settlements: Vec<Settlement>, notifications: Vec<NewMessage>) {
        let again = !notifications.is_empty()
            || settlements
                .iter()
                .any(|one| matches!(one.disposition, Disposition::Retry { .. }));
        while let Err(error) = self
            .store
            .settle(settlements.clone(), notifications.clone())
            .await
        {
            tracing::error!(%error, "what became of sent mail cannot be stored; trying again");
            self.clock.sleep(STORE_RETRY).await;
        }
        if again {
            self.wake.notify_one();
        }
    }

    /// Whether what takes mail for a destination reports what becomes of it.
    fn reports(&self, destination: &str) -> bool {
        let path = self.discovery.route(destination).map(|route| &route.path);
        let settings = path.and_then(|path| self.config.paths.get(path));
        settings.is_none_or(|settings| settings.accepts.dsn)
    }

    /// The notification that a verdict causes, if any.
    async fn notification(&self, verdict: &Verdict) -> Option<NewMessage> {
        let original = &*verdict.original;
        let dead = verdict
            .fates
            .iter()
            .filter(|fate| matches!(fate.disposition, Disposition::Failed(_) | Disposition::Expired));
        for fate in dead {
            let to = &fate.recipient.recipient.address;
            let sender = &original.sender.path;
            tracing::warn!(message = %original.id, %to, from = %sender, detail = fate.detail, "mail is given up");
        }
        let statuses: Vec<RecipientStatus> = verdict
            .fates
            .iter()
            .filter_map(|fate| {
                let reports = self.reports(&fate.recipient.destination);
                status(original, fate, reports, verdict.at)
            })
            .filter(|status| self.reporter.tells(original, status))
            .collect();
        if statuses.is_empty() {
            return None;
        }
        Some(self.reporter.write(original, &statuses, verdict.at).await)
    }
}

const fn is_final(disposition: &Disposition) -> bool {
    matches!(
        disposition,
        Disposition::Delivered | Disposition::Failed(_) | Disposition::Expired
    )
}

/// What there is to tell of a fate. A gateway that `reports` takes the parameters of DSN over, so that what is delivered to it is its
/// to report (RFC 3461 section 5.2.1); only a sender who wants to hear of every relay hears of this one.
fn status(original: &Original, fate: &Fate, reports: bool, at: Timestamp) -> Option<RecipientStatus> {
    let (action, status) = match fate.disposition {
        Disposition::Failed(code) => (Action::Failed, code),
        Disposition::Expired => {
            let code = dsn::expired(&original.sender, original.accepted, at);
            (Action::Failed, code)
        }
        Disposition::Delivered
            if !reports || original.sender.parameters.deliver_by.is_some_and(|by| by.trace) =>
        {
            (Action::Relayed, RELAYED)
        }
        _ => return None,
    };
    Some(RecipientStatus {
        recipient: fate.recipient.recipient.clone(),
        action,
        status,
        remote_mta: fate.remote.clone(),
        diagnostic: fate.detail.clone(),
        smtp: false,
        last_attempt: (fate.recipient.attempts > 0 || fate.remote.is_some()).then_some(at),
        retry_until: None,
    })
}
