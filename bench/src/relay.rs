//! End to end: from the hand-over to the far SMTP server, which is the same program for both sides.

use std::path::Path;

use lightpost_clock::Clock;

use crate::{
    Result,
    lightpost::{self, Way},
    load::{self, Connections},
    place::Place,
    postfix::{self, Postfix},
    report::{Progress, Row},
    sink::Sink,
};

const CONNECTIONS: (usize, Connections) = (20, Connections::Kept);
const SIZE: usize = 4096;

/// Both sides take turns this often.
const ROUNDS: usize = 5;

/// Runs the measurement.
pub(crate) async fn run(place: &Place, binary: &Path, mails: usize, progress: &Progress) -> Result<Vec<Row>> {
    progress.say(&format!(
        "smtp-source, Postfix {}, smtp-sink: {mails} mails of {SIZE} octets; REST, client, HTTP/3, server, smtp-sink: {}",
        Postfix::version(),
        mails * 4
    ));
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let place = place.below(&format!("relay-{round}"))?;
        let theirs = theirs(&place, mails).await?;
        let ours = through(&place, binary, Way::Http3, mails * 4).await?;
        place.remove();
        progress.say(&format!(
            "  round {round}: Postfix {theirs:.0} mails/s, Lightpost {ours:.0} mails/s"
        ));
        rounds.push((ours, theirs));
    }
    Ok(vec![Row::of_rounds("relay", &rounds, "mails/s")])
}

async fn theirs(place: &Place, mails: usize) -> Result<f64> {
    let clock = Clock::system();
    let sink = Sink::start(&clock).await?;
    let postfix = Postfix::start(place, Some(sink.address), &clock).await?;
    let warm = mails / 10;
    postfix::push(postfix.address, CONNECTIONS, SIZE, warm, &clock).await?;
    sink.arrived(warm, &clock).await?;
    let started = clock.instant();
    postfix::push(postfix.address, CONNECTIONS, SIZE, mails, &clock).await?;
    let ended = sink.arrived(warm + mails, &clock).await?;
    Ok(mails as f64 / ended.duration_since(started).as_secs_f64())
}

/// Mails per second through both programs.
pub(crate) async fn through(place: &Place, binary: &Path, way: Way<'_>, mails: usize) -> Result<f64> {
    let clock = Clock::system();
    let sink = Sink::start(&clock).await?;
    let pair = lightpost::Pair::start(place, binary, sink.address, way, &clock).await?;
    let body = load::mail(SIZE);
    let warm = mails / 10;
    load::push(pair.client.ingest, CONNECTIONS, &body, warm, &clock).await?;
    sink.arrived(warm, &clock).await?;
    let started = clock.instant();
    load::push(pair.client.ingest, CONNECTIONS, &body, mails, &clock).await?;
    let ended = sink.arrived(warm + mails, &clock).await?;
    Ok(mails as f64 / ended.duration_since(started).as_secs_f64())
}
