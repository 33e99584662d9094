//! Requests in the first flight: on a second connection, after a restart of this process, and when the gateway will not have them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use lightpost_clock::{Clock, add};

use super::support::{
    CLIENT, End, GATEWAY, Loopback, Papers, Pieces, Running, deadline, early, exchange, gateway, gateway_on,
    gateway_with, json_of, replied, send,
};
use crate::{
    Exchange, Failure, Outcome, Path, Transport,
    quic::{
        client::{QuicTransport, Settings},
        listener::Options,
        profile::derive,
        tickets::{Place, Tickets},
    },
};

/// Tickets that a gateway gives.
const SUPPLY: usize = 8;

/// What a client is made of each time that it starts.
struct Client {
    settings: Settings,
    clock: Clock,
}

impl Client {
    fn new(papers: &Papers, identity: bool) -> Self {
        let settings = Settings {
            trust: Some(papers.ca()),
            identity: identity.then(|| papers.issue(CLIENT)),
            paths: vec![early()],
            sessions: Some(papers.file("sessions")),
        };
        let clock = Clock::system();
        Self { settings, clock }
    }

    fn file(&self) -> PathBuf {
        self.settings.sessions.clone().unwrap()
    }

    fn start(&self) -> QuicTransport {
        QuicTransport::new(self.settings.clone(), Arc::new(Loopback), self.clock.clone()).unwrap()
    }

    /// A life in which `gateway` gave tickets.
    async fn life(&self, gateway: &mut Running) {
        let running = self.start();
        mail(&running, gateway).await;
        tickets(&running, gateway.port).await;
    }
}

fn key(port: u16) -> String {
    format!("{GATEWAY}:{port} by earth")
}

fn to(port: u16) -> Exchange {
    exchange(port, "/echo", Pieces::of("four"))
}

/// Sends one mail, which arrives once; whether it was early data that the gateway took as it came.
async fn mail(client: &QuicTransport, gateway: &mut Running) -> bool {
    let reply = replied(send(client, to(gateway.port)).await);
    assert_eq!(json_of(&reply)["octets"], 4);
    let mut ends = Vec::new();
    while let Ok(end) = gateway.seen.try_recv() {
        ends.push(end);
    }
    assert_eq!(ends, [End::Begun, End::Whole(4)]);
    client.last_early(gateway.port).await
}

/// Waits for the tickets that follow a handshake, until they are on disk.
async fn tickets(client: &QuicTransport, port: u16) {
    let arrived = async {
        while client.sessions().stock(&key(port)) < SUPPLY {
            Clock::system().sleep(Duration::from_millis(5)).await;
        }
    };
    let arrived = Clock::system().timeout(Duration::from_secs(20), arrived).await;
    arrived.unwrap_or_else(|_| panic!("{} tickets", client.sessions().stock(&key(port))));
    client.sessions().flush().await;
}

#[tokio::test]
async fn after_each_restart_the_first_mail_leaves_in_the_first_flight() {
    for identity in [false, true] {
        let papers = Papers::new();
        let mut gateway = gateway(&papers);
        let client = Client::new(&papers, identity);
        for life in 0..5 {
            let running = client.start();
            let early = mail(&running, &mut gateway).await;
            assert_eq!(early, life > 0, "life {life}, identity {identity}");
            tickets(&running, gateway.port).await;
        }
        assert_eq!(gateway.endpoint.stats().accepted_handshakes, 5);
    }
}

/// The line of sessions that hang on one another is cut while a connection stands, so that it never ends in a cold start.
#[tokio::test]
async fn many_restarts_do_not_make_the_line_of_sessions_longer() {
    let papers = Papers::new();
    let mut gateway = gateway(&papers);
    let client = Client::new(&papers, false);
    let mut cold = Vec::new();
    for life in 0..40 {
        let running = client.start();
        let before = gateway.endpoint.stats().accepted_handshakes;
        if !mail(&running, &mut gateway).await {
            cold.push(life);
        }
        tickets(&running, gateway.port).await;
        let renewed = gateway.endpoint.stats().accepted_handshakes > before + 1;
        assert!(
            running.sessions().depth(&key(gateway.port)) < 16 || renewed,
            "life {life}"
        );
        running.close().await;
    }
    // Lives this short may cut every renewal in two on a starved machine; what hangs on 32 handshakes is not kept, so one more begins cold.
    assert!(cold.first() == Some(&0) && cold.len() <= 2, "cold: {cold:?}");
    let octets = std::fs::metadata(client.file()).unwrap().len();
    assert!(octets < 200_000, "{octets}");
}

