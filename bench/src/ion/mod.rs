//! Through two real ION nodes on this host, where ION is installed: our bundles and whole exchanges beside ION's own tools on nodes of the same kind in
//! the same run.
//!
//! ION's own path is `bpdriver` to `bpcounter`, its benchmark: one payload in a file, of which every bundle is a reference, and a receiver that counts
//! and does not read. `bpsource` takes lines of at most 255 octets, or one payload of 4 KiB as an argument, so a process and an attachment for
//! each bundle, and `bpsink` prints each: they measure terminals.
//! An exchange is a request bundle of one size and a reply bundle of another, so its peer is two pairs of these tools, one pair each way, at once: so many
//! requests and so many replies as there are exchanges.
//!
//! ION's own tools keep nothing on disk. What ours have received is synced.

mod agents;
mod nodes;
mod peer;

use std::path::Path;

pub(crate) use self::nodes::Nodes;
use crate::{
    Result,
    lightpost::Way,
    place::Place,
    relay,
    report::{Progress, Row},
};

/// Both sides take turns this often.
const ROUNDS: usize = 3;
/// The request's payload in a bundle, in octets: the mail; what is around one adds less than 600.
const REQUEST: usize = 4096;
/// The reply's payload, in octets; the gateway's answer to one mail has 51.
const REPLY: usize = 128;

/// What is sent for one exchange: the request's octets, and the reply's unless nobody replies.
type Sizes = (usize, Option<usize>);

/// Runs the measurement, or says why not.
pub(crate) async fn rows(
    place: &Place,
    binary: &Path,
    mails: usize,
    progress: &Progress,
) -> Result<Vec<Row>> {
    if let Some(why) = nodes::missing() {
        progress.say(&format!("no rows for ION: {why}"));
        return Ok(Vec::new());
    }
    let bundles = mails * 5;
    progress.say(&format!(
        "through two ION nodes, {bundles} bundles of {REQUEST} octets, as many with replies of {REPLY}, and {mails} mails; bpdriver and bpcounter beside them"
    ));
    let (mut one_way, mut exchanges, mut relayed) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let place = place.below(&format!("ion-{round}"))?;
        let there = both(&place, binary, bundles, (REQUEST, None)).await?;
        let there_and_back = both(&place, binary, bundles, (REQUEST, Some(REPLY))).await?;
        let relay = {
            let nodes = Nodes::start()?;
            relay::through(&place.below("relay")?, binary, Way::Ion(&nodes), mails).await?
        };
        place.remove();
        progress.say(&format!(
            "  round {round}: bundles {:.0}/s, ION's tools {:.0}; exchanges {:.0}/s, ION's tools {:.0}; {relay:.0} mails/s",
            there.0, there.1, there_and_back.0, there_and_back.1
        ));
        one_way.push(there);
        exchanges.push(there_and_back);
        relayed.push((relay, there_and_back.1));
    }
    Ok(vec![
        Row::of_rounds("ion_bundles", &one_way, "bundles/s"),
        Row::of_rounds("ion_exchanges", &exchanges, "exchanges/s"),
        Row::of_rounds("ion_relay", &relayed, "mails/s"),
    ])
}

/// Ours and ION's, each on nodes that were just started.
async fn both(place: &Place, binary: &Path, count: usize, sizes: Sizes) -> Result<(f64, f64)> {
    let theirs = peer::rate(&Nodes::start()?, count, sizes).await?;
    let nodes = Nodes::start()?;
    let ours = agents::rate(&nodes, &place.below("agents")?, binary, count, sizes)?;
    Ok((ours, theirs))
}
