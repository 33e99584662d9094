//! As much SMTP as handing a mail to a server takes.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::bsmtp;

/// Hands a canonical message to an MTA; `from` and `to` carry the whole argument: `<a@b.example> SMTPUTF8`.
#[track_caller]
pub fn hand_over(server: SocketAddr, from: &str, to: &[&str], message: &[u8]) {
    let reply = offer(server, from, to, message).unwrap();
    assert!(reply.starts_with('2'), "the MTA says {reply:?}");
}

/// Offers a canonical message to a server; the reply to its final dot, or the first one before that is not what a mail needs.
///
/// # Errors
/// The connection is refused, cut or silent for a minute.
pub fn offer(server: SocketAddr, from: &str, to: &[&str], message: &[u8]) -> io::Result<String> {
    let stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut stream = BufReader::new(stream);
    let mut commands = vec![
        "EHLO user.earth.example\r\n".to_owned(),
        format!("MAIL FROM:{from}\r\n"),
    ];
    commands.extend(to.iter().map(|to| format!("RCPT TO:{to}\r\n")));
    let mut answer = reply(&mut stream)?;
    for command in commands {
        if !answer.starts_with('2') {
            return Ok(answer);
        }
        stream.get_mut().write_all(command.as_bytes())?;
        answer = reply(&mut stream)?;
    }
    if !answer.starts_with('2') {
        return Ok(answer);
    }
    stream.get_mut().write_all(b"DATA\r\n")?;
    answer = reply(&mut stream)?;
    if !answer.starts_with('3') {
        return Ok(answer);
    }
    stream.get_mut().write_all(&bsmtp::stuffed(message))?;
    stream.get_mut().write_all(b".\r\n")?;
    answer = reply(&mut stream)?;
    // The mail is taken or not, whatever becomes of the farewell.
    let _ = stream
        .get_mut()
        .write_all(b"QUIT\r\n")
        .and_then(|()| reply(&mut stream));
    Ok(answer)
}

/// The last line of a reply.
fn reply(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line);
        }
    }
}
