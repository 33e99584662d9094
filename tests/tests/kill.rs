//! `kill -9` of client and gateway on entering enumerated system calls and at random moments, under a stream of mails: every
//! acknowledged mail arrives, and none twice, unless the SMTP hop itself was cut between the final dot and its 250.
//!
//! The killed program is the release binary without any hook: strace kills it on entering its Nth call of a kind. Before the
//! Nth sync is before a commit, before the next call after it is behind the commit; datagrams, answers and connections are
//! walked through in the same way (`docs/decisions/0002-kill-points-are-system-calls.md`). The failover has points of its own in
//! `kill_failover.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lightpost_tests::{
    Site,
    corpus::{self, Noise},
    dovecot::Dovecot,
    http::Request,
    lmtp_tap::{Passage, Tap},
    pki::Authority,
    process::was_killed,
    programs::{Fault, Program},
    wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const SUBMITTERS: usize = 3;
/// The longest that a gateway under all this load takes to record an answer.
const RECORDING: Duration = Duration::from_secs(1);
const RANDOM_KILLS: usize = 60;
const BOXES: [&str; 4] = [
    "a@moon.example",
    "b@moon.example",
    "c@moon.example",
    "d@failover.moon.example",
];

/// Which calls, and what dying before them means.
const CLIENT_POINTS: &[(&str, &str, &[u32])] = &[
    ("commit", "fsync,fdatasync", &[1, 2, 3, 4, 6, 9, 14]),
    (
        "write to the database",
        "pwrite64",
        &[1, 2, 5, 9, 17, 33, 65, 130],
    ),
    ("datagram", "sendmsg,sendmmsg", &[1, 2, 3, 4, 6, 9, 14, 22]),
    ("REST answer", "sendto,writev", &[1, 2, 3, 5, 8]),
];
const GATEWAY_POINTS: &[(&str, &str, &[u32])] = &[
    ("commit", "fsync,fdatasync", &[1, 2, 3, 4, 6, 9, 14]),
    (
        "write to the database",
        "pwrite64",
        &[1, 2, 5, 9, 17, 33, 65, 130],
    ),
    ("datagram, reply", "sendmsg,sendmmsg", &[1, 2, 3, 4, 6, 9, 14, 22]),
    ("LMTP command or mail", "sendto,writev", &[1, 2, 3, 4, 5, 8, 13]),
    ("LMTP connection", "connect", &[1, 2, 3]),
];

/// What the submitters know.
#[derive(Default)]
struct Ledger {
    /// Message-IDs of mails that were answered 202.
    acknowledged: Mutex<BTreeSet<String>>,
    /// Mails whose submitter gave up without an answer.
    unknown: AtomicUsize,
    stop: AtomicBool,
}

#[test]
fn what_was_acknowledged_survives_every_kill_and_arrives_once() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &BOXES);
    let tap = Tap::start(site.socket(), dovecot.lmtp);
    let domains = ["moon.example", "failover.moon.example"];
    let mut gateway = Gateway::start(
        &site,
        &authority,
        &GatewaySettings::new("gw1.moon.example", &domains, tap.address),
    );
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings.path = "reply_within = \"20s\"\n".into();
    let dead = format!("https://{}/inboundmail", site.socket());
    settings
        .routes
        .push(("moon.example".into(), vec![gateway.uri_by_address()]));
    settings.routes.push((
        "failover.moon.example".into(),
        vec![dead, gateway.uri_by_address()],
    ));
    let mut client = world::client(&site, &authority, &settings);
    client.start(&site);

    let ledger = Ledger::default();
    let api = client.api;
    let mut kills = Kills::default();
    std::thread::scope(|scope| {
        let stopper = Stopper(&ledger.stop);
        for number in 0..SUBMITTERS {
            let ledger = &ledger;
            scope.spawn(move || submit_stream(number, api, ledger));
        }
        for (program, role, points) in [
            (&mut client, "client", CLIENT_POINTS),
            (&mut gateway.program, "gateway", GATEWAY_POINTS),
        ] {
            kills.enumerated(&site, program, role, points, &tap);
        }
        kills.random(&site, &mut client, &mut gateway.program, &tap);
        drop(stopper);
    });
    drain(&client, &gateway.program);
    kills.print();
    judge(
        &ledger,
        &dovecot,
        &tap.passages(),
        &kills.gateway_killed_at,
        &client,
    );
}

