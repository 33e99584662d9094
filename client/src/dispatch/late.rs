//! News of exchanges that a carrier holds: replies and status reports, hours after the exchange left or in another life of this
//! program.
//!
//! News are let go only once what follows from them is stored. Those that nobody waits for are let go at once.

use std::{sync::Arc, time::Duration};

use hardy_bpv7::eid::Eid;
use lightpost_queue::{ClaimedMessage, ExchangeName, WaitReason};
use lightpost_transport::{
    Late, News,
    bundle::{self, options::Form},
};
use tokio::sync::Semaphore;
use url::Url;

use super::{STORE_RETRY, Shared, plan::Group, send::Job};

/// Replies that are dealt with at once.
const REPLIES: usize = 64;
/// Reports that are dealt with at once. Those of which nobody knows the bundle are looked for a while, and replies do not wait for them. A
/// bundle node that gives no more at a time than 1024 still gives replies then.
const REPORTS: usize = 512;
/// A report can be faster than the transaction that stores what its bundle is called: it is looked for so often,
const LOOKS: u32 = 20;
/// with this time between.
const LOOK: Duration = Duration::from_millis(500);

/// Hears news until it is aborted.
pub(crate) async fn listen(shared: Arc<Shared>) {
    let [replies, reports] = [REPLIES, REPORTS].map(|places| Arc::new(Semaphore::new(places)));
    loop {
        let late = shared.transport.late().await;
        let places = match &late.news {
            News::Reply { .. } => &replies,
            News::Delivered { .. } | News::Deleted { .. } => &reports,
        };
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let own = shared.clone();
        shared.running.spawn(async move {
            tokio::select! {
                () = own.late(late) => {}
                // They come again.
                () = own.leave_open.cancelled() => {}
            }
            drop(place);
        });
    }
}

impl Shared {
    async fn late(&self, late: Late) {
        let news = late.news.clone();
        let Some(message) = self.message_of(&news).await else {
            tracing::info!(%news, "news of an exchange that nobody waits for");
            late.done();
            return;
        };
        let group = match self.group_of(&message, &news) {
            Ok(group) => group,
            Err(why) => {
                tracing::warn!(message = %message.id, %news, why, "news of an exchange do not count");
                late.done();
                return;
            }
        };
        if let Some(open) = &group.repeats {
            group.gateway.line.answered(open.id);
        }
        let job = Job::held(&message, group, late);
        match news {
            News::Reply { reply, .. } => self.replied(job, &reply).await,
            News::Delivered { custody, by } => {
                let said = format!("{by}: bundle {custody} was delivered");
                self.accepted(job, Vec::new(), &said).await;
            }
            News::Deleted {
                custody, by, reason, ..
            } => {
                let detail = format!("{by} deleted bundle {custody}: {reason}");
                tracing::warn!(message = %message.id, detail, "a bundle is lost; the exchange is repeated");
                self.again(job, WaitReason::Interrupted, None, &detail).await;
            }
        }
    }

    /// The recipients that news decide about, or why the news decide nothing.
    fn group_of(&self, message: &ClaimedMessage, news: &News) -> Result<Group, &'static str> {
        let first = message.recipients.first().ok_or("nobody waits for it")?;
        let open = first.exchange.clone().ok_or("the exchange is closed")?;
        let url = Url::parse(&open.gateway).map_err(|_| "the exchange's gateway cannot be read")?;
        // What the gateway says counts even where the route to it is gone.
        let settings = self.settings(&first.destination);
        let endpoint = bundle::endpoint(&url).ok_or("the exchange's gateway has no bundle endpoint")?;
        match news {
            News::Reply { from, .. } if *from != endpoint.to_string() => {
                return Err("it does not come from the gateway");
            }
            News::Delivered { by, .. } if *by != node(&endpoint) => {
                return Err("it does not come from the gateway's node");
            }
            // A reply is to come that says more.
            News::Delivered { .. }
                if settings.is_none_or(|settings| settings.rules.bundle.form == Form::Http) =>
            {
                return Err("the path waits for the gateway's reply");
            }
            _ => {}
        }
        let most = self.config.paths.values().map(|path| path.concurrency).max();
        let concurrency = settings.map(|settings| settings.concurrency).or(most);
        Ok(Group {
            gateway: self.gateways.get(url.as_str(), concurrency.unwrap_or(1)),
            path: settings
                .map(|settings| settings.path.name.clone())
                .unwrap_or_default(),
            url,
            recipients: message.recipients.clone(),
            repeats: Some(open),
            reopens: None,
            probe: None,
        })
    }

    /// The message that news are about, as far as an answer still matters to it.
    async fn message_of(&self, news: &News) -> Option<ClaimedMessage> {
        let (name, looks) = match news {
            News::Reply { reply, .. } => (ExchangeName::Id(reply.exchange), 1),
            News::Delivered { custody, .. } | News::Deleted { custody, .. } => {
                (ExchangeName::Custody(custody), LOOKS)
            }
        };
        let mut look = 1;
        loop {
            match self.store.find_exchange(name).await {
                Ok(Some(message)) => return Some(message),
                Ok(None) if look >= looks => return None,
                Ok(None) => {
                    look += 1;
                    self.clock.sleep(LOOK).await;
                }
                Err(error) => {
                    tracing::error!(%error, "the queue cannot be read; news of an exchange wait");
                    self.clock.sleep(STORE_RETRY).await;
                }
            }
        }
    }
}

/// The administrative endpoint of an endpoint's node, which signs its reports.
fn node(endpoint: &Eid) -> String {
    match endpoint {
        Eid::Ipn { fqnn, .. } | Eid::LegacyIpn { fqnn, .. } => fqnn.to_string(),
        other => other.to_string(),
    }
}
