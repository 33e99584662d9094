//! Durable accept: what a sender waits for.
//!
//! Both sides keep what they get and deliver nothing: Postfix defers its one transport, our gateway does not exist.

use std::path::Path;

use lightpost_clock::Clock;

use crate::{
    Result, lightpost, load,
    place::Place,
    postfix::{self, Postfix},
    report::{Progress, Row},
};

const CONNECTIONS: usize = 20;
const SIZE: usize = 4096;

/// Runs the measurement.
pub(crate) async fn run(place: &Place, binary: &Path, mails: usize, progress: &Progress) -> Result<Vec<Row>> {
    let clock = Clock::system();
    progress.say(&format!(
        "Postfix {}: {mails} mails of {SIZE} octets on {CONNECTIONS} connections",
        Postfix::version()
    ));
    let theirs = {
        let postfix = Postfix::start(place, None, &clock).await?;
        postfix::push(postfix.address, CONNECTIONS, SIZE, mails / 10, &clock).await?;
        let took = postfix::push(postfix.address, CONNECTIONS, SIZE, mails, &clock).await?;
        mails as f64 / took.as_secs_f64()
    };
    progress.say(&format!("  {theirs:.0} mails/s"));
    let many = mails * 10;
    progress.say(&format!(
        "Lightpost: {many} mails of {SIZE} octets on {CONNECTIONS} connections"
    ));
    let ours = {
        let client = lightpost::Client::start(place, binary, &lightpost::nowhere()?, &clock).await?;
        let body = load::mail(SIZE);
        load::push(client.ingest, CONNECTIONS, &body, many / 10, &clock).await?;
        let took = load::push(client.ingest, CONNECTIONS, &body, many, &clock).await?;
        many as f64 / took.as_secs_f64()
    };
    progress.say(&format!("  {ours:.0} mails/s"));
    Ok(vec![Row::beside("accept", ours, theirs, "mails/s")])
}
