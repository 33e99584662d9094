//! What works as it is configured, and costs more than it has to.

use std::{borrow::Cow, path::PathBuf, time::Duration};

use lightpost_clock::Clock;
use lightpost_config::duration_text;
use lightpost_transport::{
    Path,
    quic::{flight::handshake, profile},
    tls::{self, TlsError},
};
use serde::Serialize;

use crate::Config;

/// One thing that could be better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The key with its sections, `listen.certificate`.
    pub key: Cow<'static, str>,
    /// The file that it names.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// What would be better.
    pub remedy: String,
}

/// Tries out what can be tried without a network: a handshake with our certificates.
///
/// # Errors
/// [`TlsError`] when a certificate or key cannot be used at all.
pub fn advise(config: &Config, clock: &Clock) -> Result<Vec<Warning>, TlsError> {
    let listen = &config.listen;
    let trust = listen.client_trust.as_deref();
    let mut server = tls::server(&listen.certificate, &listen.key, trust, &[b"h3"])?;
    server.time_provider = tls::time(clock);
    let now = clock.instant().into_std();
    let hold = |path: &Path| {
        let redundancy = *profile::derive(path).redundancy();
        let copies = if redundancy.repeats() {
            redundancy.copies
        } else {
            1
        };
        handshake(&server, std::slice::from_ref(path), copies.into(), now)
    };
    let earth = [Path::earth()];
    let paths = if config.paths.is_empty() {
        &earth[..]
    } else {
        &config.paths
    };
    let mut worst: Option<(usize, Duration, &Path)> = None;
    for path in paths {
        let round_trips = hold(path)?.round_trips;
        let lost = path.round_trip_max() * u32::try_from(round_trips - 1).unwrap_or(u32::MAX);
        if round_trips > 1 && worst.is_none_or(|(_, most, _)| lost > most) {
            worst = Some((round_trips, lost, path));
        }
    }
    let Some((round_trips, lost, path)) = worst else {
        return Ok(Vec::new());
    };
    let chain = tls::chain(&listen.certificate)?;
    let certificates = match chain.certificates {
        1 => "1 certificate".to_owned(),
        more => format!("{more} certificates"),
    };
    let what = format!(
        "the chain, {certificates} with {} octets, does not fit into what a client may be sent before it has shown that its address is real (three times \
         its own first datagrams): a cold connection takes {round_trips} round trips instead of 1, and its mail arrives after {} light times instead \
         of 3 ({} more on path {})",
        chain.octets,
        2 * round_trips + 1,
        duration_text(lost),
        path.name,
    );
    Ok(vec![Warning {
        key: "listen.certificate".into(),
        file: listen.certificate.clone(),
        what,
        remedy: remedy(&chain),
    }])
}

fn remedy(chain: &tls::Chain) -> String {
    let mut remedies = Vec::new();
    if chain.has_root {
        remedies.push("leave out the root, which clients have themselves");
    }
    if chain.rsa {
        remedies.push("take ECDSA instead of RSA keys");
    }
    if chain.certificates > 2 {
        remedies.push("take fewer intermediate certificates");
    }
    remedies.push("take fewer and shorter names");
    remedies.join("; ")
}
