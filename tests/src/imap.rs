//! As much IMAP (RFC 9051) as reading a mailbox takes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A logged-in session.
#[derive(Debug)]
pub struct Imap {
    stream: BufReader<TcpStream>,
    tag: u32,
}

impl Imap {
    /// Logs in; the name goes as a literal, so that it may be UTF-8.
    pub fn login(server: SocketAddr, user: &str, password: &str) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut imap = Self {
            stream: BufReader::new(stream),
            tag: 0,
        };
        assert!(imap.line().starts_with("* OK"));
        imap.command(&format!("LOGIN {{{}+}}\r\n{user} {password}", user.len()), |_| ());
        imap
    }

    /// All mails of the inbox, raw.
    pub fn mails(mut self) -> Vec<Vec<u8>> {
        self.command("SELECT INBOX", |_| ());
        let mut mails = Vec::new();
        self.command("UID FETCH 1:* BODY.PEEK[]", |literal| mails.push(literal));
        mails
    }

    /// A part of all mails of the inbox, decoded by the server (RFC 3516).
    pub fn decoded(mut self, part: &str) -> Vec<Vec<u8>> {
        self.command("SELECT INBOX", |_| ());
        let mut parts = Vec::new();
        let fetch = format!("UID FETCH 1:* BINARY.PEEK[{part}]");
        self.command(&fetch, |literal| parts.push(literal));
        parts
    }

    /// Sends a command and reads to its tagged answer; literals in between go to `each`.
    fn command(&mut self, command: &str, mut each: impl FnMut(Vec<u8>)) {
        self.tag += 1;
        let tag = format!("a{} ", self.tag);
        write!(self.stream.get_mut(), "{tag}{command}\r\n").unwrap();
        loop {
            let line = self.line();
            if let Some(answer) = line.strip_prefix(&tag) {
                assert!(answer.starts_with("OK"), "{command:?}: {answer}");
                return;
            }
            if let Some(length) = line.strip_suffix("}\r\n").and_then(|line| line.rsplit_once('{')) {
                let mut literal = vec![0; length.1.parse().unwrap()];
                self.stream.read_exact(&mut literal).unwrap();
                each(literal);
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line).expect("an IMAP answer");
        assert!(read > 0, "IMAP connection closed");
        String::from_utf8_lossy(&line).into_owned()
    }
}
