//! Between quinn and rustls: every call into a handshake is made on a [`Stage`], and written down.

use std::{
    any::Any,
    sync::{Arc, Mutex},
};

use quinn::{ConnectError, Side, crypto, crypto::rustls::QuicClientConfig};
use quinn_proto::{ConnectionId, TransportError, transport_parameters::TransportParameters};
use ring::digest::{Context, SHA256};

use super::{
    Sessions, Ticket,
    record::{Heard, LIMIT, Origin, Record},
    stage::{Draw, Script, Stage},
};

/// Handshakes that may hang on one another; the last of them is not kept, so that what follows it begins anew.
const DEPTH: u16 = 32;

/// The TLS of one connection that is about to be opened.
pub(super) struct Recorder {
    pub(super) crypto: Arc<QuicClientConfig>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) gateway: Arc<str>,
    pub(super) ticket: Mutex<Option<Ticket>>,
    /// TLS time for its first flight.
    pub(super) now: u64,
}

impl crypto::ClientConfig for Recorder {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let ticket = self.ticket.lock().ok().and_then(|mut ticket| ticket.take());
        let origin = ticket.as_ref().map(|ticket| ticket.origin);
        let mut stage = Stage::new(self.now, Script::Live(Vec::new()));
        stage.ticket = ticket.map(|ticket| ticket.value);
        stage.group = self.sessions.group(&self.gateway);
        let group = stage.group.map(u16::from);
        let crypto = self.crypto.clone();
        let (session, stage) = stage.run(|| crypto.start_session(version, server_name, params));
        let mut parameters = Vec::new();
        params.write(&mut parameters);
        // A child can be played again only after its parent.
        let (parent, depth) = match origin {
            None => (Some(None), 0),
            Some(None) => (None, 0),
            Some(Some((origin, depth))) => (Some(Some(origin)), depth + 1),
        };
        let keeps = version == 1 && depth < DEPTH && self.sessions.keeps();
        let tape = parent.filter(|_| keeps).map(|parent| Record {
            id: 0,
            gateway: self.gateway.to_string(),
            parent,
            name: server_name.to_owned(),
            parameters,
            begun: self.now,
            group,
            draws: drawn(stage),
            heard: Vec::new(),
            said: [0; 32],
        });
        Ok(Box::new(Recording {
            inner: session?,
            sessions: self.sessions.clone(),
            gateway: self.gateway.clone(),
            tape: tape.map_or(Tape::Off, |record| Tape::On(Box::new(record))),
            said: Context::new(&SHA256),
            depth,
        }))
    }
}

fn drawn(stage: Option<Stage>) -> Vec<Draw> {
    match stage.map(|stage| stage.script) {
        Some(Script::Live(draws)) => draws,
        _ => Vec::new(),
    }
}

/// How far a handshake is written down.
enum Tape {
    /// It is not, or not any more.
    Off,
    /// No ticket has come yet.
    On(Box<Record>),
    /// It is in the journal; what follows is appended.
    Kept { record: u64, tickets: u16, room: usize },
}

/// A TLS session that is written down.
struct Recording {
    inner: Box<dyn crypto::Session>,
    sessions: Arc<Sessions>,
    gateway: Arc<str>,
    tape: Tape,
    said: Context,
    depth: u16,
}

impl Recording {
    /// Writes down what was heard, and what came of it; the tickets' origins, when they can be played again.
    fn keep(&mut self, heard: Heard, draws: Vec<Draw>) -> Option<(u64, u16)> {
        let (octets, born) = (heard.octets.len(), heard.tickets);
        match std::mem::replace(&mut self.tape, Tape::Off) {
            Tape::Off => None,
            Tape::On(mut record) => {
                record.heard.push(heard);
                record.draws.extend(draws);
                if record.size() > LIMIT {
                    return None;
                }
                if born == 0 {
                    self.tape = Tape::On(record);
                    return None;
                }
                record.said.copy_from_slice(self.said.clone().finish().as_ref());
                let room = LIMIT - record.size();
                let id = self.sessions.keep_record(*record)?;
                self.tape = Tape::Kept {
                    record: id,
                    tickets: born,
                    room,
                };
                Some((id, 0))
            }
            Tape::Kept {
                record,
                tickets,
                room,
            } => {
                let room = room.checked_sub(octets + 64)?;
                self.sessions.keep_heard(record, heard);
                self.tape = Tape::Kept {
                    record,
                    tickets: tickets.saturating_add(born),
                    room,
                };
                Some((record, tickets))
            }
        }
    }
}

impl crypto::Session for Recording {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> crypto::Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn crypto::HeaderKey>, Box<dyn crypto::PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let at = self.sessions.now();
        let mut stage = Stage::new(at, Script::Live(Vec::new()));
        stage.group = self.sessions.group(&self.gateway);
        let (ready, stage) = stage.run(|| self.inner.read_handshake(buf));
        let ready = ready?;
        let Some(mut stage) = stage else {
            self.tape = Tape::Off;
            return Ok(ready);
        };
        self.sessions.set_group(&self.gateway, stage.group);
        let born = std::mem::take(&mut stage.born);
        let heard = Heard {
            at,
            octets: buf.to_vec(),
            tickets: u16::try_from(born.len()).unwrap_or(u16::MAX),
        };
        let first = self.keep(heard, drawn(Some(stage)));
        let tickets = born.into_iter().zip(0u16..).map(|(value, number)| Ticket {
            value,
            at,
            origin: first.map(|(record, first)| {
                let index = first.saturating_add(number);
                (Origin { record, index }, self.depth)
            }),
        });
        self.sessions.put(&self.gateway, tickets);
        Ok(ready)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<crypto::Keys> {
        let before = buf.len();
        let keys = self.inner.write_handshake(buf);
        self.said.update(buf.get(before..).unwrap_or_default());
        keys
    }

    fn next_1rtt_keys(&mut self) -> Option<crypto::KeyPair<Box<dyn crypto::PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), crypto::ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}
