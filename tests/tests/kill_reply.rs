//! `kill -9` of the gateway between its router's answer and the hand-over of the reply's bundle: the mail and the answer are on disk, the
//! reply is not. The reply comes all the same, once the gateway is back, and the mail is there once.
//!
//! The node's store sees three commits of a mail: the request's bundle, the reply's, and that the request is dealt with. A gateway that is
//! killed on a write to that store's log behind the first commit and before the second has answered, and its answer is in the inbox,
//! for the reply is made of it; but nothing of the reply is in the store that the next process reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{fs, path::Path, time::Duration};

use lightpost_tests::{
    bundles::{ALICE, BOB, World},
    corpus,
    process::was_killed,
    programs::Fault,
    wait,
};

const SOON: Duration = Duration::from_secs(60);
const LOG: &[&str] = &["moon/bundles/bundles.db-wal"];
/// More writes than one mail makes.
const NEVER: u32 = 60_000;
/// Small ones are not looked up before they are read.
const OCTETS: usize = 150_000;

/// A write to the store's log, or its sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Write,
    Sync,
}

#[test]
fn a_reply_whose_gateway_dies_before_it_is_sent_comes_all_the_same() {
    let mut world = World::new(
        "transports = [\"bundle\"]\nreply_within = \"50s\"\n",
        "",
        "ipn:2.25",
    );
    world.client.start(&world.site);
    world.gateway.program.start(&world.site);
    let first = world
        .client
        .submit(ALICE, &[BOB], &corpus::attachment("first", OCTETS));
    world.client.wait_status(&first, "delivered", SOON);
    world.dovecot.wait_mails(BOB, 1);

    let (request, reply) = writes(&mut world);
    println!("writes to the node's store: {request} of the request, {reply} of the reply");
    let mut died = [0; 3];
    let steps = [-1, 1, 2, 3, reply / 2, reply - 1, reply, reply + 1];
    for (index, step) in steps.into_iter().enumerate() {
        let nth = u32::try_from(request + step).unwrap();
        died[killed_at(&mut world, nth, &format!("case-{index}"), index + 3) as usize] += 1;
    }
    let [before, between, behind] = died;
    println!(
        "killed {before} times before the request was stored, {between} between answer and reply, {behind} behind the reply"
    );
    assert!(between >= 4, "the gateway was hardly ever killed between the two");
    // A request that was not noted as dealt with is answered once more. Every other exchange was settled by one reply.
    let log = world.client.process().output();
    let late = log.matches("nobody waits for").count();
    assert!(late <= behind, "{late} replies too many: {log}");
}

/// How many writes the request of one mail makes, and how many its reply.
fn writes(world: &mut World) -> (i32, i32) {
    let record = world.site.path("calls");
    let fault = Fault {
        calls: "pwrite64",
        files: LOG,
        nth: NEVER,
    };
    let mut strace = world
        .gateway
        .program
        .fault_from_now(&world.site, fault, Some(&record));
    let id = world
        .client
        .submit(ALICE, &[BOB], &corpus::attachment("counted", OCTETS));
    world.client.wait_status(&id, "delivered", SOON);
    world.dovecot.wait_mails(BOB, 2);
    wait::until("the request is dealt with", SOON, || {
        calls(&record).iter().filter(|call| **call == Call::Sync).count() >= 3
    });
    strace.stop();
    let calls = calls(&record);
    let mut commits = calls.split(|call| *call == Call::Sync);
    let mut next = || i32::try_from(commits.next().unwrap().len()).unwrap();
    (next(), next())
}

/// Where in the passage of a mail the gateway died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Died {
    BeforeRequest,
    Between,
    BehindReply,
}

/// Kills the gateway on its `nth` write of a mail, and sees that mail through. `mails` is how many have to be in the mailbox then.
fn killed_at(world: &mut World, nth: u32, name: &str, mails: usize) -> Died {
    let record = world.site.path(name);
    let fault = Fault {
        calls: "pwrite64",
        files: LOG,
        nth,
    };
    let repeats = repeats(world);
    // Nothing is handed on meanwhile, so that no kill cuts the hop to the mailbox.
    world.dovecot.kill();
    let _strace = world
        .gateway
        .program
        .fault_from_now(&world.site, fault, Some(&record));
    let id = world
        .client
        .submit(ALICE, &[BOB], &corpus::attachment(name, OCTETS));
    let end = world.gateway.program.process().wait_end(SOON);
    assert!(was_killed(end), "{name}: {end}");
    let commits = calls(&record).iter().filter(|call| **call == Call::Sync).count();
    let died = match commits {
        0 => Died::BeforeRequest,
        1 => Died::Between,
        _ => Died::BehindReply,
    };
    if died == Died::Between {
        world.client.wait_status(&id, "awaiting", SOON);
    }

    world.dovecot.start_again(&world.site);
    world.gateway.program.kill();
    world.gateway.program.start(&world.site);
    world.client.wait_status(&id, "delivered", SOON);
    world.dovecot.wait_mails(BOB, mails);
    wait::until("the gateway has handed it on", SOON, || {
        world.gateway.program.unfinished() == Some(0)
    });
    assert_eq!(world.dovecot.mails(BOB).len(), mails, "{name}: once");
    assert_eq!(world.client.unfinished(), Some(0));
    let history = world.client.message(&id).to_string();
    assert!(
        !history.contains("resent"),
        "{name}: the client repeated it: {history}"
    );
    if died == Died::Between {
        assert_eq!(
            self::repeats(world),
            repeats + 1,
            "{name}: the answer was not on disk"
        );
    }
    died
}

/// How often the gateway answered from its store.
fn repeats(world: &mut World) -> usize {
    let log = world.gateway.program.process().output();
    log.matches("a repeat; answered from the store").count()
}

fn calls(record: &Path) -> Vec<Call> {
    let text = fs::read_to_string(record).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            if line.contains("pwrite64(") {
                Some(Call::Write)
            } else if line.contains("sync(") {
                Some(Call::Sync)
            } else {
                None
            }
        })
        .collect()
}
