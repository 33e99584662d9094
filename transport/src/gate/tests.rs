//! Who is let in, and at what pace.

use super::*;

const LIMITS: Limits = Limits {
    strangers: 3,
    per_source: 2,
    proven: 2,
    pressure: 2,
    octets: 100,
    rate: f64::INFINITY,
};

fn enter(gate: &Arc<Gate>, host: u8) -> Option<Arc<Seat>> {
    let address = SocketAddr::from(([192, 0, 2, host], 443));
    gate.enter(address, false).map(Arc::new)
}

fn gone(seats: &[&Arc<Seat>]) -> Vec<bool> {
    seats.iter().map(|seat| seat.out.is_cancelled()).collect()
}

#[test]
fn of_whom_least_is_known_makes_room() {
    let gate = Gate::new(LIMITS);
    let [a, b, c] = [1, 2, 3].map(|host| enter(&gate, host).unwrap());
    a.connected();
    let d = enter(&gate, 4).unwrap();
    assert_eq!(gone(&[&a, &b, &c, &d]), [false, true, false, false]);
    let e = enter(&gate, 5).unwrap();
    assert_eq!(gone(&[&a, &c, &d, &e]), [false, true, false, false]);
    let working = [&a, &d, &e].map(|seat| seat.begin());
    assert!(enter(&gate, 6).is_none(), "all are being served");
    drop(working);
    let _f = enter(&gate, 6).unwrap();
    assert_eq!(gone(&[&a, &d, &e]), [false, true, false]);
}

#[test]
fn a_source_has_its_share_only() {
    let gate = Gate::new(LIMITS);
    let other = enter(&gate, 9).unwrap();
    let seats = [1, 1, 1].map(|host| enter(&gate, host).unwrap());
    assert_eq!(
        gone(&[&other, &seats[0], &seats[1], &seats[2]]),
        [false, true, false, false]
    );
    drop(seats);
    assert_eq!(gate.state().sources.len(), 1);
    let text = |text: &str| source(text.parse().unwrap()).to_string();
    assert_eq!(text("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    assert_eq!(text("::ffff:192.0.2.1"), "192.0.2.1");
}

#[test]
fn the_proven_make_room_for_each_other_only() {
    let gate = Gate::new(LIMITS);
    let (a, b) = (enter(&gate, 1).unwrap(), enter(&gate, 1).unwrap());
    assert!(a.prove() && b.prove() && !a.prove());
    drop(a.begin());
    let strangers: Vec<_> = (0..9).map(|host| enter(&gate, host).unwrap()).collect();
    assert_eq!(gone(&[&a, &b]), [false, false]);
    assert!(gate.is_pressed());
    // `a` was used last.
    assert!(strangers[8].prove());
    assert_eq!(gone(&[&a, &b, &strangers[8]]), [false, true, false]);
    let working = [a.begin(), strangers[8].begin()];
    assert!(!strangers[7].prove() && !strangers[7].is_proven());
    drop(working);
    assert!(strangers[7].prove());
    assert_eq!(gone(&[&a]), [true]);
}

#[test]
fn forged_addresses_do_not_displace_those_of_whom_something_is_known() {
    let gate = Gate::new(LIMITS);
    let known = enter(&gate, 1).unwrap();
    assert!(known.prove());
    drop(known);
    // It comes back from there without a token, another one comes with a token.
    let familiar = enter(&gate, 1).unwrap();
    let token = gate.enter(SocketAddr::from(([192, 0, 2, 2], 443)), true);
    let token = Arc::new(token.unwrap());
    let forged: Vec<_> = (10..200).map(|host| enter(&gate, host).unwrap()).collect();
    assert_eq!(
        gone(&[&familiar, &token, &forged[188], &forged[189]]),
        [false, false, true, false]
    );
    // Others that bring tokens do.
    let others = [3, 4].map(|host| gate.enter(SocketAddr::from(([192, 0, 2, host], 443)), true));
    assert!(others.iter().all(Option::is_some));
    assert_eq!(gone(&[&familiar, &token]), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn under_pressure_the_unknown_come_one_by_one() {
    let clock = Clock::runtime(jiff::Timestamp::UNIX_EPOCH);
    let gate = Gate::new(Limits { rate: 0.5, ..LIMITS });
    let address = |host| SocketAddr::from(([192, 0, 2, host], 443));
    let known = enter(&gate, 9).unwrap();
    assert!(known.prove());
    let admitted = |host, validated| gate.admits(address(host), validated, clock.instant());
    assert!((0..50).all(|_| admitted(1, false)), "without pressure all come");
    let _strangers = [1, 2].map(|host| enter(&gate, host).unwrap());
    let at_once = (0..50).filter(|_| admitted(3, false)).count();
    assert_eq!(at_once, AT_ONCE as usize);
    assert!(
        admitted(3, true) && admitted(9, false),
        "with a token, and from where a known one came"
    );
    for (seconds, expected) in [(1, 0), (1, 1), (4, 2), (3_600, AT_ONCE as usize)] {
        clock.sleep(Duration::from_secs(seconds)).await;
        let came = (0..50).filter(|_| admitted(3, false)).count();
        assert_eq!(came, expected, "{seconds}");
    }
}

#[test]
fn the_pace_follows_the_path() {
    let path = |seconds, rate| Path {
        one_way_max: Duration::from_secs(seconds),
        rate_up: lightpost_config::Rate(rate),
        ..Path::earth()
    };
    let rate = |paths: &[Path]| Limits::default().on(paths).rate;
    // Those who are let in within a round trip fill half of the places.
    assert!((rate(&[path(182, 1e6)]) * 364.0 - 512.0).abs() < 1.0);
    // On a slow line they fill a quarter of it.
    assert!((rate(&[path(1, 1e6)]) - 250_000.0 / 28_800.0).abs() < 0.1);
    assert!(rate(&[]).is_infinite());
}

#[test]
fn only_so_many_sources_are_remembered() {
    let gate = Gate::new(LIMITS);
    for host in 0..FAMILIAR as u32 + 10 {
        let address = SocketAddr::from((std::net::Ipv4Addr::from_bits(host << 8), 443));
        assert!(gate.enter(address, false).unwrap().prove());
    }
    let state = gate.state();
    assert_eq!(state.familiar.len(), FAMILIAR);
    assert!(!state.familiar.contains_key(&IpAddr::from([0, 0, 9, 0])));
    assert!(state.familiar.contains_key(&IpAddr::from([0, 0, 10, 0])));
}

#[test]
fn the_heaviest_strangers_go() {
    let gate = Gate::new(LIMITS);
    let seats = [1, 2, 3].map(|host| enter(&gate, host).unwrap());
    for (seat, octets) in seats.iter().zip([30, 60, 50]) {
        seat.weigh(Box::new(move || octets));
    }
    gate.relieve();
    assert_eq!(gone(&[&seats[0], &seats[1], &seats[2]]), [false, true, false]);
    gate.relieve();
    assert_eq!(gone(&[&seats[0], &seats[2]]), [false, false]);
}

#[test]
fn nothing_stays_of_those_who_left() {
    let gate = Gate::new(LIMITS);
    let seats: Vec<_> = (0..20).map(|host| enter(&gate, host % 5).unwrap()).collect();
    seats[19].prove();
    let working = seats[18].begin();
    drop(seats);
    drop(working);
    let state = gate.state();
    assert!(state.entries.is_empty() && state.strangers.is_empty());
    assert!(state.proven.is_empty() && state.sources.is_empty());
}
