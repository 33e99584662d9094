//! One direction of a path: first copies in order at the path's rate, and repeats beside them. No socket, no clock.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use bytes::Bytes;
use quinn::udp::EcnCodepoint;

use super::redundancy::{Redundancy, Worth};

/// A point in time as quinn's runtimes tell it.
pub(super) type Instant = std::time::Instant;

/// How much lateness of a timer is made up for; more would be a burst.
const LATENESS: Duration = Duration::from_millis(10);
/// First copies after which a repeat is of no use: quinn takes a packet for a duplicate when 129 later ones came before it.
const STALE: u64 = 120;
/// First copies after which a repeat goes before the next one. Until then what has not left yet is worth more: a mail of 4 KiB and what
/// opens its connection are six.
const RIPE: u64 = 8;
/// Repeats that wait at most, of the urgent ones and of those that wait for silence.
const URGENT: usize = 1024;
const TAIL: usize = 64;

/// A UDP datagram on its way out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Datagram {
    pub(super) destination: SocketAddr,
    pub(super) source: Option<std::net::IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) contents: Bytes,
}

impl Datagram {
    /// Octets on the link, headers of UDP and IP included.
    pub(super) fn octets(&self) -> u64 {
        let overhead = match self.destination.ip().to_canonical() {
            std::net::IpAddr::V4(_) => 28,
            std::net::IpAddr::V6(_) => 48,
        };
        self.contents.len() as u64 + overhead
    }
}

/// What a line does to its datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LineOptions {
    /// Bits per second, headers included; `None` leaves pacing to the congestion controller.
    pub rate: Option<f64>,
    /// How much is taken before writers have to wait, as time on the line.
    pub hold: Duration,
    /// What is repeated.
    pub redundancy: Redundancy,
}

impl LineOptions {
    /// Whether the line does nothing at all.
    pub fn is_plain(&self) -> bool {
        self.rate.is_none() && !self.redundancy.repeats()
    }
}

/// What went over a line, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounters {
    /// First copies.
    pub sent: u64,
    /// Octets of first copies, headers included.
    pub sent_octets: u64,
    /// Repeats.
    pub repeated: u64,
    /// Octets of repeats, headers included.
    pub repeated_octets: u64,
    /// Repeats that were due and did not leave: the line was busy for too long, or the peer has sent too little itself.
    pub dropped: u64,
}

#[derive(Debug)]
struct Repeat {
    due: Instant,
    /// How many first copies had left when its own did.
    after: u64,
    /// Copies still to be sent, this one included.
    left: u8,
    datagram: Datagram,
}

/// The state machine. Call [`Line::take`] until it gives nothing, then again at [`Line::next`].
#[derive(Debug)]
pub(super) struct Line {
    options: LineOptions,
    /// When the last bit of what left has left.
    free_at: Option<Instant>,
    queue: VecDeque<Datagram>,
    /// Octets in the queue.
    queued: u64,
    /// Ordered by `due`, for the gap is the same for all.
    urgent: VecDeque<Repeat>,
    tail: VecDeque<Repeat>,
    /// Octets that may still be repeated at once under [`super::Policy::Small`], and since when they grow.
    small: f64,
    small_since: Option<Instant>,
    /// When the last first copy left.
    last: Option<Instant>,
    pub(super) counters: LineCounters,
}

impl Line {
    pub(super) fn new(options: LineOptions) -> Self {
        Self {
            options,
            free_at: None,
            queue: VecDeque::new(),
            queued: 0,
            urgent: VecDeque::new(),
            tail: VecDeque::new(),
            small: options.redundancy.small as f64,
            small_since: None,
            last: None,
            counters: LineCounters::default(),
        }
    }

    pub(super) fn options(&self) -> &LineOptions {
        &self.options
    }

