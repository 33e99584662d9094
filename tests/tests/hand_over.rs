//! Hand-over from each MTA by the snippets of `deploy/mta`, through both programs into a mailbox: the octets, the DSN parameters on the
//! gateway's way onward, and what becomes of mail for a destination that has no route.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use lightpost_tests::{
    Site, corpus,
    dovecot::Dovecot,
    exim::Exim,
    opensmtpd::OpenSmtpd,
    peer,
    pki::Authority,
    postfix::{self, Postfix},
    private_root, process,
    programs::{self, Program},
    smtp, wait,
    wire_tap::WireTap,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const CAROL: &str = "carol@moon.example";
/// The arguments of RCPT. Not NEVER for Carol, which OpenSMTPD 6.8 refuses as contradicting itself.
const BOBS: &str = "<bob@moon.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;robert+2Bx@earth.example";
const CAROLS: &str = "<carol@moon.example> NOTIFY=DELAY";
const SOON: Duration = Duration::from_secs(120);

/// Both programs, a mailbox behind the gateway, and a tap on the way there.
struct World {
    client: Program,
    /// Where the client takes SMTP and LMTP.
    smtp: SocketAddr,
    lmtp: SocketAddr,
    tap: WireTap,
    dovecot: Dovecot,
    _surface: Postfix,
    _gateway: Gateway,
    site: Site,
}

impl World {
    fn new() -> Self {
        let site = Site::new();
        let authority = Authority::new(&site, "ca");
        let dovecot = Dovecot::start(&site, "dovecot", &[BOB, CAROL]);
        let surface = postfix::Settings {
            name: "surface".into(),
            host: "mx.moon.example".into(),
            ..postfix::Settings::default()
        };
        let surface = Postfix::start(&site, &surface.lmtp("moon.example", &dovecot));
        let tap = WireTap::start(site.socket(), surface.smtp);
        let mut settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], tap.address);
        settings.protocol = "smtp".into();
        let gateway = Gateway::start(&site, &authority, &settings);
        let mut settings = ClientSettings::discovering(site.socket(), &[]);
        settings
            .routes
            .push(("moon.example".into(), vec![gateway.uri_by_address()]));
        let (smtp, lmtp) = (site.socket(), site.socket());
        settings.more = format!("\n[smtp]\nlisten = \"{smtp}\"\n\n[lmtp]\nlisten = \"{lmtp}\"\n");
        let mut client = world::client(&site, &authority, &settings);
        client.start(&site);
        Self {
            client,
            smtp,
            lmtp,
            tap,
            dovecot,
            _surface: surface,
            _gateway: gateway,
            site,
        }
    }

    /// A snippet of `deploy/mta` with this world's addresses, and a domain more that the agent has no route for.
    fn snippet(&self, name: &str) -> String {
        let sample = fs::read_to_string(peer::root().join("deploy/mta").join(name)).unwrap();
        let (ip, port) = (self.smtp.ip(), self.smtp.port());
        let fitted = sample
            .replace("[127.0.0.1]:8026", &format!("[{ip}]:{port}"))
            .replace("127.0.0.1:8026", &self.smtp.to_string())
            .replace("inet:127.0.0.1:8027", &format!("inet:{}", self.lmtp))
            .replace("127.0.0.1:8027", &self.lmtp.to_string())
            .replace("* 127.0.0.1", &format!("* {ip}"))
            .replace("port = 8026", &format!("port = {port}"))
            .replace("http://127.0.0.1:8025", &format!("http://{}", self.client.api))
            .replace(
                "/usr/bin/lightpost",
                &programs::public_binary(&self.site).display().to_string(),
            )
            .replace("*.moon.example", "unrouted.example");
        assert_ne!(fitted, sample);
        fitted
    }

    /// Hands two mails for two recipients to an MTA, and waits until they are in the mailboxes, octet for octet.
    fn crosses(&self, mta: SocketAddr, log: &dyn Fn() -> String) {
        let eight_bit = corpus::message("eight-bit", &corpus::eight_bit());
        let lines = [corpus::lone_dots(), line(998), line(2049), b"end\r\n".to_vec()].concat();
        let lines = corpus::message("lines", &lines);
        for message in [&eight_bit, &lines] {
            smtp::hand_over(
                mta,
                &format!("<{ALICE}> BODY=8BITMIME RET=HDRS ENVID=QQ+2B314159"),
                &[BOBS, CAROLS],
                message,
            );
        }
        for user in [BOB, CAROL] {
            let arrived = wait::holds_within(SOON, || self.dovecot.on_disk(user).len() >= 2);
            assert!(
                arrived,
                "{user} has {} mails; the MTA:\n{}",
                self.dovecot.on_disk(user).len(),
                log()
            );
            let mails = self.dovecot.wait_mails(user, 2);
            corpus::assert_only_trace_added(corpus::find(&mails, "eight-bit"), &eight_bit);
            corpus::assert_only_trace_added(corpus::find(&mails, "lines"), &lines);
        }
        self.assert_two_messages();
    }

    /// Both recipients of a mail came in one hand-over, and nothing came twice.
    fn assert_two_messages(&self) {
        let messages = self.client.messages();
        assert_eq!(messages.len(), 2, "{messages:#?}");
    }

    /// What the gateway said to the far MTA.
    fn assert_said(&self, wanted: &[&str]) {
        let said = self.tap.said();
        for wanted in wanted {
            assert!(said.contains(wanted), "{wanted} is not in:\n{said}");
        }
    }

    /// Every parameter that [`World::crosses`] used.
    fn assert_dsn_parameters_arrived(&self) {
        self.assert_said(&["RET=HDRS", "ENVID=QQ+2B314159", BOBS, CAROLS]);
    }

    /// Hands over a mail for a domain without a route; the MTA gives up with our word for it.
    fn refuses(&self, mta: SocketAddr, log: &dyn Fn() -> String) {
        let message = corpus::message("unrouted", b"Hello\r\n");
        smtp::hand_over(mta, &format!("<{ALICE}>"), &["<bob@unrouted.example>"], &message);
        wait::until("the refusal in the log", SOON, || {
            let log = log();
            log.contains("5.1.2") && log.contains("no route is configured for it")
        });
        self.assert_two_messages();
    }
}

