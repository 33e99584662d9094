//! `kill -9` of a client and a gateway: on entering enumerated system calls and at moments that a seed chose, and the table of both.
//!
//! The killed program is the release binary without any hook: strace kills it on entering its Nth call of a kind. Before the
//! Nth sync is before a commit, before the next call after it is behind the commit; datagrams, answers and connections are
//! walked through in the same way (`docs/decisions/0002-kill-points-are-system-calls.md`).

use std::{collections::BTreeMap, time::Duration};

use crate::{
    Site,
    corpus::Noise,
    dovecot::Dovecot,
    ledger::{Ledger, drain},
    lmtp_tap::Tap,
    process::was_killed,
    programs::{Fault, Program},
    wait,
};

/// Streams of mails meanwhile.
const SUBMITTERS: usize = 3;
/// A program that has not come to its point within this time under load does not come to it.
const REACHED: Duration = Duration::from_secs(5);

/// Calls of one kind, what dying before them means, and which of them.
#[derive(Clone, Copy, Debug)]
pub struct Points {
    /// What the calls are.
    pub meaning: &'static str,
    /// Their names, with commas.
    pub calls: &'static str,
    /// [`Fault::files`]
    pub files: &'static [&'static str],
    /// Their numbers.
    pub steps: &'static [u32],
}

impl Points {
    /// Calls on any file.
    pub const fn new(meaning: &'static str, calls: &'static str, steps: &'static [u32]) -> Self {
        Self {
            meaning,
            calls,
            files: &[],
            steps,
        }
    }

    /// Only those on `files`.
    #[must_use]
    pub const fn on(mut self, files: &'static [&'static str]) -> Self {
        self.files = files;
        self
    }
}

/// Which of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// The client.
    Client,
    /// The gateway, whose kills excuse second copies.
    Gateway,
}

/// Where the two programs are killed, and how often at moments of no choice.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'w> {
    /// The client's points.
    pub client: &'w [Points],
    /// The gateway's.
    pub gateway: &'w [Points],
    /// Random kills behind them.
    pub random: usize,
}

impl Walk<'_> {
    /// Sends mails to `boxes` through both programs, which run, and kills them meanwhile: all that was acknowledged arrives, none twice without
    /// excuse, and no kind of point was left out.
    pub fn judge(
        self,
        site: &Site,
        client: &mut Program,
        gateway: &mut Program,
        tap: &Tap,
        (dovecot, boxes): (&Dovecot, &[&str]),
    ) {
        let ledger = Ledger::default();
        let api = client.api;
        let mut kills = Kills::default();
        std::thread::scope(|scope| {
            let stopper = ledger.stopper();
            for number in 0..SUBMITTERS {
                let ledger = &ledger;
                scope.spawn(move || ledger.submit_stream(number, api, boxes));
            }
            kills.enumerated(site, client, Role::Client, self.client, tap);
            kills.enumerated(site, gateway, Role::Gateway, self.gateway, tap);
            kills.random(site, client, gateway, tap, self.random);
            drop(stopper);
        });
        drain(client, gateway);
        kills.print();
        ledger.judge(
            (dovecot, boxes),
            &tap.passages(),
            &kills.gateway_killed_at,
            (client, gateway),
        );
        let never = kills.never_reached();
        assert!(never.is_empty(), "never killed there: {never:?}");
    }
}

/// What was killed where.
#[derive(Debug, Default)]
struct Kills {
    /// Program, point: how often it was killed there, and how often the point was not reached.
    table: BTreeMap<(Role, String), (usize, usize)>,
    /// When the gateway was killed, by the tap's clock.
    gateway_killed_at: Vec<Duration>,
}

impl Kills {
    /// Walks through all points of a program, which runs again afterwards.
    fn enumerated(&mut self, site: &Site, program: &mut Program, role: Role, points: &[Points], tap: &Tap) {
        for point in points {
            let Points {
                meaning,
                calls,
                files,
                steps,
            } = *point;
            for nth in steps {
                program.kill();
                self.note(role, tap);
                let fault = Fault {
                    calls,
                    files,
                    nth: *nth,
                };
                program.start_with_fault(site, fault, None);
                let mut end = None;
                let ended = wait::holds_within(REACHED, || {
                    end = program.process().ended();
                    end.is_some()
                });
                if let Some(end) = end {
                    assert!(
                        was_killed(end),
                        "{role:?} before {calls} {nth}: {end}\n{}",
                        program.process().output()
                    );
                    self.note(role, tap);
                }
                let count = self
                    .table
                    .entry((role, format!("before {meaning} ({calls})")))
                    .or_default();
                *(if ended { &mut count.0 } else { &mut count.1 }) += 1;
            }
        }
        program.kill();
        self.note(role, tap);
        program.start(site);
    }

    /// Kills one or the other or both, so often.
    fn random(&mut self, site: &Site, client: &mut Program, gateway: &mut Program, tap: &Tap, times: usize) {
        let mut noise = Noise::new(2442);
        for _ in 0..times {
            wait::pause(Duration::from_millis(30 + noise.below(500)));
            let which = noise.below(5);
            if which != 0 {
                gateway.kill();
                self.note(Role::Gateway, tap);
                self.at_random(Role::Gateway);
            }
            if which <= 2 {
                client.kill();
                self.at_random(Role::Client);
                client.start(site);
            }
            if which != 0 {
                gateway.start(site);
            }
        }
    }

    fn at_random(&mut self, role: Role) {
        self.table
            .entry((role, "at a random moment".into()))
            .or_default()
            .0 += 1;
    }

    fn note(&mut self, role: Role, tap: &Tap) {
        if role == Role::Gateway {
            self.gateway_killed_at.push(tap.watch.elapsed());
        }
    }

    /// Prints the table.
    fn print(&self) {
        println!(
            "{:8} {:56} {:>6} {:>12}",
            "program", "killed", "times", "not reached"
        );
        for ((role, point), (killed, missed)) in &self.table {
            println!("{:8} {point:56} {killed:6} {missed:12}", format!("{role:?}"));
        }
    }

    /// The points, by program, at which it was never killed.
    fn never_reached(&self) -> Vec<String> {
        let never = self.table.iter().filter(|(_, (killed, _))| *killed == 0);
        never
            .map(|((role, point), _)| format!("{role:?} {point}"))
            .collect()
    }
}
