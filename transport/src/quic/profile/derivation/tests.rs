use std::time::Duration;

use lightpost_config::Rate;

use crate::{
    Path,
    quic::{
        datagram::Policy,
        profile::{Congestion, derive, derive_for_all},
    },
};

fn path(one_way: f64, outage: u64, rate: f64) -> Path {
    Path {
        one_way_min: Duration::from_secs_f64(one_way),
        one_way_max: Duration::from_secs_f64(one_way),
        outage_max: Duration::from_secs(outage),
        rate_up: Rate(rate),
        rate_down: Rate(rate),
        ..Path::earth()
    }
}

#[test]
fn profiles_by_path() {
    use Congestion::{Cubic, Fixed};
    let cases = [
        // one way, outage, rate; controller, idle off, ack threshold
        (0.1, 0, 1e9, Cubic, false, None),
        (0.1, 7200, 1e9, Fixed, true, Some(100)),
        (1.3, 7200, 2e6, Fixed, true, Some(67)),
        (182.0, 21_600, 1e6, Fixed, true, Some(100)),
        (1342.0, 21_600, 1e8, Fixed, true, Some(100)),
        (1.3, 0, 64e3, Fixed, true, Some(2)),
    ];
    for (one_way, outage, rate, congestion, idle_off, acks) in cases {
        let path = path(one_way, outage, rate);
        let profile = derive(&path);
        let figures = &profile.figures;
        let context = format!("{one_way} s, {outage} s, {rate} bit/s: {figures:?}");
        assert_eq!(figures.congestion, congestion, "{context}");
        assert_eq!(figures.idle_timeout.is_none(), idle_off, "{context}");
        assert_eq!(figures.acks.map(|(threshold, _)| threshold), acks, "{context}");
        // A first packet is sent again soon after its answer is overdue, and not before.
        let again = figures.initial_rtt * 3;
        assert!(again > path.round_trip_max(), "{context}");
        assert!(
            again < path.round_trip_max() * 2 + Duration::from_secs(5),
            "{context}"
        );
        let under_way = (rate * one_way * 2.0 / 8.0) as u64;
        let bound = under_way.min(1 << 30);
        assert!(figures.stream_receive_window >= bound, "{context}");
        assert!(
            figures.receive_window >= figures.stream_receive_window,
            "{context}"
        );
        assert!(
            figures.receive_window <= 1 << 30 && figures.send_window <= 1 << 30,
            "{context}"
        );
        let line = profile.line();
        assert_eq!(line.rate, (congestion == Fixed).then_some(rate), "{context}");
        let repeats = line.redundancy.gap * u32::from(line.redundancy.copies.saturating_sub(1));
        assert!(repeats < profile.reordering(), "{context}");
    }
}

#[test]
fn redundancy_follows_the_loss() {
    let cases = [
        (0.0, Policy::Handshake, 2),
        (0.001, Policy::Small, 2),
        (0.01, Policy::Small, 2),
        (0.02, Policy::All, 3),
        (0.05, Policy::All, 3),
        (0.5, Policy::All, 5),
    ];
    for (loss, policy, copies) in cases {
        let lossy = Path {
            loss,
            ..path(182.0, 0, 1e6)
        };
        let profile = derive(&lossy);
        let redundancy = profile.redundancy();
        assert_eq!((redundancy.policy, redundancy.copies), (policy, copies), "{loss}");
        let (packets, _) = profile.figures.acks.unwrap();
        assert!(f64::from(packets) * loss <= 32.0, "{loss}: {packets}");
        let earthly = Path {
            loss,
            ..Path::earth()
        };
        assert_eq!(derive(&earthly).redundancy().policy, Policy::None);
        assert!(derive(&earthly).line().is_plain());
    }
    // A repeat is never so late that the peer takes it for a duplicate.
    for rate in [64e3, 1e6, 1e7, 1e8, 1e9] {
        let redundancy = *derive(&Path {
            loss: 0.05,
            ..path(1.3, 0, rate)
        })
        .redundancy();
        let datagrams = redundancy.gap.as_secs_f64() * rate / 8.0 / 1_248.0;
        assert!(
            datagrams * f64::from(redundancy.copies - 1) < 100.0,
            "{rate}: {redundancy:?}"
        );
    }
}

#[test]
fn storage_and_mtu_are_the_paths() {
    let known = Path {
        mtu: Some(1280),
        storage: Some(64 << 10),
        ..path(182.0, 0, 1e6)
    };
    let figures = derive(&known).figures;
    assert_eq!(figures.mtu, Some(1232));
    assert_eq!(figures.send_window, 45_500_000 + (64 << 10) + (2 << 20));
}

#[test]
fn what_the_operator_fixed_wins_and_says_so() {
    let mut path = path(182.0, 0, 1e6);
    path.quic.initial_rtt = Some(Duration::from_secs(400));
    path.quic.idle_timeout = Some(Some(Duration::from_secs(86_400)));
    path.quic.mtu = Some(1280);
    path.redundancy = Some(Policy::All);
    path.quic.copies = Some(3);
    let profile = derive(&path);
    for (name, value) in [
        ("initial_rtt", "6m40s"),
        ("idle_timeout", "1d"),
        ("mtu", "1280 octets"),
        ("redundancy", "all"),
        ("copies", "3"),
    ] {
        let mut settings = profile.settings().iter();
        let setting = settings.find(|setting| setting.name == name).unwrap();
        assert_eq!(setting.value, value);
        assert_eq!(setting.why, "fixed in the configuration");
    }
}

#[test]
fn a_listener_takes_what_its_most_demanding_path_needs() {
    let near = path(1.3, 0, 1e7);
    let far = Path {
        loss: 0.01,
        ..path(182.0, 21_600, 1e6)
    };
    let both = derive_for_all(&[near.clone(), far.clone()]);
    let (near, far) = (derive(&near), derive(&far));
    assert_eq!(both.figures.initial_rtt, far.figures.initial_rtt);
    assert_eq!(
        both.figures.stream_receive_window,
        far.figures.stream_receive_window
    );
    assert_eq!(both.line().rate, near.line().rate);
    assert_eq!(both.redundancy().policy, Policy::Small);
    assert!(both.redundancy().gap <= near.redundancy().gap);
    assert!(derive_for_all(&[]).line().is_plain());
}
