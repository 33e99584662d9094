//! A stretch between a client and a UDP server on which what the server says can get lost.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// The relay.
#[derive(Debug)]
pub struct UdpRelay {
    /// Where clients send to.
    pub address: SocketAddr,
    way: Arc<Way>,
}

#[derive(Debug, Default)]
struct Way {
    /// Whether what the server says gets lost.
    mute: AtomicBool,
    /// Datagrams of the server's that got lost.
    lost: AtomicUsize,
}

impl UdpRelay {
    /// Listens on `address` and passes on to `server`, and back.
    pub fn start(address: SocketAddr, server: SocketAddr) -> Self {
        let near = UdpSocket::bind(address).unwrap();
        let way = Arc::new(Way::default());
        let kept = way.clone();
        std::thread::spawn(move || {
            let mut clients: HashMap<SocketAddr, UdpSocket> = HashMap::new();
            let mut datagram = [0; 65536];
            loop {
                // An error is what the system was told about an earlier datagram.
                let Ok((octets, client)) = near.recv_from(&mut datagram) else {
                    continue;
                };
                let far = clients
                    .entry(client)
                    .or_insert_with(|| back(&near, client, server, &kept).unwrap());
                let _ = far.send(&datagram[..octets]);
            }
        });
        Self { address, way }
    }

    /// From now on what the server says gets lost, or not any more.
    pub fn mute(&self, mute: bool) {
        self.way.mute.store(mute, Ordering::Relaxed);
    }

    /// Datagrams of the server's that got lost.
    pub fn lost(&self) -> usize {
        self.way.lost.load(Ordering::Relaxed)
    }
}

/// The socket that the server knows as this client, and what it says to it on its way back.
fn back(near: &UdpSocket, client: SocketAddr, server: SocketAddr, way: &Arc<Way>) -> io::Result<UdpSocket> {
    let far = UdpSocket::bind((server.ip(), 0))?;
    far.connect(server)?;
    let (near, from, way) = (near.try_clone()?, far.try_clone()?, way.clone());
    std::thread::spawn(move || {
        let mut datagram = [0; 65536];
        loop {
            let Ok(octets) = from.recv(&mut datagram) else {
                continue;
            };
            if way.mute.load(Ordering::Relaxed) {
                way.lost.fetch_add(1, Ordering::Relaxed);
            } else {
                let _ = near.send_to(&datagram[..octets], client);
            }
        }
    });
    Ok(far)
}
