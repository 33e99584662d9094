//! `kill -9` of the client on entering enumerated system calls of a failover: the first gateway of the domain is dead or has died,
//! the second one takes the mail. It arrives, and once, whatever the client was about to do when it was killed.
//!
//! Each point has a client of its own with one mail, so that its commits are the same ones each time. strace's record of the
//! client's commits and datagrams shows how far the failover had come (`docs/decisions/0002-kill-points-are-system-calls.md`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use lightpost_tests::{
    Site, corpus,
    dovecot::Dovecot,
    http::Request,
    pki::Authority,
    process::was_killed,
    programs::{Fault, Program},
    wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const SOON: Duration = Duration::from_secs(60);
/// Much longer than a failover takes here; a client that lives on has not reached its point.
const REACHED: Duration = Duration::from_secs(8);

/// What is wrong with the first gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// Nothing listens there.
    Dead,
    /// It died with the mail on its way to it, the client too; the client is killed again as it takes that up.
    Died,
}

/// How far the failover had come when the client was killed, by what it had sent and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Nothing had left.
    Before,
    /// The first gateway was being called.
    Calling,
    /// The call was over and the mail on its way back into the queue or out of it, to the second gateway.
    Between,
    /// The second gateway was being called, had the mail or had answered.
    Second,
}

/// Which calls, the stage that they belong to where the one thread of the store makes them, and their numbers.
type Points = (
    &'static str,
    &'static str,
    &'static [(Option<Stage>, &'static [u32])],
);

/// Counted from before the mail. The commits: accepted, claimed, begun towards the first; put back as unreachable, claimed, begun
/// towards the second; the reply. On entering its sync, a commit is in the log that the next process reads; on entering one of
/// the 8 to 16 writes before, it is not.
const DEAD: &[Points] = &[
    (
        "commit",
        "fsync,fdatasync",
        &[
            (Some(Stage::Before), &[1, 2, 3]),
            (Some(Stage::Between), &[4, 5, 6]),
            (Some(Stage::Second), &[7]),
        ],
    ),
    (
        "write to the database",
        "pwrite64",
        &[(None, &[44, 48, 52, 53, 57, 61, 69, 77, 85])],
    ),
    (
        "datagram",
        "sendmsg,sendmmsg",
        &[(None, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])],
    ),
];

/// Counted from the start of a client that finds the open exchange. The commits: queued again, with a checkpoint (two syncs); claimed,
/// repeated; put back as unreachable, claimed, begun towards the second; the reply.
const DIED: &[Points] = &[
    (
        "commit",
        "fsync,fdatasync",
        &[
            (Some(Stage::Before), &[1, 2, 3, 4]),
            (Some(Stage::Between), &[5, 6, 7]),
            (Some(Stage::Second), &[8]),
        ],
    ),
    (
        "datagram",
        "sendmsg,sendmmsg",
        &[(None, &[1, 2, 3, 4, 5, 6, 7, 8, 10, 12])],
    ),
];

#[test]
fn a_mail_arrives_once_wherever_in_a_failover_its_client_is_killed() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let [mut first, second] = ["gw1.moon.example", "gw2.moon.example"].map(|name| {
        let settings = GatewaySettings::new(name, &["moon.example"], dovecot.lmtp);
        Gateway::start(&site, &authority, &settings)
    });
    let mut cases: Vec<Case> = Vec::new();
    for (wrong, points) in [(First::Dead, DEAD), (First::Died, DIED)] {
        for (meaning, calls, stages) in points {
            for (stage, steps) in *stages {
                for nth in *steps {
                    let fault = Fault::new(calls, *nth);
                    let case = Case::new(&authority, wrong, (meaning, fault, *stage), &first, &second);
                    cases.push(case);
                }
            }
        }
    }
    for case in &mut cases {
        case.client.wait_ready();
    }
    warm_up(&cases);
    first.program.kill();

    let watch = wait::Watch::start();
    let ends: Vec<End> = std::thread::scope(|scope| {
        let running: Vec<_> = cases
            .iter_mut()
            .map(|case| scope.spawn(move || case.run()))
            .collect();
        running.into_iter().map(|case| case.join().unwrap()).collect()
    });
    wait::until("the second gateway handed on all mails", SOON, || {
        second.program.unfinished() == Some(0)
    });
    println!("{} failovers in {:?}", cases.len(), watch.elapsed());
    report(&cases, &ends);
    judge(&cases, &ends, &dovecot);
}

