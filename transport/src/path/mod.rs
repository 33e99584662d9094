//! A path to a celestial body: its physical figures, from configuration.

use std::time::Duration;

use lightpost_config::{Rate, Section, Share, Size};

use crate::quic::{datagram::Policy, profile::Overrides};

mod check;
mod passes;

pub use passes::Passes;

/// The longest outage that is believed, and the longest wait that is derived.
const LONGEST: Duration = Duration::from_secs(1_000 * 86_400);

/// What is known about a path. Everything that waits is derived from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Its name in the configuration, `[path.NAME]`.
    pub name: String,
    /// The shortest one-way light time.
    pub one_way_min: Duration,
    /// The longest one-way light time.
    pub one_way_max: Duration,
    /// The longest outage; between passes at least.
    pub outage_max: Duration,
    /// When the link is open, where it is not always.
    pub passes: Option<Passes>,
    /// The rate towards the far side.
    pub rate_up: Rate,
    /// The rate from the far side.
    pub rate_down: Rate,
    /// Which part of the packets is lost, 0 when it is not known.
    pub loss: f64,
    /// The largest IP packet that every link of it carries, in octets, where that is known.
    pub mtu: Option<u16>,
    /// Octets that its nodes keep for us while a link is busy or closed, where that is known.
    pub storage: Option<u64>,
    /// What is sent more than once; chosen by the loss when `None`.
    pub redundancy: Option<Policy>,
    /// The profile's settings that the operator fixed.
    pub quic: Overrides,
}

impl Path {
    /// Reads `[path.NAME]`: `one_way_min`, `one_way_max`, `outage_max`, `passes`, `rate_up`, `rate_down`, `loss`, `mtu`,
    /// `storage`, `redundancy`, `[path.NAME.quic]`.
    ///
    /// Asks `section` for these keys only; a caller with keys of its own in the same section reads them beside.
    pub fn read(name: &str, section: &Section<'_>) -> Option<Self> {
        let one_way_min = section.require::<Duration>("one_way_min");
        let one_way_max = section.require::<Duration>("one_way_max");
        let passes_section = section.section("passes");
        let passes = Passes::read(&passes_section);
        let closed = passes.map_or(Duration::ZERO, |passes| passes.closed());
        let outage_max = section.get_or("outage_max", closed);
        let rate_up = section.require::<Rate>("rate_up");
        let rate_down = section.require::<Rate>("rate_down");
        let Share(loss) = section.get_or("loss", Share(0.0));
        let mtu = section.get("mtu");
        let storage = section.get("storage").map(|Size(octets)| octets);
        let redundancy = section.parse(
            "redundancy",
            "write \"none\", \"handshake\", \"small\" or \"all\"",
            Policy::parse,
        );
        let quic_section = section.section("quic");
        let (quic, in_range) = Overrides::read(&quic_section);
        let path = Self {
            name: name.to_owned(),
            one_way_min: one_way_min?,
            one_way_max: one_way_max?,
            outage_max,
            passes,
            rate_up: rate_up?,
            rate_down: rate_down?,
            loss,
            mtu,
            storage,
            redundancy,
            quic,
        };
        let sound = check::check(&path, section, &passes_section, &quic_section);
        (sound && in_range).then_some(path)
    }

    /// A terrestrial path: a tenth of a second, no outages, 1 Gbit/s.
    pub fn earth() -> Self {
        Self {
            name: "earth".into(),
            one_way_min: Duration::from_millis(1),
            one_way_max: Duration::from_millis(100),
            outage_max: Duration::ZERO,
            passes: None,
            rate_up: Rate(1e9),
            rate_down: Rate(1e9),
            loss: 0.0,
            mtu: None,
            storage: None,
            redundancy: None,
            quic: Overrides::default(),
        }
    }

    /// The longest time there and back, without outages.
    pub fn round_trip_max(&self) -> Duration {
        self.one_way_max.saturating_mul(2)
    }

    /// How long outages may hold what is sent and its answer: where there are passes each of the two may wait for the next one.
    fn held(&self) -> Duration {
        match self.passes {
            Some(_) => self.outage_max.saturating_mul(2),
            None => self.outage_max,
        }
    }

