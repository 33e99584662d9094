//! Records are read from the spool where blocking is allowed, small ones together.

use std::{
    fs::File,
    io,
    sync::{Arc, atomic::AtomicUsize},
};

use bytes::Bytes;

use super::{Deliveries, Hold, Item, lock};
use crate::spool::{Place, Reader, record::Head};

/// So many records are read at a time, each of at most so many octets; a larger one alone.
const TOGETHER: usize = 64;
const SMALL: u64 = 64 << 10;

impl Deliveries {
    /// The first item; none while it is being read.
    pub(super) fn pop(&self) -> Option<Item> {
        let mut queue = lock(&self.queue);
        if queue.reading {
            return None;
        }
        let item = queue.items.pop_front();
        queue.reading |= matches!(item, Some(Item::Place(_)));
        item
    }

    /// Reads a record, and small ones behind it, and puts them where they were. Goes on when nobody waits for it.
    pub(super) fn read(self: &Arc<Self>, first: Place) {
        let mut places = vec![first];
        let mut queue = lock(&self.queue);
        while places.len() < TOGETHER
            && first.octets <= SMALL
            && let Some(Item::Place(place)) = queue.items.front()
            && place.octets <= SMALL
        {
            places.push(*place);
            queue.items.pop_front();
        }
        drop(queue);
        let deliveries = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let records = deliveries.records(&places);
            let mut queue = lock(&deliveries.queue);
            for record in records.into_iter().rev() {
                queue.items.push_front(record);
            }
            queue.reading = false;
            drop(queue);
            deliveries.came.notify_one();
        });
    }

    fn records(&self, places: &[Place]) -> Vec<Item> {
        let mut records = Vec::with_capacity(places.len());
        let mut file = None;
        for place in places {
            let hold = Arc::new(Hold {
                place: *place,
                wanted: AtomicUsize::new(1),
                released: AtomicUsize::new(0),
                ends: self.ends.clone(),
            });
            match self.record(*place, &mut file) {
                Ok((head, payload)) => records.push(Item::Record(head, payload, hold)),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!("a received bundle is damaged on disk and lost: {error}");
                    lock(&self.reader).damaged(*place);
                    hold.release();
                }
                Err(error) => {
                    tracing::warn!(
                        "a received bundle cannot be read from {}: {error}",
                        self.folder.display()
                    );
                }
            }
        }
        records
    }

    /// Reads a record of a segment that may be open already.
    fn record(&self, place: Place, open: &mut Option<(u64, File)>) -> io::Result<(Head, Bytes)> {
        let file = match open.take() {
            Some((segment, file)) if segment == place.segment => file,
            _ => Reader::open(&self.folder, place.segment)?,
        };
        let (_, file) = open.insert((place.segment, file));
        Reader::read(file, place)
    }
}

#[cfg(test)]
mod tests {
    use lightpost_clock::Clock;
    use lightpost_transport::bundle::agent::Content;

    use super::*;
    use crate::spool::Writer;

    impl Deliveries {
        /// Whether the next thing to be done is to read.
        fn is_idle(&self) -> bool {
            matches!(lock(&self.queue).items.front(), Some(Item::Place(_)))
        }
    }

    const COUNT: u64 = 3 * TOGETHER as u64;

    #[tokio::test]
    async fn records_come_in_their_order_and_none_is_lost_when_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path()).unwrap();
        writer.make_room().unwrap();
        for sequence in 0..COUNT {
            let large = if sequence.is_multiple_of(50) { SMALL } else { 10 };
            let head = Head {
                source: "ipn:2.25".into(),
                time: 5,
                sequence,
                lifetime: 60_000,
                administrative: false,
            };
            let payload = vec![b'm'; usize::try_from(large).unwrap()];
            writer.append(&head, large, &mut |out| out(&payload)).unwrap();
        }
        writer.sync().unwrap();
        let deliveries = Deliveries::new(folder.path(), Clock::system());
        deliveries.scan().await.unwrap();
        for sequence in 0..COUNT {
            // Often given up on while a record is being read.
            let early = tokio::select! {
                biased;
                delivery = deliveries.next(), if deliveries.is_idle() => Some(delivery),
                () = std::future::ready(()) => None,
            };
            let delivery = match early {
                Some(delivery) => delivery,
                None => deliveries.next().await,
            };
            let Content::Bundle(bundle) = &delivery.content else {
                panic!("a report");
            };
            assert_eq!(bundle.id.sequence, sequence);
            delivery.done();
        }
        let mut done = 0;
        while done < COUNT {
            deliveries.tell.notified().await;
            done += deliveries.take_done().0;
        }
        assert!(Reader::new(folder.path()).scan().unwrap().is_empty());
    }
}
