//! Mails in a stream, what was acknowledged of them, and what has to be in the mailboxes in the end.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use crate::{
    corpus::{self, Noise},
    dovecot::Dovecot,
    http::Request,
    lmtp_tap::Passage,
    programs::Program,
    wait,
};

/// The longest that queues take to get empty.
const DRAINED: Duration = Duration::from_secs(180);

/// Between the end of a killed gateway's connection and the note of the kill there is less than this, on a machine with much to do, too.
const NOTED: Duration = Duration::from_secs(2);

/// What the submitters know.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Message-IDs of mails that were answered 202.
    acknowledged: Mutex<BTreeSet<String>>,
    /// Mails whose submitter gave up without an answer.
    unknown: AtomicUsize,
    stop: AtomicBool,
}

/// Ends the submitters when it is dropped, whichever way the kills end.
#[derive(Debug)]
pub struct Stopper<'s>(&'s AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Ledger {
    /// What ends [`Ledger::submit_stream`].
    pub fn stopper(&self) -> Stopper<'_> {
        Stopper(&self.stop)
    }

    /// Mails one after the other to one of `boxes`, each with a key of its own. Most are repeated until they are answered; some are not.
    pub fn submit_stream(&self, number: usize, api: SocketAddr, boxes: &[&str]) {
        let mut noise = Noise::new(number as u64);
        let mut count = 0;
        while !self.stop.load(Ordering::Relaxed) {
            count += 1;
            let name = format!("s{number}-{count}");
            let size = if noise.below(20) == 0 {
                400_000
            } else {
                200 + noise.below(6000) as usize
            };
            let message = corpus::attachment(&name, size);
            let recipient = boxes[noise.below(boxes.len() as u64) as usize];
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
                answered || self.stop.load(Ordering::Relaxed)
            });
            if answered {
                let id = format!("<{name}@earth.example>");
                self.acknowledged.lock().unwrap().insert(id);
            } else {
                self.unknown.fetch_add(1, Ordering::Relaxed);
            }
            wait::pause(Duration::from_millis(20 + noise.below(60)));
        }
    }

    /// Counts what is in the mailboxes: everything acknowledged, and nothing twice but for two excuses. The answer to a copy may have been cut off, or
    /// the gateway killed before it had recorded it: then its history knows of one delivery only.
    pub fn judge(
        &self,
        (dovecot, boxes): (&Dovecot, &[&str]),
        passages: &[Passage],
        gateway_killed_at: &[Duration],
        (client, gateway): (&Program, &Program),
    ) {
        let copies = dovecot.copies(boxes);
        let acknowledged = self.acknowledged.lock().unwrap();
        let lost: Vec<&String> = acknowledged
            .iter()
            .filter(|id| !copies.contains_key(*id))
            .collect();
        let (mut cut, mut unrecorded, mut wrong) = (0, Vec::new(), Vec::new());
        let sent = client.messages();
        let killed_about = |gone: Duration| gateway_killed_at.iter().any(|kill| kill.abs_diff(gone) < NOTED);
        for (id, count) in copies.iter().filter(|(_, count)| **count > 1) {
            let of_it: Vec<&Passage> = passages.iter().filter(|passage| passage.mail == *id).collect();
            let Some(known) = sent.iter().find(|message| is_of(message, id)) else {
                wrong.push(format!(
                    "{id} {count} times, and the client does not know it: {of_it:?}"
                ));
                continue;
            };
            let there = gateway.message(known["id"].as_str().unwrap());
            let recorded = there["history"].as_array().map_or(0, |history| {
                let delivered = history.iter().filter(|event| event["kind"] == "delivered");
                delivered.count()
            });
            if recorded != 1 {
                wrong.push(format!(
                    "{id} {count} times, recorded {recorded} times: {of_it:?}; the gateway: {there}"
                ));
                continue;
            }
            for (passage, next) in of_it.iter().zip(of_it.iter().skip(1)) {
                match passage.answered {
                    None => cut += 1,
                    // The 250 was on its way to the gateway or being recorded when the gateway died, and its connection with it.
                    Some(at) => match passage.gone.filter(|_| next.connection != passage.connection) {
                        Some(gone) if killed_about(gone) => unrecorded.push(gone.saturating_sub(at)),
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
            self.unknown.load(Ordering::Relaxed),
            copies.len(),
            lost.len(),
            wrong.len()
        );
        for id in lost.iter().take(3) {
            let known = sent.iter().find(|message| is_of(message, id));
            println!("lost: {id}: {known:#?}");
        }
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(acknowledged.len() > 100, "hardly any mail");
    }
}

/// Whether a message of the client's is the one with this Message-ID: its submitter's key is the first half of it.
fn is_of(message: &Value, id: &str) -> bool {
    let key = id.trim_matches(['<', '>']).replace("@earth.example", "");
    message["origin_id"].to_string().contains(&format!("{key}\""))
}

/// Waits until the queues of both are empty.
pub fn drain(client: &Program, gateway: &Program) {
    let watch = wait::Watch::start();
    let empty = wait::holds_within(DRAINED, || {
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