fn line(length: usize) -> Vec<u8> {
    let mut line = vec![b'x'; length];
    line.extend_from_slice(b"\r\n");
    line
}

fn postfix(world: &World, name: &str) -> Postfix {
    let snippet = world.snippet(&format!("postfix/{name}.transport"));
    let mut settings = postfix::Settings {
        name: "earth".into(),
        host: "mx.earth.example".into(),
        relayed: vec!["moon.example".into(), "unrouted.example".into()],
        ..postfix::Settings::default()
    };
    let lines = snippet.replace(".moon.example", "unrouted.example");
    settings.transports = lines.lines().map(str::to_owned).collect();
    Postfix::start(&world.site, &settings)
}

#[test]
fn postfix_by_smtp() {
    let world = World::new();
    let earth = postfix(&world, "smtp");
    world.crosses(earth.smtp, &|| earth.log());
    world.assert_dsn_parameters_arrived();
    world.refuses(earth.smtp, &|| earth.log());
}

#[test]
fn postfix_by_lmtp() {
    let world = World::new();
    let earth = postfix(&world, "lmtp");
    world.crosses(earth.smtp, &|| earth.log());
    world.assert_dsn_parameters_arrived();
    world.refuses(earth.smtp, &|| earth.log());
}

#[test]
fn exim_by_smtp() {
    let world = World::new();
    let exim = Exim::start(&world.site, &world.snippet("exim/smtp.conf"));
    world.crosses(exim.smtp, &|| exim.log());
    // K: the body went by BDAT.
    wait::until("the deliveries in the log", SOON, || {
        exim.log().matches(" K C=\"250 ").count() == 4
    });
    world.assert_dsn_parameters_arrived();
    world.refuses(exim.smtp, &|| exim.log());
}

#[test]
fn exim_by_a_pipe_of_batch_smtp() {
    let world = World::new();
    let exim = Exim::start(&world.site, &world.snippet("exim/pipe.conf"));
    world.crosses(exim.smtp, &|| exim.log());
    world.refuses(exim.smtp, &|| exim.log());
    wait::until("the notification", SOON, || {
        exim.bounces().contains("bob@unrouted.example")
    });
}

