//! Bundles that come from neighbours: read, placed, and on disk before anybody is told so.

use bytes::Bytes;
use hardy_bpv7::{bundle::Bundle, status_report::ReasonCode};
use lightpost_transport::bundle::agent::ReportEvent;

use crate::{
    bundle::{
        head::{self, Unreadable},
        report,
    },
    count::Count,
    custody::{Core, NORMAL, Way, way},
    eid,
    store::{Place, Putting, Record, StoreError},
};

/// A bundle from a neighbour was taken: at once, or once it is on disk.
pub(crate) enum Taken {
    /// There is nothing to wait for.
    Settled,
    /// It is being written.
    Writing(Putting),
    /// It is being written, a fragment of the bundle with this key.
    Part(Putting, String),
}

/// A bundle from a neighbour was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Later it may be.
    NoRoom,
    /// It never will be.
    Unacceptable,
}

impl Core {
    /// Takes a bundle from a neighbour, called `peer` in the log.
    pub(crate) async fn accept(&self, data: Bytes, peer: &str) -> Result<Taken, Refusal> {
        let arrived = match head::arrived(data) {
            Ok(arrived) => arrived,
            Err(unreadable) => {
                self.counters
                    .fault(Count::Malformed, &self.clock, peer, &unreadable);
                if let Unreadable::Invalid { bundle, reason, .. } = unreadable {
                    self.store
                        .add(self.reports(&bundle, ReportEvent::Deleted, reason));
                }
                return Err(Refusal::Unacceptable);
            }
        };
        let bundle = &arrived.bundle;
        let received = self.clock.now().as_millisecond();
        let expires = head::expires(bundle, received);
        // What came back to its source went in a circle.
        if eid::numbers(&bundle.id.source).is_some_and(|(node, _)| node == self.config.number) {
            self.counters.add(Count::Duplicates);
            return Ok(Taken::Settled);
        }
        if expires <= received {
            self.counters.add(Count::Expired);
            return Ok(self.delete(bundle, ReasonCode::LifetimeExpired));
        }
        let place = match self.place(bundle, &arrived.data, peer) {
            Ok(place) => place,
            Err(taken) => return taken,
        };
        let (place, part) = match self.part(bundle, &arrived.data, place).await {
            Ok(part) => part,
            Err(cause) => {
                self.counters.fault(Count::Malformed, &self.clock, peer, &cause);
                return Err(Refusal::Unacceptable);
            }
        };
        // What only passes is for its destination to verify.
        let verified = match &place {
            Place::Neighbour(_) => None,
            _ => match self.keyring.verify(bundle, &arrived.data) {
                Ok(verified) => verified,
                Err(doubt) => {
                    self.counters.fault(Count::Unverified, &self.clock, peer, &doubt);
                    return Ok(self.delete(bundle, doubt.reason));
                }
            },
        };
        let also = self.reports(bundle, ReportEvent::Received, ReasonCode::NoAdditionalInformation);
        let whole = match &place {
            Place::Parts(key) => Some(key.clone()),
            _ => None,
        };
        let record = Record {
            key: head::key(&bundle.id),
            place,
            rank: NORMAL,
            destination: bundle.destination.to_string(),
            received,
            expires,
            verified,
            data: arrived.data,
            stamp: None,
            part,
        };
        match self.store.put(record, also, Vec::new()).await {
            Ok(putting) => Ok(match whole {
                Some(key) => Taken::Part(putting, key),
                None => Taken::Writing(putting),
            }),
            Err(error) => Err(self.no_room(&error)),
        }
    }

    /// Waits until a bundle that was taken is on disk.
    pub(crate) async fn settled(&self, taken: Taken) -> Result<(), Refusal> {
        let (putting, whole) = match taken {
            Taken::Settled => return Ok(()),
            Taken::Writing(putting) => (putting, None),
            Taken::Part(putting, whole) => (putting, Some(whole)),
        };
        match putting.stored().await {
            Ok(true) => {
                self.counters.add(Count::Received);
                if let Some(whole) = whole {
                    self.assemble(&whole).await;
                }
            }
            Ok(false) => self.counters.add(Count::Duplicates),
            Err(error) => return Err(self.no_room(&error)),
        }
        Ok(())
    }

    fn no_room(&self, error: &StoreError) -> Refusal {
        self.counters.add(Count::NoRoom);
        tracing::debug!(%error, "a bundle was refused");
        Refusal::NoRoom
    }

    /// Where a bundle that came waits, or what becomes of it instead.
    fn place(&self, bundle: &Bundle, data: &Bytes, peer: &str) -> Result<Place, Result<Taken, Refusal>> {
        Ok(match way(&self.config, &bundle.destination) {
            Way::To(place) => place,
            Way::NoRoute => {
                return Err(Ok(
                    self.deleted(bundle, ReasonCode::NoKnownRouteToDestinationFromHere)
                ));
            }
            Way::NoEndpoint => {
                return Err(Ok(
                    self.deleted(bundle, ReasonCode::DestinationEndpointIDUnavailable)
                ));
            }
            Way::Admin => match self.subject_of(bundle, data) {
                Ok(service) => Place::Service(service),
                Err(cause) => {
                    self.counters.fault(Count::Malformed, &self.clock, peer, &cause);
                    return Err(Ok(Taken::Settled));
                }
            },
        })
    }

    /// The service whose bundle an administrative record for this node is about.
    fn subject_of(&self, bundle: &Bundle, data: &Bytes) -> Result<u32, String> {
        if !bundle.flags.is_admin_record {
            return Err("a bundle for the node itself that is no administrative record".to_owned());
        }
        let payload = self.keyring.payload(bundle, data);
        let payload = payload.ok_or("an administrative record that no key decrypts")?;
        let about = report::read(&bundle.id.source, &payload)?.about;
        self.service_of(&about.source)
            .ok_or_else(|| format!("a status report on {about}, which is not ours"))
    }

    fn deleted(&self, bundle: &Bundle, reason: ReasonCode) -> Taken {
        self.counters.add(Count::Deleted);
        self.delete(bundle, reason)
    }

    fn delete(&self, bundle: &Bundle, reason: ReasonCode) -> Taken {
        self.store.add(self.reports(bundle, ReportEvent::Deleted, reason));
        Taken::Settled
    }
}
