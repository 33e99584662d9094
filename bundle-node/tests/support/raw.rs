//! A neighbour that the code under test has no part in.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::PATIENCE;

/// A TCPCLv4 peer made of octets (RFC 9174), independent of the code under test.
pub(crate) struct Raw(pub(crate) TcpStream);

/// A message as it stands on the wire.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Segment { flags: u8, transfer: u64, data: Vec<u8> },
    Ack { transfer: u64, length: u64 },
    Refuse { reason: u8, transfer: u64 },
    Reject(u8),
}

impl Raw {
    pub(crate) async fn dial(address: SocketAddr) -> Self {
        let mut raw = Self(TcpStream::connect(address).await.unwrap());
        raw.0.write_all(b"dtn!\x04\x00").await.unwrap();
        raw.introduce(u64::MAX).await;
        raw.greeted().await;
        raw
    }

    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        Self::accept_up_to(listener, u64::MAX).await
    }

    /// One that takes bundles of `most` octets at most.
    pub(crate) async fn accept_up_to(listener: &TcpListener, most: u64) -> Self {
        let mut raw = Self(listener.accept().await.unwrap().0);
        raw.0.write_all(b"dtn!\x04\x00").await.unwrap();
        raw.greeted().await;
        raw.introduce(most).await;
        raw
    }

    /// SESS_INIT with small segments, no keepalive, and an extension item that need not be understood.
    async fn introduce(&mut self, most: u64) {
        let mut init = vec![7, 0, 0];
        init.extend(1000_u64.to_be_bytes());
        init.extend(most.to_be_bytes());
        init.extend([0, 7]);
        init.extend(b"ipn:9.0");
        init.extend([0, 0, 0, 7, 0, 0x80, 0, 0, 2, 1, 2]);
        self.0.write_all(&init).await.unwrap();
    }

    async fn greeted(&mut self) {
        let mut header = [0; 6];
        self.0.read_exact(&mut header).await.unwrap();
        assert_eq!(&header[..5], b"dtn!\x04");
        assert_eq!(self.0.read_u8().await.unwrap(), 7);
        let mut fixed = [0; 18];
        self.0.read_exact(&mut fixed).await.unwrap();
        let length = self.0.read_u16().await.unwrap();
        let mut node = vec![0; length.into()];
        self.0.read_exact(&mut node).await.unwrap();
        assert!(node.starts_with(b"ipn:"));
        assert_eq!(self.0.read_u32().await.unwrap(), 0);
    }

    pub(crate) async fn send(&mut self, transfer: u64, data: &[u8]) {
        let mut segment = vec![1, 3];
        segment.extend(transfer.to_be_bytes());
        segment.extend(0_u32.to_be_bytes());
        segment.extend((data.len() as u64).to_be_bytes());
        segment.extend(data);
        self.0.write_all(&segment).await.unwrap();
    }

    /// The next message that is no keepalive.
    pub(crate) async fn hear(&mut self) -> Heard {
        tokio::time::timeout(PATIENCE, self.message())
            .await
            .expect("nothing was heard")
    }

    async fn message(&mut self) -> Heard {
        loop {
            match self.0.read_u8().await.unwrap() {
                1 => {
                    let flags = self.0.read_u8().await.unwrap();
                    let transfer = self.0.read_u64().await.unwrap();
                    if flags & 2 != 0 {
                        let length = self.0.read_u32().await.unwrap();
                        self.0.read_exact(&mut vec![0; length as usize]).await.unwrap();
                    }
                    let length = self.0.read_u64().await.unwrap();
                    let mut data = vec![0; length as usize];
                    self.0.read_exact(&mut data).await.unwrap();
                    return Heard::Segment {
                        flags,
                        transfer,
                        data,
                    };
                }
                2 => {
                    self.0.read_u8().await.unwrap();
                    return Heard::Ack {
                        transfer: self.0.read_u64().await.unwrap(),
                        length: self.0.read_u64().await.unwrap(),
                    };
                }
                3 => {
                    return Heard::Refuse {
                        reason: self.0.read_u8().await.unwrap(),
                        transfer: self.0.read_u64().await.unwrap(),
                    };
                }
                4 => {}
                6 => {
                    self.0.read_u8().await.unwrap();
                    return Heard::Reject(self.0.read_u8().await.unwrap());
                }
                other => panic!("message of type {other}"),
            }
        }
    }

    pub(crate) async fn ack(&mut self, transfer: u64, length: usize) {
        // With no flags at all, as some do.
        let mut ack = vec![2, 0];
        ack.extend(transfer.to_be_bytes());
        ack.extend((length as u64).to_be_bytes());
        self.0.write_all(&ack).await.unwrap();
    }

    pub(crate) async fn refuse(&mut self, transfer: u64, reason: u8) {
        let mut refusal = vec![3, reason];
        refusal.extend(transfer.to_be_bytes());
        self.0.write_all(&refusal).await.unwrap();
    }

    /// The next whole transfer.
    pub(crate) async fn take(&mut self) -> (u64, Vec<u8>) {
        let mut whole = Vec::new();
        loop {
            match self.hear().await {
                Heard::Segment {
                    flags,
                    transfer,
                    data,
                } => {
                    whole.extend(data);
                    if flags & 1 != 0 {
                        return (transfer, whole);
                    }
                }
                other => panic!("no segment: {other:?}"),
            }
        }
    }
}
