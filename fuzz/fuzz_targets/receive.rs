//! Anything said to the receiving session, cut anywhere: no panic, the same replies and mails as for the whole, and no mail that was not asked for.
#![no_main]

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use lightpost_clock::Clock;
use lightpost_mail::{Recipient, Sender};
use lightpost_smtp::{
    Reply,
    receive::{Incoming, Peer, Receiver, Settings, converse},
    send::Protocol,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

/// Recipients and body of what was taken.
type Mails = Arc<Mutex<Vec<(Vec<String>, Vec<u8>)>>>;

#[derive(Debug, Default)]
struct Keeper(Mails);

#[derive(Debug)]
struct Mail(Mails, Vec<String>, Vec<u8>);

impl Receiver for Keeper {
    type Mail = Mail;
    fn begin(&self, _: &Peer, _: Sender) -> Result<Mail, Reply> {
        Ok(Mail(self.0.clone(), Vec::new(), Vec::new()))
    }
}

impl Incoming for Mail {
    fn recipient(&mut self, recipient: Recipient) -> Result<(), Reply> {
        self.1.push(recipient.to_string());
        Ok(())
    }
    async fn body(&mut self, octets: &[u8]) -> Result<(), Reply> {
        self.2.extend_from_slice(octets);
        Ok(())
    }
    async fn finish(self) -> Result<Reply, Reply> {
        self.0.lock().unwrap().push((self.1, self.2));
        Ok(Reply { code: 250, enhanced: None, text: "taken".into() })
    }
}

/// A connection that says `input` in pieces of `size`, and then closes its half.
struct Script {
    input: Vec<u8>,
    at: usize,
    size: usize,
    output: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let end = self.input.len().min(self.at + self.size.min(into.remaining()));
        into.put_slice(&self.input[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.output.lock().unwrap().extend_from_slice(octets);
        Poll::Ready(Ok(octets.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn run(protocol: Protocol, input: &[u8], size: usize) -> (Vec<u8>, Vec<(Vec<String>, Vec<u8>)>) {
    let settings = Settings {
        protocol,
        name: "relay.example".into(),
        tls: None,
        max_message: 300,
        max_recipients: 3,
        connections: 1,
        connections_per_address: 1,
        errors: 10,
        idle: Duration::from_secs(300),
    };
    let output = Arc::new(Mutex::new(Vec::new()));
    let keeper = Arc::new(Keeper::default());
    let mails = keeper.0.clone();
    let stream = Script { input: input.to_vec(), at: 0, size, output: output.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let stop = CancellationToken::new();
    runtime.block_on(converse(stream, Peer::default(), keeper, Arc::new(settings), Clock::system(), stop));
    let mails = std::mem::take(&mut *mails.lock().unwrap());
    let output = std::mem::take(&mut *output.lock().unwrap());
    (output, mails)
}

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (size, lmtp, said) = (usize::from(input.0).max(1), input.1, input.2);
    let (protocol, hello) = if lmtp { (Protocol::Lmtp, "LHLO") } else { (Protocol::Smtp, "EHLO") };
    // Half of the inputs get past the greeting.
    let head = format!("{hello} a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n");
    for said in [said.to_vec(), [head.as_bytes(), said].concat()] {
        let whole = run(protocol, &said, usize::MAX);
        assert_eq!(whole, run(protocol, &said, size));
        let (answers, mails) = whole;
        assert!(answers.ends_with(b"\r\n"));
        for line in answers.split_inclusive(|octet| *octet == b'\n') {
            assert!(line.len() <= 512 && line.ends_with(b"\r\n"), "{}", line.escape_ascii());
            assert!(line[..line.len() - 2].iter().all(|octet| (b' '..=b'~').contains(octet)));
        }
        // Each mail needs its own MAIL and its own end.
        let words = |word: &[u8]| said.windows(word.len()).filter(|seen| seen.eq_ignore_ascii_case(word)).count();
        assert!(mails.len() <= words(b"MAIL") && mails.len() <= words(b"\r\n.\r\n") + words(b"LAST"));
        assert!(mails.iter().all(|(recipients, body)| !recipients.is_empty() && body.len() <= 300));
    }
});