    /// How long writers have to wait until there is room; zero when there is.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let Some(rate) = self.options.rate else {
            return Duration::ZERO;
        };
        let busy = self
            .free_at
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        (busy + time(self.queued, rate)).saturating_sub(self.options.hold)
    }

    /// Takes a first copy.
    pub(super) fn push(&mut self, now: Instant, datagram: Datagram) {
        if self.queue.is_empty() && self.free_at.is_none_or(|at| at < now) {
            // What was not sent while there was nothing to send is no credit for later.
            self.free_at = Some(now);
        }
        self.queued += datagram.octets();
        self.queue.push_back(datagram);
    }

    /// Notes a first copy that left elsewhere, for its repeats.
    pub(super) fn left(&mut self, now: Instant, datagram: Datagram) {
        self.counters.sent += 1;
        self.counters.sent_octets += datagram.octets();
        self.last = Some(now);
        let redundancy = self.options.redundancy;
        let urgent = match redundancy.worth(&datagram.contents) {
            Worth::Nothing => return,
            Worth::Urgent => true,
            Worth::WhileSmall => self.is_small(now, datagram.octets()),
        };
        let repeat = Repeat {
            due: now + redundancy.gap,
            after: self.counters.sent,
            left: redundancy.copies.saturating_sub(1),
            datagram,
        };
        self.plan(repeat, urgent);
    }

    /// Takes what leaves now; `allows` has a word in whether a repeat does.
    pub(super) fn take(
        &mut self,
        now: Instant,
        mut allows: impl FnMut(&Datagram) -> bool,
    ) -> Option<Datagram> {
        if self.free_at.is_some_and(|at| at > now) {
            return None;
        }
        if self.is_pressing(now)
            && let Some(datagram) = self.take_repeat(now, true, &mut allows)
        {
            return Some(datagram);
        }
        let Some(datagram) = self.queue.pop_front() else {
            return self.take_repeat(now, false, &mut allows);
        };
        self.queued -= datagram.octets();
        self.charge(now, &datagram);
        self.left(now, datagram.clone());
        Some(datagram)
    }

    /// Whether what is taken next leaves now, too, and fits behind `first` into one call of the system.
    pub(super) fn continues(&self, now: Instant, first: &Datagram) -> bool {
        let due = self.free_at.is_none_or(|at| at <= now);
        due && !self.is_pressing(now)
            && self.queue.front().is_some_and(|next| {
                (next.destination, next.source, next.ecn) == (first.destination, first.source, first.ecn)
                    && next.contents.len() <= first.contents.len()
            })
    }

    /// Whether an urgent repeat goes before the first copies that wait. A small mail leaves whole before its repeats do.
    fn is_pressing(&self, now: Instant) -> bool {
        self.urgent.front().is_some_and(|repeat| {
            repeat.due <= now && (self.queue.is_empty() || self.counters.sent - repeat.after >= RIPE)
        })
    }

    /// When there is something to take; `None` when nothing waits.
    pub(super) fn next(&self) -> Option<Instant> {
        if !self.queue.is_empty() {
            return self.free_at;
        }
        let urgent = self.urgent.front().map(|repeat| repeat.due);
        let tail = self
            .tail
            .front()
            .map(|repeat| self.quiet().map_or(repeat.due, |at| at.max(repeat.due)));
        let due = urgent.into_iter().chain(tail).min()?;
        Some(self.free_at.map_or(due, |at| at.max(due)))
    }

    /// Of two datagrams that leave at once the second one leaves when the first has left.
    fn charge(&mut self, now: Instant, datagram: &Datagram) {
        let Some(rate) = self.options.rate else {
            return;
        };
        let earliest = now.checked_sub(LATENESS).unwrap_or(now);
        let start = self.free_at.unwrap_or(now).max(earliest);
        self.free_at = Some(start + time(datagram.octets(), rate));
    }

    /// Since when the line is taken for quiet. Where there is a rate an empty queue says so; else only time does.
    fn quiet(&self) -> Option<Instant> {
        match self.options.rate {
            Some(_) => None,
            None => self.last.map(|last| last + self.options.redundancy.gap),
        }
    }

    fn take_repeat(
        &mut self,
        now: Instant,
        urgent: bool,
        allows: &mut impl FnMut(&Datagram) -> bool,
    ) -> Option<Datagram> {
        if !urgent && self.quiet().is_some_and(|at| at > now) {
            return None;
        }
        loop {
            let repeats = if urgent { &mut self.urgent } else { &mut self.tail };
            let mut repeat = repeats.pop_front_if(|repeat| repeat.due <= now)?;
            if self.counters.sent - repeat.after > STALE || !allows(&repeat.datagram) {
                self.counters.dropped += 1;
                continue;
            }
            let datagram = repeat.datagram.clone();
            if self.queue.is_empty() && self.free_at.is_some_and(|at| at < repeat.due) {
                self.free_at = Some(repeat.due);
            }
            self.charge(now, &datagram);
            repeat.left -= 1;
            repeat.due = now + self.options.redundancy.gap;
            self.counters.repeated += 1;
            self.counters.repeated_octets += datagram.octets();
            self.plan(repeat, urgent);
            return Some(datagram);
        }
    }

    fn plan(&mut self, repeat: Repeat, urgent: bool) {
        if repeat.left == 0 {
            return;
        }
        let (repeats, most) = match urgent {
            true => (&mut self.urgent, URGENT),
            false => (&mut self.tail, TAIL),
        };
        repeats.push_back(repeat);
        if repeats.len() > most {
            // The latest are worth most: nothing that follows would tell the peer that they are missing.
            repeats.pop_front();
            self.counters.dropped += 1;
        }
    }

    /// Whether `octets` still count as a small mail. The allowance comes back at an eighth of the rate, so that a steady stream of
    /// them costs no more than that.
    fn is_small(&mut self, now: Instant, octets: u64) -> bool {
        let most = self.options.redundancy.small as f64;
        let since = self.small_since.replace(now).unwrap_or(now);
        let grown = self.options.rate.map_or(most, |rate| rate / 64.0);
        let passed = now.saturating_duration_since(since).as_secs_f64();
        self.small = (self.small + grown * passed).min(most);
        let small = self.small >= octets as f64;
        if small {
            self.small -= octets as f64;
        }
        small
    }
}

/// How long `octets` take at `rate` bits per second.
fn time(octets: u64, rate: f64) -> Duration {
    Duration::try_from_secs_f64(octets as f64 * 8.0 / rate).unwrap_or(Duration::MAX / 4)
}
