//! Sends requests as bundles, and hears later what became of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use hardy_bpv7::eid::Eid;
use http::HeaderMap;
use jiff::Timestamp;
use lightpost_clock::{Clock, add, until};
use ulid::Ulid;

use super::{
    agent::{Agent, Class, Content, Incoming, Outgoing, Report, ReportEvent, Reports, SendError},
    endpoint,
    options::{Form, Options},
    payload::{self, Payload},
};
use crate::{Exchange, Failure, Late, News, Outcome, Reply, Transport};

/// When a bundle node that has no room is asked again.
const NO_ROOM: Duration = Duration::from_secs(10);
/// The shortest lifetime of a bundle: one that is born dead serves nobody.
const SHORTEST: Duration = Duration::from_secs(1);
/// The most octets of a reply's body that are looked at.
const REPLY: usize = 64 * 1024;

/// The field that names the exchange, in requests and in the replies to them.
pub(super) const KEY: &str = "idempotency-key";

/// Exchanges in bundles.
pub struct BundleTransport {
    agent: Arc<dyn Agent>,
    paths: HashMap<String, Options>,
    clock: Clock,
}

impl BundleTransport {
    /// Through `agent`, by the settings of each path. Which signatures a reply needs is the agent's to know: what lacks them never comes.
    pub fn new(
        agent: Arc<dyn Agent>,
        paths: impl IntoIterator<Item = (String, Options)>,
        clock: Clock,
    ) -> Self {
        Self {
            agent,
            paths: paths.into_iter().collect(),
            clock,
        }
    }

    fn outgoing(&self, exchange: &Exchange, destination: Eid, options: &Options, body: &Bytes) -> Outgoing {
        let payload = match options.form {
            Form::Http => payload::request(&exchange.gateway, &exchange.headers, body),
            Form::BatchSmtp => body.clone(),
        };
        let reports = Reports {
            delivered: options.reports && options.form == Form::BatchSmtp,
            deleted: options.reports,
            ..Reports::default()
        };
        Outgoing {
            destination,
            lifetime: until(self.clock.now(), exchange.expires).max(SHORTEST),
            class: class(exchange.priority),
            report_to: options.reports.then(|| self.agent.endpoint().clone()),
            reports,
            payload,
        }
    }

    async fn hand_over(&self, exchange: &Exchange, deadline: Timestamp) -> Result<Outcome, Failure> {
        let gateway = exchange.gateway.to_string();
        let Some(destination) = endpoint(&exchange.gateway) else {
            return Err(Failure::Unreachable {
                gateway,
                cause: "it has no bundle endpoint".into(),
            });
        };
        let options = self.paths.get(&exchange.path).cloned().unwrap_or_default();
        let body = whole(exchange).await?;
        let octets = body.len() as u64;
        let outgoing = self.outgoing(exchange, destination, &options, &body);
        match self.agent.send(outgoing).await {
            Ok(bundle) => Ok(self.handed_over(&options, bundle.to_string(), exchange.line, deadline)),
            Err(SendError::NoRoom { why, .. }) => {
                tracing::info!(gateway, octets, why, "the bundle node has no room now");
                Ok(Outcome::NoContact {
                    until: add(self.clock.now(), NO_ROOM),
                })
            }
            Err(SendError::TooLarge { octets, most }) => Err(Failure::TooLarge {
                gateway,
                octets,
                most,
            }),
            Err(error @ (SendError::NoRoute { .. } | SendError::Down { .. } | SendError::Refused(_))) => {
                Err(Failure::Unreachable {
                    gateway,
                    cause: error.to_string(),
                })
            }
        }
    }

    fn handed_over(
        &self,
        options: &Options,
        custody: String,
        line: Duration,
        deadline: Timestamp,
    ) -> Outcome {
        if options.form == Form::BatchSmtp && !options.reports {
            return Outcome::HandedOver {
                said: format!("in custody of the bundle node as {custody}; no answer is to come"),
            };
        }
        let until = options.reply_within.map_or(deadline, |within| {
            add(self.clock.now(), within.saturating_add(line))
        });
        Outcome::InCustody {
            until,
            custody,
            tried: None,
        }
    }

