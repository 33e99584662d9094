//! Where the mail for a destination goes: static routes, else URI records, else what was known before.
//!
//! A relay on a far body cannot wait for Earth's name servers, and a relay on Earth must not stop when its resolver does: an
//! answer is kept for longer than it holds and served when no newer one can be had. Only "there is nothing" (NXDOMAIN,
//! NODATA), said afresh, ends it.

mod cache;
mod ipn;
mod lookup;
mod routes;
mod uri;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use hickory_resolver::{ResolverBuilder, TokioResolver};
use lightpost_clock::Clock;
use lightpost_mail::EnhancedCode;
use lightpost_transport::quic::client::Hosts;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use url::Url;

pub(crate) use ipn::same_gateway;
pub(crate) use uri::order;
pub use uri::{Hop, UriError};

use self::{
    cache::{Cache, Kept, Known, replace},
    lookup::{Answer, Kind, Nothing, Questions},
    routes::Table,
};
use crate::config::{Config, Resolver, Route};

/// How the hops became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The route names them.
    Static,
    /// URI records that hold.
    Dns,
    /// URI records from before: the resolver is silent.
    Stale,
}

/// Where the mail for a destination goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NextHops {
    /// How they became known.
    pub source: Source,
    /// In the order in which they are tried; never empty.
    pub hops: Vec<Hop>,
    /// The name of the path to them.
    pub path: String,
}

/// Why there is nowhere to go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// No route is for this domain.
    #[error("no [[route]] is for {0}")]
    NoRoute(String),
    /// NXDOMAIN or NODATA. Permanent, 5.1.2.
    #[error("there is no URI record at {owner} ({})", if *exists { "NODATA" } else { "NXDOMAIN" })]
    NoRecord {
        /// The name that was asked for.
        owner: String,
        /// Whether the name exists.
        exists: bool,
    },
    /// There are records, but none that may be used. Permanent, 5.4.4.
    #[error("no URI record at {owner} can be used: {why}")]
    Unusable {
        /// The name that was asked for.
        owner: String,
        /// Why, for the first of them.
        why: UriError,
    },
    /// The resolver is silent, and nothing is known from before. To be tried again.
    #[error("{owner} cannot be looked up at {why}")]
    Silent {
        /// The name that was asked for.
        owner: String,
        /// At which name servers, and what happened.
        why: String,
    },
}

impl DiscoveryError {
    /// The status code where trying again is of no use.
    pub fn permanent(&self) -> Option<EnhancedCode> {
        match self {
            Self::NoRecord { .. } => Some(EnhancedCode::new(5, 1, 2)),
            Self::Unusable { .. } => Some(EnhancedCode::new(5, 4, 4)),
            Self::NoRoute(_) | Self::Silent { .. } => None,
        }
    }
}

/// The right to ask for one name.
type Turn = tokio::sync::Mutex<()>;

/// What is on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    #[serde(default)]
    uri: Vec<Kept<Vec<Vec<u8>>>>,
    #[serde(default)]
    addresses: Vec<Kept<Vec<IpAddr>>>,
    #[serde(default)]
    ipn: Vec<Kept<Vec<u32>>>,
}

/// Finds next hops, and addresses of hosts.
pub struct Discovery {
    table: Table,
    questions: Questions,
    clock: Clock,
    uri: Cache<Vec<Vec<u8>>>,
    addresses: Cache<Vec<IpAddr>>,
    ipn: Cache<Vec<u32>>,
    /// Paths that use bundles.
    bundles: HashSet<String>,
    asking: Mutex<HashMap<(Kind, String), Weak<Turn>>>,
    file: Option<PathBuf>,
    dirty: AtomicBool,
    changed: Notify,
}

/// Discovery cannot start.
#[derive(Debug, thiserror::Error)]
#[error("no resolver: {0}; name one in [resolver] with `servers`")]
pub struct ResolverError(String);

/// A resolver that keeps answers for as long as they hold, for what is looked up about a mail.
///
/// # Errors
/// When the system names no resolver and the configuration neither.
pub(crate) fn resolver(settings: &Resolver) -> Result<TokioResolver, ResolverError> {
    let built = lookup::builder(settings).and_then(ResolverBuilder::build);
    built.map_err(|error| ResolverError(error.to_string()))
}

