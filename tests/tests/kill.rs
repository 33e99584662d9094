//! `kill -9` of client and gateway on entering enumerated system calls and at random moments, under a stream of mails: every
//! acknowledged mail arrives, and none twice, unless the SMTP hop itself was cut between the final dot and its 250.
//!
//! How programs are killed: `lightpost_tests::kills`. The failover has points of its own in `kill_failover.rs`, bundles in
//! `kill_bundles.rs`.

use lightpost_tests::{
    Site,
    dovecot::Dovecot,
    kills::{Points, Walk},
    lmtp_tap::Tap,
    pki::Authority,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const RANDOM_KILLS: usize = 60;
const BOXES: [&str; 4] = [
    "a@moon.example",
    "b@moon.example",
    "c@moon.example",
    "d@failover.moon.example",
];

const COMMIT: Points = Points::new("commit", "fsync,fdatasync", &[1, 2, 3, 4, 6, 9, 14]);
const WRITE: Points = Points::new(
    "write to the database",
    "pwrite64",
    &[1, 2, 5, 9, 17, 33, 65, 130],
);
const CLIENT_POINTS: &[Points] = &[
    COMMIT,
    WRITE,
    Points::new("datagram", "sendmsg,sendmmsg", &[1, 2, 3, 4, 6, 9, 14, 22]),
    Points::new("REST answer", "sendto,writev", &[1, 2, 3, 5, 8]),
];
const GATEWAY_POINTS: &[Points] = &[
    COMMIT,
    WRITE,
    Points::new("datagram, reply", "sendmsg,sendmmsg", &[1, 2, 3, 4, 6, 9, 14, 22]),
    Points::new("LMTP command or mail", "sendto,writev", &[1, 2, 3, 4, 5, 8, 13]),
    Points::new("LMTP connection", "connect", &[1, 2, 3]),
];

#[test]
fn what_was_acknowledged_survives_every_kill_and_arrives_once() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &BOXES);
    let tap = Tap::start(site.socket(), dovecot.lmtp);
    let domains = ["moon.example", "failover.moon.example"];
    let mut gateway = Gateway::start(
        &site,
        &authority,
        &GatewaySettings::new("gw1.moon.example", &domains, tap.address),
    );
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings.path = "reply_within = \"20s\"\n".into();
    let dead = format!("https://{}/inboundmail", site.socket());
    settings
        .routes
        .push(("moon.example".into(), vec![gateway.uri_by_address()]));
    settings.routes.push((
        "failover.moon.example".into(),
        vec![dead, gateway.uri_by_address()],
    ));
    let mut client = world::client(&site, &authority, &settings);
    client.start(&site);

    let walk = Walk {
        client: CLIENT_POINTS,
        gateway: GATEWAY_POINTS,
        random: RANDOM_KILLS,
    };
    walk.judge(&site, &mut client, &mut gateway.program, &tap, (&dovecot, &BOXES));
}
