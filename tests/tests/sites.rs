//! Two sites by the files of `deploy/site`: mail both ways, its bounces into the mailbox of the sender over the same link, and the ends of loops.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::time::Duration;

use lightpost_tests::{
    Site, corpus,
    http::Request,
    programs::{self, Program},
    sites::{self, Changes, LOST, Place},
    smtp, wait,
};
use serde_json::Value;

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const SOON: Duration = Duration::from_secs(120);

fn hand_over(at: &Place, from: &str, to: &str, subject: &str) -> Vec<u8> {
    let message = corpus::message(subject, b"Hello\r\n.\r\nthere\r\n");
    smtp::hand_over(at.mta.smtp, &format!("<{from}>"), &[&format!("<{to}>")], &message);
    message
}

/// The report about `subject` in a mailbox, which has to hold `parts`.
#[track_caller]
fn assert_reported(at: &Place, user: &str, count: usize, subject: &str, parts: &[&str]) -> String {
    let mails = at.dovecot.wait_mails(user, count);
    let id = format!("<{subject}@earth.example>");
    let found = mails
        .iter()
        .find(|mail| corpus::contains(mail, b"multipart/report") && corpus::contains(mail, id.as_bytes()));
    let report = found.unwrap_or_else(|| panic!("no report about {subject} among {count} mails"));
    let text = String::from_utf8_lossy(report).into_owned();
    let squeezed = text.to_lowercase().replace("rfc822; ", "rfc822;");
    for part in ["return-path: <>", "action: failed"].iter().chain(parts) {
        assert!(
            squeezed.contains(&part.to_lowercase()),
            "{part:?} is not in\n{text}"
        );
    }
    text
}

/// Nothing waits anywhere, so nothing can come any more.
#[track_caller]
fn assert_quiet(places: &[&Place]) {
    wait::until("all queues are empty", SOON, || {
        places.iter().all(|at| {
            at.mta.queued() == 0 && at.client.unfinished() == Some(0) && at.server.unfinished() == Some(0)
        })
    });
}

#[test]
fn mail_and_bounces_cross_in_both_directions() {
    let site = Site::new();
    let (earth, moon) = sites::start(&site, Changes::default());
    let out = hand_over(&earth, ALICE, BOB, "to-the-moon");
    let back = hand_over(&moon, BOB, ALICE, "to-earth");
    corpus::assert_only_trace_added(&moon.dovecot.wait_mails(BOB, 1)[0], &out);
    corpus::assert_only_trace_added(&earth.dovecot.wait_mails(ALICE, 1)[0], &back);

    // The Moon's Postfix refuses at RCPT: its gateway reports, and that goes over the link through the Moon's client.
    hand_over(&earth, ALICE, "nobody@moon.example", "nobody-there");
    let report = assert_reported(
        &earth,
        ALICE,
        2,
        "nobody-there",
        &[
            "reporting-mta: dns; gw1.moon.example",
            "final-recipient: rfc822;nobody@moon.example",
            "status: 5.1.1",
        ],
    );
    for hop in ["by relay.moon.example", "by gw1.earth.example"] {
        assert!(report.contains(hop), "{report}");
    }
    // Earth's Postfix takes it and returns it itself, over the link through Earth's client.
    hand_over(&moon, BOB, "nobody@earth.example", "nobody-here");
    let report = assert_reported(
        &moon,
        BOB,
        2,
        "nobody-here",
        &[
            "reporting-mta: dns; mx.earth.example",
            "final-recipient: rfc822;nobody@earth.example",
        ],
    );
    for hop in ["by relay.earth.example", "by gw1.moon.example"] {
        assert!(report.contains(hop), "{report}");
    }

    // A report that cannot be delivered itself ends with the postmaster, on the side where it died.
    hand_over(&earth, "", "nobody@moon.example", "a-report");
    let told = moon.dovecot.wait_mails("postmaster@moon.example", 1);
    assert!(corpus::contains(&told[0], b"<a-report@earth.example>"));
    assert_quiet(&[&earth, &moon]);
    earth.dovecot.wait_mails(ALICE, 2);
    moon.dovecot.wait_mails(BOB, 2);
    assert!(earth.dovecot.on_disk("postmaster@earth.example").is_empty());
}

/// What `lightpost queue show` says of an id.
#[track_caller]
fn show(program: &Program, id: &str) -> Value {
    let url = format!("http://{}", program.api);
    let finished = programs::lightpost(&["queue", "show", id, "--json", "--url", &url], b"");
    assert!(finished.status.success(), "{id}: {}", finished.stderr);
    serde_json::from_str(&finished.stdout).unwrap()
}