/// Ends the submitters, whichever way the kills end.
struct Stopper<'s>(&'s AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Mails one after the other, each with a key of its own. Most are repeated until they are answered; some are not.
fn submit_stream(number: usize, api: std::net::SocketAddr, ledger: &Ledger) {
    let mut noise = Noise::new(number as u64);
    let mut count = 0;
    while !ledger.stop.load(Ordering::Relaxed) {
        count += 1;
        let name = format!("s{number}-{count}");
        let size = if noise.below(20) == 0 {
            400_000
        } else {
            200 + noise.below(6000) as usize
        };
        let message = corpus::attachment(&name, size);
        let recipient = BOXES[noise.below(BOXES.len() as u64) as usize];
        let request = Request::mail("alice@earth.example", &[recipient], &message)
            .header("Idempotency-Key", &format!("\"{name}\""));
        let patient = noise.below(10) > 0;
        let mut answered = false;
        let limit = Duration::from_secs(if patient { 60 } else { 0 });
        let _ = wait::holds_within(limit, || {
            answered = request.send(api).is_ok_and(|answer| {
                assert!([202, 429, 503].contains(&answer.status), "{}", answer.text());
                answer.status == 202
            });
            answered || ledger.stop.load(Ordering::Relaxed)
        });
        if answered {
            ledger
                .acknowledged
                .lock()
                .unwrap()
                .insert(format!("<{name}@earth.example>"));
        } else {
            ledger.unknown.fetch_add(1, Ordering::Relaxed);
        }
        wait::pause(Duration::from_millis(20 + noise.below(60)));
    }
}

/// What was killed where.
#[derive(Default)]
struct Kills {
    /// Program, point: how often it was killed there, and how often the point was not reached.
    table: BTreeMap<(String, String), (usize, usize)>,
    /// When the gateway was killed, by the tap's clock.
    gateway_killed_at: Vec<Duration>,
}

