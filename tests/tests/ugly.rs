//! A corpus of ugly mail: what is legal crosses as it is, from the client's SMTP to a mailbox behind the gateway; what is not is refused, with the code and the words
//! that tell what to do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use lightpost_tests::{
    Site, bsmtp, corpus,
    dovecot::Dovecot,
    pki::Authority,
    programs::Program,
    ugly, wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "<alice@earth.example>";
const BOB: &str = "bob@moon.example";
const SOON: Duration = Duration::from_secs(300);

/// A session that is spoken step by step.
struct Session(BufReader<TcpStream>);

impl Session {
    fn open(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut session = Self(BufReader::new(stream));
        session.reply();
        session.say(b"EHLO ugly.earth.example\r\n");
        session
    }

    fn say(&mut self, octets: &[u8]) -> String {
        self.0.get_mut().write_all(octets).unwrap();
        self.reply()
    }

    /// The last line of a reply.
    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    /// One mail as it stands on the wire; the reply to the first step that is refused, or to the last one.
    fn mail(&mut self, from: &str, to: &str, body: &[u8]) -> String {
        let steps = [
            format!("MAIL FROM:{from}\r\n").into_bytes(),
            format!("RCPT TO:{to}\r\n").into_bytes(),
            b"DATA\r\n".to_vec(),
            [body, b".\r\n"].concat(),
        ];
        let mut reply = String::new();
        for step in steps {
            reply = self.say(&step);
            if !reply.starts_with(['2', '3']) {
                break;
            }
        }
        if !reply.starts_with('2') {
            self.say(b"RSET\r\n");
        }
        reply
    }
}

fn client(site: &Site, authority: &Authority, uri: String, ingest: &str) -> (Program, SocketAddr) {
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings.routes.push(("moon.example".into(), vec![uri]));
    settings.ingest = ingest.into();
    let address = site.socket();
    settings.more = format!("\n[smtp]\nlisten = \"{address}\"\n");
    let mut client = world::client(site, authority, &settings);
    client.start(site);
    (client, address)
}

#[test]
fn every_legal_one_crosses_as_it_is() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let gateway = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
    let gateway = Gateway::start(&site, &authority, &gateway);
    let (client, address) = client(&site, &authority, gateway.uri_by_address(), "");
    let all = ugly::legal();
    assert!(all.len() >= 300, "{}", all.len());
    let mut session = Session::open(address);
    for one in &all {
        let from = format!("{ALICE} BODY=8BITMIME");
        let reply = session.mail(&from, &format!("<{BOB}>"), &bsmtp::stuffed(&one.mail));
        assert!(reply.starts_with("250 "), "{}: {reply}", one.name);
    }
    wait::until("all are in the mailbox", SOON, || {
        dovecot.on_disk(BOB).len() >= all.len()
    });
    let mut arrived = dovecot.mails(BOB);
    assert_eq!(arrived.len(), all.len());
    // The longest first: one may be the end of another.
    let mut sent: Vec<_> = all.iter().collect();
    sent.sort_by_key(|one| std::cmp::Reverse(one.mail.len()));
    for one in sent {
        let found = arrived.iter().position(|mail| mail.ends_with(&one.mail));
        let Some(found) = found else {
            let marker = one
                .mail
                .windows(22)
                .find(|part| part.starts_with(b"ugly mail number "));
            let like = arrived
                .iter()
                .find(|mail| marker.is_some_and(|marker| corpus::contains(mail, marker)));
            corpus::assert_only_trace_added(
                like.unwrap_or_else(|| panic!("{} is not there", one.name)),
                &one.mail,
            );
            panic!("{} was altered", one.name);
        };
        corpus::assert_only_trace_added(&arrived.swap_remove(found), &one.mail);
    }
    assert_eq!(client.unfinished(), Some(0));
    println!("{} mails crossed", all.len());
}

