//! quinn's TLS with an ear for what sessions a client offers, and for who it turned out to be.

use std::{any::Any, sync::Arc};

use quinn::{
    ConnectionId, Side,
    crypto::{
        ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
        UnsupportedVersion, rustls::QuicServerConfig,
    },
};
use quinn_proto::{TransportError, transport_parameters::TransportParameters};

use super::{hello::Hello, sessions::Sessions};

/// TLS for a listener whose sessions are kept in [`Sessions`].
pub(super) struct Listening {
    pub(super) tls: Arc<QuicServerConfig>,
    pub(super) sessions: Arc<Sessions>,
}

impl ServerConfig for Listening {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.tls.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.tls.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        Box::new(Heard {
            tls: self.tls.clone().start_session(version, params),
            sessions: self.sessions.clone(),
            hello: Hello::default(),
        })
    }
}

/// One handshake.
struct Heard {
    tls: Box<dyn Session>,
    sessions: Arc<Sessions>,
    hello: Hello,
}

impl Session for Heard {
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let offer = self.hello.push(buf);
        let (read, made) = self.sessions.during(offer, || self.tls.read_handshake(buf));
        if !made.is_empty() && read.is_ok() && self.tls.peer_identity().is_some() {
            self.sessions.identified(&made);
        }
        read
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.tls.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.tls.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.tls.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.tls.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.tls.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.tls.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.tls.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.tls.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.tls.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.tls.export_keying_material(output, label, context)
    }
}
