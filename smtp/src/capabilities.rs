//! What a server offers in its answer to EHLO or LHLO (RFC 5321 section 4.1.1.1).

/// The extensions that matter to a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 2920
    pub pipelining: bool,
    /// RFC 6152
    pub eight_bit_mime: bool,
    /// RFC 6531
    pub smtputf8: bool,
    /// RFC 1870: the largest mail in octets; 0 where the server states none, `None` where it does not offer SIZE.
    pub size: Option<u64>,
    /// RFC 3461
    pub dsn: bool,
    /// RFC 2034
    pub enhanced_status_codes: bool,
    /// RFC 3207
    pub starttls: bool,
    /// RFC 6710
    pub mt_priority: bool,
}

impl Capabilities {
    /// Reads the lines behind the first. Unknown keywords and malformed values do no harm.
    pub fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut read = Self::default();
        for line in lines {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => read.pipelining = true,
                "8BITMIME" => read.eight_bit_mime = true,
                "SMTPUTF8" => read.smtputf8 = true,
                "SIZE" => read.size = Some(words.next().and_then(|octets| octets.parse().ok()).unwrap_or(0)),
                "DSN" => read.dsn = true,
                "ENHANCEDSTATUSCODES" => read.enhanced_status_codes = true,
                "STARTTLS" => read.starttls = true,
                "MT-PRIORITY" => read.mt_priority = true,
                _ => {}
            }
        }
        read
    }

    /// The largest mail in octets, where the server states one.
    pub fn size_limit(&self) -> Option<u64> {
        self.size.filter(|octets| *octets > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords() {
        let lines = [
            "pipelining",
            "SIZE 1000",
            "8BITMIME",
            "X-UNKNOWN a b",
            "",
            "MT-PRIORITY MIXER",
            "dsn",
        ];
        let expected = Capabilities {
            pipelining: true,
            eight_bit_mime: true,
            size: Some(1000),
            dsn: true,
            mt_priority: true,
            ..Capabilities::default()
        };
        assert_eq!(Capabilities::read(lines.into_iter()), expected);
    }

    #[test]
    fn size() {
        for (line, offered, limit) in [
            ("SIZE", Some(0), None),
            ("SIZE 0", Some(0), None),
            ("SIZE many", Some(0), None),
            ("SIZE 5", Some(5), Some(5)),
            ("SIZES 5", None, None),
        ] {
            let read = Capabilities::read([line].into_iter());
            assert_eq!((read.size, read.size_limit()), (offered, limit), "{line}");
        }
    }
}
