use proptest::prelude::*;

use super::*;
use crate::envelope::strategies;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn status(recipient: &str, action: Action, code: &str, diagnostic: &str) -> RecipientStatus {
    RecipientStatus {
        recipient: recipient.parse().unwrap(),
        action,
        status: code.parse().unwrap(),
        remote_mta: None,
        diagnostic: diagnostic.to_owned(),
        smtp: false,
        last_attempt: Some(time("2026-11-22T05:00:00Z")),
        retry_until: Some(time("2026-11-25T05:00:00Z")),
    }
}

fn written(original: &str, recipients: &[RecipientStatus], returned: &[u8], returned_full: bool) -> String {
    let original: Sender = original.parse().unwrap();
    let (to, message) = write(&Notification {
        reporting_mta: "gw.moon.example",
        from: &Address::parse("MAILER-DAEMON@gw.moon.example").unwrap(),
        original: &original,
        arrival: time("2026-11-22T04:00:00Z"),
        recipients,
        returned,
        returned_full,
        now: time("2026-11-22T05:00:01Z"),
        id: "01J9ZK5",
    })
    .unwrap();
    assert_eq!(Some(&to.address), original.path.address());
    let message = String::from_utf8(message).unwrap();
    assert!(message.ends_with("\r\n"));
    assert_eq!(message.matches('\n').count(), message.matches("\r\n").count());
    assert_eq!(message.matches('\r').count(), message.matches("\r\n").count());
    message.replace("\r\n", "\n")
}

#[test]
fn a_failure_with_headers() {
    let mut refused = status(
        "<user@moon.example> ORCPT=rfc822;alias@earth.example NOTIFY=FAILURE",
        Action::Failed,
        "5.1.1",
        "550 5.1.1 <user@moon.example>: Recipient address rejected:\r\n User unknown in local recipient table",
    );
    refused.remote_mta = Some("mail.moon.example".into());
    refused.smtp = true;
    let expired = status(
        "<late@moon.example>",
        Action::Failed,
        "4.4.7",
        "the mail was not delivered in 3 days",
    );
    insta::assert_snapshot!(written(
        "<ann@earth.example> ENVID=QQ314159+20x RET=HDRS",
        &[refused, expired],
        b"From: ann@earth.example\r\nSubject: hello\r\n\r\nThe body stays here.\r\n",
        false,
    ));
}

#[test]
fn a_delay_with_the_whole_mail() {
    let mut delayed = status(
        "<user@moon.example>",
        Action::Delayed,
        "4.4.1",
        "no contact before 06:00",
    );
    delayed.last_attempt = None;
    insta::assert_snapshot!(written(
        "<ann@earth.example>",
        &[delayed],
        b"Subject: hello\r\n\r\nThe body comes back.\r\n",
        true,
    ));
}

#[test]
fn relayed_to_an_international_address() {
    let mut relayed = status(
        "<jörg@mönd.example> ORCPT=utf-8;jörg@mönd.example",
        Action::Relayed,
        "2.0.0",
        "250 angenommen für jörg",
    );
    relayed.remote_mta = Some("mail.moon.example".into());
    relayed.smtp = true;
    insta::assert_snapshot!(written(
        "<ann@earth.example> SMTPUTF8",
        &[relayed],
        "Subject: grüße\r\n\r\nbody\r\n".as_bytes(),
        false,
    ));
}

#[test]
fn expired_on_the_way_and_by_the_time_that_its_sender_set() {
    let mut unanswered = status(
        "<user@moon.example>",
        Action::Failed,
        "5.4.7",
        "could not be delivered within its lifetime, after 2 attempts; last: no reply came in 3h",
    );
    unanswered.remote_mta = Some("gw1.moon.example".into());
    let late = status(
        "<late@moon.example> NOTIFY=FAILURE ORCPT=rfc822;late@moon.example",
        Action::Failed,
        "5.4.7",
        "could not be sent within its lifetime",
    );
    insta::assert_snapshot!(written(
        "<ann@earth.example> BY=3600;R",
        &[unanswered, late],
        b"Subject: hello\r\n\r\nThe body comes back.\r\n",
        true,
    ));
}

#[test]
fn delivered_to_a_mailbox() {
    let mut delivered = status(
        "<user@moon.example> NOTIFY=SUCCESS ORCPT=rfc822;user@moon.example",
        Action::Delivered,
        "2.0.0",
        "250 2.0.0 <user@moon.example> saved",
    );
    delivered.remote_mta = Some("mail.moon.example".into());
    delivered.smtp = true;
    insta::assert_snapshot!(written(
        "<ann@earth.example> ENVID=7 RET=HDRS",
        &[delivered],
        b"Subject: hello\r\n\r\nbody\r\n",
        false,
    ));
}

#[test]
fn relayed_to_a_system_without_dsn() {
    let mut relayed = status(
        "<user@moon.example> NOTIFY=SUCCESS,FAILURE",
        Action::Relayed,
        "2.0.0",
        "202: on disk at the gateway",
    );
    relayed.remote_mta = Some("gw1.moon.example".into());
    insta::assert_snapshot!(written(
        "<ann@earth.example>",
        &[relayed],
        b"Subject: hello\r\n\r\nbody\r\n",
        false,
    ));
}