/// A line of a program's log with all of `parts`.
#[track_caller]
fn assert_logged(site: &Site, program: &str, parts: &[&str]) {
    let file = site.folder().join(format!("{program}.log"));
    wait::until(&format!("{parts:?} in the log of {program}"), SOON, || {
        let log = std::fs::read_to_string(&file).unwrap_or_default();
        log.lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    });
}

/// The queue id in an MTA's reply to a mail.
fn queue_id(reply: &str) -> &str {
    let named = reply.trim_end().split("queued as ").nth(1);
    named.unwrap_or_else(|| panic!("no queue id: {reply}"))
}

#[test]
fn one_id_leads_from_the_mta_on_earth_to_the_queue_of_the_mta_on_the_moon() {
    let site = Site::new();
    let (earth, moon) = sites::start(&site, Changes::default());
    let message = corpus::message("followed", b"Hello\r\n");
    let reply = smtp::offer(
        earth.mta.smtp,
        &format!("<{ALICE}>"),
        &[&format!("<{BOB}>")],
        &message,
    )
    .unwrap();
    let queued = queue_id(&reply);
    let mails = moon.dovecot.wait_mails(BOB, 1);
    assert_quiet(&[&earth, &moon]);

    // From the queue id on Earth to the message here, its exchange, and the message there, by each of their names.
    let here = show(&earth.client, queued);
    let (id, recipient) = (here["id"].as_str().unwrap(), &here["recipients"][0]);
    let exchange = recipient["exchange"].as_str().unwrap();
    assert_eq!(
        (&here["upstream"], &recipient["status"]),
        (&queued.into(), &"delivered".into())
    );
    let there = show(&moon.server, id);
    assert_eq!(
        (&there["upstream"], &there["origin_id"]),
        (&id.into(), &exchange.into())
    );
    for (program, name, expected) in [
        (&earth.client, id, &here),
        (&earth.client, exchange, &here),
        (&moon.server, exchange, &there),
        (&moon.server, there["id"].as_str().unwrap(), &there),
    ] {
        assert_eq!(show(program, name), *expected);
        assert_eq!(program.message(name), *expected);
    }
    // The Moon's MTA says what it calls the mail, and the gateway keeps that.
    let said = there["recipients"][0]["detail"].as_str().unwrap();
    let far = queue_id(said);
    let log = moon.mta.log();
    assert!(log.contains(&format!("{far}: to=<{BOB}>")), "{far}\n{log}");
    let last = there["history"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["kind"], &last["detail"]),
        (&"delivered".into(), &said.into())
    );

    // The mail itself tells the way.
    let head = String::from_utf8_lossy(&mails[0]).replace("\r\n ", " ");
    for field in [
        format!("by gw1.moon.example with HTTP/3 id {exchange} for <{BOB}>"),
        format!("by relay.earth.example with ESMTP id {id} for <{BOB}>"),
        format!("id {queued}"),
    ] {
        assert!(head.contains(&field), "{field} is not in\n{head}");
    }
    // One id, the client's, through both logs.
    assert_logged(&site, "earth-client", &[id, queued, "on disk"]);
    assert_logged(&site, "earth-client", &[id, exchange, "leaves"]);
    assert_logged(&site, "earth-client", &[id, BOB, "outcome=\"delivered\""]);
    assert_logged(&site, "moon-server", &[id, exchange, "on disk"]);
    assert_logged(
        &site,
        "moon-server",
        &[id, exchange, BOB, "outcome=\"delivered\"", far],
    );

    // An id that stands for several messages, as of an MTA that hands over one mail recipient by recipient.
    let queued = "4Zx9AbCd";
    let field =
        format!("Received: by mx.earth.example (Postfix) id {queued}; Sun, 22 Nov 2026 12:00:00 +0000\r\n");
    let stamped = [field.as_bytes(), &message].concat();
    for to in [BOB, "eve@moon.example"] {
        earth.client.submit(ALICE, &[to], &stamped);
    }
    let several = show(&earth.client, queued);
    assert_eq!(several["messages"].as_array().map(Vec::len), Some(2), "{several}");
    let request = Request::get(&format!("/v1/messages/{queued}"));
    let answer = earth.client.ask(&request).unwrap();
    assert_eq!(answer.status, 409, "{}", answer.text());
    let url = format!("http://{}", earth.client.api);
    let finished = programs::lightpost(&["queue", "show", "7ZZZ", "--url", &url], b"");
    assert_eq!(finished.status.code(), Some(65), "{}", finished.stderr);
}

