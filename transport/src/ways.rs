//! Several ways to one gateway: HTTP/3 and bundles, in the order of the path, one taking over from the other.
//!
//! The exchange stays the same on every way, so the gateway takes it once however often and by whichever way it comes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use lightpost_clock::{Clock, add, until};
use lightpost_config::{Section, Size};

use crate::{
    Exchange, Failure, Late, Outcome, Path, Transport,
    bundle::{
        endpoint,
        options::{NoReply, Options},
    },
};

/// How much longer each time a gateway that stays silent is left alone, up to this many times the first wait.
const LONGEST: u32 = 64;

/// A way to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// HTTP/3 over QUIC.
    Quic,
    /// Bundles.
    Bundle,
}

/// Which ways a path has, and when one takes over from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// In order of preference.
    pub order: Vec<Way>,
    /// Mails over this size take bundles first.
    pub above: Option<u64>,
    /// After this time without a reply over QUIC a bundle is sent.
    pub after: Duration,
    /// How bundles are used.
    pub bundle: Options,
}

impl Rules {
    /// QUIC alone.
    pub fn quic(path: &Path) -> Self {
        Self {
            order: vec![Way::Quic],
            above: None,
            after: path.reply_within(0),
            bundle: Options::default(),
        }
    }

    /// Reads `transports` and `[path.NAME.bundle]`.
    pub fn read(section: &Section<'_>, path: &Path) -> Self {
        let named = section.get::<Vec<String>>("transports");
        let mut order = Vec::new();
        for word in named.iter().flatten() {
            let way = match word.as_str() {
                "quic" => Way::Quic,
                "bundle" => Way::Bundle,
                _ => {
                    section.wrong(
                        "transports",
                        format!("\"{word}\" is not a transport"),
                        "write \"quic\", \"bundle\" or both in order of preference".into(),
                    );
                    continue;
                }
            };
            if !order.contains(&way) {
                order.push(way);
            }
        }
        if order.is_empty() {
            order.push(Way::Quic);
        }
        let below = section.section("bundle");
        let light_times = below.get::<f64>("after");
        let bundle = Options::read(&below);
        let above = below.get::<Size>("above").map(|Size(octets)| octets);
        if below.present() && !order.contains(&Way::Bundle) {
            below.wrong(
                "payload",
                "is of no use, bundles are not among the path's transports".into(),
                "write `transports = [\"quic\", \"bundle\"]` in the path, or remove this section".into(),
            );
        }
        let both = order.len() > 1;
        for (key, set) in [("after", light_times.is_some()), ("above", above.is_some())] {
            if set && !both {
                below.wrong(
                    key,
                    "is a choice between two transports, and the path has one".into(),
                    "name both in `transports`, or remove it".into(),
                );
            }
        }
        let after = after(&below, light_times, path);
        if bundle.no_reply == NoReply::Other && !both {
            below.wrong(
                "no_reply",
                "asks for another transport, and the path has one".into(),
                "name both in `transports`, or write \"repeat\"".into(),
            );
        }
        Self {
            order,
            above,
            after,
            bundle,
        }
    }

    /// Whether bundles are among the ways.
    pub fn has_bundles(&self) -> bool {
        self.order.contains(&Way::Bundle)
    }

    /// The ways that an exchange may take, best first.
    fn ways(&self, exchange: &Exchange, silent: bool) -> Vec<Way> {
        let (web, bundles) = (exchange.gateway.has_host(), endpoint(&exchange.gateway).is_some());
        let there = |way: &Way| match way {
            Way::Quic => web,
            Way::Bundle => bundles,
        };
        let mut ways: Vec<Way> = self.order.iter().copied().filter(there).collect();
        let large = self.above.is_some_and(|above| exchange.octets > above);
        let elsewhere = exchange.held_before && self.bundle.no_reply == NoReply::Other;
        if elsewhere {
            ways.sort_by_key(|way| *way == Way::Bundle);
        } else if large || silent {
            ways.sort_by_key(|way| *way != Way::Bundle);
        }
        ways
    }
}

/// Default: what one reply may take when nothing goes wrong, a repair included.
fn after(section: &Section<'_>, light_times: Option<f64>, path: &Path) -> Duration {
    let Some(count) = light_times else {
        return path.reply_within(0);
    };
    let least = 4.0;
    if !(least..=1e6).contains(&count) {
        section.wrong(
            "after",
            format!("{count} light times are too few or too many"),
            "write 4 or more: a first reply takes two for the handshake and two for itself".into(),
        );
    }
    path.one_way_max.mul_f64(count.clamp(least, 1e6)) + Duration::from_secs(1)
}

#[derive(Debug)]
struct Silence {
    until: Timestamp,
    wait: Duration,
}

/// One transport of those that there are.
pub struct Ways {
    quic: Arc<dyn Transport>,
    bundle: Arc<dyn Transport>,
    rules: HashMap<String, Rules>,
    /// Gateways that were silent over QUIC, by their URI.
    silences: Mutex<HashMap<String, Silence>>,
    clock: Clock,
}