#[test]
fn a_failure_and_a_delay_of_international_addresses() {
    let mut failed = status(
        "<jörg@mönd.example> ORCPT=utf-8;jörg@mönd.example",
        Action::Failed,
        "5.1.1",
        "550 5.1.1 <jörg@mönd.example>: unbekannt",
    );
    failed.remote_mta = Some("mail.moon.example".into());
    failed.smtp = true;
    let delayed = status(
        "<b@mönd.example>",
        Action::Delayed,
        "4.4.1",
        "it could not leave yet",
    );
    insta::assert_snapshot!(written(
        "<añn@earth.example> SMTPUTF8",
        &[failed, delayed],
        "Subject: grüße\r\n\r\nKörper\r\n".as_bytes(),
        true,
    ));
}

#[test]
fn times_to_deliver_by() {
    let at = |text: &str| time(text);
    let accepted = at("2030-01-01T00:00:00Z");
    let (return_it, notify) = (
        "<a@b> BY=60;R".parse().unwrap(),
        "<a@b> BY=60;NT".parse().unwrap(),
    );
    let recipient: Recipient = "<c@d> NOTIFY=FAILURE".parse().unwrap();
    let over = at("2030-01-01T00:01:00Z");
    assert_eq!(return_by(&return_it, accepted), Some(over));
    assert_eq!(return_by(&notify, accepted), None);
    assert_eq!(notice_by(&notify, &recipient, accepted), Some(over));
    assert_eq!(notice_by(&return_it, &recipient, accepted), None);
    assert_eq!(
        notice_by(&notify, &"<c@d> NOTIFY=NEVER".parse().unwrap(), accepted),
        None
    );
    assert_eq!(expired(&return_it, accepted, over).to_string(), "5.4.7");
    assert_eq!(expired(&return_it, accepted, accepted).to_string(), "4.4.7");
    assert_eq!(expired(&notify, accepted, over).to_string(), "4.4.7");
    // Every relay is reported where the sender wants the trace, delivery is not.
    assert!(wanted(&notify, &recipient, Action::Relayed) && !wanted(&notify, &recipient, Action::Delivered));
    let by = notify.parameters.deliver_by.unwrap();
    let later = at("2030-01-01T00:00:10.5Z");
    assert_eq!(by.counted_from(later, by.deadline(accepted)).seconds, 49);
    // With mode R nothing below a second can be said.
    let back = return_it.parameters.deliver_by.unwrap();
    assert_eq!(back.counted_from(over, accepted).to_string(), "1;R");
    let long_ago = at("1970-01-01T00:00:00Z");
    assert_eq!(by.counted_from(long_ago, over).seconds, 999_999_999);
}

#[test]
fn returned_octets_choose_their_media_type() {
    let failed = [status("<user@moon.example>", Action::Failed, "5.1.1", "no")];
    for (returned, full, media_type, eight_bit) in [
        ("Subject: a\r\n\r\nb\r\n", false, "text/rfc822-headers", false),
        ("Subject: a\r\n\r\nä\r\n", false, "text/rfc822-headers", false),
        ("Subject: a\r\n\r\nä\r\n", true, "message/rfc822", true),
        ("Subject: ä\r\n\r\n", false, "message/global-headers", true),
        ("Subject: ä\r\n\r\n", true, "message/global", true),
        ("\r\nä\r\n", false, "text/rfc822-headers", false),
        ("", true, "message/rfc822", false),
    ] {
        let message = written("<ann@earth.example>", &failed, returned.as_bytes(), full);
        assert!(
            message.contains(&format!("\nContent-Type: {media_type}\n")),
            "{message}"
        );
        let transfer = "\nContent-Transfer-Encoding: 8bit\n";
        // Once for the whole and once for the part.
        assert_eq!(
            message.matches(transfer).count(),
            if eight_bit { 2 } else { 0 },
            "{message}"
        );
    }
}

#[test]
fn the_boundary_avoids_what_is_returned() {
    let failed = [status("<user@moon.example>", Action::Failed, "5.1.1", "no")];
    let hostile = "--=_lightpost_01J9ZK5--\r\n=_lightpost_01J9ZK5_1\r\n";
    let message = written("<ann@earth.example>", &failed, hostile.as_bytes(), true);
    assert!(message.contains("boundary=\"=_lightpost_01J9ZK5_2\""));
}

#[test]
fn a_null_reverse_path_gets_none() {
    let original = Sender::new(crate::ReversePath::Null);
    let notification = Notification {
        reporting_mta: "x",
        from: &Address::parse("a@x").unwrap(),
        original: &original,
        arrival: Timestamp::UNIX_EPOCH,
        recipients: &[],
        returned: b"",
        returned_full: false,
        now: Timestamp::UNIX_EPOCH,
        id: "1",
    };
    assert!(write(&notification).is_none());
}

