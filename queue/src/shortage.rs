//! What a disk lacks, in words.

use std::fmt;

/// A disk on which there is too little room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Where it is mounted.
    pub file_system: String,
    /// Octets that this program may still write there.
    pub free: u64,
    /// Octets that there have to be before new mail is taken.
    pub wanted: u64,
}

impl fmt::Display for Shortage {
    /// Without the file system, for those who are not to learn of paths.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} free, ", size(self.free))?;
        if self.free < self.wanted {
            // The two may look alike.
            let short = size(self.wanted - self.free);
            write!(f, "{} wanted, {short} short", size(self.wanted))
        } else {
            f.write_str("look at quotas")
        }
    }
}

/// Octets as people write them.
fn size(octets: u64) -> String {
    const KIB: u64 = 1 << 10;
    let (unit, name) = match octets {
        0..KIB => return format!("{octets} B"),
        KIB..0x10_0000 => (KIB, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    format!("{:.1} {name}", octets as f64 / unit as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shortages_in_words() {
        for (octets, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (8_500_000, "8.1 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "17179869184.0 GiB"),
        ] {
            assert_eq!(size(octets), expected);
        }
        let mut short = Shortage {
            file_system: "/var".into(),
            free: 1 << 20,
            wanted: 8 << 20,
        };
        assert_eq!(short.to_string(), "1.0 MiB free, 8.0 MiB wanted, 7.0 MiB short");
        short.free = 9 << 20;
        assert_eq!(short.to_string(), "9.0 MiB free, look at quotas");
    }
}