impl Discovery {
    /// Reads what was known before from disk; a file that cannot be used is noted in the log and begun anew.
    ///
    /// # Errors
    /// When the system names no resolver and the configuration neither.
    pub fn new(config: &Config, clock: Clock) -> Result<Self, ResolverError> {
        let questions = Questions::new(&config.resolver).map_err(|error| ResolverError(error.to_string()))?;
        let discovery = Self {
            table: Table::new(config.routes.clone()),
            questions,
            clock,
            uri: Cache::default(),
            addresses: Cache::default(),
            ipn: Cache::default(),
            bundles: config
                .paths
                .iter()
                .filter(|(_, path)| path.rules.has_bundles())
                .map(|(name, _)| name.clone())
                .collect(),
            asking: Mutex::default(),
            file: config.resolver.cache.clone(),
            dirty: AtomicBool::new(false),
            changed: Notify::new(),
        };
        discovery.restore();
        Ok(discovery)
    }

    /// The route for a destination, when there is one: mail for others is not accepted.
    pub fn route(&self, destination: &str) -> Option<&Route> {
        self.table.find(destination)
    }

    /// The next hops of `domain` (lower case, A-labels), in an order drawn anew each time.
    ///
    /// # Errors
    /// [`DiscoveryError`]
    pub async fn next_hops(&self, domain: &str) -> Result<NextHops, DiscoveryError> {
        let mut random: SmallRng = rand::make_rng();
        let found = self.find(domain).await?;
        Ok(NextHops {
            hops: uri::order(found.hops, &mut random),
            ..found
        })
    }

    /// As [`Discovery::next_hops`], not yet ordered.
    pub(crate) async fn find(&self, domain: &str) -> Result<NextHops, DiscoveryError> {
        if let Some(found) = self.known(domain) {
            return found;
        }
        let route = self.required(domain)?;
        let owner = owner(domain);
        let known = self.lookup_uri(&owner).await;
        let found = usable(route, owner, known)?;
        if self.bundles.contains(&found.path) {
            let hosts = found.hops.iter().filter_map(|hop| hop.url.host_str());
            futures_util::future::join_all(hosts.map(|host| self.lookup_ipn(host))).await;
        }
        Ok(self.with_endpoints(found))
    }

    /// What [`Discovery::find`] would say without asking the resolver; `None` when it has to be asked.
    pub(crate) fn known(&self, domain: &str) -> Option<Result<NextHops, DiscoveryError>> {
        let route = match self.required(domain) {
            Ok(route) => route,
            Err(error) => return Some(Err(error)),
        };
        if !route.gateways.is_empty() {
            return Some(Ok(fixed(route)));
        }
        let owner = owner(domain);
        let now = self.clock.now();
        let known = self.uri.get(&owner, now)?;
        let found = match usable(route, owner, known) {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        let asked = |hop: &Hop| {
            hop.url
                .host_str()
                .is_none_or(|host| self.ipn.get(host, now).is_some())
        };
        if self.bundles.contains(&found.path) && !found.hops.iter().all(asked) {
            return None;
        }
        Some(Ok(self.with_endpoints(found)))
    }

    /// The last next hops that were known, whether their records still hold or not.
    pub(crate) fn last_known(&self, domain: &str) -> Option<NextHops> {
        let route = self.route(domain)?;
        if !route.gateways.is_empty() {
            return Some(fixed(route));
        }
        let owner = owner(domain);
        let records = self.uri.last(&owner)?;
        let found = usable(route, owner, Known::Stale(records)).ok()?;
        Some(self.with_endpoints(found))
    }

    fn required(&self, domain: &str) -> Result<&Route, DiscoveryError> {
        self.route(domain)
            .ok_or_else(|| DiscoveryError::NoRoute(domain.to_owned()))
    }

    async fn lookup_uri(&self, owner: &str) -> Known<Vec<Vec<u8>>> {
        let turn = self.turn(Kind::Uri, owner);
        let _turn = turn.lock().await;
        if let Some(known) = self.uri.get(owner, self.clock.now()) {
            return known;
        }
        let answer = self.questions.uri(&self.clock, owner).await;
        self.note(&self.uri, owner, answer)
    }

    async fn lookup_ipn(&self, host: &str) {
        let turn = self.turn(Kind::Ipn, host);
        let _turn = turn.lock().await;
        if self.ipn.get(host, self.clock.now()).is_none() {
            let answer = self.questions.ipn(&self.clock, host).await;
            self.note(&self.ipn, host, answer);
        }
    }

    /// Where a path uses bundles: the hops with the endpoints that are known of their hosts' nodes.
    fn with_endpoints(&self, mut found: NextHops) -> NextHops {
        if self.bundles.contains(&found.path) {
            let endpoint = |hop: Hop| {
                let numbers = hop.url.host_str().and_then(|host| self.ipn.last(host));
                ipn::with_endpoint(hop, &numbers.unwrap_or_default())
            };
            found.hops = found.hops.into_iter().map(endpoint).collect();
        }
        found
    }

    async fn lookup_addresses(&self, host: &str) -> Known<Vec<IpAddr>> {
        let turn = self.turn(Kind::Address, host);
        let _turn = turn.lock().await;
        if let Some(known) = self.addresses.get(host, self.clock.now()) {
            return known;
        }
        let answer = self.questions.addresses(&self.clock, host).await;
        self.note(&self.addresses, host, answer)
    }

    fn note<T: Clone>(&self, cache: &Cache<T>, name: &str, answer: Answer<T>) -> Known<T> {
        if let Answer::Silent(why) = &answer {
            tracing::warn!(name, why, "the resolver is silent");
        }
        let (known, changed) = cache.put(name, answer, self.clock.now());
        if changed && self.file.is_some() {
            self.dirty.store(true, Ordering::Release);
            self.changed.notify_one();
        }
        known
    }

    /// One question at a time per name: the others wait for its answer.
    fn turn(&self, kind: Kind, name: &str) -> Arc<Turn> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.retain(|_, turn| turn.strong_count() > 0);
        let slot = asking.entry((kind, name.to_owned())).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let turn = Arc::default();
            *slot = Arc::downgrade(&turn);
            turn
        })
    }

    fn restore(&self) {
        let Some(path) = &self.file else { return };
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the last known answers cannot be read");
                return;
            }
        };
        match serde_json::from_slice::<File>(&text) {
            Ok(file) => {
                self.uri.restore(file.uri);
                self.addresses.restore(file.addresses);
                self.ipn.restore(file.ipn);
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the last known answers are damaged and begun anew");
            }
        }
    }

    /// Resolves once something was learnt that belongs on disk.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Writes what is known to disk, if it has changed.
    pub(crate) async fn save(&self) {
        let Some(path) = self.file.clone() else { return };
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return;
        }
        let file = File {
            uri: self.uri.kept(),
            addresses: self.addresses.kept(),
            ipn: self.ipn.kept(),
        };
        let written = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec(&file)?;
            replace(&path, &text)
        })
        .await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the last known answers cannot be written");
        }
    }
}

