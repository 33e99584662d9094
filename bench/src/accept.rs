//! Durable accept: what a sender waits for.
//!
//! Both sides keep what they get and deliver nothing: Postfix defers its one transport, our gateway does not exist.

use std::{path::Path, time::Duration};

use lightpost_clock::Clock;

use crate::{
    Result, lightpost,
    load::{self, Connections},
    place::Place,
    postfix::{self, Postfix},
    report::{Progress, Row},
};

const CONNECTIONS: usize = 20;
const SIZE: usize = 4096;
/// Both sides take turns this often.
const ROUNDS: usize = 5;

/// How mail comes to our agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Via {
    /// By REST, from a loader of our own.
    Rest,
    /// By SMTP, from the smtp-source that loads Postfix.
    Smtp,
}

/// Runs the measurement, with connections that are kept and with one for each mail.
pub(crate) async fn run(
    place: &Place,
    binary: &Path,
    (via, mails): (Via, usize),
    progress: &Progress,
) -> Result<Vec<Row>> {
    let names = match via {
        Via::Rest => ["accept", "accept_connect"],
        Via::Smtp => ["accept_smtp", "accept_smtp_connect"],
    };
    let mut rows = Vec::new();
    for (name, kind) in names.into_iter().zip([Connections::Kept, Connections::PerMail]) {
        let connections = match kind {
            Connections::Kept => "kept open",
            Connections::PerMail => "each for one mail",
        };
        progress.say(&format!(
            "{CONNECTIONS} connections at a time, {connections}, mails of {SIZE} octets"
        ));
        let mut rounds = Vec::new();
        for round in 1..=ROUNDS {
            // A queue of its own for each: what the last round left behind would be looked through at the start.
            let place = place.below(&format!("{name}-{round}"))?;
            let theirs = theirs(&place, kind, mails).await?;
            let ours = ours(&place, binary, (via, kind), mails * 6).await?;
            place.remove();
            progress.say(&format!(
                "  round {round}: Postfix {} {theirs:.0} mails/s, Lightpost {ours:.0} mails/s",
                Postfix::version()
            ));
            rounds.push((ours, theirs));
        }
        rows.push(Row::of_rounds(name, &rounds, "mails/s"));
    }
    Ok(rows)
}

async fn theirs(place: &Place, kind: Connections, mails: usize) -> Result<f64> {
    let clock = Clock::system();
    let postfix = Postfix::start(place, None, &clock).await?;
    postfix::push(postfix.address, (CONNECTIONS, kind), SIZE, mails / 10, &clock).await?;
    let took = postfix::push(postfix.address, (CONNECTIONS, kind), SIZE, mails, &clock).await?;
    Ok(mails as f64 / took.as_secs_f64())
}

async fn ours(place: &Place, binary: &Path, (via, kind): (Via, Connections), mails: usize) -> Result<f64> {
    let clock = Clock::system();
    let client = lightpost::Client::start(
        place,
        binary,
        &lightpost::nowhere()?,
        lightpost::Way::Http3,
        &clock,
    )
    .await?;
    let body = load::mail(SIZE);
    let load = (CONNECTIONS, kind);
    let mut took = Duration::ZERO;
    // The first tenth warms up.
    for mails in [mails / 10, mails] {
        took = match via {
            Via::Rest => load::push(client.ingest, load, &body, mails, &clock).await?,
            Via::Smtp => postfix::push(client.smtp, load, SIZE, mails, &clock).await?,
        };
    }
    Ok(mails as f64 / took.as_secs_f64())
}