/// The clients whose first gateway is going to die get a connection to it, over which their mail leaves.
fn warm_up(cases: &[Case]) {
    let ids: Vec<(&Case, String)> = cases
        .iter()
        .filter(|case| case.wrong == First::Died)
        .map(|case| {
            let message = corpus::message(&format!("warm-{}", case.name), b"Hello\r\n");
            (case, case.client.submit(ALICE, &[BOB], &message))
        })
        .collect();
    for (case, id) in ids {
        case.client.wait_status(&id, "delivered", SOON);
    }
}

/// One point with its own client and mail.
struct Case {
    wrong: First,
    meaning: &'static str,
    fault: Fault,
    /// Where the point has to be.
    stage: Option<Stage>,
    name: String,
    gateways: [SocketAddr; 2],
    site: Site,
    client: Program,
}

/// What became of it.
struct End {
    /// Where the client was killed, if it was.
    killed: Option<Stage>,
    /// Whether the mail was acknowledged before.
    acknowledged: bool,
}

impl Case {
    fn new(
        authority: &Authority,
        wrong: First,
        (meaning, fault, stage): (&'static str, Fault, Option<Stage>),
        first: &Gateway,
        second: &Gateway,
    ) -> Self {
        let site = Site::new();
        let first = match wrong {
            First::Dead => site.socket(),
            First::Died => first.https,
        };
        let mut settings = ClientSettings::discovering(site.socket(), &[]);
        settings.path = "reply_within = \"2s\"\n".into();
        let gateways = vec![format!("https://{first}/inboundmail"), second.uri_by_address()];
        settings.routes.push(("moon.example".into(), gateways));
        let mut client = world::client(&site, authority, &settings);
        client.start_unready(&site);
        Self {
            wrong,
            meaning,
            fault,
            stage,
            name: format!("{wrong:?}-{}-{}", meaning.replace(' ', "-"), fault.nth),
            gateways: [first, second.https],
            site,
            client,
        }
    }

    /// Takes the mail to its recipient, with the kill on the way.
    fn run(&mut self) -> End {
        let record = self.site.path("calls");
        let (site, fault) = (&self.site, self.fault);
        let (strace, id) = match self.wrong {
            First::Dead => {
                let strace = self.client.fault_from_now(site, fault, Some(&record));
                (Some(strace), self.submit())
            }
            First::Died => {
                let id = self.leave_open();
                self.client.start_with_fault(&self.site, fault, Some(&record));
                (None, Some(id))
            }
        };
        let acknowledged = id.is_some();
        let mut end = None;
        let _ = wait::holds_within(REACHED, || {
            end = self.client.process().ended();
            end.is_some()
        });
        if let Some(mut strace) = strace {
            // It ends with the client; it lets go of one that lives on.
            if end.is_some() {
                strace.wait_end(SOON);
            }
        }
        let killed = end.map(|end| {
            let output = self.client.process().output();
            assert!(was_killed(end), "{}: {end}\n{output}", self.name);
            self.stage_by(&record)
        });
        self.client.kill();
        self.client.start(&self.site);
        // Its submitter repeats it until it is acknowledged, and never after that.
        let id = id.unwrap_or_else(|| wait::until_some("the acknowledgement", SOON, || self.submit()));
        self.client.wait_status(&id, "delivered", SOON);
        End { killed, acknowledged }
    }

    /// Hands over the mail; its id once it is acknowledged.
    fn submit(&self) -> Option<String> {
        let message = corpus::message(&self.name, b"Hello\r\n");
        let request =
            Request::mail(ALICE, &[BOB], &message).header("Idempotency-Key", &format!("\"{}\"", self.name));
        let answer = request.send(self.client.api).ok()?;
        (answer.status == 202).then(|| answer.json()["id"].as_str().unwrap().to_owned())
    }

    /// The mail leaves for the first gateway, which is dead by now, and the client dies before it knows.
    fn leave_open(&mut self) -> String {
        let id = wait::until_some("the acknowledgement", SOON, || self.submit());
        wait::until("the mail leaves", SOON, || {
            self.client.message(&id).to_string().contains("\"sent\"")
        });
        self.client.kill();
        // With sessions, it would go to the dead gateway in the first flight as often as there are tickets.
        let _ = fs::remove_file(self.site.path("client/outbox.db.sessions"));
        id
    }

    /// How far the client had come, by strace's record.
    fn stage_by(&self, record: &Path) -> Stage {
        let calls = fs::read_to_string(record).unwrap();
        let last = |wanted: &[String]| {
            let of_it = |line: &str| wanted.iter().all(|part| line.contains(part));
            calls
                .lines()
                .enumerate()
                .filter(|(_, line)| of_it(line))
                .last()
                .map(|(at, _)| at)
        };
        let last_to = |gateway: SocketAddr| {
            last(&[
                format!("htons({})", gateway.port()),
                format!("{}\"", gateway.ip()),
            ])
        };
        let [first, second] = self.gateways.map(last_to);
        let stored = last(&["fdatasync(".into()]).max(last(&["pwrite64(".into()]));
        match (first, second) {
            (_, Some(_)) => Stage::Second,
            (None, None) => Stage::Before,
            (first, None) if stored > first => Stage::Between,
            _ => Stage::Calling,
        }
    }
}

/// The table of all points.
fn report(cases: &[Case], ends: &[End]) {
    let mut table: BTreeMap<String, (usize, usize, BTreeMap<Stage, usize>)> = BTreeMap::new();
    for (case, end) in cases.iter().zip(ends) {
        let point = format!(
            "first gateway {:?}, before {} ({})",
            case.wrong, case.meaning, case.fault.calls
        );
        let (enumerated, reached, stages) = table.entry(point).or_default();
        *enumerated += 1;
        if let Some(stage) = end.killed {
            *reached += 1;
            *stages.entry(stage).or_default() += 1;
        }
    }
    println!(
        "{:68} reached/enumerated, and at which stage",
        "the client killed"
    );
    for (point, (enumerated, reached, stages)) in &table {
        println!("{point:68} {reached}/{enumerated} {stages:?}");
    }
}

/// Counts what is in the mailbox.
fn judge(cases: &[Case], ends: &[End], dovecot: &Dovecot) {
    let expected: BTreeSet<String> = cases
        .iter()
        .map(|case| format!("<{}@earth.example>", case.name))
        .collect();
    assert_eq!(expected.len(), cases.len(), "two cases of one name");
    let copies = dovecot.copies(&[BOB]);
    let lost: Vec<_> = expected.iter().filter(|id| !copies.contains_key(*id)).collect();
    let twice: Vec<_> = copies.iter().filter(|(_, count)| **count > 1).collect();
    println!(
        "{} mails, {} of them acknowledged before the kill; {} lost, {} more than once",
        cases.len(),
        ends.iter().filter(|end| end.acknowledged).count(),
        lost.len(),
        twice.len()
    );
    assert!(lost.is_empty(), "lost: {lost:?}");
    // No gateway that ever had the mail died, and nothing cuts the SMTP hop: there is no excuse for a second copy.
    assert!(twice.is_empty(), "{twice:?}");
    for (case, end) in cases.iter().zip(ends) {
        assert!(
            case.stage.is_none() || end.killed == case.stage,
            "{}: killed at {:?} instead of {:?}",
            case.name,
            end.killed,
            case.stage
        );
    }
    for stage in [Stage::Before, Stage::Calling, Stage::Between, Stage::Second] {
        for wrong in [First::Dead, First::Died] {
            let met = |(case, end): (&Case, &End)| case.wrong == wrong && end.killed == Some(stage);
            assert!(
                cases.iter().zip(ends).any(met),
                "{wrong:?}: nobody was killed at {stage:?}"
            );
        }
    }
}