impl Kills {
    /// Walks through all points of a program.
    fn enumerated(
        &mut self,
        site: &Site,
        program: &mut Program,
        role: &str,
        points: &[(&str, &'static str, &[u32])],
        tap: &Tap,
    ) {
        for (meaning, calls, steps) in points {
            for nth in *steps {
                program.kill();
                self.note_gateway(role, tap);
                program.start_with_fault(site, Fault { calls, nth: *nth }, None);
                let mut end = None;
                let ended = wait::holds_within(Duration::from_secs(5), || {
                    end = program.process().ended();
                    end.is_some()
                });
                if let Some(end) = end {
                    assert!(
                        was_killed(end),
                        "{role} before {calls} {nth}: {end}\n{}",
                        program.process().output()
                    );
                    self.note_gateway(role, tap);
                }
                let count = self
                    .table
                    .entry((role.to_owned(), format!("before {meaning} ({calls})")))
                    .or_default();
                *(if ended { &mut count.0 } else { &mut count.1 }) += 1;
            }
        }
        program.kill();
        self.note_gateway(role, tap);
        program.start(site);
    }

    /// Kills one or the other or both at moments that a seed chose.
    fn random(&mut self, site: &Site, client: &mut Program, gateway: &mut Program, tap: &Tap) {
        let mut noise = Noise::new(2442);
        for _ in 0..RANDOM_KILLS {
            wait::pause(Duration::from_millis(30 + noise.below(500)));
            let which = noise.below(5);
            if which != 0 {
                gateway.kill();
                self.note_gateway("gateway", tap);
                self.table
                    .entry(("gateway".into(), "at a random moment".into()))
                    .or_default()
                    .0 += 1;
            }
            if which <= 2 {
                client.kill();
                self.table
                    .entry(("client".into(), "at a random moment".into()))
                    .or_default()
                    .0 += 1;
                client.start(site);
            }
            if which != 0 {
                gateway.start(site);
            }
        }
    }

    fn note_gateway(&mut self, role: &str, tap: &Tap) {
        if role == "gateway" {
            self.gateway_killed_at.push(tap.watch.elapsed());
        }
    }

    fn print(&self) {
        println!(
            "{:8} {:48} {:>6} {:>12}",
            "program", "killed", "times", "not reached"
        );
        for ((program, point), (killed, missed)) in &self.table {
            println!("{program:8} {point:48} {killed:6} {missed:12}");
        }
    }
}

/// Waits until both queues are empty.
fn drain(client: &Program, gateway: &Program) {
    let watch = wait::Watch::start();
    let empty = wait::holds_within(Duration::from_secs(180), || {
        client.unfinished() == Some(0) && gateway.unfinished() == Some(0)
    });
    println!("queues empty after {:?}", watch.elapsed());
    assert!(
        empty,
        "not empty: client {:?}, gateway {:?}; the client's first: {:#?}",
        client.unfinished(),
        gateway.unfinished(),
        client
            .messages()
            .iter()
            .find(|message| message["recipients"][0]["status"] != "delivered")
            .map(|message| client.message(message["id"].as_str().unwrap()))
    );
}

/// Counts what is in the mailboxes.
fn judge(
    ledger: &Ledger,
    dovecot: &Dovecot,
    passages: &[Passage],
    gateway_killed_at: &[Duration],
    client: &Program,
) {
    let copies = dovecot.copies(&BOXES);
    let acknowledged = ledger.acknowledged.lock().unwrap();
    let lost: Vec<&String> = acknowledged
        .iter()
        .filter(|id| !copies.contains_key(*id))
        .collect();
    let (mut cut, mut unrecorded, mut wrong) = (0, Vec::new(), Vec::new());
    for (id, count) in copies.iter().filter(|(_, count)| **count > 1) {
        let of_it: Vec<&Passage> = passages.iter().filter(|passage| passage.mail == *id).collect();
        let before_last = &of_it[..of_it.len().saturating_sub(1)];
        for passage in before_last {
            match passage.answered {
                None => cut += 1,
                // The 250 was on its way to the gateway or being recorded when the gateway died; a kill is noted when it is done.
                Some(at) => match gateway_killed_at.iter().find(|kill| **kill >= passage.dot) {
                    Some(kill) if *kill <= at + RECORDING => unrecorded.push(kill.saturating_sub(at)),
                    _ => wrong.push(format!("{id} {count} times: {of_it:?}")),
                },
            }
        }
    }
    unrecorded.sort();
    let (number, median, longest) = (
        unrecorded.len(),
        unrecorded.get(unrecorded.len() / 2),
        unrecorded.last(),
    );
    println!(
        "{} mails acknowledged, {} given up without an answer, {} in the mailboxes, {} lost; second copies: {cut} hop cut between dot and 250, \
         {number} gateway killed before it had recorded the 250 (after {median:?}, at most {longest:?}), {} without excuse",
        acknowledged.len(),
        ledger.unknown.load(Ordering::Relaxed),
        copies.len(),
        lost.len(),
        wrong.len()
    );
    for id in lost.iter().take(3) {
        let subject = id.trim_matches(['<', '>']).replace("@earth.example", "");
        let known = client
            .messages()
            .into_iter()
            .find(|message| message["origin_id"].to_string().contains(&format!("{subject}\"")));
        println!("lost: {id}: {known:#?}");
    }
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(acknowledged.len() > 100, "hardly any mail");
}
