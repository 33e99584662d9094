//! A tap on a connection: it passes everything on and keeps what the client said.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// The tap.
#[derive(Debug)]
pub struct WireTap {
    /// Where it listens.
    pub address: SocketAddr,
    said: Arc<Mutex<Vec<u8>>>,
}

impl WireTap {
    /// Listens on `address` and passes on to `server`.
    pub fn start(address: SocketAddr, server: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let kept = said.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else {
                    continue;
                };
                let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let kept = kept.clone();
                std::thread::spawn(move || {
                    pass(from_client, to_server, |octets| {
                        kept.lock().unwrap().extend(octets)
                    })
                });
                std::thread::spawn(move || pass(server, client, |_| ()));
            }
        });
        Self { address, said }
    }

    /// What clients said so far, of all connections together.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, keep: impl Fn(&[u8])) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        keep(&chunk[..read]);
        if to.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
