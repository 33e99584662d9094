//! As much SMTP as handing a mail to an MTA takes.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::bsmtp;

/// Hands a canonical message to an MTA; `from` and `to` carry the whole argument: `<a@b.example> SMTPUTF8`.
pub fn hand_over(server: SocketAddr, from: &str, to: &[&str], message: &[u8]) {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut stream = BufReader::new(stream);
    expect(&mut stream, "2");
    command(&mut stream, "EHLO user.earth.example", "2");
    command(&mut stream, &format!("MAIL FROM:{from}"), "2");
    for to in to {
        command(&mut stream, &format!("RCPT TO:{to}"), "2");
    }
    command(&mut stream, "DATA", "3");
    stream.get_mut().write_all(&bsmtp::stuffed(message)).unwrap();
    command(&mut stream, ".", "2");
    command(&mut stream, "QUIT", "2");
}

fn command(stream: &mut BufReader<TcpStream>, line: &str, wanted: &str) {
    write!(stream.get_mut(), "{line}\r\n").unwrap();
    let answer = expect(stream, wanted);
    assert!(answer.starts_with(wanted), "{line}: {answer}");
}

fn expect(stream: &mut BufReader<TcpStream>, wanted: &str) -> String {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(
            line.starts_with(wanted),
            "the MTA says {line:?} instead of {wanted}xx"
        );
        if line.as_bytes().get(3) != Some(&b'-') {
            return line;
        }
    }
}
