//! One connection to the sink.

use std::io;

use bytes::{Buf, BytesMut};
use lightpost_mail::{
    Envelope, Recipient, Sender,
    lines::{LineEnd, Unstuffed, Unstuffer},
};
use lightpost_smtp::send::Protocol;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Shared, SinkOptions};

/// Longest command line.
const LINE_MAX: usize = 4 * 1024;
const READ: usize = 64 * 1024;

/// Serves one connection until QUIT or its end.
pub(super) async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut conversation = Conversation {
        shared,
        input: BytesMut::with_capacity(READ),
        output: format!("220 {} ready\r\n", shared.options.name).into_bytes(),
        sender: None,
        recipients: Vec::new(),
    };
    loop {
        // Answers wait until nothing more is there to read: a pipelined group gets one write.
        match conversation.step() {
            Step::Again => {}
            Step::Read => {
                stream.write_all(&conversation.output).await?;
                conversation.output.clear();
                conversation.input.reserve(READ);
                if stream.read_buf(&mut conversation.input).await? == 0 {
                    return Ok(());
                }
            }
            Step::Data => {
                stream.write_all(&conversation.output).await?;
                conversation.output.clear();
                conversation.data(&mut stream).await?;
            }
            Step::Quit => return stream.write_all(&conversation.output).await,
        }
    }
}

/// What a command leads to.
enum Step {
    Again,
    /// The input holds no whole command.
    Read,
    Data,
    Quit,
}

struct Conversation<'a> {
    shared: &'a Shared,
    /// Read, not yet used.
    input: BytesMut,
    /// Answers not yet sent.
    output: Vec<u8>,
    sender: Option<Sender>,
    recipients: Vec<Recipient>,
}

