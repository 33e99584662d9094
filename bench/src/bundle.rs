//! The same mail through the same two programs, in bundles and over HTTP/3; what a bundle has on the wire; and through ION.

use std::path::Path;

use crate::{
    Result, ion,
    lightpost::{Nodes, Way},
    octets,
    place::Place,
    relay,
    report::{Progress, Row},
};

/// Both sides take turns this often.
const ROUNDS: usize = 3;

/// Runs the measurement.
pub(crate) async fn run(place: &Place, binary: &Path, mails: usize, progress: &Progress) -> Result<Vec<Row>> {
    progress.say(&format!(
        "REST, client, bundles over TCPCLv4, server, smtp-sink: {mails} mails of 4096 octets; the same over HTTP/3"
    ));
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let place = place.below(&format!("bundle-{round}"))?;
        let bundles = relay::through(
            &place.below("bundles")?,
            binary,
            Way::Bundles(Nodes::new("http")?),
            mails,
        )
        .await?;
        let http3 = relay::through(&place.below("http3")?, binary, Way::Http3, mails).await?;
        place.remove();
        progress.say(&format!(
            "  round {round}: bundles {bundles:.0} mails/s, HTTP/3 {http3:.0} mails/s"
        ));
        rounds.push((bundles, http3));
    }
    let mut rows = vec![Row::of_rounds("bundle_relay", &rounds, "mails/s")];
    rows.extend(octets::rows(place, binary, progress).await?);
    rows.extend(ion::rows(place, binary, mails, progress).await?);
    Ok(rows)
}
