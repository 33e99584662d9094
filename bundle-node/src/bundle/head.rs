//! What the node wants to know of a bundle.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use hardy_bpv7::{
    bpsec::key::KeySet,
    bundle::{Bundle, Id, ParsedBundle, RewrittenBundle},
    editor::Chunk,
    status_report::ReasonCode,
};
use lightpost_transport::bundle::agent::BundleId;

use super::stamp;
use crate::eid;

/// A bundle that came and could be read.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) bundle: Bundle,
    /// Its octets, without the blocks that are to be removed by who does not know them.
    pub(crate) data: Bytes,
}

/// Why octets are not a bundle that can go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// They are not a bundle.
    #[error("not a bundle: {0}")]
    Malformed(String),
    /// They are, but it must be deleted.
    #[error("bundle {}: {cause}", key(&.bundle.id))]
    Invalid {
        bundle: Box<Bundle>,
        reason: ReasonCode,
        cause: String,
    },
}

/// Reads what came from another node.
pub(crate) fn arrived(data: Bytes) -> Result<Arrived, Unreadable> {
    // The parser is made for hostile input, but says of some of its steps that they cannot fail.
    let parsed = catch_unwind(AssertUnwindSafe(|| {
        RewrittenBundle::parse_with_keys(&data, &KeySet::EMPTY)
    }))
    .map_err(|_| Unreadable::Malformed("it cannot be read".to_owned()))?;
    let arrived = match parsed {
        Err(error) => return Err(Unreadable::Malformed(error.to_string())),
        Ok(RewrittenBundle::Invalid {
            bundle,
            reason,
            error,
        }) => {
            return Err(Unreadable::Invalid {
                bundle: Box::new(bundle),
                reason,
                cause: error.to_string(),
            });
        }
        Ok(RewrittenBundle::Valid { bundle, .. }) => Arrived { bundle, data },
        Ok(RewrittenBundle::Rewritten { bundle, new_data, .. }) => Arrived {
            bundle,
            data: Bytes::from(Chunk::flatten(new_data, &data)),
        },
    };
    let bundle = &arrived.bundle;
    if let Some(long) = [&bundle.id.source, &bundle.destination, &bundle.report_to]
        .into_iter()
        .find(|it| it.to_string().len() > eid::LONGEST)
    {
        let long: String = long.to_string().chars().take(40).collect();
        return Err(Unreadable::Malformed(format!(
            "the endpoint id {long}… is too long"
        )));
    }
    Ok(arrived)
}

/// Reads what is in the store.
pub(crate) fn stored(data: &[u8]) -> Result<Bundle, String> {
    ParsedBundle::parse_with_keys(data, &KeySet::EMPTY)
        .map(|it| it.bundle)
        .map_err(|error| error.to_string())
}

/// What names it on the whole network, fragments too, as text.
pub(crate) fn key(id: &Id) -> String {
    let whole = bundle_id(id);
    match &id.fragment_info {
        None => whole.to_string(),
        Some(part) => format!("{whole}/{}/{}", part.offset, part.total_adu_length),
    }
}

/// What names it on the whole network, fragments apart.
pub(crate) fn bundle_id(id: &Id) -> BundleId {
    BundleId {
        source: eid::plain(&id.source),
        time: id.timestamp.creation_time().map_or(0, |it| it.millisecs()),
        sequence: id.timestamp.sequence_number(),
    }
}

/// When its lifetime ends, in Unix milliseconds. `received`: when it came here.
pub(crate) fn expires(bundle: &Bundle, received: i64) -> i64 {
    let milliseconds = |it: std::time::Duration| i64::try_from(it.as_millis()).unwrap_or(i64::MAX);
    let born = match (bundle.id.timestamp.creation_time(), bundle.age) {
        (Some(time), _) => stamp::unix(time.millisecs()),
        // Its source has no clock: its age is what it has, or it begins here.
        (None, age) => received.saturating_sub(age.map_or(0, milliseconds)),
    };
    born.saturating_add(milliseconds(bundle.lifetime))
}

/// The application data unit, where it is readable.
pub(crate) fn payload(bundle: &Bundle, data: &Bytes) -> Option<Bytes> {
    let block = bundle.blocks.get(&1)?;
    let range = block.payload_range();
    (block.bcb.is_none() && range.end <= data.len()).then(|| data.slice(range))
}