#[test]
fn exim_by_files_of_batch_smtp() {
    let world = World::new();
    let folder = world.site.make_folder("handover");
    let account = Some(private_root::account("lightpost"));
    std::os::unix::fs::chown(&folder, account, account).unwrap();
    let place = folder.display().to_string();
    let snippet = world
        .snippet("exim/appendfile.conf")
        .replace("/var/spool/lightpost-exim", &place);
    let exim = Exim::start(&world.site, &snippet);
    let run = || {
        let script = peer::root().join("deploy/mta/exim/hand-over.sh");
        let mut command = Command::new("/bin/sh");
        command
            .arg(script)
            .args([&place, &format!("http://{}", world.client.api)]);
        command.env("LIGHTPOST", peer::lightpost());
        process::run(&mut command, b"")
    };
    let files = |below: &str| fs::read_dir(folder.join(below)).map_or(0, Iterator::count);
    std::thread::scope(|scope| {
        // The timer that an operator would have.
        let timer = scope.spawn(|| {
            wait::until("two files handed over", SOON, || {
                let finished = run();
                assert!(
                    finished.status.success(),
                    "{}{}",
                    finished.stdout,
                    finished.stderr
                );
                world.client.messages().len() == 2 && files("new") == 0
            });
        });
        world.crosses(exim.smtp, &|| exim.log());
        timer.join().unwrap();
    });
    let message = corpus::message("unrouted", b"Hello\r\n");
    smtp::hand_over(
        exim.smtp,
        &format!("<{ALICE}>"),
        &["<bob@unrouted.example>"],
        &message,
    );
    wait::until("a file", SOON, || files("new") == 1);
    let finished = run();
    assert!(finished.stderr.contains("5.1.2"), "{}", finished.stderr);
    assert_eq!((files("new"), files("bad")), (0, 1));
}

#[test]
fn opensmtpd_by_smtp() {
    let world = World::new();
    let smtpd = OpenSmtpd::start(&world.site, &world.snippet("opensmtpd/smtp.conf"));
    world.crosses(smtpd.smtp, &|| smtpd.log());
    // It says of the second recipient what it was told of the first.
    world.assert_said(&["RET=HDRS", "ENVID=QQ+2B314159", BOBS]);
    world.refuses(smtpd.smtp, &|| smtpd.log());
}

#[test]
fn msmtp_as_sendmail() {
    let world = World::new();
    let sample = fs::read_to_string(peer::root().join("deploy/mta/msmtp/msmtprc")).unwrap();
    let fitted = sample
        .replace("host 127.0.0.1", &format!("host {}", world.smtp.ip()))
        .replace("port 8026", &format!("port {}", world.smtp.port()));
    assert_ne!(fitted, sample);
    let configuration = world.site.write("msmtprc", fitted);
    let message = corpus::message("sendmail", b"Hello\r\n.\r\nthere\r\n");
    let msmtp = peer::program("/usr/bin/msmtp", "msmtp");
    let send = |recipients: &[&str]| {
        let mut command = Command::new(&msmtp);
        command
            .arg("-C")
            .arg(&configuration)
            .args(["-f", ALICE])
            .args(recipients);
        process::run(&mut command, &message)
    };
    // -t reads Bob from the mail.
    let finished = send(&["-t", "--", CAROL]);
    assert!(finished.status.success(), "{}", finished.stderr);
    for user in [BOB, CAROL] {
        corpus::assert_only_trace_added(&world.dovecot.wait_mails(user, 1)[0], &message);
    }
    let finished = send(&["--", "bob@unrouted.example"]);
    assert!(!finished.status.success());
    assert!(finished.stderr.contains("5.1.2"), "{}", finished.stderr);
}

#[test]
fn submit_as_sendmail() {
    let world = World::new();
    let message = corpus::message("submit", b"Hello\r\n");
    let secret = [b"Bcc: carol@moon.example\r\n", message.as_slice()].concat();
    let url = format!("http://{}", world.client.api);
    let finished = programs::lightpost(&["submit", "-t", "-i", "-oi", "--url", &url], &secret);
    assert!(finished.status.success(), "{}", finished.stderr);
    for user in [BOB, CAROL] {
        // Without the Bcc field.
        let mails = world.dovecot.wait_mails(user, 1);
        corpus::assert_only_trace_added(&mails[0], &message);
    }
    assert_eq!(world.client.messages()[0]["sender"], ALICE);
    let nobody = b"From: alice@earth.example\r\nSubject: x\r\n\r\n";
    let finished = programs::lightpost(&["submit", "-t", "--url", &url], nobody);
    assert_eq!(finished.status.code(), Some(65), "{}", finished.stderr);
}
