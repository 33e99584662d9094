//! What a kept session says about its age, in the octets that rustls gives us to keep.
//!
//! Their layout is not public. As of rustls 0.23 they end with the time of their making (seconds since 1970, eight octets, big-endian) and with the
//! `ticket_age_add` of RFC 8446 section 4.6.1 (four octets). Nobody has to trust that: [`reveals`] is asked when a session is made, at a known
//! time, and a session that does not hold that time there is never touched. Were the last four octets something else, the age
//! computed from them would be any of 2^32 milliseconds, and would hardly ever fall within the tolerance.

use std::time::Duration;

/// Octets at the end: the time, then `ticket_age_add`.
const TAIL: usize = 8 + 4;

/// Whether `value`, which was made at `now` or just before, says so where it is expected to. Both are seconds since 1970.
pub(super) fn reveals(value: &[u8], now: u64) -> bool {
    // The clock may have ticked between the two readings.
    made(value).is_some_and(|made| made <= now && now - made <= 2)
}

/// Moves the time of its making so that the age is what the client said, if the two are no more than `tolerance` apart. Whether it did.
///
/// rustls takes early data only if they are within a minute of each other. They differ by a round trip (the client's age begins when it
/// has the ticket, ours when we send it, and ends when the first flight leaves) and by all that holds the flight up on its way.
pub(super) fn agree(value: &mut [u8], now: u64, obfuscated_age: u32, tolerance: Duration) -> bool {
    let Some((made, age_add)) = made(value).zip(age_add(value)) else {
        return false;
    };
    let claimed = Duration::from_millis(obfuscated_age.wrapping_sub(age_add).into());
    let ours = Duration::from_secs(now.saturating_sub(made));
    if ours.abs_diff(claimed) > tolerance {
        return false;
    }
    let made = now.saturating_sub(claimed.as_secs());
    let at = value.len() - TAIL;
    value[at..at + 8].copy_from_slice(&made.to_be_bytes());
    true
}

fn made(value: &[u8]) -> Option<u64> {
    let (_, tail) = value.split_last_chunk::<TAIL>()?;
    tail.first_chunk().copied().map(u64::from_be_bytes)
}

fn age_add(value: &[u8]) -> Option<u32> {
    value.last_chunk().copied().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_900_000_000;

    fn value(made: u64, age_add: u32) -> Vec<u8> {
        [&b"secret"[..], &made.to_be_bytes(), &age_add.to_be_bytes()].concat()
    }

    #[test]
    fn only_a_time_that_is_known_is_believed() {
        for (value, expected) in [
            (value(NOW, 1), true),
            (value(NOW - 1, 1), true),
            (value(NOW - 3, 1), false),
            (value(NOW + 1, 1), false),
            (vec![0; 11], false),
            (Vec::new(), false),
        ] {
            assert_eq!(reveals(&value, NOW), expected, "{value:?}");
        }
    }

    #[test]
    fn ages_agree_within_the_tolerance() {
        let (hour, minute) = (3_600, 60);
        let tolerance = Duration::from_secs(hour);
        // Our age and the client's, in seconds; whether it is moved.
        for (ours, claimed, expected) in [
            (0, 0, true),
            (2 * hour, 2 * hour - 6 * minute, true),
            (2 * hour, hour, true),
            (2 * hour, hour - 1, false),
            (10, hour + 10, true),
            (10, hour + 11, false),
        ] {
            for age_add in [0, 5_000, u32::MAX] {
                let before = value(NOW - ours, age_add);
                let mut after = before.clone();
                let obfuscated = (claimed as u32 * 1000).wrapping_add(age_add);
                assert_eq!(agree(&mut after, NOW, obfuscated, tolerance), expected);
                let made = if expected { NOW - claimed } else { NOW - ours };
                assert_eq!(after, value(made, age_add), "{ours} {claimed} {age_add}");
            }
        }
    }

    #[test]
    fn what_is_too_short_is_left_alone() {
        for octets in 0..TAIL {
            let mut value = vec![1; octets];
            assert!(!agree(&mut value, NOW, 0, Duration::MAX));
            assert_eq!(value, vec![1; octets]);
        }
    }
}
