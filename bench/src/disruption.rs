//! `bench disruption`: outages in the middle of a transfer, and what comes after them.

use std::{ops::Range, time::Duration};

use lightpost_sim::net::Way;
use serde::Serialize;

use crate::{
    Result,
    distance::{MARS, SIZE, Story},
    in_virtual_time,
    pair::{Distance, Pair, mail},
};

/// Octets of the large mail.
pub const LARGE: usize = 20 << 20;
/// An outage.
pub const OUTAGE: Duration = Duration::from_secs(6 * 3_600);
/// A pass between two outages.
pub const PASS: Duration = Duration::from_secs(60);

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What happened.
    pub name: &'static str,
    /// From disk to disk in seconds, of the last mail.
    pub ours: f64,
    /// What physics allows: the light time, the outages, and the mail's octets over the rate.
    pub ideal: f64,
    /// Ours by the ideal.
    pub ratio: f64,
    /// Octets sent beyond those of the same transfer on a clean link, as a share of these.
    pub resent_share: f64,
}

fn row(name: &'static str, ours: Duration, ideal: Duration, (sent, clean): (u64, u64)) -> Row {
    let rounded = |figure: f64| (figure * 10_000.0).round() / 10_000.0;
    Row {
        name,
        ours: rounded(ours.as_secs_f64()),
        ideal: rounded(ideal.as_secs_f64()),
        ratio: rounded(ours.as_secs_f64() / ideal.as_secs_f64()),
        resent_share: rounded(sent.saturating_sub(clean) as f64 / clean.max(1) as f64),
    }
}

fn distance() -> Distance {
    Distance {
        outage: OUTAGE,
        ..Distance::new(MARS)
    }
}

/// As the operator who knows of `pauses` configures it: several are what lies between passes.
fn distance_for(pauses: &[Range<Duration>]) -> Distance {
    let (every, length) = (OUTAGE.as_secs(), PASS.as_secs());
    let mut distance = distance();
    if pauses.len() > 1 {
        distance.extra = format!("passes = {{ every = \"{every}s\", length = \"{length}s\" }}\n");
    }
    distance
}

/// When the link sends nothing in either direction, from the hand-over on.
fn pause(pair: &Pair, pauses: &[Range<Duration>]) {
    let Some(space) = &pair.space else { return };
    let now = space.elapsed();
    for way in [Way::Up, Way::Down] {
        space.change(way, |options| {
            let pauses = pauses.iter().map(|pause| pause.start + now..pause.end + now);
            options.pauses = pauses.collect();
        });
    }
}

/// A large mail on a warm connection: its time from disk to disk and the octets that went up until its reply.
async fn transfer(pair: &mut Pair, octets: usize, pauses: &[Range<Duration>]) -> Result<(Duration, u64)> {
    pause(pair, pauses);
    let before = pair.carried().up.octets;
    let number = pair.hand_in(&mail(octets, 7)).await?;
    let within = OUTAGE * (pauses.len() as u32 * 2 + 1);
    let journey = pair.journey(number, within).await?;
    Ok((journey.there(), pair.carried().up.octets - before))
}

/// A large mail of `octets`, with `pauses` told from its hand-over on: its time from disk to disk and the octets that went up.
///
/// # Errors
/// When a program does not start or the mail is not answered.
pub fn large(octets: usize, pauses: Vec<Range<Duration>>) -> Result<(Duration, u64)> {
    in_virtual_time(async move {
        let mut pair = Story::Warm.prepare(distance_for(&pauses)).await?;
        transfer(&mut pair, octets, &pauses).await
    })
}

/// When `octets` can be there at the earliest.
pub fn ideal(octets: usize, pauses: &[Range<Duration>]) -> Duration {
    let distance = distance();
    let mut left = distance.sending(octets as u64);
    for pause in pauses {
        if pause.start < left {
            left += pause.end - pause.start;
        }
    }
    left + distance.owlt
}

/// One outage, one minute into the transfer.
pub fn one_outage() -> Vec<Range<Duration>> {
    vec![PASS..PASS + OUTAGE]
}

/// A minute of contact every six hours, three times, which is what the large mail takes; then the link stays.
pub fn passes() -> Vec<Range<Duration>> {
    (0..3)
        .map(|pass| OUTAGE * pass + PASS..OUTAGE * (pass + 1))
        .collect()
}

/// A small mail right after one of `octets` that `pauses` interrupted, and after the last of them, whose tail is lost with every copy that follows within a
/// second: its time from disk to disk.
///
/// # Errors
/// When a program does not start or a mail is not answered.
pub fn tail_lost_after(octets: usize, pauses: Vec<Range<Duration>>) -> Result<(Duration, Distance)> {
    in_virtual_time(async move {
        let mut pair = Story::Warm.prepare(distance_for(&pauses)).await?;
        let start = pair.clock.instant();
        transfer(&mut pair, octets, &pauses).await?;
        let last = pauses.iter().map(|pause| pause.end).max().unwrap_or_default();
        pair.clock.sleep(last.saturating_sub(start.elapsed())).await;
        // The first three datagrams carry what is before the tail.
        let space = pair.space.clone().ok_or("only in virtual time")?;
        let (mut count, until) = (0, space.elapsed() + Duration::from_secs(1));
        let clock = pair.clock.clone();
        let (start, base) = (clock.instant(), space.elapsed());
        space.filter(Some(Box::new(move |way, _| {
            if way == Way::Down || base + start.elapsed() > until {
                return true;
            }
            count += 1;
            count <= 3
        })));
        let number = pair.hand_in(&mail(SIZE, 8)).await?;
        let journey = pair.journey(number, MARS * 1_000).await?;
        Ok((journey.there(), pair.distance.clone()))
    })
}

/// Every row.
///
/// # Errors
/// When a program does not start or a mail is not answered.
pub fn rows(mut told: impl FnMut(&Row)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |row: Row| {
        told(&row);
        rows.push(row);
    };
    let (ours, clean) = large(LARGE, Vec::new())?;
    add(row("clean_20MiB", ours, ideal(LARGE, &[]), (clean, clean)));
    for (name, pauses) in [("outage_6h", one_outage()), ("passes_60s_every_6h", passes())] {
        let (ours, sent) = large(LARGE, pauses.clone())?;
        add(row(name, ours, ideal(LARGE, &pauses), (sent, clean)));
    }
    for (name, pauses) in [
        ("tail_lost_after_outage_6h", one_outage()),
        ("tail_lost_after_passes", passes()),
    ] {
        let (ours, distance) = tail_lost_after(LARGE, pauses)?;
        let ideal = distance.owlt + distance.sending(SIZE as u64);
        add(row(name, ours, ideal, (0, 0)));
    }
    Ok(rows)
}
