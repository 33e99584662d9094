//! The state machine: commands in, replies out.

use std::sync::Arc;

use lightpost_mail::{Recipient, Sender};

use super::{Command, CommandError, Incoming, Peer, Receiver, Settings, reply};
use crate::{Reply, send::Protocol};

/// Commands other than RCPT since the last mail, before the connection is ended.
const COMMANDS: usize = 200;
/// Octets of a reply's text; a line with it stays below 512 (RFC 5321 section 4.5.3.1.5).
const TEXT: usize = 450;
/// What the other side says when it takes us for a web server: somebody's browser was sent here.
const HTTP: [&[u8]; 6] = [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT"];

/// What comes next on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another command.
    Command,
    /// A body up to its final dot, for [`Session::body`] and [`Session::end`].
    Data,
    /// So many octets. Then [`Session::chunk_end`].
    Chunk {
        /// How many.
        size: u64,
        /// Whether they end the body.
        last: bool,
    },
    /// A TLS handshake; what was read behind the command is to be thrown away. Then [`Session::secured`].
    StartTls,
    /// Nothing: the connection ends once the reply is sent.
    Close,
}

/// One connection's session. Replies are appended to `out`, whole lines, for the driver to send.
#[derive(Debug)]
pub struct Session<R: Receiver> {
    receiver: Arc<R>,
    settings: Arc<Settings>,
    peer: Peer,
    greeted: bool,
    open: Option<Open<R::Mail>>,
    /// Why the chunk that comes now is not wanted.
    unwanted: Option<Reply>,
    errors: usize,
    commands: usize,
}

/// A mail that is being received.
#[derive(Debug)]
struct Open<M> {
    /// Gone once the mail is refused.
    mail: Option<M>,
    refused: Option<Reply>,
    smtputf8: bool,
    /// RCPT commands.
    recipients: usize,
    /// Those that were taken.
    taken: usize,
    octets: u64,
    /// Whether a chunk (BDAT) has come.
    chunks: bool,
}

impl<R: Receiver> Session<R> {
    /// A session with `peer`, whose name is not known yet; writes the greeting.
    pub fn new(receiver: Arc<R>, settings: Arc<Settings>, peer: Peer, out: &mut Vec<u8>) -> Self {
        let kind = match settings.protocol {
            Protocol::Smtp => "ESMTP",
            Protocol::Lmtp => "LMTP",
        };
        let greeting = format!("{} {kind} Lightpost", settings.name);
        write(out, &reply(220, None, greeting));
        Self {
            receiver,
            settings,
            peer,
            greeted: false,
            open: None,
            unwanted: None,
            errors: 0,
            commands: 0,
        }
    }

