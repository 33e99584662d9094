//! How many round trips a stranger's handshake takes with our certificates.
//!
//! Until a client's address is known for real, a server may send it three times what it has received (RFC 9000 section 8.1): three datagrams for a
//! client's first one. A certificate chain that does not fit costs a whole round trip. Rather than computing that from sizes, the handshake is
//! held here, between two of the endpoints that hold it on the wire, and its flights are counted.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::BytesMut;
use quinn::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, ServerConfig,
    Transmit,
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{profile, tickets::Tickets};
use crate::{Path, tls::TlsError};

const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2);
/// Datagrams that an endpoint is asked for at once.
const BATCH: usize = 10;
/// Flights after which a handshake is given up.
const LONGEST: usize = 20;

/// A stranger's handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Round trips until the client can send its request; one when nothing stands in the way.
    pub round_trips: usize,
    /// Octets that the server sends before it hears from the client again.
    pub first_flight: usize,
    /// Octets of all of its flights until then.
    pub octets: usize,
}

/// Holds a handshake of a client on the most demanding of `paths` with a server that has `tls`; both are here, and nothing is sent. The
/// client's first datagrams arrive `copies` times.
///
/// # Errors
/// [`TlsError::Setup`] when the handshake does not come to its end.
pub fn handshake(
    tls: &rustls::ServerConfig,
    paths: &[Path],
    copies: usize,
    now: Instant,
) -> Result<Handshake, TlsError> {
    let setup = |error: &dyn std::fmt::Display| TlsError::Setup(error.to_string());
    let profile = profile::derive_for_all(paths);
    // No request is sent.
    let server = Tickets::default().server_config(tls, profile.server_config(1), paths);
    let (server, _keeper) = server.map_err(|error| setup(&error))?;
    let mut client = ClientConfig::new(Arc::new(trusting(tls.crypto_provider())?));
    client.transport_config(profile.client_config());
    let mut pair = Pair::new(server, now);
    let connected = pair.client.connect(now, client, SERVER, "gateway.example");
    let (_, mut client) = connected.map_err(|error| setup(&error))?;
    let mut held = Handshake {
        round_trips: 0,
        first_flight: 0,
        octets: 0,
    };
    let first = flight(&mut client, now);
    let mut flight: Vec<_> = std::iter::repeat_n(first, copies).flatten().collect();
    while held.round_trips < LONGEST {
        let answer = pair.answer(flight)?;
        held.round_trips += 1;
        let octets: usize = answer.iter().map(BytesMut::len).sum();
        held.octets += octets;
        if held.round_trips == 1 {
            held.first_flight = octets;
        }
        pair.hear(&mut client, answer);
        if !client.is_handshaking() {
            return match client.is_closed() {
                true => Err(setup(&"the handshake fails")),
                false => Ok(held),
            };
        }
        flight = self::flight(&mut client, now);
    }
    Err(setup(&"the handshake does not end"))
}

/// Both ends.
struct Pair {
    now: Instant,
    client: Endpoint,
    server: Endpoint,
    accepted: Option<(ConnectionHandle, Connection)>,
}

impl Pair {
    fn new(server: ServerConfig, now: Instant) -> Self {
        let config = Arc::new(EndpointConfig::default());
        Self {
            now,
            client: Endpoint::new(config.clone(), None, false, None),
            server: Endpoint::new(config, Some(Arc::new(server)), false, None),
            accepted: None,
        }
    }

    /// What the server says to `flight`.
    fn answer(&mut self, flight: Vec<BytesMut>) -> Result<Vec<BytesMut>, TlsError> {
        let mut answer = Vec::new();
        for datagram in flight {
            let mut buffer = Vec::new();
            let event = self
                .server
                .handle(self.now, CLIENT, None, None, datagram, &mut buffer);
            match event {
                Some(DatagramEvent::NewConnection(incoming)) => {
                    let accepted = self.server.accept(incoming, self.now, &mut buffer, None);
                    let accepted = accepted.map_err(|error| TlsError::Setup(error.cause.to_string()))?;
                    self.accepted = Some(accepted);
                }
                Some(DatagramEvent::ConnectionEvent(_, event)) => {
                    if let Some((_, connection)) = &mut self.accepted {
                        connection.handle_event(event);
                    }
                }
                Some(DatagramEvent::Response(_)) | None => {}
            }
            if let Some((handle, connection)) = &mut self.accepted {
                settle(&mut self.server, *handle, connection);
            }
        }
        if let Some((_, connection)) = &mut self.accepted {
            answer = self::flight(connection, self.now);
        }
        Ok(answer)
    }

    /// The client hears `answer`.
    fn hear(&mut self, client: &mut Connection, answer: Vec<BytesMut>) {
        for datagram in answer {
            let mut buffer = Vec::new();
            let event = self
                .client
                .handle(self.now, SERVER, None, None, datagram, &mut buffer);
            if let Some(DatagramEvent::ConnectionEvent(handle, event)) = event {
                client.handle_event(event);
                settle(&mut self.client, handle, client);
            }
        }
    }
}

/// Passes on what a connection and its endpoint have to say to each other.
fn settle(endpoint: &mut Endpoint, handle: ConnectionHandle, connection: &mut Connection) {
    while let Some(event) = connection.poll_endpoint_events() {
        if let Some(event) = endpoint.handle_event(handle, event) {
            connection.handle_event(event);
        }
    }
}

/// All datagrams that a connection has to send now.
fn flight(connection: &mut Connection, now: Instant) -> Vec<BytesMut> {
    let mut flight = Vec::new();
    let mut buffer = Vec::new();
    while let Some(Transmit {
        size, segment_size, ..
    }) = connection.poll_transmit(now, BATCH, &mut buffer)
    {
        let sent = &buffer[..size];
        flight.extend(sent.chunks(segment_size.unwrap_or(size)).map(BytesMut::from));
        buffer.clear();
    }
    flight
}

/// A client that takes whoever answers for the gateway: what is counted does not depend on whom it trusts.
fn trusting(provider: &Arc<CryptoProvider>) -> Result<QuicClientConfig, TlsError> {
    let any = Arc::new(Anybody(provider.signature_verification_algorithms));
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(any)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    QuicClientConfig::try_from(tls).map_err(|error| TlsError::Setup(error.to_string()))
}

#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
