//! An agent with a large queue: how soon it listens, what memory it takes, and whether it sends as fast as with a small one.
//!
//! Rates are taken at the gateway, from the times at which it accepted the first thousand mails after a start of both programs: with
//! a thousand mails there is nothing more to measure. The median of several starts counts.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use lightpost_clock::{Clock, add, until};
use lightpost_mail::{
    Recipient, Sender,
    lines::{BareLineEnds, Canonicaliser},
};
use lightpost_queue::{NewBody, NewMessage, NewRecipient, Store, Submission, sqlite::SqliteStore};
use ulid::Ulid;

use crate::{
    Result,
    lightpost::{Client, Server, Way},
    load,
    place::{Place, free},
    report::{Progress, Row},
    sink::Sink,
};

/// Mails of the small queue, and those of a start that are timed.
const FEW: usize = 1000;
/// Starts whose median counts.
const ROUNDS: usize = 5;
/// Mails per transaction of the filling.
const BATCH: usize = 500;
/// Octets on the disk for a 4 KiB mail, with its rows and the room that SQLite takes for itself; generous.
const ON_DISK: u64 = 9000;

/// Runs the measurement.
pub(crate) async fn run(place: &Place, binary: &Path, mails: usize, progress: &Progress) -> Result<Vec<Row>> {
    let clock = Clock::system();
    let body = body(place, mails, progress)?;
    let few = {
        let mut rates = Vec::new();
        for round in 0..ROUNDS {
            let place = place.below(&format!("few-{round}"))?;
            fill(&place, FEW, &body, &clock, progress).await?;
            rates.push(start(&place, binary, 0, &clock).await?.rate);
            place.remove();
        }
        progress.say(&format!("{FEW} queued mails: {}", listed(&rates)));
        median(rates)
    };
    let many = place.below("many")?;
    fill(&many, mails, &body, &clock, progress).await?;
    let (mut rates, mut starts, mut memory) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        // The last start goes on for a while, so that memory shows what it comes to.
        let more = if round + 1 == ROUNDS {
            (mails / 50).min(20_000)
        } else {
            0
        };
        let started = start(&many, binary, more, &clock).await?;
        rates.push(started.rate);
        starts.push(started.listening.as_secs_f64());
        memory = memory.max(started.memory);
    }
    progress.say(&format!("{mails} queued mails: {}", listed(&rates)));
    let many = median(rates);
    Ok(vec![
        Row::alone("start_s", median(starts), "s"),
        Row::alone("rss_mb", memory as f64 / 1e6, "MB"),
        Row::alone("dispatch_ratio", many / few, "1"),
        Row::beside("dispatch", many, few, "mails/s"),
    ])
}

/// What a start of both programs showed.
struct Started {
    /// From the start of the program until it answered.
    listening: Duration,
    /// Mails per second at the gateway.
    rate: f64,
    /// Octets at most.
    memory: u64,
}

async fn start(place: &Place, binary: &Path, more: usize, clock: &Clock) -> Result<Started> {
    let sink = Sink::start(clock).await?;
    let (server, gateway) = Server::start(place, binary, sink.address, Way::Http3, clock).await?;
    let begun = clock.now();
    let started = clock.instant();
    let client = Client::start(place, binary, &gateway, Way::Http3, clock).await?;
    load::get(client.ingest, "/v1/health").await?;
    let listening = started.elapsed();
    sink.arrived(FEW + more, clock).await?;
    let times = accepted(&server, begun, FEW).await?;
    let memory = client.process.peak_memory().unwrap_or(0);
    client.process.end(clock).await?;
    server.process.end(clock).await?;
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return Err("the gateway has accepted nothing".into());
    };
    Ok(Started {
        listening,
        rate: (times.len() - 1) as f64 / until(*first, *last).as_secs_f64().max(1e-6),
        memory,
    })
}