#[test]
fn the_postmaster_hears_of_mail_without_a_sender() {
    let original = Sender::new(crate::ReversePath::Null);
    let failed = [status(
        "<user@moon.example>",
        Action::Failed,
        "5.1.1",
        "no such user",
    )];
    let postmaster = Address::parse("postmaster@gw.moon.example").unwrap();
    let (to, message) = write_to_postmaster(
        &Notification {
            reporting_mta: "gw.moon.example",
            from: &Address::parse("MAILER-DAEMON@gw.moon.example").unwrap(),
            original: &original,
            arrival: time("2026-11-22T04:00:00Z"),
            recipients: &failed,
            returned: b"Subject: Undelivered mail returned to sender\r\n\r\n",
            returned_full: false,
            now: time("2026-11-22T05:00:01Z"),
            id: "01J9ZK5",
        },
        &postmaster,
    );
    assert_eq!(to.address, postmaster);
    insta::assert_snapshot!(String::from_utf8(message).unwrap().replace("\r\n", "\n"));
}

#[test]
fn the_postmaster_hears_of_nothing_else() {
    let postmaster = Address::parse("postmaster@gw.moon.example").unwrap();
    for (sender, recipient, expected) in [
        ("<>", "<user@moon.example>", true),
        ("<>", "<user@moon.example> NOTIFY=NEVER", false),
        ("<a@b>", "<user@moon.example>", false),
        ("<>", "<postmaster@gw.moon.example>", false),
        ("<>", "<Postmaster@GW.moon.example>", false),
        ("<>", "<postmaster@moon.example>", true),
    ] {
        let (sender, recipient) = (sender.parse().unwrap(), recipient.parse().unwrap());
        assert_eq!(
            concerns_postmaster(&sender, &recipient, &postmaster),
            expected,
            "{sender} {recipient}"
        );
    }
}

#[test]
fn notify_decides() {
    use Action::{Delayed, Delivered, Failed, Relayed};
    for (sender, recipient, expected) in [
        ("<a@b>", "<c@d>", [true, true, false]),
        ("<a@b>", "<c@d> NOTIFY=NEVER", [false, false, false]),
        ("<a@b>", "<c@d> NOTIFY=FAILURE", [true, false, false]),
        ("<a@b>", "<c@d> NOTIFY=DELAY", [false, true, false]),
        ("<a@b>", "<c@d> NOTIFY=SUCCESS", [false, false, true]),
        ("<a@b>", "<c@d> NOTIFY=SUCCESS,FAILURE,DELAY", [true, true, true]),
        ("<>", "<c@d> NOTIFY=SUCCESS,FAILURE,DELAY", [false, false, false]),
    ] {
        let (sender, recipient) = (sender.parse().unwrap(), recipient.parse().unwrap());
        let got = [Failed, Delayed, Relayed].map(|action| wanted(&sender, &recipient, action));
        assert_eq!(wanted(&sender, &recipient, Delivered), got[2]);
        assert_eq!(got, expected, "{sender} {recipient}");
    }
}

/// The part of the notification that begins with `media_type`, up to the next boundary.
fn part<'a>(message: &'a str, media_type: &str) -> &'a str {
    let start = message.find(media_type).unwrap();
    let rest = &message[start..];
    let rest = &rest[rest.find("\n\n").unwrap() + 2..];
    &rest[..rest.find("\n--=_lightpost_").unwrap()]
}

proptest! {
    #[test]
    fn no_text_from_outside_adds_a_field_or_a_part(
        mut sender in strategies::sender(),
        recipient in strategies::recipient(),
        diagnostic in "[\\PC\\r\\n\\x00:-]{0,80}(\r\n--=_lightpost_01J9ZK5--\r\n|\r\nAction: relayed\r\n)?[\\PC]{0,20}",
        remote in "[\\PC\\r\\n]{0,40}",
    ) {
        sender.path = "<ann@earth.example>".parse::<Sender>().unwrap().path;
        let mut failed = status("<a@b>", Action::Failed, "5.1.1", &diagnostic);
        failed.recipient = recipient;
        failed.remote_mta = Some(remote);
        let message = written(&sender.to_string(), &[failed], b"Subject: a\r\n\r\n", false);
        let international = message.contains("message/global-delivery-status");
        prop_assert!(international || message.is_ascii());
        // Lines that begin with the boundary: three parts and the end.
        prop_assert_eq!(message.lines().filter(|line| line.starts_with("--=_lightpost_")).count(), 4);
        let report = part(&message, if international { "message/global-delivery-status" } else { "message/delivery-status" });
        let names: Vec<&str> = report
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with(' '))
            .map(|line| line.split_once(':').unwrap().0)
            .collect();
        for name in ["Reporting-MTA", "Arrival-Date", "Final-Recipient", "Action", "Status", "Remote-MTA", "Last-Attempt-Date"] {
            prop_assert_eq!(names.iter().filter(|found| **found == name).count(), 1, "{}", report);
        }
        prop_assert!(message.lines().all(|line| line.len() < 998));
    }
}