#[async_trait::async_trait]
impl Hosts for Discovery {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let host = bare.trim_end_matches('.').to_ascii_lowercase();
        let known = match self.addresses.get(&host, self.clock.now()) {
            Some(known) => known,
            None => self.lookup_addresses(&host).await,
        };
        match known {
            Known::Fresh(addresses) | Known::Stale(addresses) => Ok(addresses),
            Known::Nothing(Nothing::Name) => Err(format!("the host {host} does not exist (NXDOMAIN)")),
            Known::Nothing(Nothing::Data) => Err(format!("the host {host} has no address (NODATA)")),
            Known::Silent(why) => Err(format!("the host {host} cannot be looked up at {why}")),
        }
    }
}

fn owner(domain: &str) -> String {
    format!("_bsmtp._https.{domain}")
}

fn fixed(route: &Route) -> NextHops {
    let hops = route.gateways.iter().zip(1u16..).map(|(url, place)| Hop {
        url: Url::clone(url),
        priority: place.saturating_mul(10),
        weight: 1,
    });
    NextHops {
        source: Source::Static,
        hops: hops.collect(),
        path: route.path.clone(),
    }
}

fn usable(route: &Route, owner: String, known: Known<Vec<Vec<u8>>>) -> Result<NextHops, DiscoveryError> {
    let (records, source) = match known {
        Known::Fresh(records) => (records, Source::Dns),
        Known::Stale(records) => (records, Source::Stale),
        Known::Nothing(nothing) => {
            return Err(DiscoveryError::NoRecord {
                owner,
                exists: nothing == Nothing::Data,
            });
        }
        Known::Silent(why) => return Err(DiscoveryError::Silent { owner, why }),
    };
    let mut hops = Vec::new();
    let mut refused = None;
    for record in &records {
        match uri::parse(record, &route.targets) {
            Ok(hop) => hops.push(hop),
            Err(why) => {
                tracing::warn!(owner, %why, "a URI record is not used");
                refused.get_or_insert(why);
            }
        }
    }
    if hops.is_empty() {
        let why = refused.unwrap_or(UriError::Short(0));
        return Err(DiscoveryError::Unusable { owner, why });
    }
    Ok(NextHops {
        source,
        hops,
        path: route.path.clone(),
    })
}