    /// What a delivery says about an exchange; `None` when it says nothing.
    fn news(&self, content: &Content) -> Option<News> {
        match content {
            Content::Bundle(incoming) => self.reply(incoming),
            Content::Report(report) => report_news(report),
        }
    }

    fn reply(&self, incoming: &Incoming) -> Option<News> {
        let from = incoming.id.source.to_string();
        let (status, content) = match payload::read(&incoming.payload) {
            Ok(Payload::Response(status, content)) => (status, content),
            Ok(Payload::Request(_) | Payload::BatchSmtp(_)) => {
                tracing::warn!(bundle = %incoming.id, "a request came to the endpoint for replies and is dropped; \
                    mail goes to a gateway's endpoint");
                return None;
            }
            Err(error) => {
                tracing::warn!(bundle = %incoming.id, %error, "a bundle that is no reply is dropped");
                return None;
            }
        };
        let Some(exchange) = key(&content.headers) else {
            tracing::warn!(bundle = %incoming.id, "a reply that names no exchange is dropped");
            return None;
        };
        let mut body = content.body;
        body.truncate(REPLY);
        let reply = Reply {
            exchange,
            status,
            headers: content.headers,
            body,
        };
        Some(News::Reply { from, reply })
    }
}

#[async_trait::async_trait]
impl Transport for BundleTransport {
    async fn send(&self, exchange: Exchange, deadline: Timestamp) -> Outcome {
        self.hand_over(&exchange, deadline)
            .await
            .unwrap_or_else(Outcome::Failed)
    }

    async fn late(&self) -> Late {
        loop {
            let delivery = self.agent.receive().await;
            match self.news(&delivery.content) {
                Some(news) => return Late::new(news, move || delivery.done()),
                None => delivery.done(),
            }
        }
    }
}

/// The whole body: a bundle node takes one in one piece.
async fn whole(exchange: &Exchange) -> Result<Bytes, Failure> {
    let mut pieces = exchange.object.open();
    let mut whole = BytesMut::with_capacity(exchange.object.size().unwrap_or_default() as usize);
    while let Some(piece) = pieces.next().await {
        whole.extend_from_slice(&piece.map_err(|error| Failure::Object(error.to_string()))?);
    }
    Ok(whole.freeze())
}

/// Version 7 has no priorities; where the agent has classes, those above and below normal mail have one each.
const fn class(priority: i8) -> Class {
    match priority {
        1.. => Class::Expedited,
        0 => Class::Normal,
        _ => Class::Bulk,
    }
}

fn report_news(report: &Report) -> Option<News> {
    let (custody, by) = (report.about.to_string(), report.from.to_string());
    match report.event {
        ReportEvent::Delivered => Some(News::Delivered { custody, by }),
        ReportEvent::Deleted => Some(News::Deleted {
            custody,
            by,
            reason: reason(report.reason),
        }),
        ReportEvent::Received | ReportEvent::Forwarded => None,
    }
}

/// Bundle status report reason codes (RFC 9171 section 9.5; RFC 9172 section 11.2).
fn reason(code: u64) -> String {
    let words = match code {
        0 => "no reason given",
        1 => "lifetime expired",
        2 => "forwarded over a link that goes one way only",
        3 => "transmission cancelled",
        4 => "storage used up",
        5 => "unknown destination endpoint",
        6 => "no known route",
        7 => "no timely contact on its route",
        8 => "a block cannot be read",
        9 => "hop limit exceeded",
        10 => "traffic pared",
        11 => "a block is not supported",
        12 => "a security block is missing",
        13 => "a security operation is unknown",
        14 => "a security operation is unexpected",
        15 => "a security operation failed",
        16 => "security operations conflict",
        _ => return format!("reason {code}"),
    };
    words.to_owned()
}

/// The exchange that a message is about.
fn key(headers: &HeaderMap) -> Option<Ulid> {
    let text = headers.get(KEY)?.to_str().ok()?;
    let text = text.strip_prefix('"')?.strip_suffix('"')?;
    Ulid::from_string(text).ok()
}
