//! Lines that are slow, and lines that are long: what waits for others on them is not given up or sent anew for that, and what the line
//! carries is on its way at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::time::Duration;

use lightpost_tests::{
    Site,
    bundles::replace,
    corpus,
    dovecot::Dovecot,
    pki::Authority,
    process::Signal,
    programs::Program,
    wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const PATIENCE: Duration = Duration::from_secs(120);
/// Each has more than a second on the line, and a reply is awaited for four.
const LARGE: usize = 12;
/// More than a gateway takes at once, and less than the line carries in a round trip.
const SMALL: usize = 300;

struct World {
    client: Program,
    gateway: Gateway,
    dovecot: Dovecot,
    _site: Site,
}

impl World {
    /// With lines added to the client's path, and figures of it that are others.
    fn new(lines: &str, figures: &[(&str, &str)]) -> Self {
        let site = Site::new();
        let authority = Authority::new(&site, "ca");
        let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
        let settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
        let gateway = Gateway::start(&site, &authority, &settings);
        let mut settings = ClientSettings::discovering(site.socket(), &[]);
        settings.path = lines.into();
        settings
            .routes
            .push(("moon.example".into(), vec![gateway.uri_by_address()]));
        let mut client = world::client(&site, &authority, &settings);
        for (from, to) in figures {
            replace(&client.configuration, from, to);
        }
        client.start(&site);
        Self {
            client,
            gateway,
            dovecot,
            _site: site,
        }
    }

    fn submit(&self, mail: &[u8]) -> String {
        self.client.submit(ALICE, &[BOB], mail)
    }

    /// Waits until a mail is delivered that left once and was never put off.
    fn delivered_at_once(&self, id: &str) {
        self.client.wait_status(id, "delivered", PATIENCE);
        let message = self.client.message(id);
        let events = message["history"].as_array().unwrap();
        let mut kinds = events.iter().filter_map(|event| event["kind"].as_str());
        assert!(kinds.all(|kind| kind != "deferred"), "{message:#}");
    }
}

#[test]
fn large_mails_on_a_slow_line_leave_once_and_arrive_one_after_the_other() {
    // With outages it is no path of Earth's, so the client keeps to its rate.
    let world = World::new(
        "reply_within = \"4s\"\n",
        &[
            ("rate_up = \"1Gbit/s\"", "rate_up = \"8Mbit/s\""),
            ("outage_max = \"0s\"", "outage_max = \"10s\""),
        ],
    );
    let large: Vec<String> = (0..LARGE)
        .map(|number| world.submit(&corpus::attachment(&format!("large {number}"), 1_500_000)))
        .collect();
    let last = large.last().unwrap();
    world.client.wait_status(last, "awaiting", PATIENCE);
    let small = world.submit(&corpus::message("small", b"Hello\r\n"));
    world.client.wait_status(&small, "delivered", PATIENCE);
    let left = world.client.statuses(last);
    assert_eq!(left, ["awaiting"], "the small one has overtaken them");

    world.delivered_at_once(&large[0]);
    let under_way = large
        .iter()
        .filter(|id| world.client.statuses(id) == ["awaiting"]);
    let under_way = under_way.count();
    assert!(
        under_way > LARGE / 2,
        "the first does not wait for the others: {under_way}"
    );
    for id in &large {
        world.delivered_at_once(id);
    }
    assert_eq!(world.dovecot.wait_mails(BOB, LARGE + 1).len(), LARGE + 1);
}

#[test]
fn as_many_small_mails_are_on_a_long_line_as_it_carries() {
    let far = "one_way_max = \"10s\"";
    let figures = [
        ("one_way_max = \"20ms\"", far),
        ("rate_up = \"1Gbit/s\"", "rate_up = \"10Mbit/s\""),
    ];
    let mut world = World::new("", &figures);
    let first = world.submit(&corpus::message("first", b"Hello\r\n"));
    world.delivered_at_once(&first);

    // As long as it stands still, the line is long.
    world.gateway.program.process().signal(Signal::Stop);
    let small: Vec<String> = (0..SMALL)
        .map(|number| world.submit(&corpus::message(&format!("small {number}"), b"Hello\r\n")))
        .collect();
    for id in &small {
        world.client.wait_status(id, "awaiting", PATIENCE);
    }
    world.gateway.program.process().signal(Signal::Continue);
    for id in &small {
        world.delivered_at_once(id);
    }
    wait::until("all are in the mailbox", PATIENCE, || {
        world.dovecot.mails(BOB).len() == SMALL + 1
    });
}
