//! `bench loss`: what lost datagrams cost a mail of 4 KiB.

use std::{
    num::NonZero, sync::Mutex, sync::PoisonError, sync::atomic::AtomicU64, sync::atomic::Ordering, thread,
};

use lightpost_sim::net::Way;
use serde::Serialize;

use crate::{
    Result,
    distance::{MARS, SIZE, Story},
    in_virtual_time,
    pair::{Distance, mail},
};

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `warm`, `resumed` or `cold`.
    pub name: &'static str,
    /// One-way light time in seconds.
    pub owlt_s: f64,
    /// Which part of the datagrams is lost, in both directions.
    pub loss: f64,
    /// From disk to disk in light times: the mean.
    pub mean_owlt: f64,
    /// All but one in a hundred are there by then.
    pub p99_owlt: f64,
    /// The last.
    pub max_owlt: f64,
    /// Octets of UDP payload in both directions until the reply, on average.
    pub octets: f64,
}

/// One mail of a story, with a share of all datagrams lost from then on: light times from disk to disk, and octets on the link.
///
/// # Errors
/// When a program does not start or the mail is not answered.
pub fn once(story: Story, loss: f64, seed: u64) -> Result<(f64, u64)> {
    in_virtual_time(async move {
        let distance = Distance {
            seed,
            // The operator knows it and says so; what is sent more than once follows from it.
            extra: format!("loss = {loss}\n"),
            ..Distance::new(MARS)
        };
        let mut pair = story.prepare(distance).await?;
        if let Some(space) = &pair.space {
            space.reseed(seed);
            for way in [Way::Up, Way::Down] {
                space.change(way, |options| options.loss = loss);
            }
        }
        let before = pair.carried();
        let journey = pair
            .send(&mail(SIZE, 1))
            .await
            .map_err(|cause| format!("seed {seed}: {cause}"))?;
        let after = pair.carried();
        let octets = after.up.octets + after.down.octets - before.up.octets - before.down.octets;
        Ok((pair.distance.in_owlt(journey.there()), octets))
    })
}

/// The figures of `seeds` mails.
///
/// # Errors
/// Those of [`once`].
pub fn row(story: Story, loss: f64, seeds: u64) -> Result<Row> {
    let next = AtomicU64::new(0);
    let results = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let result = once(story, loss, seed);
                    results
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let results = results.into_iter().collect::<Result<Vec<_>>>()?;
    let mut times: Vec<f64> = results.iter().map(|(time, _)| *time).collect();
    times.sort_by(f64::total_cmp);
    let count = times.len().max(1) as f64;
    let rounded = |figure: f64| (figure * 10_000.0).round() / 10_000.0;
    Ok(Row {
        name: story.name(),
        owlt_s: MARS.as_secs_f64(),
        loss,
        mean_owlt: rounded(times.iter().sum::<f64>() / count),
        p99_owlt: rounded(percentile(&times, 99)),
        max_owlt: rounded(times.last().copied().unwrap_or_default()),
        octets: (results.iter().map(|(_, octets)| *octets as f64).sum::<f64>() / count).round(),
    })
}

/// The smallest of `sorted` that so many per cent do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Every row.
///
/// # Errors
/// Those of [`once`].
pub fn rows(seeds: u64, mut told: impl FnMut(&Row)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for loss in [0.0, 0.01, 0.05] {
        for story in [Story::Warm, Story::Resumed, Story::Cold] {
            // Without loss every seed tells the same.
            let row = row(story, loss, if loss == 0.0 { seeds.min(2) } else { seeds })?;
            told(&row);
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles() {
        let all: Vec<f64> = (1..=500).map(f64::from).collect();
        assert_eq!(percentile(&all, 99), 495.0);
        assert_eq!(percentile(&[7.0], 99), 7.0);
        assert_eq!(percentile(&[], 99), 0.0);
    }
}