#[test]
fn a_mail_that_both_sites_take_for_the_others_is_returned_at_its_first_return() {
    let site = Site::new();
    let (earth, moon) = sites::start(
        &site,
        Changes {
            lost: &[LOST],
            ..Changes::default()
        },
    );
    for (at, from, subject) in [
        (&earth, ALICE, "lost-from-earth"),
        (&moon, BOB, "lost-from-the-moon"),
    ] {
        hand_over(at, from, "somebody@lost.example", subject);
        let report = assert_reported(at, from, 1, subject, &["status: 5.4.6", "has come back"]);
        // One round: each half of each site has seen it once.
        for half in ["relay.earth", "gw1.earth", "relay.moon", "gw1.moon"] {
            let by = format!("by {half}.example");
            assert_eq!(report.matches(&by).count(), 1, "{half}\n{report}");
        }
    }
    // Several recipients: the trace names none of them, the outbox knows them.
    let message = corpus::message("several", b"Hello\r\n");
    let recipients = ["<one@lost.example>", "<two@lost.example>"];
    smtp::hand_over(earth.mta.smtp, &format!("<{ALICE}>"), &recipients, &message);
    let report = assert_reported(
        &earth,
        ALICE,
        2,
        "several",
        &["one@lost.example", "two@lost.example", "5.4.6"],
    );
    assert_eq!(report.matches("by relay.moon.example").count(), 1, "{report}");
    assert_quiet(&[&earth, &moon]);
    earth.dovecot.wait_mails(ALICE, 2);
    moon.dovecot.wait_mails(BOB, 1);
}

#[test]
fn a_surface_mta_that_routes_mail_back_to_the_client_is_found_out() {
    let site = Site::new();
    let (earth, moon) = sites::start(
        &site,
        Changes {
            circular: &["circle.moon.example"],
            ..Changes::default()
        },
    );
    // The gateway refuses what it has had, and the Moon's client tells the sender, over the link.
    hand_over(&earth, ALICE, "bob@circle.moon.example", "circle");
    let report = assert_reported(
        &earth,
        ALICE,
        1,
        "circle",
        &[
            "reporting-mta: dns; relay.moon.example",
            "status: 5.4.6",
            "has come back",
        ],
    );
    assert_eq!(report.matches("by gw1.moon.example").count(), 1, "{report}");
    // Without a sender, the postmaster is told, and nobody else.
    hand_over(&earth, "", "bob@circle.moon.example", "circle-report");
    let told = moon.dovecot.wait_mails("postmaster@moon.example", 1);
    assert!(corpus::contains(&told[0], b"<circle-report@earth.example>"));
    assert!(corpus::contains(&told[0], b"5.4.6"));
    assert_quiet(&[&earth, &moon]);
    earth.dovecot.wait_mails(ALICE, 1);
    assert!(moon.dovecot.on_disk(BOB).is_empty());
}

/// As an operator would order mail.
const RULES: &str = r#"
[[priority]]
larger_than = "1MB"
priority = -4
[[priority]]
header = "X-Urgent: yes"
priority = 6
[[priority]]
sender = "alice@earth.example"
header = "Precedence: bulk"
priority = -2
always = true
"#;

#[test]
fn a_large_mail_does_not_hold_up_ten_small_ones_behind_it() {
    let site = Site::new();
    let changes = Changes {
        client: RULES,
        ..Changes::default()
    };
    let (earth, moon) = sites::start(&site, changes);
    // Two minutes at 2 Mbit/s, which the client keeps to.
    let large = corpus::attachment("large", 48_000_000);
    let large = earth.client.submit(ALICE, &[BOB], &large);
    earth.client.wait_status(&large, "awaiting", SOON);
    for number in 0..10 {
        hand_over(&earth, ALICE, BOB, &format!("small-{number}"));
    }
    let mails = moon.dovecot.wait_mails(BOB, 10);
    for number in 0..10 {
        corpus::find(&mails, &format!("small-{number}"));
    }
    // It is still on its way.
    assert_eq!(earth.client.statuses(&large), ["awaiting"]);
    assert!(moon.server.message(&large)["id"].is_null());

    // Each has the priority that its sender or a rule gives it, here and at the gateway.
    let tagged = |field: &str| [field.as_bytes(), b"\r\n", &corpus::message("tagged", b"x\r\n")].concat();
    for (from, message, here, there) in [
        ("<alice@earth.example>", tagged("X-Urgent: YES"), 6, 6),
        (
            "<alice@earth.example> MT-PRIORITY=2",
            tagged("X-Urgent: yes"),
            2,
            2,
        ),
        (
            "<alice@earth.example> MT-PRIORITY=2",
            tagged("Precedence: bulk"),
            -2,
            2,
        ),
        ("<eve@earth.example>", tagged("Precedence: bulk"), 0, 0),
    ] {
        let id = earth.client.submit(from, &[BOB], &message);
        earth.client.wait_status(&id, "delivered", SOON);
        assert_eq!(earth.client.message(&id)["priority"], here, "{from}");
        assert_eq!(moon.server.message(&id)["priority"], there, "{from}");
    }
    assert_eq!(earth.client.message(&large)["priority"], -4);
    assert_eq!(earth.client.statuses(&large), ["awaiting"]);
}
