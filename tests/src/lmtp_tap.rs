//! A tap on the hop between a gateway and its LMTP server: it passes everything on and notes for every mail when the final dot
//! went through and whether the answer to it went back. Only so can a second copy in the mailbox be told from a fault.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::wait::Watch;

/// One passage of a mail through the tap.
#[derive(Clone, Debug)]
pub struct Passage {
    /// The mail's Message-ID.
    pub mail: String,
    /// When the final dot went through, since the tap was made.
    pub dot: Duration,
    /// When the answer went back; `None`: the connection was cut before.
    pub answered: Option<Duration>,
    /// The connection that it went through, by number.
    pub connection: usize,
    /// When the gateway's end of that connection was gone without a QUIT, as when the gateway was killed.
    pub gone: Option<Duration>,
}

/// The tap.
#[derive(Debug)]
pub struct Tap {
    /// Where it listens.
    pub address: SocketAddr,
    /// The clock of all its notes.
    pub watch: Watch,
    passages: Arc<Mutex<Vec<Passage>>>,
}

impl Tap {
    /// Listens on `address` and passes on to `server`.
    pub fn start(address: SocketAddr, server: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let passages = Arc::new(Mutex::new(Vec::new()));
        let watch = Watch::start();
        let notes = Arc::clone(&passages);
        std::thread::spawn(move || {
            for (connection, client) in listener.incoming().flatten().enumerate() {
                let notes = Arc::clone(&notes);
                std::thread::spawn(move || {
                    // A server that does not answer is a closed connection to the gateway.
                    if let Ok(server) = TcpStream::connect(server) {
                        pass((connection, client), server, &notes, watch);
                    }
                });
            }
        });
        Self {
            address,
            watch,
            passages,
        }
    }

    /// What went through so far.
    pub fn passages(&self) -> Vec<Passage> {
        self.passages.lock().unwrap().clone()
    }
}

/// What both directions of one connection know.
#[derive(Default)]
struct Waiting {
    /// The passage whose answer has not come yet.
    passage: Option<usize>,
    /// The answers that are still to come.
    answers: usize,
}

fn pass(
    (connection, client): (usize, TcpStream),
    server: TcpStream,
    notes: &Arc<Mutex<Vec<Passage>>>,
    watch: Watch,
) {
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    let (from_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let back = {
        let (notes, waiting) = (Arc::clone(notes), Arc::clone(&waiting));
        std::thread::spawn(move || pass_answers(from_server, to_client, &notes, &waiting, watch))
    };
    let quit = pass_commands((connection, client), server, notes, &waiting, watch);
    let gone = watch.elapsed();
    let _ = back.join();
    if !quit {
        let mut notes = notes.lock().unwrap();
        for passage in notes.iter_mut().filter(|one| one.connection == connection) {
            passage.gone = Some(gone);
        }
    }
}

/// Returns whether the gateway said QUIT.
fn pass_commands(
    (connection, mut client): (usize, TcpStream),
    mut server: TcpStream,
    notes: &Mutex<Vec<Passage>>,
    waiting: &Mutex<Waiting>,
    watch: Watch,
) -> bool {
    let mut session = Session::default();
    let mut buffer = vec![0; 65536];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        for (mail, recipients) in session.take(&buffer[..read]) {
            let mut notes = notes.lock().unwrap();
            let mut waiting = waiting.lock().unwrap();
            waiting.passage = Some(notes.len());
            waiting.answers = recipients;
            notes.push(Passage {
                mail,
                dot: watch.elapsed(),
                answered: None,
                connection,
                gone: None,
            });
        }
        if server.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
    session.quit
}

fn pass_answers(
    mut server: TcpStream,
    mut client: TcpStream,
    notes: &Mutex<Vec<Passage>>,
    waiting: &Mutex<Waiting>,
    watch: Watch,
) {
    let mut buffer = vec![0; 65536];
    let mut line = Vec::new();
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        let sent = client.write_all(&buffer[..read]).is_ok();
        for &byte in &buffer[..read] {
            line.push(byte);
            if byte != b'\n' {
                continue;
            }
            let last = line.get(3) != Some(&b'-');
            line.clear();
            let mut waiting = waiting.lock().unwrap();
            if last && waiting.answers > 0 {
                waiting.answers -= 1;
                if waiting.answers == 0 && sent {
                    let passage = waiting.passage.take().unwrap();
                    notes.lock().unwrap()[passage].answered = Some(watch.elapsed());
                }
            }
        }
        if !sent {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// The client's half of a session, read as far as transactions go.
#[derive(Default)]
struct Session {
    line: Vec<u8>,
    in_data: bool,
    recipients: usize,
    mail: String,
    quit: bool,
}

impl Session {
    /// Takes octets; returns the mails whose final dot was among them, with their numbers of recipients.
    fn take(&mut self, octets: &[u8]) -> Vec<(String, usize)> {
        let mut done = Vec::new();
        for &octet in octets {
            self.line.push(octet);
            if octet != b'\n' {
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            self.line.clear();
            if !self.in_data {
                let verb = line.to_ascii_uppercase();
                if verb.starts_with("MAIL ") {
                    self.recipients = 0;
                    self.mail.clear();
                } else if verb.starts_with("RCPT ") {
                    self.recipients += 1;
                } else if verb.starts_with("DATA") {
                    self.in_data = true;
                } else if verb.starts_with("QUIT") {
                    self.quit = true;
                }
            } else if line == ".\r\n" {
                self.in_data = false;
                done.push((std::mem::take(&mut self.mail), self.recipients));
            } else if let Some(id) = line.strip_prefix("Message-ID: ") {
                self.mail = id.trim().to_owned();
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::Session;

    #[test]
    fn mails_are_told_apart_at_any_chunking() {
        let session = b"LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@d>\r\nDATA\r\nMessage-ID: <1>\r\n\r\nDATA\r\n..\r\n.\r\n\
                        MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nMessage-ID: <2>\r\n\r\n.\r\nQUIT\r\n";
        for size in 1..session.len() {
            let mut reader = Session::default();
            let mails: Vec<_> = session
                .chunks(size)
                .flat_map(|chunk| reader.take(chunk))
                .collect();
            assert_eq!(mails, [("<1>".to_owned(), 2), ("<2>".to_owned(), 1)]);
        }
    }
}
