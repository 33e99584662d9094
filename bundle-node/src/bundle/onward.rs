//! What changes in a bundle before it goes on (RFC 9171 section 5.4): who had it last, how many hops it made, how old it is.

use bytes::Bytes;
use hardy_bpv7::{
    block::Type,
    bundle::Bundle,
    bundle_age::BundleAge,
    editor::{Chunk, Editor},
    eid::Eid,
    hop_info::HopInfo,
    status_report::ReasonCode,
};

/// Why it does not go on.
#[derive(Debug)]
pub(crate) enum Halt {
    /// It has to be deleted.
    Delete(ReasonCode),
    /// It cannot be changed as it has to be.
    Unchangeable(String),
}

/// The octets with which `bundle` of another node leaves this one after it was here for `stay` milliseconds.
pub(crate) fn onward(bundle: &Bundle, data: &Bytes, node: &Eid, stay: u64) -> Result<Bytes, Halt> {
    let editor = Editor::new(bundle, data);
    let mut editor = set(editor, Type::PreviousNode, hardy_cbor::encode::emit(node).0)?;
    if let Some(hops) = &bundle.hop_count {
        if hops.count >= hops.limit {
            return Err(Halt::Delete(ReasonCode::HopLimitExceeded));
        }
        let next = HopInfo {
            limit: hops.limit,
            count: hops.count + 1,
        };
        editor = set(editor, Type::HopCount, hardy_cbor::encode::emit(&next).0)?;
    }
    if let Some(age) = bundle.age {
        let before = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let age = BundleAge::from(before.saturating_add(stay));
        editor = set(editor, Type::BundleAge, hardy_cbor::encode::emit(&age).0)?;
    }
    let chunks = editor
        .rebuild()
        .map_err(|error| Halt::Unchangeable(error.to_string()))?;
    Ok(Bytes::from(Chunk::flatten(chunks, data)))
}

fn set<'a>(editor: Editor<'a>, kind: Type, content: Vec<u8>) -> Result<Editor<'a>, Halt> {
    editor
        .insert_block(kind)
        .map(|block| block.with_data(content.into()).rebuild())
        .map_err(|(_, error)| Halt::Unchangeable(error.to_string()))
}
