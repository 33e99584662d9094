//! Questions to the local resolver, and what its answers mean.

use std::{net::IpAddr, time::Duration};

use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType},
};
use lightpost_config::duration_text;

use super::{ipn, uri};
use crate::config::Resolver;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// URI records of `_bsmtp._https.<domain>`.
    Uri,
    /// A and AAAA.
    Address,
    /// IPN records of a gateway's host.
    Ipn,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    /// Records, and for how long they hold.
    Records(T, Duration),
    /// The name does not exist (NXDOMAIN) or has no such record (NODATA), and for how long that holds.
    Nothing(Nothing, Duration),
    /// The resolver is silent, or could not find out.
    Silent(String),
}

/// How a name has nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// NXDOMAIN
    Name,
    /// NODATA
    Data,
}

/// Negative answers without a SOA hold for so long.
const NEGATIVE_DEFAULT: Duration = Duration::from_secs(60);
/// Negative answers hold at most so long (RFC 2308 section 5 advises one to three hours).
const NEGATIVE_MOST: Duration = Duration::from_secs(3600);
/// Positive answers hold at most so long.
const POSITIVE_MOST: Duration = Duration::from_secs(86_400);

/// The resolver of `[resolver]`.
pub(crate) struct Questions {
    resolver: TokioResolver,
    timeout: Duration,
    /// Who is asked, in words.
    servers: String,
}

/// A resolver that asks the servers of `[resolver]`.
pub(super) fn builder(settings: &Resolver) -> Result<ResolverBuilder<TokioRuntimeProvider>, NetError> {
    let mut builder = if settings.servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = settings.servers.iter().map(|server| {
            let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut connections {
                connection.port = server.port();
            }
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = settings.timeout / 2;
    options.attempts = 2;
    options.validate = settings.dnssec;
    Ok(builder)
}

impl Questions {
    pub(crate) fn new(settings: &Resolver) -> Result<Self, NetError> {
        let mut builder = builder(settings)?;
        // Our own cache serves stale answers and survives a restart.
        builder.options_mut().cache_size = 0;
        Ok(Self {
            resolver: builder.build()?,
            timeout: settings.timeout,
            servers: match settings.servers.as_slice() {
                [] => "the name server of /etc/resolv.conf".into(),
                some => some
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            },
        })
    }

    /// The data of all URI records of `owner`.
    pub(crate) async fn uri(&self, clock: &lightpost_clock::Clock, owner: &str) -> Answer<Vec<Vec<u8>>> {
        self.ask(clock, owner, RecordType::Unknown(uri::TYPE), |data| match data {
            RData::Unknown { rdata, .. } => Some(rdata.anything.clone()),
            _ => None,
        })
        .await
    }

    /// The node numbers of `host`'s IPN records.
    pub(crate) async fn ipn(&self, clock: &lightpost_clock::Clock, host: &str) -> Answer<Vec<u32>> {
        self.ask(clock, host, RecordType::Unknown(ipn::TYPE), |data| match data {
            RData::Unknown { rdata, .. } => ipn::parse(&rdata.anything),
            _ => None,
        })
        .await
    }

    /// The addresses of `host`: IPv4 first, because a host without IPv6 learns of a lost IPv6 packet only by waiting.
    pub(crate) async fn addresses(&self, clock: &lightpost_clock::Clock, host: &str) -> Answer<Vec<IpAddr>> {
        let (four, six) = futures_util::join!(
            self.ask(clock, host, RecordType::A, RData::ip_addr),
            self.ask(clock, host, RecordType::AAAA, RData::ip_addr)
        );
        match (four, six) {
            (Answer::Records(mut all, ttl), Answer::Records(more, other)) => {
                all.extend(more);
                Answer::Records(all, ttl.min(other))
            }
            (Answer::Records(all, ttl), _) | (_, Answer::Records(all, ttl)) => Answer::Records(all, ttl),
            (Answer::Silent(why), _) | (_, Answer::Silent(why)) => Answer::Silent(why),
            (Answer::Nothing(nothing, ttl), Answer::Nothing(_, other)) => {
                Answer::Nothing(nothing, ttl.min(other))
            }
        }
    }

    async fn ask<T>(
        &self,
        clock: &lightpost_clock::Clock,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Answer<Vec<T>> {
        let Ok(mut name) = Name::from_ascii(name) else {
            return Answer::Nothing(Nothing::Name, NEGATIVE_MOST);
        };
        // Never a search list: the name is whole.
        name.set_fqdn(true);
        let _hold = clock.hold();
        let lookup = match clock
            .timeout(self.timeout, self.resolver.lookup(name, kind))
            .await
        {
            Ok(Ok(lookup)) => lookup,
            Ok(Err(error)) => return self.failed(&error),
            Err(_) => return self.silent(&NetError::Timeout),
        };
        let mut ttl = POSITIVE_MOST;
        let mut found = Vec::new();
        for record in lookup.answers() {
            ttl = ttl.min(Duration::from_secs(record.ttl.into()));
            if record.record_type() == kind && found.len() < uri::MOST {
                found.extend(read(&record.data));
            }
        }
        if found.is_empty() {
            return Answer::Nothing(Nothing::Data, NEGATIVE_DEFAULT);
        }
        Answer::Records(found, ttl)
    }

    fn failed<T>(&self, error: &NetError) -> Answer<T> {
        let NetError::Dns(DnsError::NoRecordsFound(none)) = error else {
            return self.silent(error);
        };
        let ttl = none
            .negative_ttl
            .map_or(NEGATIVE_DEFAULT, |seconds| Duration::from_secs(seconds.into()));
        let nothing = if error.is_nx_domain() {
            Nothing::Name
        } else {
            Nothing::Data
        };
        Answer::Nothing(nothing, ttl.min(NEGATIVE_MOST))
    }

    /// Who did not answer, and how.
    fn silent<T>(&self, error: &NetError) -> Answer<T> {
        let how = match error {
            NetError::Timeout => format!("no answer within {}", duration_text(self.timeout)),
            NetError::NoConnections => "cannot be reached".to_owned(),
            NetError::Io(error) => error.to_string(),
            NetError::Dns(DnsError::ResponseCode(code)) => format!("answers \"{code}\""),
            NetError::Dns(DnsError::DnssecBogus) => "its answer does not stand DNSSEC's test".to_owned(),
            other => other.to_string(),
        };
        Answer::Silent(format!("{}: {how}", self.servers))
    }
}