impl Conversation<'_> {
    fn step(&mut self) -> Step {
        let Some(end) = self.input.iter().position(|octet| *octet == b'\n') else {
            if self.input.len() > LINE_MAX {
                self.answer("500 5.5.2 line too long");
                return Step::Quit;
            }
            return Step::Read;
        };
        let line = self.input.split_to(end + 1);
        let Ok(line) = std::str::from_utf8(&line) else {
            self.answer("501 5.5.2 not UTF-8");
            return Step::Again;
        };
        self.command(line.trim_end_matches(['\r', '\n']))
    }

    fn command(&mut self, line: &str) -> Step {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let lmtp = self.shared.options.protocol == Protocol::Lmtp;
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "HELO" if lmtp => self.answer("500 5.5.1 this is LMTP"),
            "LHLO" if !lmtp => self.answer("500 5.5.1 this is SMTP"),
            "EHLO" | "LHLO" => self.hello(),
            "HELO" => {
                self.reset();
                self.output
                    .extend_from_slice(format!("250 {}\r\n", self.shared.options.name).as_bytes());
            }
            "MAIL" => self.mail(argument),
            "RCPT" => self.rcpt(argument),
            "DATA" if self.recipients.is_empty() => self.answer("554 5.5.1 no valid recipients"),
            "DATA" => {
                self.answer("354 go on");
                return Step::Data;
            }
            "RSET" => {
                self.reset();
                self.answer("250 2.0.0 reset");
            }
            "NOOP" => self.answer("250 2.0.0 ok"),
            "QUIT" => {
                self.answer("221 2.0.0 bye");
                return Step::Quit;
            }
            _ => self.answer("500 5.5.1 unknown command"),
        }
        Step::Again
    }

    fn hello(&mut self) {
        self.reset();
        let SinkOptions { name, size_limit, .. } = &self.shared.options;
        let size = size_limit.unwrap_or(0);
        let text = format!(
            "250-{name}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE {size}\r\n250-DSN\r\n\
             250-MT-PRIORITY\r\n250 ENHANCEDSTATUSCODES\r\n"
        );
        self.output.extend_from_slice(text.as_bytes());
    }

    fn mail(&mut self, argument: &str) {
        if self.sender.is_some() {
            return self.answer("503 5.5.1 nested MAIL");
        }
        match after(argument, "FROM:").map(str::parse::<Sender>) {
            Some(Ok(sender)) if self.too_large(sender.parameters.size.unwrap_or(0)) => {
                self.answer("552 5.3.4 mail too large");
            }
            Some(Ok(sender)) => {
                self.sender = Some(sender);
                self.answer("250 2.1.0 ok");
            }
            Some(Err(error)) => self.refuse_argument(&error.to_string()),
            None => self.answer("501 5.5.4 MAIL FROM:<address>"),
        }
    }

    fn rcpt(&mut self, argument: &str) {
        if self.sender.is_none() {
            return self.answer("503 5.5.1 MAIL first");
        }
        match after(argument, "TO:").map(str::parse::<Recipient>) {
            Some(Ok(recipient)) => {
                let shared = self.shared;
                if let Some(reply) = rule(&shared.options.refused, &recipient) {
                    return self.answer(reply);
                }
                self.recipients.push(recipient);
                self.answer("250 2.1.5 ok");
            }
            Some(Err(error)) => self.refuse_argument(&error.to_string()),
            None => self.answer("501 5.5.4 RCPT TO:<address>"),
        }
    }

    fn refuse_argument(&mut self, error: &str) {
        self.output
            .extend_from_slice(format!("501 5.5.4 {error}\r\n").as_bytes());
    }

    /// Reads the body and answers its final dot.
    async fn data(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let options = &self.shared.options;
        let mut unstuffer = Unstuffer::new(LineEnd::Crlf);
        let mut body = Vec::new();
        let mut size = 0;
        loop {
            let before = body.len();
            let pushed = unstuffer
                .push(&self.input, &mut body)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            size += (body.len() - before) as u64;
            if !options.keep_bodies || self.too_large(size) {
                body.clear();
            }
            match pushed {
                Unstuffed::End(used) => {
                    self.input.advance(used);
                    break;
                }
                Unstuffed::More => {
                    self.input.clear();
                    self.input.reserve(READ);
                    if stream.read_buf(&mut self.input).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
        self.verdict(body, size).await;
        Ok(())
    }

    async fn verdict(&mut self, body: Vec<u8>, size: u64) {
        let shared = self.shared;
        let Some(sender) = self.sender.take() else {
            return;
        };
        let mut recipients = std::mem::take(&mut self.recipients);
        let too_large = self.too_large(size);
        let late = |recipient: &Recipient| {
            if too_large {
                return Some("552 5.3.4 mail too large");
            }
            let lmtp = shared.options.protocol == Protocol::Lmtp;
            rule(&shared.options.refused_late, recipient).filter(|_| lmtp)
        };
        let replies: Vec<&str> = recipients
            .iter()
            .map(|recipient| late(recipient).unwrap_or("250 2.0.0 taken"))
            .collect();
        let answers = match shared.options.protocol {
            Protocol::Smtp => 1,
            Protocol::Lmtp => replies.len(),
        };
        recipients.retain(|recipient| late(recipient).is_none());
        if !recipients.is_empty() {
            shared.take(Envelope { sender, recipients }, body).await;
        }
        for reply in replies.into_iter().take(answers) {
            self.answer(reply);
        }
    }

    fn too_large(&self, size: u64) -> bool {
        self.shared.options.size_limit.is_some_and(|limit| size > limit)
    }

    fn reset(&mut self) {
        self.sender = None;
        self.recipients.clear();
    }

    fn answer(&mut self, text: &str) {
        self.output.extend_from_slice(text.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }
}

/// What follows `prefix`, whatever its case, and perhaps a space.
fn after<'a>(argument: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = argument.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix)
        .then(|| tail.trim_start_matches(' '))
}

/// The reply line for a recipient that a rule names.
fn rule<'a>(rules: &'a [(String, String)], recipient: &Recipient) -> Option<&'a str> {
    rules
        .iter()
        .find(|(local_part, _)| *local_part == recipient.address.local_part())
        .map(|(_, reply)| reply.as_str())
}