#[tokio::test]
async fn a_certificate_of_ours_is_shown_by_the_session_after_a_restart() {
    let papers = Papers::new();
    let gateway = gateway(&papers);
    let client = Client::new(&papers, true);
    for life in 0..3 {
        let running = client.start();
        let reply = replied(send(&running, to(gateway.port)).await);
        assert_eq!(
            json_of(&reply)["names"],
            serde_json::json!([CLIENT]),
            "life {life}"
        );
        assert_eq!(running.last_early(gateway.port).await, life > 0);
        tickets(&running, gateway.port).await;
    }
}

#[tokio::test]
async fn a_second_connection_needs_no_file() {
    let papers = Papers::new();
    let mut gateway = gateway(&papers);
    let mut client = Client::new(&papers, false);
    client.settings.sessions = None;
    let running = client.start();
    assert!(!mail(&running, &mut gateway).await);
    tickets(&running, gateway.port).await;
    running.disconnect();
    assert!(mail(&running, &mut gateway).await);
}

/// Dated an hour wrong, a ticket still resumes, but its early data is refused: the request is sent again, and arrives once.
#[tokio::test]
async fn rejected_early_data_is_sent_again() {
    let papers = Papers::new();
    let mut gateway = gateway(&papers);
    let client = Client::new(&papers, true);
    client.life(&mut gateway).await;
    let running = client.start();
    running
        .sessions()
        .believe(&key(gateway.port), Duration::from_secs(3_600));
    let several = (0..20).map(|_| send(&running, to(gateway.port)));
    for outcome in futures_util::future::join_all(several).await {
        assert_eq!(json_of(&replied(outcome))["octets"], 4);
    }
    assert!(!running.last_early(gateway.port).await);
    let mut whole = 0;
    while let Ok(end) = gateway.seen.try_recv() {
        whole += usize::from(end == End::Whole(4));
    }
    assert_eq!(whole, 20);
    assert_eq!(gateway.endpoint.stats().accepted_handshakes, 2);
    // The handshake has shown how far it really is.
    tickets(&running, gateway.port).await;
    running.disconnect();
    assert!(mail(&running, &mut gateway).await);
}

