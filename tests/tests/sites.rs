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
    sites::{self, Changes, LOST, Place},
    smtp, wait,
};

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