/// What MAIL and RCPT say, and what the answer is.
const ENVELOPES: &[(&str, &str, &str)] = &[
    (
        "<alice>",
        "<bob@moon.example>",
        "501 5.1.7 \"alice\" has no domain",
    ),
    (
        "<@earth.example>",
        "<bob@moon.example>",
        "501 5.1.7 \"@earth.example\" has a malformed source route",
    ),
    (
        "<alice@>",
        "<bob@moon.example>",
        "501 5.1.7 \"alice@\" has no domain",
    ),
    (
        "<a b@earth.example>",
        "<bob@moon.example>",
        "501 5.1.7 \"a b@earth.example\" has the character   in its local part, where it would need quotes",
    ),
    (
        "<alice@earth..example>",
        "<bob@moon.example>",
        "501 5.1.7 \"alice@earth..example\" has an empty label in its domain",
    ),
    (
        "<alice@-earth.example>",
        "<bob@moon.example>",
        "501 5.1.7 \"alice@-earth.example\" has a hyphen at the start or end of a label in its domain",
    ),
    (
        "<.alice@earth.example>",
        "<bob@moon.example>",
        "501 5.1.7 \".alice@earth.example\" has a misplaced dot in its local part",
    ),
    (
        "<alice@earth.example",
        "<bob@moon.example>",
        "501 5.1.7 \"<alice@earth.example\" is not enclosed in < and >",
    ),
    (
        "<alice@earth.example>>",
        "<bob@moon.example>",
        "501 5.5.4 \">\" is not a parameter",
    ),
    (
        "<alice@earth.example>SIZE=1",
        "<bob@moon.example>",
        "501 5.5.4 \"SIZE=1\" is not a parameter",
    ),
    (
        "<jürgen@earth.example>",
        "<bob@moon.example>",
        "553 5.6.7 the address needs the parameter SMTPUTF8",
    ),
    (
        "<alice@earth.example> BODY=9BIT",
        "<bob@moon.example>",
        "501 5.5.4 the parameter BODY has the value \"9BIT\", expected 7BIT or 8BITMIME",
    ),
    (
        "<alice@earth.example> BODY=BINARYMIME",
        "<bob@moon.example>",
        "555 5.6.1 BODY=BINARYMIME cannot be carried, convert the mail to 8BITMIME or less",
    ),
    (
        "<alice@earth.example> BODY",
        "<bob@moon.example>",
        "501 5.5.4 the parameter BODY has the value \"\", expected 7BIT or 8BITMIME",
    ),
    (
        "<alice@earth.example> SIZE=abc",
        "<bob@moon.example>",
        "501 5.5.4 the parameter SIZE has the value \"abc\", expected a number of octets",
    ),
    (
        "<alice@earth.example> SIZE=-1",
        "<bob@moon.example>",
        "501 5.5.4 the parameter SIZE has the value \"-1\", expected a number of octets",
    ),
    (
        "<alice@earth.example> SIZE=1 SIZE=2",
        "<bob@moon.example>",
        "501 5.5.4 the parameter SIZE stands twice",
    ),
    (
        "<alice@earth.example> SIZE=1000001",
        "<bob@moon.example>",
        "552 5.3.4 the mail exceeds the limit of 1000000 octets",
    ),
    (
        "<alice@earth.example> SIZE=99999999999999999999",
        "<bob@moon.example>",
        "501 5.5.4 the parameter SIZE has the value \"99999999999999999999\", expected a number of octets",
    ),
    (
        "<alice@earth.example> RET=ALL",
        "<bob@moon.example>",
        "501 5.5.4 the parameter RET has the value \"ALL\", expected FULL or HDRS",
    ),
    (
        "<alice@earth.example> RET=FULL RET=HDRS",
        "<bob@moon.example>",
        "501 5.5.4 the parameter RET stands twice",
    ),
    (
        "<alice@earth.example> ENVID=+ZZ",
        "<bob@moon.example>",
        "501 5.5.4 the parameter ENVID has the value \"+ZZ\", expected printable ASCII as xtext, at most 100 characters",
    ),
    (
        "<alice@earth.example> ENVID=",
        "<bob@moon.example>",
        "501 5.5.4 the parameter ENVID has the value \"\", expected printable ASCII as xtext, at most 100 characters",
    ),
    (
        "<alice@earth.example> MT-PRIORITY=10",
        "<bob@moon.example>",
        "501 5.5.4 the parameter MT-PRIORITY has the value \"10\", expected -9 to 9",
    ),
    (
        "<alice@earth.example> MT-PRIORITY=high",
        "<bob@moon.example>",
        "501 5.5.4 the parameter MT-PRIORITY has the value \"high\", expected -9 to 9",
    ),
    (
        "<alice@earth.example> BY=0;R",
        "<bob@moon.example>",
        "501 5.5.4 the parameter BY has the value \"0;R\", expected seconds, \";\", and R (with a time above 0) or N, perhaps T",
    ),
    (
        "<alice@earth.example> BY=10;X",
        "<bob@moon.example>",
        "501 5.5.4 the parameter BY has the value \"10;X\", expected seconds, \";\", and R (with a time above 0) or N, perhaps T",
    ),
    (
        "<alice@earth.example> BY=-5;R",
        "<bob@moon.example>",
        "501 5.5.4 the parameter BY has the value \"-5;R\", expected seconds, \";\", and R (with a time above 0) or N, perhaps T",
    ),
    (
        "<alice@earth.example> SMTPUTF8=1",
        "<bob@moon.example>",
        "501 5.5.4 the parameter SMTPUTF8 has the value \"1\", but takes none",
    ),
    (
        "<alice@earth.example> AUTH=<>",
        "<bob@moon.example>",
        "555 5.5.4 the parameter AUTH is not known",
    ),
    (
        "<alice@earth.example> HOLDFOR=60",
        "<bob@moon.example>",
        "555 5.5.4 the parameter HOLDFOR is not known",
    ),
    (
        "<alice@earth.example> X=1",
        "<bob@moon.example>",
        "555 5.5.4 the parameter X is not known",
    ),
    (
        "<alice@earth.example> =1",
        "<bob@moon.example>",
        "501 5.5.4 \"=1\" is not a parameter",
    ),
    (
        "<alice@earth.example>",
        "<>",
        "501 5.1.3 the null path <> cannot be a recipient",
    ),
    (
        "<alice@earth.example>",
        "<bob>",
        "501 5.1.3 \"bob\" has no domain",
    ),
    (
        "<alice@earth.example>",
        "<@moon.example>",
        "501 5.1.3 \"@moon.example\" has a malformed source route",
    ),
    (
        "<alice@earth.example>",
        "<bob@>",
        "501 5.1.3 \"bob@\" has no domain",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon..example>",
        "501 5.1.3 \"bob@moon..example\" has an empty label in its domain",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon.example.example..>",
        "501 5.1.3 \"bob@moon.example.example..\" has an empty label in its domain",
    ),
    (
        "<alice@earth.example>",
        "<b ob@moon.example>",
        "501 5.1.3 \"b ob@moon.example\" has the character   in its local part, where it would need quotes",
    ),
    (
        "<alice@earth.example>",
        "<\"bob@moon.example>",
        "501 5.1.3 \"<\"bob@moon.example>\" has a quoted local part that is not closed",
    ),
    (
        "<alice@earth.example>",
        "<bob\"@moon.example>",
        "501 5.1.3 \"<bob\"@moon.example>\" has a quoted local part that is not closed",
    ),
    (
        "<alice@earth.example>",
        "<bob@@moon.example>",
        "501 5.1.3 \"bob@@moon.example\" has the character @ in its domain",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon_.example>",
        "501 5.1.3 \"bob@moon_.example\" has the character _ in its domain",
    ),
    (
        "<alice@earth.example>",
        "<bob@[127.0.0.1]>",
        "550 5.1.2 mail for [127.0.0.1] does not leave from here: no route is configured for it",
    ),
    (
        "<alice@earth.example>",
        "<jürgen@moon.example>",
        "553 5.6.7 the address needs the parameter SMTPUTF8",
    ),
    (
        "<alice@earth.example>",
        "<bob@unrouted.example>",
        "550 5.1.2 mail for unrouted.example does not leave from here: no route is configured for it",
    ),
    (
        "<alice@earth.example>",
        "<bob@example>",
        "550 5.1.2 mail for example does not leave from here: no route is configured for it",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon.example> NOTIFY=NEVER,FAILURE",
        "501 5.5.4 the parameter NOTIFY has the value \"NEVER,FAILURE\", expected NEVER or a list of SUCCESS, FAILURE, DELAY",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon.example> NOTIFY=ALWAYS",
        "501 5.5.4 the parameter NOTIFY has the value \"ALWAYS\", expected NEVER or a list of SUCCESS, FAILURE, DELAY",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon.example> NOTIFY=",
        "501 5.5.4 the parameter NOTIFY has the value \"\", expected NEVER or a list of SUCCESS, FAILURE, DELAY",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon.example> NOTIFY=NEVER NOTIFY=NEVER",
        "501 5.5.4 the parameter NOTIFY stands twice",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon.example> ORCPT=nosemicolon",
        "501 5.5.4 the parameter ORCPT has the value \"nosemicolon\", expected an address type, \";\" and an address as xtext",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon.example> ORCPT=rfc822;+G1",
        "501 5.5.4 the parameter ORCPT has the value \"rfc822;+G1\", expected an address type, \";\" and an address as xtext",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon.example> ORCPT=;x",
        "501 5.5.4 the parameter ORCPT has the value \";x\", expected an address type, \";\" and an address as xtext",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon.example> SIZE=1",
        "555 5.5.4 the parameter SIZE is not known",
    ),
    (
        "<alice@earth.example>",
        "<bob@moon.example> X",
        "555 5.5.4 the parameter X is not known",
    ),
];