/// When the gateway accepted the first `count` mails after `begun`.
async fn accepted(server: &Server, begun: Timestamp, count: usize) -> Result<Vec<Timestamp>> {
    let after = Ulid::from_parts(begun.as_millisecond().unsigned_abs(), 0);
    let page = load::get(server.admin, &format!("/v1/messages?limit={count}&after={after}")).await?;
    let messages = page.get("messages").and_then(serde_json::Value::as_array);
    let mut times: Vec<Timestamp> = messages
        .into_iter()
        .flatten()
        .filter_map(|message| message.get("accepted")?.as_str()?.parse().ok())
        .collect();
    times.sort();
    if times.len() < count {
        return Err(format!(
            "the gateway shows {} mails instead of {count}",
            times.len()
        ));
    }
    Ok(times)
}

/// A mail of 4 KiB, or a small one where the disk has no room for so many.
fn body(place: &Place, mails: usize, progress: &Progress) -> Result<Bytes> {
    let room = free(place.path()).unwrap_or(u64::MAX);
    let wanted = mails as u64 * ON_DISK;
    let size = if room > wanted { 4096 } else { 256 };
    if size < 4096 {
        progress.say(&format!(
            "{} MB are free and {} MB wanted: mails of {size} octets instead of 4096",
            room / 1_000_000,
            wanted / 1_000_000
        ));
    }
    Ok(load::mail(size))
}

/// Puts `mails` mails that are due now into the agent's database.
async fn fill(place: &Place, mails: usize, body: &Bytes, clock: &Clock, progress: &Progress) -> Result<()> {
    let failed = |error: lightpost_queue::StoreError| error.to_string();
    let database = place.folder("client")?.join("outbox.db");
    let store = SqliteStore::open(&database, clock.clone())
        .await
        .map_err(failed)?;
    let mut canonical = Vec::new();
    let mut machine = Canonicaliser::new(BareLineEnds::Refuse);
    machine
        .push(body, &mut canonical)
        .map_err(|error| error.to_string())?;
    let facts = machine
        .finish(&mut canonical)
        .map_err(|error| error.to_string())?;
    let canonical = Bytes::from(canonical);
    let started = clock.instant();
    let mut done = 0;
    while done < mails {
        let now = clock.now();
        let batch = BATCH.min(mails - done);
        let messages = (0..batch)
            .map(|_| message(now, canonical.clone(), facts))
            .collect::<Result<_>>()?;
        let submission = Submission {
            key: None,
            reply: lightpost_queue::StoredReply::default(),
            messages,
            charges: Vec::new(),
        };
        store.enqueue(submission).await.map_err(failed)?;
        done += batch;
        progress.step(&format!("filling: {done} of {mails}"));
    }
    store.close().await;
    if mails > FEW {
        let seconds = started.elapsed().as_secs_f64();
        progress.say(&format!("filled with {mails} mails in {seconds:.0} s"));
    }
    Ok(())
}

fn message(now: Timestamp, body: Bytes, facts: lightpost_mail::lines::BodyFacts) -> Result<NewMessage> {
    let wrong = |error: lightpost_mail::envelope::ArgumentError| error.to_string();
    let sender: Sender = "<alice@earth.example>".parse().map_err(wrong)?;
    let recipient: Recipient = "<bob@moon.example>".parse().map_err(wrong)?;
    Ok(NewMessage {
        id: Ulid::generate(),
        sender,
        recipients: vec![NewRecipient {
            destination: recipient.address.destination(),
            recipient,
            due: now,
            expires: add(now, Duration::from_secs(5 * 86_400)),
            notice: None,
        }],
        body: NewBody::Inline(body),
        facts,
        priority: 0,
        origin: "bench".into(),
        origin_id: None,
        upstream: None,
        accepted: now,
        hold: None,
        notes: Vec::new(),
    })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn listed(rates: &[f64]) -> String {
    let rates: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
    format!("{} mails/s at the gateway", rates.join(", "))
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle_one() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }
}
