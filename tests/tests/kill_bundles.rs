//! `kill -9` of client and gateway on entering enumerated system calls and at random moments, under a stream of mails that cross in
//! bundles over TCPCLv4: every acknowledged mail arrives, and none twice, unless the SMTP hop itself was cut between the final dot and
//! its 250.
//!
//! Each program has two stores, its queue and its bundle node's, whose commits and writes are points of their own: a mail passes from
//! one to the other, and the moment between the two belongs to neither. How programs are killed: `lightpost_tests::kills`.

use lightpost_tests::{
    Site,
    bundles::{EARTH, MOON, section},
    dovecot::Dovecot,
    kills::{Points, Walk},
    lmtp_tap::Tap,
    pki::Authority,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const RANDOM_KILLS: usize = 25;
const BOXES: [&str; 3] = ["a@moon.example", "b@moon.example", "c@moon.example"];

const SYNC: &str = "fsync,fdatasync";
const WRITE: &str = "pwrite64";
/// TCPCLv4's octets: contact headers and introductions, then bundles and what is said to them. LMTP's at a gateway, too.
const STREAM: &str = "sendto";

const CLIENT_POINTS: &[Points] = &[
    Points::new("commit of the outbox", SYNC, &[1, 2, 3, 4, 6, 9])
        .on(&["client/outbox.db", "client/outbox.db-wal"]),
    Points::new("commit of the node's store", SYNC, &[1, 2, 3, 4, 6, 9])
        .on(&["earth/bundles/bundles.db", "earth/bundles/bundles.db-wal"]),
    Points::new("large bundle's file is named", SYNC, &[1, 2]).on(&["earth/bundles"]),
    Points::new("write to the outbox", WRITE, &[1, 5, 17, 65])
        .on(&["client/outbox.db", "client/outbox.db-wal"]),
    Points::new("write to the node's store", WRITE, &[1, 2, 5, 9, 17, 33, 65])
        .on(&["earth/bundles/bundles.db", "earth/bundles/bundles.db-wal"]),
    Points::new("octets to the neighbour", STREAM, &[1, 2, 3, 4, 5, 6, 8, 13]),
    Points::new("REST answer", "writev", &[1, 2, 3, 5]),
];
const GATEWAY_POINTS: &[Points] = &[
    Points::new("commit of the inbox", SYNC, &[1, 2, 3, 4, 6, 9])
        .on(&["gw1.moon.example/inbox.db", "gw1.moon.example/inbox.db-wal"]),
    Points::new("commit of the node's store", SYNC, &[1, 2, 3, 4, 6, 9])
        .on(&["moon/bundles/bundles.db", "moon/bundles/bundles.db-wal"]),
    Points::new("large bundle's file is named", SYNC, &[1, 2]).on(&["moon/bundles"]),
    Points::new("write to the inbox", WRITE, &[1, 5, 17, 65])
        .on(&["gw1.moon.example/inbox.db", "gw1.moon.example/inbox.db-wal"]),
    Points::new("write to the node's store", WRITE, &[1, 2, 5, 9, 17, 33, 65])
        .on(&["moon/bundles/bundles.db", "moon/bundles/bundles.db-wal"]),
    Points::new(
        "octets to the neighbour or the LMTP server",
        STREAM,
        &[1, 2, 3, 4, 5, 6, 8, 13, 21],
    ),
    Points::new("connection to either", "connect", &[1, 2, 3]),
];

#[test]
fn what_was_acknowledged_crosses_in_bundles_through_every_kill_and_arrives_once() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &BOXES);
    let tap = Tap::start(site.socket(), dovecot.lmtp);
    let (earth, moon) = (site.socket(), site.socket());
    let mut settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], tap.address);
    settings.peer = format!("endpoints = [\"{}\"]\n", EARTH.endpoint);
    settings.more = section(&site, (MOON, moon), (EARTH, earth));
    let mut gateway = Gateway::start(&site, &authority, &settings);
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings.path = "transports = [\"bundle\"]\nreply_within = \"20s\"\n".into();
    settings
        .routes
        .push(("moon.example".into(), vec![MOON.endpoint.into()]));
    settings.more = section(&site, (EARTH, earth), (MOON, moon));
    let mut client = world::client(&site, &authority, &settings);
    client.start(&site);

    let walk = Walk {
        client: CLIENT_POINTS,
        gateway: GATEWAY_POINTS,
        random: RANDOM_KILLS,
    };
    walk.judge(&site, &mut client, &mut gateway.program, &tap, (&dovecot, &BOXES));
}
