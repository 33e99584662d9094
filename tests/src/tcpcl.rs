//! A TCPCLv4 peer (RFC 9174) made of octets, and the bundles and binary HTTP messages (RFC 9292) that it sends: written apart from the
//! programs' own implementation.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use hardy_bpv7::{
    bpsec::no_keys, builder::Builder, bundle::ParsedBundle, creation_timestamp::CreationTimestamp,
    dtn_time::DtnTime,
};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first piece of a transfer, the last.
const START: u8 = 2;
const END: u8 = 1;
/// Milliseconds since 2000 at which the bundles were made: in 2026, far enough from the end of their lifetimes.
const MADE: u64 = 840_000_000_000;
/// Their lifetimes: long enough for a clock that runs ahead by years.
const LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A connection to or from a node.
#[derive(Debug)]
pub struct Peer(TcpStream);

/// What a node says, keepalives left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A whole bundle.
    Bundle {
        /// The transfer's number.
        transfer: u64,
        /// Its octets.
        data: Vec<u8>,
    },
    /// So much of a transfer is there.
    Ack {
        /// Which.
        transfer: u64,
        /// Octets.
        length: u64,
    },
    /// A transfer is not taken.
    Refuse {
        /// Which.
        transfer: u64,
        /// Why: XFER_REFUSE's reason code.
        reason: u8,
    },
    /// The session ends.
    Term,
}

impl Peer {
    /// Calls a node, as the node `name`.
    pub fn dial(address: SocketAddr, name: &str) -> Self {
        let mut peer = Self(TcpStream::connect(address).unwrap());
        peer.0.write_all(b"dtn!\x04\x00").unwrap();
        peer.introduce(name);
        peer.greeted();
        peer
    }

    /// Is called by a node.
    pub fn accept(listener: &TcpListener, name: &str) -> Self {
        let mut peer = Self(listener.accept().unwrap().0);
        peer.0.write_all(b"dtn!\x04\x00").unwrap();
        peer.greeted();
        peer.introduce(name);
        peer
    }

    /// SESS_INIT without keepalive.
    fn introduce(&mut self, name: &str) {
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        self.0.set_nodelay(true).unwrap();
        let mut init = vec![7, 0, 0];
        init.extend(u64::from(1_u32 << 20).to_be_bytes());
        init.extend(u64::MAX.to_be_bytes());
        init.extend((name.len() as u16).to_be_bytes());
        init.extend(name.as_bytes());
        init.extend(0_u32.to_be_bytes());
        self.0.write_all(&init).unwrap();
    }

    fn greeted(&mut self) {
        let mut header = [0; 6];
        self.0.read_exact(&mut header).unwrap();
        assert_eq!(&header[..5], b"dtn!\x04");
        assert_eq!(self.octets::<1>(), [7]);
        // Keepalive, segments, transfers.
        self.octets::<18>();
        let length = u16::from_be_bytes(self.octets());
        let mut name = vec![0; length.into()];
        self.0.read_exact(&mut name).unwrap();
        assert_eq!(self.octets::<4>(), [0; 4], "an extension");
    }

