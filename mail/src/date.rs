//! Dates of header fields.

use jiff::Timestamp;

/// `date-time` of RFC 5322 section 3.3 in UTC, `Thu, 1 Jan 1970 00:00:00 +0000`.
pub fn rfc5322(at: Timestamp) -> String {
    at.strftime("%a, %-d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_in_utc() {
        for (at, text) in [
            ("1970-01-01T00:00:00Z", "Thu, 1 Jan 1970 00:00:00 +0000"),
            ("2027-02-28T23:59:59.9+02:00", "Sun, 28 Feb 2027 21:59:59 +0000"),
        ] {
            assert_eq!(rfc5322(at.parse().unwrap()), text);
        }
    }
}