impl Ways {
    /// Over both, by the rules of each path.
    pub fn new(
        quic: Arc<dyn Transport>,
        bundle: Arc<dyn Transport>,
        rules: impl IntoIterator<Item = (String, Rules)>,
        clock: Clock,
    ) -> Self {
        Self {
            quic,
            bundle,
            rules: rules.into_iter().collect(),
            silences: Mutex::default(),
            clock,
        }
    }

    fn is_silent(&self, gateway: &str, now: Timestamp) -> bool {
        let silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        silences.get(gateway).is_some_and(|silence| now < silence.until)
    }

    fn answered(&self, gateway: &str) {
        let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        silences.remove(gateway);
    }

    /// Each fruitless attempt costs a mail the time that waiting takes; the next one is made later.
    fn silent(&self, gateway: &str, rules: &Rules) {
        let now = self.clock.now();
        let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that were silent long ago are forgotten.
        silences.retain(|_, silence| now < add(silence.until, silence.wait));
        let first = rules.after;
        let silence = silences.entry(gateway.to_owned()).or_insert(Silence {
            until: now,
            wait: first,
        });
        // Those that fail together count once.
        if now >= silence.until {
            silence.until = add(now, silence.wait);
            silence.wait = (silence.wait * 2).min(first * LONGEST);
        }
    }

    async fn over_quic(
        &self,
        exchange: &Exchange,
        deadline: Timestamp,
        rules: &Rules,
        last: bool,
    ) -> Outcome {
        let gateway = exchange.gateway.as_str();
        // A full line is not a silent gateway.
        let after = rules.after.saturating_add(exchange.line);
        let until = match last {
            true => deadline,
            false => deadline.min(add(self.clock.now(), after)),
        };
        let sending = self.quic.send(exchange.clone(), until);
        let outcome = match last {
            true => sending.await,
            // Connecting may take its own time; the other way does not wait for it.
            false => match self.clock.timeout(after, sending).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::Failed(Failure::NoReply {
                    gateway: exchange.gateway.authority().to_owned(),
                    waited: after,
                }),
            },
        };
        match &outcome {
            Outcome::Replied(_) => self.answered(gateway),
            Outcome::Failed(
                Failure::Unreachable { .. } | Failure::Interrupted { .. } | Failure::NoReply { .. },
            ) if !last => {
                tracing::info!(gateway, exchange = %exchange.id, "no reply over QUIC; a bundle takes over");
                self.silent(gateway, rules);
            }
            _ => {}
        }
        outcome
    }
}

#[async_trait::async_trait]
impl Transport for Ways {
    async fn send(&self, exchange: Exchange, deadline: Timestamp) -> Outcome {
        let Some(rules) = self.rules.get(&exchange.path) else {
            return self.quic.send(exchange, deadline).await;
        };
        let silent = self.is_silent(exchange.gateway.as_str(), self.clock.now());
        let ways = rules.ways(&exchange, silent);
        let begun = self.clock.now();
        let mut worst: Option<Outcome> = None;
        for (index, way) in ways.iter().enumerate() {
            let last = index + 1 == ways.len();
            let outcome = match way {
                Way::Quic => self.over_quic(&exchange, deadline, rules, last).await,
                // What QUIC took is not taken from the time for a reply in a bundle.
                Way::Bundle => {
                    let deadline = add(deadline, until(begun, self.clock.now()));
                    self.bundle.send(exchange.clone(), deadline).await
                }
            };
            if rank(&outcome) == 0 {
                return behind(worst, outcome);
            }
            if worst.as_ref().is_none_or(|worst| rank(worst) < rank(&outcome)) {
                worst = Some(outcome);
            }
        }
        worst.unwrap_or_else(|| {
            Outcome::Failed(Failure::Unreachable {
                gateway: exchange.gateway.to_string(),
                cause: "the path has no transport that leads to it".into(),
            })
        })
    }

    async fn late(&self) -> Late {
        tokio::select! {
            late = self.quic.late() => late,
            late = self.bundle.late() => late,
        }
    }
}

/// `outcome` with what became of the way before.
fn behind(before: Option<Outcome>, mut outcome: Outcome) -> Outcome {
    if let Some(Outcome::Failed(failure)) = before {
        match &mut outcome {
            Outcome::InCustody { tried, .. } => *tried = Some(failure.to_string()),
            Outcome::HandedOver { said } => *said = format!("{failure}; {said}"),
            _ => {}
        }
    }
    outcome
}

/// 0 ends the search for a way. Of several failures the one with the highest rank is told: that the request may have arrived outweighs
/// that it has not left, and what passes outweighs what stays.
const fn rank(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Replied(_)
        | Outcome::InCustody { .. }
        | Outcome::HandedOver { .. }
        | Outcome::Failed(Failure::Object(_)) => 0,
        Outcome::Failed(Failure::TooLarge { .. }) => 1,
        Outcome::Failed(Failure::Unreachable { .. }) => 2,
        Outcome::NoContact { .. } => 3,
        Outcome::Failed(Failure::Interrupted { .. }) => 4,
        Outcome::Failed(Failure::NoReply { .. }) => 5,
    }
}