    fn octets<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        self.0.read_exact(&mut octets).unwrap();
        octets
    }

    fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.octets())
    }

    /// Sends a bundle in one piece.
    pub fn send(&mut self, transfer: u64, data: &[u8]) {
        self.segment(START | END, transfer, None, data).unwrap();
    }

    /// Sends a piece of a transfer, the first one with the length of all where `total` says so.
    ///
    /// # Errors
    /// When the node has ended the connection.
    pub fn segment(&mut self, flags: u8, transfer: u64, total: Option<u64>, data: &[u8]) -> io::Result<()> {
        let mut head = vec![1, flags];
        head.extend(transfer.to_be_bytes());
        if flags & START != 0 {
            let mut items = Vec::new();
            if let Some(total) = total {
                // Transfer Length, critical (section 5.2.5.1).
                items.extend([1, 0, 1, 0, 8]);
                items.extend(total.to_be_bytes());
            }
            head.extend((items.len() as u32).to_be_bytes());
            head.extend(items);
        }
        head.extend((data.len() as u64).to_be_bytes());
        self.0.write_all(&head)?;
        self.0.write_all(data)
    }

    /// Sends `octets` of nothing as one transfer, to its end even where it was refused long ago, as a peer does that does not listen. With
    /// `announced`, the length is said first.
    ///
    /// # Errors
    /// When the node has ended the connection.
    pub fn flood(&mut self, transfer: u64, octets: u64, announced: bool) -> io::Result<()> {
        let piece = vec![0x5a; 1 << 20];
        let mut left = octets;
        let mut flags = START;
        while left > 0 {
            let now = left.min(piece.len() as u64);
            left -= now;
            if left == 0 {
                flags |= END;
            }
            self.segment(
                flags,
                transfer,
                announced.then_some(octets),
                &piece[..now as usize],
            )?;
            flags = 0;
        }
        Ok(())
    }

    /// The next thing that is said; whole bundles are acknowledged. Acknowledgements of a part of a transfer are passed over where `whole`
    /// is the transfer's length.
    pub fn hear(&mut self) -> Heard {
        let mut data = Vec::new();
        loop {
            match self.octets::<1>()[0] {
                1 => {
                    let flags = self.octets::<1>()[0];
                    let transfer = self.number();
                    if flags & START != 0 {
                        let length = u32::from_be_bytes(self.octets());
                        let mut items = vec![0; length as usize];
                        self.0.read_exact(&mut items).unwrap();
                    }
                    let from = data.len();
                    let length = self.number() as usize;
                    data.resize(from + length, 0);
                    self.0.read_exact(&mut data[from..]).unwrap();
                    let mut ack = vec![2, flags];
                    ack.extend(transfer.to_be_bytes());
                    ack.extend((data.len() as u64).to_be_bytes());
                    self.0.write_all(&ack).unwrap();
                    if flags & END != 0 {
                        return Heard::Bundle { transfer, data };
                    }
                }
                2 => {
                    self.octets::<1>();
                    let (transfer, length) = (self.number(), self.number());
                    return Heard::Ack { transfer, length };
                }
                3 => {
                    let reason = self.octets::<1>()[0];
                    let transfer = self.number();
                    return Heard::Refuse { transfer, reason };
                }
                4 => {}
                5 => return Heard::Term,
                other => panic!("a message of type {other}"),
            }
        }
    }

    /// What becomes of a transfer of so many octets: acknowledgements of its parts, and of other transfers, are passed over.
    pub fn fate(&mut self, transfer: u64, octets: u64) -> Heard {
        loop {
            let heard = self.hear();
            match heard {
                Heard::Ack { transfer: of, length } if of == transfer && length == octets => return heard,
                Heard::Refuse { transfer: of, .. } if of == transfer => return heard,
                Heard::Term => return heard,
                _ => {}
            }
        }
    }

    /// The payload of the next bundle.
    pub fn payload(&mut self) -> Vec<u8> {
        loop {
            if let Heard::Bundle { data, .. } = self.hear() {
                let parsed = ParsedBundle::parse(&data, no_keys).unwrap();
                return parsed.bundle.blocks[&1].payload(&data).unwrap().to_vec();
            }
        }
    }
}

/// A bundle; `sequence` tells those of one source apart.
pub fn bundle(source: &str, destination: &str, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let stamp = CreationTimestamp::from_parts(Some(DtnTime::new(MADE)), sequence);
    let (_, data) = Builder::new(source.parse().unwrap(), destination.parse().unwrap())
        .with_lifetime(LIFETIME)
        .with_payload(payload.into())
        .build(stamp)
        .unwrap();
    data.into()
}

/// A POST of known length.
pub fn post(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    for part in ["POST", "https", "gateway.example", "/inboundmail"] {
        string(&mut message, part.as_bytes());
    }
    rest(message, headers, body)
}

/// A response of known length.
pub fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut message = vec![1];
    integer(&mut message, status.into());
    rest(message, headers, body)
}

fn rest(mut message: Vec<u8>, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut fields = Vec::new();
    for (name, value) in headers {
        string(&mut fields, name.as_bytes());
        string(&mut fields, value.as_bytes());
    }
    string(&mut message, &fields);
    string(&mut message, body);
    // No trailer.
    message.push(0);
    message
}

fn string(out: &mut Vec<u8>, octets: &[u8]) {
    integer(out, octets.len() as u64);
    out.extend_from_slice(octets);
}

/// A variable-length integer (RFC 9000 section 16), always of 8 octets: that is allowed.
fn integer(out: &mut Vec<u8>, number: u64) {
    out.extend((number | 0xc000_0000_0000_0000).to_be_bytes());
}

/// The exchange that a request or a reply names: its `Idempotency-Key` without quotes.
pub fn exchange(payload: &[u8]) -> String {
    let name = b"idempotency-key";
    let at = payload
        .windows(name.len())
        .position(|window| window == name)
        .expect("a payload that names an exchange");
    let value = &payload[at + name.len()..];
    let open = value.iter().position(|octet| *octet == b'"').unwrap();
    let value = &value[open + 1..];
    let close = value.iter().position(|octet| *octet == b'"').unwrap();
    String::from_utf8(value[..close].to_vec()).unwrap()
}
