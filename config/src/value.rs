//! The types that a configuration value can have.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

/// A type that a key can have.
pub trait Value: Sized {
    /// How a right value looks, for the remedy: `a duration such as "22m"`.
    const EXPECTED: &'static str;
    /// Reads the value; `None` when it is not of this type.
    fn read(value: &DeValue<'_>) -> Option<Self>;
}

impl Value for String {
    const EXPECTED: &'static str = "a text in quotes";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        match value {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => None,
        }
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        match value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        }
    }
}

macro_rules! integer {
    ($($kind:ty => $text:literal),*) => {$(
        impl Value for $kind {
            const EXPECTED: &'static str = $text;
            fn read(value: &DeValue<'_>) -> Option<Self> {
                match value {
                    DeValue::Integer(number) => Self::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok(),
                    _ => None,
                }
            }
        }
    )*};
}
integer!(u16 => "a whole number from 0 to 65535", u32 => "a whole number of 0 or more", u64 => "a whole number of 0 or more",
    i32 => "a whole number", usize => "a whole number of 0 or more");

impl Value for f64 {
    const EXPECTED: &'static str = "a number";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        match value {
            DeValue::Float(number) => number
                .as_str()
                .replace('_', "")
                .parse()
                .ok()
                .filter(|n: &f64| n.is_finite()),
            DeValue::Integer(number) => number.as_str().replace('_', "").parse().ok(),
            _ => None,
        }
    }
}

/// A part of a whole, 0 to 1, written `"1%"`, `"0.5%"` or `0.01`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Share(pub f64);

impl Value for Share {
    const EXPECTED: &'static str = "a share such as \"1%\" or 0.01";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        let share = match value {
            DeValue::String(text) => text.trim().strip_suffix('%')?.trim().parse::<f64>().ok()? / 100.0,
            number => f64::read(number)?,
        };
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }
}

macro_rules! text {
    ($($kind:ty => $text:literal, $read:expr);*) => {$(
        impl Value for $kind {
            const EXPECTED: &'static str = $text;
            fn read(value: &DeValue<'_>) -> Option<Self> {
                let read: fn(&str) -> Option<Self> = $read;
                read(&String::read(value)?)
            }
        }
    )*};
}
text!(PathBuf => "a path in quotes", |text| (!text.is_empty()).then(|| PathBuf::from(text));
    SocketAddr => "an address and port such as \"127.0.0.1:8025\" or \"[::1]:8025\"", |text| text.parse().ok();
    Duration => "a duration such as \"1.3s\", \"22m\", \"6h\" or \"2d\"", parse_duration;
    Size => "a size such as \"64KiB\" or \"50MB\"", Size::parse;
    Rate => "a rate such as \"64kbit/s\" or \"2Mbit/s\"", Rate::parse);

impl<T: Value> Value for Vec<T> {
    const EXPECTED: &'static str = "a list in brackets, each item of the right kind";
    fn read(value: &DeValue<'_>) -> Option<Self> {
        match value {
            DeValue::Array(items) => items.iter().map(|item| T::read(item.get_ref())).collect(),
            _ => None,
        }
    }
}

/// A number of octets, written `512`, `64KiB`, `50MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Size(pub u64);

impl Size {
    /// Reads `64KiB`, `50MB`, `512B` or a bare number of octets.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let factor = match unit {
            "" | "B" => 1.0,
            "kB" | "KB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "TB" => 1e12,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            _ => return None,
        };
        Some(Self((number * factor).round() as u64))
    }
}

/// A data rate in bits per second, written `64kbit/s`, `2Mbit/s`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Rate(pub f64);

impl Rate {
    /// Reads `9600bit/s`, `64kbit/s`, `2Mbit/s`, `1Gbit/s`; zero is refused.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let factor = match unit.strip_suffix("/s").or_else(|| unit.strip_suffix("ps"))? {
            "bit" => 1.0,
            "kbit" => 1e3,
            "Mbit" => 1e6,
            "Gbit" => 1e9,
            _ => return None,
        };
        (number > 0.0).then_some(Self(number * factor))
    }

    /// The time that `octets` take at this rate.
    pub fn time_for(self, octets: u64) -> Duration {
        Duration::try_from_secs_f64(octets as f64 * 8.0 / self.0).unwrap_or(Duration::MAX)
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        total += number.parse::<f64>().ok()?
            * match unit {
                "us" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = after.trim_start();
    }
    Duration::try_from_secs_f64(total).ok()
}

/// A duration as it is written in a configuration: `1.3s`, `22m`, `6h30m`.
pub fn duration_text(duration: Duration) -> String {
    if duration < Duration::from_secs(60) {
        return format!("{}s", duration.as_secs_f64());
    }
    let (mut seconds, mut text) = (duration.as_secs(), String::new());
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= length {
            text.push_str(&format!("{}{unit}", seconds / length));
            seconds %= length;
        }
    }
    text
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("8s", 8.0),
            ("1.3s", 1.3),
            ("22m", 1320.0),
            ("6h 30m", 23_400.0),
            ("2d", 172_800.0),
            ("250ms", 0.25),
        ] {
            assert_eq!(
                parse_duration(text).map(|d| d.as_secs_f64()),
                Some(seconds),
                "{text}"
            );
        }
        for text in [
            "",
            "8",
            "s",
            "-1s",
            "8 parsecs",
            "1..2s",
            "999999999999999999999999d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(duration_text(Duration::from_secs(23_400)), "6h30m");
    }

    #[test]
    fn sizes_and_rates() {
        assert_eq!(Size::parse("64KiB"), Some(Size(65_536)));
        assert_eq!(Size::parse("50MB"), Some(Size(50_000_000)));
        assert_eq!(Size::parse("5 parsecs"), None);
        assert_eq!(Rate::parse("2Mbit/s"), Some(Rate(2e6)));
        assert_eq!(Rate::parse("0kbit/s"), None);
        assert_eq!(Rate(8e3).time_for(1000), Duration::from_secs(1));
    }

    #[test]
    fn shares() {
        for (text, share) in [
            ("\"1%\"", Some(0.01)),
            ("\"0.5 %\"", Some(0.005)),
            ("0.02", Some(0.02)),
            ("0", Some(0.0)),
            ("\"0.01\"", None),
            ("\"101%\"", None),
            ("-0.1", None),
        ] {
            let text = format!("loss = {text}");
            let table = toml::de::DeTable::parse(&text).unwrap();
            let read = Share::read(table.get_ref()["loss"].get_ref());
            assert_eq!(read, share.map(Share), "{text}");
        }
    }
}
