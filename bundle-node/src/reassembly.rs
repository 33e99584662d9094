//! Fragments (RFC 9171 section 5.8) of bundles for us. What passes through stays as it is.

use bytes::Bytes;
use hardy_bpv7::bundle::Bundle;

use crate::{
    bundle::{head, make},
    custody::{Core, NORMAL, Way, way},
    store::{Part, Place, Record, StoreError, Stored},
};

/// The most fragments of one bundle.
const MOST: u32 = 1024;

impl Core {
    /// Where a bundle waits that may be a fragment, and which part of the whole it is.
    pub(crate) async fn part(
        &self,
        bundle: &Bundle,
        data: &Bytes,
        place: Place,
    ) -> Result<(Place, Option<(u64, u64)>), String> {
        let Some(part) = &bundle.id.fragment_info else {
            return Ok((place, None));
        };
        if matches!(place, Place::Neighbour(_)) {
            return Ok((place, None));
        }
        if bundle.flags.is_admin_record {
            return Err("a fragment of an administrative record".to_owned());
        }
        let length = head::payload(bundle, data).map(|it| it.len() as u64);
        let length = length.ok_or("a fragment whose payload is encrypted")?;
        let most = self.config.limits.bundle;
        if part.total_adu_length > most {
            return Err(format!(
                "a fragment of {} octets, although {most} are the most",
                part.total_adu_length
            ));
        }
        if part
            .offset
            .checked_add(length)
            .is_none_or(|end| end > part.total_adu_length)
        {
            return Err("a fragment that reaches beyond its bundle".to_owned());
        }
        let place = Place::Parts(head::bundle_id(&bundle.id).to_string());
        let count = self
            .store
            .count(&place)
            .await
            .map_err(|error| error.to_string())?;
        if count >= u64::from(MOST) {
            return Err(format!("more than {MOST} fragments of one bundle"));
        }
        Ok((place, Some((part.offset, length))))
    }

    /// Puts the bundle with this key together, if all of it is there.
    pub(crate) async fn assemble(&self, key: &str) {
        if let Err(error) = self.try_assemble(key).await {
            tracing::warn!(bundle = key, error, "a bundle cannot be put together now");
        }
    }

    /// What could not be put together before: the program may have ended in between.
    pub(crate) async fn assemble_all(&self) -> Result<(), StoreError> {
        for key in self.store.fragmented().await? {
            self.assemble(&key).await;
        }
        Ok(())
    }

    async fn try_assemble(&self, key: &str) -> Result<(), String> {
        let said = |error: StoreError| error.to_string();
        let parts = self
            .store
            .parts(&Place::Parts(key.to_owned()), MOST)
            .await
            .map_err(said)?;
        let Some(first) = parts.first().filter(|it| it.offset == 0) else {
            return Ok(());
        };
        let data = self.store.load(&first.stored).await.map_err(said)?;
        let bundle = head::stored(&data)?;
        let total = bundle
            .id
            .fragment_info
            .as_ref()
            .map_or(0, |it| it.total_adu_length);
        if !covers(&parts, total) {
            return Ok(());
        }
        let payload = self.gather(&parts, total).await?;
        let expires = parts.iter().map(|it| it.stored.expires).min().unwrap_or(0);
        let Way::To(place) = way(&self.config, &bundle.destination) else {
            return Err("its endpoint is gone".to_owned());
        };
        let (whole, data) = make::whole(&bundle, &payload).map_err(|error| error.to_string())?;
        let record = Record {
            key: head::key(&whole.id),
            place,
            rank: NORMAL,
            destination: whole.destination.to_string(),
            received: first.stored.received,
            expires,
            verified: None,
            data,
            stamp: None,
            part: None,
        };
        let instead: Vec<Stored> = parts.into_iter().map(|it| it.stored).collect();
        let putting = self.store.put(record, Vec::new(), instead).await.map_err(said)?;
        putting.stored().await.map(drop).map_err(said)
    }

    async fn gather(&self, parts: &[Part], total: u64) -> Result<Vec<u8>, String> {
        let size = usize::try_from(total).map_err(|error| error.to_string())?;
        let mut payload = vec![0; size];
        for part in parts {
            let data = self
                .store
                .load(&part.stored)
                .await
                .map_err(|error| error.to_string())?;
            let piece = head::payload(&head::stored(&data)?, &data).ok_or("a fragment is encrypted")?;
            let offset = usize::try_from(part.offset).map_err(|error| error.to_string())?;
            payload
                .get_mut(offset..offset.saturating_add(piece.len()))
                .ok_or("fragments do not agree on the length of the whole")?
                .copy_from_slice(&piece);
        }
        Ok(payload)
    }
}

/// Whether `parts`, in order, leave no hole in `total` octets.
fn covers(parts: &[Part], total: u64) -> bool {
    let reached = parts.iter().try_fold(0_u64, |reached, part| {
        (part.offset <= reached).then(|| reached.max(part.offset.saturating_add(part.length)))
    });
    reached.is_some_and(|it| it >= total)
}