/// Mails as they stand on the wire before the final dot, and what the answer is.
fn bodies() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let head = b"Subject: x\r\n\r\n";
    let with = |body: &[u8]| [head.as_slice(), body].concat();
    let hops = "Received: from a by b; Sun, 22 Nov 2026 12:00:00 +0000\r\n";
    let ours = "Received: from a by relay.earth.example id x for <bob@moon.example>; now\r\n";
    let visits = "Received: from a by relay.earth.example id x; now\r\n";
    vec![
        (
            "a bare LF in the body",
            with(b"a\nb\r\n"),
            "554 5.6.0 line 3, octet 15: a bare LF",
        ),
        (
            "a bare CR in the body",
            with(b"a\rb\r\n"),
            "554 5.6.0 line 3, octet 15: a bare CR",
        ),
        (
            "CR, CR, LF",
            with(b"a\r\r\nb\r\n"),
            "554 5.6.0 line 3, octet 15: a bare CR",
        ),
        (
            "a bare LF in the header section",
            b"Subject: x\nTo: y\r\n\r\n".to_vec(),
            "554 5.6.0 line 1, octet 10: a bare LF",
        ),
        (
            "LF, dot, LF",
            with(b"a\n.\nb\r\n"),
            "554 5.6.0 line 3, octet 15: a bare LF",
        ),
        (
            "CR, dot, CR",
            with(b"a\r.\rb\r\n"),
            "554 5.6.0 line 3, octet 15: a bare CR",
        ),
        (
            "LF, dot, CRLF",
            with(b"a\n.\r\nb\r\n"),
            "554 5.6.0 line 3, octet 15: a bare LF",
        ),
        (
            "more than a mail may have",
            with(&b"0123456789abcde\r\n".repeat(70_000)),
            "552 5.3.4 the mail exceeds the limit of 1000000 octets",
        ),
        (
            "sixty hops",
            [hops.repeat(60).as_bytes(), head].concat(),
            "554 5.4.6 the mail runs in circles: 60 Received fields, 0 of them ours",
        ),
        (
            "one that has left for the same recipient",
            [ours.as_bytes(), head].concat(),
            "554 5.4.6 the mail has come back, it left here for the same recipient as x; where it is sent to, its domain leads back to here",
        ),
        (
            "one that has left three times",
            [visits.repeat(3).as_bytes(), head].concat(),
            "554 5.4.6 the mail runs in circles: 3 Received fields, 3 of them ours",
        ),
    ]
}

#[test]
fn every_illegal_one_is_refused_in_so_many_words() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let nobody = format!("https://{}/inboundmail", site.socket());
    let (client, address) = client(
        &site,
        &authority,
        nobody,
        "bare_line_ends = \"refuse\"\nmax_message = \"1MB\"\n",
    );
    let mut wrong = String::new();
    let mut refused = 0;
    let mut check = |what: &str, said: &str, expected: &str| {
        refused += 1;
        if expected.is_empty() || !said.starts_with(expected) {
            wrong += &format!("{what}\n  says     {said}\n  expected {expected}\n");
        }
    };
    // A session each: whoever makes many mistakes is left.
    for (from, to, expected) in ENVELOPES {
        let said = Session::open(address).mail(from, to, b"Subject: x\r\n\r\n");
        check(&format!("{from} {to}"), &said, expected);
    }
    for (what, body, expected) in bodies() {
        let said = Session::open(address).mail(ALICE, &format!("<{BOB}>"), &body);
        check(what, &said, expected);
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(client.messages().len(), 0);
    println!("{refused} mails were refused");
}
