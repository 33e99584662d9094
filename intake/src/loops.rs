//! Mail that was here before: the queue still knows the recipients that our trace fields do not name.

use lightpost_mail::trace::Hops;
use lightpost_queue::{Filter, Store};

/// Passages that are looked up, the last ones.
const LOOKUPS: usize = 4;
/// Messages that one id may stand for.
const MESSAGES: usize = 16;

/// Adds the recipients of earlier passages here that their fields do not name, as far as the queue knows the id in the field: a message's or an
/// exchange's. A queue that cannot be read is no reason to refuse a mail: the count of hops ends a loop, too.
pub async fn recall(store: &dyn Store, hops: &mut Hops) {
    let unnamed = hops
        .own
        .iter_mut()
        .filter(|passage| passage.recipients.is_empty());
    for passage in unnamed.take(LOOKUPS) {
        let filter = Filter {
            known_as: passage.id.clone(),
            limit: MESSAGES,
            ..Filter::default()
        };
        if filter.known_as.is_none() {
            continue;
        }
        match store.list(filter).await {
            Ok(known) => {
                let recipients = known.into_iter().flat_map(|message| message.recipients);
                passage.recipients.extend(recipients.map(|one| one.address));
            }
            Err(error) => tracing::warn!(id = passage.id, %error, "an earlier passage cannot be looked up"),
        }
    }
}