/// Waits until nobody has `port` any more.
async fn freed(port: u16) -> std::net::UdpSocket {
    let freed = async {
        loop {
            match std::net::UdpSocket::bind(("127.0.0.1", port)) {
                Ok(socket) => return socket,
                Err(_) => Clock::system().sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let freed = Clock::system().timeout(Duration::from_secs(20), freed).await;
    freed.unwrap_or_else(|_| panic!("port {port} is never free"))
}

/// A gateway that forgot its sessions makes a whole handshake out of it.
#[tokio::test]
async fn a_gateway_that_forgot_gets_the_request_again() {
    let papers = Papers::new();
    let mut first = gateway(&papers);
    let client = Client::new(&papers, true);
    client.life(&mut first).await;
    let port = first.port;
    first.stop.cancel();
    first.task.await.unwrap();
    drop(first.endpoint);
    drop(freed(port).await);
    let mut second = gateway_on(&papers, port, None);
    let running = client.start();
    assert!(running.sessions().stock(&key(port)) > 0);
    assert!(!mail(&running, &mut second).await);
    running.disconnect();
    tickets(&running, port).await;
    assert!(mail(&running, &mut second).await);
}

/// A gateway that still knows the session but grants less than it did (RFC 9000 section 7.4.1): the connection dies of it, and the
/// request goes again on one that knows nothing of before.
#[tokio::test]
async fn a_gateway_that_grants_less_gets_the_request_again() {
    let papers = Papers::new();
    let mut gateway = gateway_with(&papers, 0, granting(500), &Options::default());
    let client = Client::new(&papers, true);
    client.life(&mut gateway).await;
    let port = gateway.port;
    let before = gateway.endpoint.stats().accepted_handshakes;
    let mut less = gateway.config.clone();
    less.transport_config(derive(&granting(50)).server_config(u32::MAX));
    gateway.endpoint.set_server_config(Some(less));
    let running = client.start();
    assert!(running.sessions().stock(&key(port)) > 0);
    let reply = replied(send(&running, to(port)).await);
    assert_eq!(json_of(&reply)["octets"], 4);
    assert!(!running.last_early(port).await);
    assert_eq!(gateway.endpoint.stats().accepted_handshakes, before + 2);
    while gateway.seen.try_recv().is_ok() {}
    self::tickets(&running, port).await;
    running.disconnect();
    assert!(mail(&running, &mut gateway).await);
}

fn granting(streams: u32) -> Path {
    let mut path = early();
    path.quic.max_streams = Some(streams);
    path
}

/// Ours forgets its sessions when it is set to grant less, so that nobody's connection dies of it.
#[tokio::test]
async fn a_gateway_that_is_set_to_grant_less_forgets() {
    let papers = Papers::new();
    let tickets = Tickets {
        sessions: Some(Place {
            file: papers.file("inbox.sessions"),
            scope: [1; 32],
        }),
        ..Tickets::default()
    };
    let options = Options {
        tickets,
        ..Options::default()
    };
    let mut first = gateway_with(&papers, 0, granting(500), &options);
    let client = Client::new(&papers, true);
    client.life(&mut first).await;
    let port = first.port;
    first.stop.cancel();
    first.task.await.unwrap();
    drop(first.endpoint);
    drop(freed(port).await);
    let mut second = gateway_with(&papers, port, granting(50), &options);
    let running = client.start();
    assert!(running.sessions().stock(&key(port)) > 0);
    let reply = replied(send(&running, to(port)).await);
    assert_eq!(json_of(&reply)["octets"], 4);
    assert!(!running.last_early(port).await);
    assert_eq!(second.endpoint.stats().accepted_handshakes, 1);
    while second.seen.try_recv().is_ok() {}
    self::tickets(&running, port).await;
    running.disconnect();
    assert!(mail(&running, &mut second).await);
}

/// Whether or not anybody was there: octets of the request have left.
#[tokio::test]
async fn early_data_into_silence_may_have_arrived() {
    let papers = Papers::new();
    let mut gateway = gateway(&papers);
    let client = Client::new(&papers, false);
    client.life(&mut gateway).await;
    let port = gateway.port;
    gateway.stop.cancel();
    gateway.task.await.unwrap();
    drop(gateway.endpoint);
    let _silent = freed(port).await;
    let running = client.start();
    let stock = running.sessions().stock(&key(port));
    let outcome = running.send(to(port), deadline(Duration::from_millis(500))).await;
    assert!(
        matches!(outcome, Outcome::Failed(Failure::NoReply { .. })),
        "{outcome:?}"
    );
    assert_eq!(running.sessions().stock(&key(port)), stock - 1);
    // The handshake's time runs out before the deadline: the first of the attempts that are made was early.
    let outcome = running.send(to(port), deadline(Duration::from_secs(60))).await;
    assert!(
        matches!(outcome, Outcome::Failed(Failure::Interrupted { .. })),
        "{outcome:?}"
    );
    // From now on nothing leaves before somebody answers: the next mail may go to another gateway, and tickets are saved.
    let stock = running.sessions().stock(&key(port));
    let outcome = running.send(to(port), deadline(Duration::from_secs(60))).await;
    assert!(
        matches!(outcome, Outcome::Failed(Failure::Unreachable { .. })),
        "{outcome:?}"
    );
    assert_eq!(running.sessions().stock(&key(port)), stock);
}

/// Starts once more with what `change` made of everything; the tickets that are left, and whether a mail was early.
async fn start_after(change: impl FnOnce(&mut Client, &Papers)) -> (usize, Option<bool>) {
    let papers = Papers::new();
    let mut gateway = gateway(&papers);
    let mut client = Client::new(&papers, true);
    client.life(&mut gateway).await;
    change(&mut client, &papers);
    let running = client.start();
    let stock = running.sessions().stock(&key(gateway.port));
    let soon = add(client.clock.now(), Duration::from_secs(30));
    let outcome = running.send(to(gateway.port), soon).await;
    let early = match outcome {
        Outcome::Replied(_) => Some(running.last_early(gateway.port).await),
        _ => None,
    };
    (stock, early)
}

#[tokio::test]
async fn what_a_session_stands_on_is_checked_at_the_start() {
    // Nothing changed.
    assert_eq!(start_after(|_, _| {}).await, (SUPPLY, Some(true)));
    // A CA that is not trusted any more.
    let others = Papers::new();
    let trusting_others = start_after(|client, _| client.settings.trust = Some(others.ca())).await;
    assert_eq!(trusting_others, (0, None));
    // Another certificate of ours, and none.
    let renamed = start_after(|client, papers| {
        client.settings.identity = Some(papers.issue("other.earth.example"));
    });
    assert_eq!(renamed.await, (0, Some(false)));
    let nameless = start_after(|client, _| client.settings.identity = None).await;
    assert_eq!(nameless, (0, Some(false)));
    // A day later.
    let late = start_after(|client, _| {
        client.clock = Clock::runtime(add(client.clock.now(), Duration::from_secs(86_500)));
    });
    assert_eq!(late.await, (0, Some(false)));
}

#[tokio::test]
async fn whatever_the_file_holds_the_start_succeeds() {
    type Change = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Change, usize); 6] = [
        ("gone", |_| Vec::new(), 0),
        ("foreign", |_| b"[client]\n".to_vec(), 0),
        ("another version", |_| b"lightpost sessions 7\nxyz".to_vec(), 0),
        (
            "torn",
            |mut octets| {
                octets.truncate(octets.len() / 2);
                octets
            },
            0,
        ),
        (
            "garbage behind",
            |mut octets| {
                octets.extend([0; 100]);
                octets
            },
            SUPPLY,
        ),
        (
            "damaged",
            |mut octets| {
                octets[100] ^= 1;
                octets
            },
            0,
        ),
    ];
    for (name, change, tickets) in cases {
        let changed = start_after(|client, _| {
            let octets = std::fs::read(client.file()).unwrap();
            std::fs::write(client.file(), change(octets)).unwrap();
        });
        assert_eq!(changed.await, (tickets, Some(tickets > 0)), "{name}");
    }
}

#[tokio::test]
async fn only_we_can_read_the_file_and_a_foreign_one_is_left_alone() {
    use std::os::unix::fs::PermissionsExt;
    let papers = Papers::new();
    let mut gateway = gateway(&papers);
    let client = Client::new(&papers, false);
    client.life(&mut gateway).await;
    let mode = std::fs::metadata(client.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(client.file(), "[client]\n").unwrap();
    client.life(&mut gateway).await;
    assert_eq!(std::fs::read(client.file()).unwrap(), b"[client]\n");
}

/// A crash after the flight has left, before anything came back.
#[tokio::test]
async fn a_ticket_is_spent_before_it_leaves() {
    let papers = Papers::new();
    let mut gateway = gateway(&papers);
    let client = Client::new(&papers, false);
    client.life(&mut gateway).await;
    for left in (0..SUPPLY).rev() {
        let running = client.start();
        assert!(running.sessions().ticket(&key(gateway.port)).await.is_some());
        // Nothing is written behind: what was promised is on disk already.
        drop(running);
        assert_eq!(client.start().sessions().stock(&key(gateway.port)), left);
    }
}

/// The process that [`sessions_serve_another_process`] starts.
#[tokio::test]
#[ignore = "started by another test"]
async fn another_process() {
    let setting = |name: &str| PathBuf::from(std::env::var_os(name).unwrap());
    let settings = Settings {
        trust: Some(setting("RESUME_TRUST")),
        identity: Some((setting("RESUME_CHAIN"), setting("RESUME_KEY"))),
        paths: vec![early()],
        sessions: Some(setting("RESUME_FILE")),
    };
    let port = std::env::var("RESUME_PORT").unwrap().parse().unwrap();
    let running = QuicTransport::new(settings, Arc::new(Loopback), Clock::system()).unwrap();
    replied(send(&running, to(port)).await);
    assert!(running.last_early(port).await);
}

#[tokio::test]
async fn sessions_serve_another_process() {
    let papers = Papers::new();
    let mut gateway = gateway(&papers);
    let client = Client::new(&papers, true);
    client.life(&mut gateway).await;
    let (chain, secret) = client.settings.identity.clone().unwrap();
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "tests::resume::another_process"])
        .env("RESUME_TRUST", papers.ca())
        .env("RESUME_CHAIN", chain)
        .env("RESUME_KEY", secret)
        .env("RESUME_FILE", client.file())
        .env("RESUME_PORT", gateway.port.to_string());
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(gateway.endpoint.stats().accepted_handshakes, 2);
}