    /// How long `octets` keep the line busy, with the rests between passes.
    pub fn sending(&self, octets: u64) -> Duration {
        let open = self.rate_up.time_for(octets);
        self.passes.map_or(open, |passes| passes.stretch(open))
    }

    /// How long a reply to an exchange of `octets` may take: there and back, as much before it for a handshake and once more for
    /// the repair of what was lost, the longest outage, sending time with the rests between passes, and a margin. Whoever gives up
    /// earlier says again what is on its way, and without a connection always too early.
    pub fn reply_within(&self, octets: u64) -> Duration {
        let travel = self
            .round_trip_max()
            .saturating_mul(3)
            .saturating_add(self.held());
        let seconds = travel.saturating_add(self.sending(octets)).as_secs_f64() * 1.25 + 30.0;
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(LONGEST)
            .min(LONGEST)
    }

    /// How long setting up a connection may take: a handshake is one round trip, and a lost datagram of it is sent again after
    /// three more; it may wait for the end of an outage.
    pub fn connect_within(&self) -> Duration {
        let margin = Duration::from_secs(4);
        let handshake = self.round_trip_max().saturating_mul(6).saturating_add(margin);
        handshake.saturating_add(self.held()).min(LONGEST)
    }

    /// Whether round trips are short and nothing interrupts them, so that Earth's ways of transport serve.
    pub fn is_terrestrial(&self) -> bool {
        self.one_way_max < Duration::from_millis(200) && self.outage_max < Duration::from_secs(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::profile::Congestion;

    fn read(text: &str) -> Result<Path, String> {
        lightpost_config::read_text(std::path::Path::new("c.toml"), text, |root| {
            let mut paths = Vec::new();
            for (name, section) in root.named("path") {
                section.get::<Duration>("lifetime");
                paths.push(Path::read(&name, &section));
            }
            paths.pop().flatten()
        })
        .map_err(|problems| problems.to_string())
    }

    const MOON: &str = "[path.moon]\none_way_min = \"1.2s\"\none_way_max = \"1.4s\"\noutage_max = \"2h\"\n\
                        rate_up = \"2Mbit/s\"\nrate_down = \"10Mbit/s\"\nlifetime = \"5d\"\n";

    #[test]
    fn a_path_and_its_overrides_are_read() {
        let path = read(&format!(
            "{MOON}[path.moon.quic]\nidle_timeout = \"off\"\nmtu = 1280\ncongestion = \"bbr\"\nreceive_window = \"64MiB\"\n"
        ))
        .unwrap();
        assert_eq!(path.one_way_max, Duration::from_millis(1400));
        assert_eq!(path.quic.idle_timeout, Some(None));
        assert_eq!(path.quic.mtu, Some(1280));
        assert_eq!(path.quic.congestion, Some(Congestion::Bbr));
        assert_eq!(path.quic.receive_window, Some(64 << 20));
        assert_eq!(
            (path.loss, path.mtu, path.storage, path.redundancy),
            (0.0, None, None, None)
        );
        let path = read(&format!(
            "{MOON}loss = \"1%\"\nmtu = 1280\nstorage = \"1MiB\"\nredundancy = \"all\"\n"
        ))
        .unwrap();
        assert_eq!(
            (path.loss, path.mtu, path.storage, path.redundancy),
            (0.01, Some(1280), Some(1 << 20), Some(Policy::All))
        );
    }

    #[test]
    fn contradictions_are_all_named() {
        let report = read(
            "[path.x]\none_way_min = \"9d\"\none_way_max = \"8d\"\nrate_up = \"1Mbit/s\"\nrate_down = \"1Mbit/s\"\n\
             [path.x.quic]\nidle_timeout = \"30s\"\nmtu = 900\ncongestion = \"reno\"\nspeed = 1\n",
        )
        .unwrap_err();
        for expected in [
            "path.x.one_way_min: 9d is longer",
            "path.x.one_way_max: 8d is beyond",
            "path.x.quic.mtu: 900",
            "path.x.quic.congestion: \"reno\"",
            "path.x.quic.speed: is not a known key",
        ] {
            assert!(report.contains(expected), "{expected} not in:\n{report}");
        }
    }

    #[test]
    fn figures_that_contradict_each_other_are_refused() {
        // What is added to MOON, whether in the path or below `quic`, and what is said.
        let cases = [
            (
                "",
                "idle_timeout = \"30s\"",
                "path.moon.quic.idle_timeout: 30s is over before",
            ),
            ("", "initial_rtt = \"500ms\"", "path.moon.quic.initial_rtt: 0.5s"),
            ("loss = \"60%\"", "", "path.moon.loss: 60% "),
            ("mtu = 1247", "", "path.moon.mtu: 1247 is too small"),
            (
                "mtu = 1280",
                "mtu = 1300",
                "path.moon.quic.mtu: 1300 octets and 28 of headers",
            ),
            ("storage = \"1kB\"", "", "path.moon.storage: 1000 octets"),
            ("redundancy = \"most\"", "", "path.moon.redundancy: \"most\""),
            ("redundancy = \"none\"", "copies = 3", "path.moon.quic.copies: "),
            ("loss = 0.01", "gap = \"600ms\"", "path.moon.quic.gap: 0.6s"),
            (
                "loss = 0.01",
                "copies = 3\ngap = \"200ms\"",
                "path.moon.quic.gap: 0.2s",
            ),
            (
                "loss = 0.2",
                "ack_threshold = 300",
                "path.moon.quic.ack_threshold: 300",
            ),
            ("", "hold = \"1us\"", "path.moon.quic.hold: 0"),
            ("", "time_threshold = 1.0", "path.moon.quic.time_threshold: 1 "),
            ("", "connection_id = 0", "path.moon.quic.connection_id: 0 "),
            ("one_way_min = \"1s\"", "", "c.toml:"),
            (
                "passes = { every = \"1h\", length = \"60m\" }",
                "",
                "path.moon.passes.length: 1h is as long",
            ),
            (
                "passes = { every = \"6h\", length = \"0s\" }",
                "",
                "path.moon.passes.length: is zero",
            ),
            (
                "passes = { every = \"6h\", length = \"60s\" }",
                "",
                "path.moon.outage_max: 2h is shorter",
            ),
            (
                "passes = { every = \"6h\" }",
                "",
                "path.moon.passes.length: is missing",
            ),
        ];
        for (keys, quic, expected) in cases {
            let report = read(&format!("{MOON}{keys}\n[path.moon.quic]\n{quic}\n")).unwrap_err();
            assert!(report.contains(expected), "{expected} not in:\n{report}");
        }
        read(&format!(
            "{MOON}loss = 0.01\nmtu = 1280\nstorage = \"64KiB\"\n[path.moon.quic]\nmtu = 1252\ncopies = 3\n"
        ))
        .unwrap();
    }

    #[test]
    fn a_reply_takes_as_many_passes_as_its_mail() {
        let text = MOON.replace(
            "outage_max = \"2h\"",
            "passes = { every = \"6h\", length = \"60s\" }",
        );
        let path = read(&text).unwrap();
        assert_eq!(path.outage_max, Duration::from_secs(6 * 3_600 - 60));
        let hour = Duration::from_secs(3_600);
        // 2 Mbit/s are 15 MB in a pass.
        assert!((12 * hour..16 * hour).contains(&path.reply_within(4096)));
        assert!((4 * 6 * hour..40 * hour).contains(&path.reply_within(40_000_000)));
        assert!(path.connect_within() > 2 * path.outage_max);
    }

    #[test]
    fn waits_grow_with_the_path_and_never_overflow() {
        let earth = Path::earth();
        assert!(earth.connect_within() < Duration::from_secs(6));
        assert!(earth.reply_within(4096) < Duration::from_secs(31));
        // Without a connection an answer takes four light times at best.
        let mars = Path {
            one_way_max: Duration::from_secs(182),
            ..Path::earth()
        };
        assert!(mars.reply_within(4096) > Duration::from_secs(4 * 182 + 60));
        let far = Path {
            one_way_max: Duration::MAX,
            rate_up: Rate(1e-9),
            ..Path::earth()
        };
        assert_eq!(far.reply_within(u64::MAX), LONGEST);
        assert_eq!(far.connect_within(), LONGEST);
    }
}