    /// Takes one command line without its CRLF.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Next {
        let command = match Command::parse(self.settings.protocol, line) {
            Ok(command) => command,
            Err(error) => {
                let verb = line.split(|octet| *octet == b' ').next().unwrap_or_default();
                if HTTP.contains(&verb) {
                    write(out, &reply(421, Some((4, 7, 0)), "this is no web server"));
                    return Next::Close;
                }
                return self.error(Reply::from(error), out);
            }
        };
        if !matches!(command, Command::Rcpt(_)) {
            self.commands += 1;
        }
        if self.commands > COMMANDS && command != Command::Quit {
            let text = format!("more than {COMMANDS} commands without a mail");
            write(out, &reply(421, Some((4, 7, 0)), text));
            return Next::Close;
        }
        let answer = match command {
            Command::Helo(name) => {
                self.hello(name, false);
                Ok(reply(250, None, self.settings.name.clone()))
            }
            Command::Ehlo(name) => {
                self.hello(name, true);
                self.offer(out);
                return Next::Command;
            }
            Command::Mail(sender) => self.mail(sender),
            Command::Rcpt(recipient) => self.rcpt(recipient),
            Command::Data => return self.data(out),
            Command::Bdat { size, last } => return self.bdat(size, last),
            Command::Rset => {
                self.open = None;
                Ok(reply(250, Some((2, 0, 0)), "reset"))
            }
            Command::Noop => Ok(reply(250, Some((2, 0, 0)), "ok")),
            Command::Vrfy => Ok(reply(252, Some((2, 5, 0)), "only RCPT tells")),
            Command::Help => Ok(reply(214, Some((2, 0, 0)), "RFC 5321")),
            Command::StartTls => return self.start_tls(out),
            Command::Quit => {
                write(out, &reply(221, Some((2, 0, 0)), "goodbye"));
                return Next::Close;
            }
        };
        match answer {
            Ok(answer) => {
                write(out, &answer);
                Next::Command
            }
            Err(refusal) => self.error(refusal, out),
        }
    }

    /// Octets of the body, without dot-stuffing. `false`: it is so large that the connection is better ended.
    pub async fn body(&mut self, octets: &[u8]) -> bool {
        let limit = self.settings.max_message;
        let Some(open) = &mut self.open else {
            return true;
        };
        open.octets = open.octets.saturating_add(octets.len() as u64);
        if open.octets > limit {
            open.refuse(too_large(limit));
        }
        if let Some(mail) = &mut open.mail
            && let Err(refusal) = mail.body(octets).await
        {
            open.refuse(refusal);
        }
        open.octets <= limit.saturating_mul(2)
    }

    /// The body is complete: stores the mail and writes the reply, in LMTP one for each recipient that was taken.
    pub async fn end(&mut self, out: &mut Vec<u8>) {
        let Some(open) = self.open.take() else { return };
        let answer = match (open.mail, open.refused) {
            (Some(mail), None) => mail.finish().await.inspect(|_| {
                self.commands = 0;
                self.errors = 0;
            }),
            (_, Some(refusal)) => Err(refusal),
            (None, None) => Err(reply(451, Some((4, 3, 0)), "the mail is gone")),
        };
        let answer = answer.unwrap_or_else(|refusal| refusal);
        let times = match self.settings.protocol {
            Protocol::Smtp => 1,
            Protocol::Lmtp => open.taken,
        };
        for _ in 0..times {
            write(out, &answer);
        }
    }

    /// The octets that [`Next::Chunk`] announced have come.
    pub async fn chunk_end(&mut self, last: bool, out: &mut Vec<u8>) -> Next {
        if let Some(refusal) = self.unwanted.take() {
            return self.error(refusal, out);
        }
        if last {
            self.end(out).await;
            return Next::Command;
        }
        let answer = match &self.open {
            Some(Open {
                refused: Some(refusal),
                ..
            }) => refusal.clone(),
            Some(open) => reply(250, Some((2, 0, 0)), format!("{} octets so far", open.octets)),
            None => reply(503, Some((5, 5, 1)), "MAIL comes first"),
        };
        write(out, &answer);
        Next::Command
    }

    /// The connection is under TLS now; all that was said before is forgotten (RFC 3207 section 4.2).
    pub fn secured(&mut self, certified: bool) {
        self.peer = Peer {
            address: self.peer.address,
            tls: true,
            certified,
            ..Peer::default()
        };
        self.greeted = false;
        self.open = None;
    }

    /// What is said when the connection ends from our side.
    pub fn farewell(refusal: &Reply, out: &mut Vec<u8>) {
        write(out, refusal);
    }

    fn hello(&mut self, name: String, extended: bool) {
        self.open = None;
        self.greeted = true;
        self.peer.helo = name;
        self.peer.extended = extended;
    }

    fn offer(&self, out: &mut Vec<u8>) {
        let size = format!("SIZE {}", self.settings.max_message);
        let mut lines = vec![
            self.settings.name.as_str(),
            "PIPELINING",
            &size,
            "8BITMIME",
            "SMTPUTF8",
        ];
        lines.extend([
            "DSN",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
            "MT-PRIORITY",
            "DELIVERBY",
        ]);
        if self.settings.tls.is_some() && !self.peer.tls {
            lines.push("STARTTLS");
        }
        let last = lines.len() - 1;
        for (number, line) in lines.iter().enumerate() {
            let mark = if number == last { ' ' } else { '-' };
            out.extend_from_slice(format!("250{mark}{line}\r\n").as_bytes());
        }
    }

    fn mail(&mut self, sender: Sender) -> Result<Reply, Reply> {
        if !self.greeted {
            return Err(reply(503, Some((5, 5, 1)), "say hello first"));
        }
        if self.open.is_some() {
            return Err(reply(503, Some((5, 5, 1)), "a mail is open already"));
        }
        let parameters = &sender.parameters;
        let limit = self.settings.max_message;
        if parameters.size.is_some_and(|size| size > limit) {
            return Err(too_large(limit));
        }
        let smtputf8 = parameters.smtputf8;
        let ascii = sender.path.address().is_none_or(|address| address.is_ascii());
        if !ascii && !smtputf8 {
            return Err(needs_smtputf8());
        }
        let mail = self.receiver.begin(&self.peer, sender)?;
        self.open = Some(Open {
            mail: Some(mail),
            refused: None,
            smtputf8,
            recipients: 0,
            taken: 0,
            octets: 0,
            chunks: false,
        });
        Ok(reply(250, Some((2, 1, 0)), "ok"))
    }

    fn rcpt(&mut self, recipient: Recipient) -> Result<Reply, Reply> {
        let Some(open) = &mut self.open else {
            return Err(reply(503, Some((5, 5, 1)), "MAIL comes first"));
        };
        let Some(mail) = open.mail.as_mut().filter(|_| !open.chunks) else {
            return Err(reply(503, Some((5, 5, 1)), "the body has begun"));
        };
        if open.recipients >= self.settings.max_recipients {
            // Of this class whatever the RFCs before 5321 said: the sender tries the rest in another mail (section 4.5.3.1.10).
            return Ok(reply(452, Some((4, 5, 3)), "too many recipients"));
        }
        open.recipients += 1;
        if !recipient.address.is_ascii() && !open.smtputf8 {
            return Ok(needs_smtputf8());
        }
        // A recipient that is refused is no mistake of the peer's: it does not count as an error.
        Ok(match mail.recipient(recipient) {
            Ok(()) => {
                open.taken += 1;
                reply(250, Some((2, 1, 5)), "ok")
            }
            Err(refusal) => refusal,
        })
    }

    fn data(&mut self, out: &mut Vec<u8>) -> Next {
        match &self.open {
            None => self.error(reply(503, Some((5, 5, 1)), "MAIL comes first"), out),
            Some(open) if open.chunks => {
                self.error(reply(503, Some((5, 5, 1)), "the body comes by BDAT"), out)
            }
            Some(open) if open.taken == 0 => {
                // With PIPELINING the peer could not know (RFC 2920 section 3.1); in LMTP this is the code (RFC 2033 section 4.2).
                write(out, &no_recipients());
                Next::Command
            }
            Some(_) => {
                write(out, &reply(354, None, "end with CRLF, dot, CRLF"));
                Next::Data
            }
        }
    }

    fn bdat(&mut self, size: u64, last: bool) -> Next {
        self.unwanted = match &mut self.open {
            None => Some(reply(503, Some((5, 5, 1)), "MAIL comes first")),
            Some(open) if open.taken == 0 => Some(no_recipients()),
            Some(open) => {
                open.chunks = true;
                let limit = self.settings.max_message;
                if open.octets.saturating_add(size) > limit {
                    open.refuse(too_large(limit));
                }
                None
            }
        };
        Next::Chunk { size, last }
    }

    fn start_tls(&mut self, out: &mut Vec<u8>) -> Next {
        if self.settings.tls.is_none() {
            return self.error(CommandError::NotOffered("STARTTLS").into(), out);
        }
        if self.peer.tls {
            return self.error(reply(503, Some((5, 5, 1)), "TLS is on already"), out);
        }
        write(out, &reply(220, Some((2, 0, 0)), "go ahead"));
        Next::StartTls
    }

    fn error(&mut self, refusal: Reply, out: &mut Vec<u8>) -> Next {
        self.errors += 1;
        write(out, &refusal);
        if self.errors <= self.settings.errors {
            return Next::Command;
        }
        write(out, &reply(421, Some((4, 7, 0)), "too many errors"));
        Next::Close
    }
}

impl<M> Open<M> {
    /// The first reason stays.
    fn refuse(&mut self, refusal: Reply) {
        self.mail = None;
        self.refused.get_or_insert(refusal);
    }
}

/// The reply to a mail beyond the limit.
pub(super) fn too_large(limit: u64) -> Reply {
    reply(
        552,
        Some((5, 3, 4)),
        format!("the mail exceeds the limit of {limit} octets"),
    )
}

fn needs_smtputf8() -> Reply {
    reply(553, Some((5, 6, 7)), "the address needs the parameter SMTPUTF8")
}

fn no_recipients() -> Reply {
    reply(503, Some((5, 5, 1)), "no recipient was taken")
}

/// Appends a reply: one line of printable ASCII, whatever its text holds.
fn write(out: &mut Vec<u8>, reply: &Reply) {
    out.extend_from_slice(reply.code.to_string().as_bytes());
    if let Some(enhanced) = reply.enhanced {
        out.extend_from_slice(format!(" {enhanced}").as_bytes());
    }
    out.push(b' ');
    let printable = |c: char| if matches!(c, ' '..='~') { c as u8 } else { b'?' };
    out.extend(reply.text.chars().take(TEXT).map(printable));
    out.extend_from_slice(b"\r\n");
}
