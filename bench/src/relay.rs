//! End to end: from the hand-over to the far SMTP server, which is the same program for both sides.

use std::path::Path;

use lightpost_clock::Clock;

use crate::{
    Result, lightpost,
    load::{self, Connections},
    place::Place,
    postfix::{self, Postfix},
    report::{Progress, Row},
    sink::Sink,
};

const CONNECTIONS: (usize, Connections) = (20, Connections::Kept);
const SIZE: usize = 4096;

/// Runs the measurement.
pub(crate) async fn run(place: &Place, binary: &Path, mails: usize, progress: &Progress) -> Result<Vec<Row>> {
    let clock = Clock::system();
    progress.say(&format!(
        "smtp-source, Postfix {}, smtp-sink: {mails} mails of {SIZE} octets",
        Postfix::version()
    ));
    let theirs = {
        let sink = Sink::start(&clock).await?;
        let postfix = Postfix::start(place, Some(sink.address), &clock).await?;
        let warm = mails / 10;
        postfix::push(postfix.address, CONNECTIONS, SIZE, warm, &clock).await?;
        sink.arrived(warm, &clock).await?;
        let started = clock.instant();
        postfix::push(postfix.address, CONNECTIONS, SIZE, mails, &clock).await?;
        let ended = sink.arrived(warm + mails, &clock).await?;
        mails as f64 / ended.duration_since(started).as_secs_f64()
    };
    progress.say(&format!("  {theirs:.0} mails/s"));
    let many = mails * 5;
    progress.say(&format!(
        "REST, client, HTTP/3, server, smtp-sink: {many} mails of {SIZE} octets"
    ));
    let ours = {
        let sink = Sink::start(&clock).await?;
        let pair = lightpost::Pair::start(place, binary, sink.address, &clock).await?;
        let body = load::mail(SIZE);
        let warm = many / 10;
        load::push(pair.client.ingest, CONNECTIONS, &body, warm, &clock).await?;
        sink.arrived(warm, &clock).await?;
        let started = clock.instant();
        let accepted = load::push(pair.client.ingest, CONNECTIONS, &body, many, &clock).await?;
        let ended = sink.arrived(warm + many, &clock).await?;
        progress.say(&format!("  accepted within {:.1} s", accepted.as_secs_f64()));
        many as f64 / ended.duration_since(started).as_secs_f64()
    };
    progress.say(&format!("  {ours:.0} mails/s"));
    Ok(vec![Row::beside("relay", ours, theirs, "mails/s")])
}
