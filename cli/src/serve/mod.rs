//! `lightpost client` and `lightpost server`: start, tell the service manager, serve until a signal, stop.

pub(crate) mod logging;
mod notify;

use std::{io::ErrorKind, num::NonZero};

use lightpost_client::Client;
use lightpost_clock::Clock;
use lightpost_queue::StoreError;
use lightpost_server::Server;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    args::{Program, Serve},
    check,
    failure::{Failure, code},
    no_runtime,
};

/// Runs the agent.
pub(crate) fn client(options: &Serve) -> Result<(), Failure> {
    logging::start(options.log.log, &options.log.log_level)?;
    check::insist(&options.config, Program::Client)?;
    let config =
        lightpost_client::Config::load(&options.config).map_err(|problems| check::failure(&problems))?;
    block_on(async {
        let mut signals = Signals::new()?;
        let client = Client::start(config, Clock::system())
            .await
            .map_err(|error| client_failure(&error))?;
        notify::send("READY=1");
        signals.next().await;
        notify::send("STOPPING=1");
        signals.unless_again(client.stop()).await
    })
}

/// Runs the gateway.
pub(crate) fn server(options: &Serve) -> Result<(), Failure> {
    logging::start(options.log.log, &options.log.log_level)?;
    check::insist(&options.config, Program::Server)?;
    let config =
        lightpost_server::Config::load(&options.config).map_err(|problems| check::failure(&problems))?;
    block_on(async {
        let mut signals = Signals::new()?;
        let server = Server::start(config, Clock::system())
            .await
            .map_err(|error| server_failure(&error))?;
        notify::send("READY=1");
        signals.next().await;
        notify::send("STOPPING=1");
        signals.unless_again(server.stop()).await
    })
}

/// A runtime on half of the cores: the others have the databases' threads to run, which take turns with it at every step
/// (decision 0012).
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).max(1))
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| no_runtime(&error))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over.
    pub(crate) fn new() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(code::OSERR, format!("signals cannot be caught: {error}"), ""))
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
    }

    /// Runs `stop`, and gives it up at another signal: everything acknowledged is on disk.
    async fn unless_again(&mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        tokio::select! {
            () = stop => Ok(()),
            () = self.next() => Err(Failure::new(code::UNAVAILABLE, "stopped at once by a second signal", "")),
        }
    }
}

/// Why the agent does not start.
pub(crate) fn client_failure(error: &lightpost_client::StartError) -> Failure {
    use lightpost_client::StartError;
    match error {
        StartError::Store(error) => store_failure(error),
        StartError::Tls(error) => Failure::new(code::CONFIG, error.to_string(), TLS_REMEDY),
        StartError::Listen { cause, .. } => {
            Failure::new(code::UNAVAILABLE, error.to_string(), listen_remedy(cause))
        }
        _ => Failure::new(code::CONFIG, error.to_string(), ""),
    }
}

/// Why the gateway does not start.
pub(crate) fn server_failure(error: &lightpost_server::StartError) -> Failure {
    use lightpost_server::StartError;
    match error {
        StartError::Store(error) => store_failure(error),
        StartError::Tls(error) => Failure::new(code::CONFIG, error.to_string(), TLS_REMEDY),
        StartError::Listen { cause, .. } => {
            Failure::new(code::UNAVAILABLE, error.to_string(), listen_remedy(cause))
        }
        _ => Failure::new(code::CONFIG, error.to_string(), ""),
    }
}

const TLS_REMEDY: &str = "name readable PEM files in the configuration";

/// What helps where an address or a socket cannot be listened on.
fn listen_remedy(cause: &std::io::Error) -> &'static str {
    match cause.kind() {
        ErrorKind::PermissionDenied => {
            "a port below 1024 needs CAP_NET_BIND_SERVICE, which the unit in deploy/site gives, and a socket a folder that the service can write; \
             or change the address in the configuration"
        }
        ErrorKind::AddrNotAvailable => "write an address of this host, or [::] for all, in the configuration",
        _ => "stop what listens there, or change the address in the configuration",
    }
}

/// The store's words say what to do themselves.
fn store_failure(error: &StoreError) -> Failure {
    let code = match error {
        StoreError::Newer { .. } => code::CONFIG,
        StoreError::InUse { .. } => code::UNAVAILABLE,
        _ => code::IOERR,
    };
    Failure::new(code, error.to_string(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_depends_on_why_it_cannot_listen() {
        for (kind, expected) in [
            (ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (ErrorKind::AddrNotAvailable, "an address of this host"),
            (ErrorKind::AddrInUse, "stop what listens there"),
        ] {
            assert!(listen_remedy(&kind.into()).contains(expected), "{kind}");
        }
    }
}
