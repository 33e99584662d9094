use proptest::prelude::*;

use super::*;

fn received<'a>() -> Received<'a> {
    Received {
        from: Some("mail.earth.example"),
        address: None,
        by: "relay.earth.example",
        with: "HTTP",
        id: "01J9ZK",
        recipient: Some("jörg@moon.example"),
        at: "2026-11-22T04:05:06Z".parse().unwrap(),
    }
}

#[test]
fn the_field_is_folded() {
    assert_eq!(
        received().field(),
        "Received: from mail.earth.example\r\n by relay.earth.example\r\n with HTTP\r\n id 01J9ZK\r\n \
         for <jörg@moon.example>;\r\n Sun, 22 Nov 2026 04:05:06 +0000\r\n"
    );
    let field = Received {
        from: None,
        recipient: None,
        id: "",
        ..received()
    }
    .field();
    assert_eq!(
        field,
        "Received: by relay.earth.example\r\n with HTTP\r\n id unknown;\r\n Sun, 22 Nov 2026 04:05:06 +0000\r\n"
    );
}

#[test]
fn the_address_stands_behind_the_name() {
    for (from, address, expected) in [
        (
            Some("a.example"),
            "192.0.2.1",
            "from a.example\r\n ([192.0.2.1])\r\n by",
        ),
        (
            None,
            "2001:db8::1",
            "from unknown\r\n ([IPv6:2001:db8::1])\r\n by",
        ),
    ] {
        let address = Some(address.parse().unwrap());
        let field = Received {
            from,
            address,
            ..received()
        }
        .field();
        assert!(field.contains(expected), "{field}");
        assert_eq!(hops(field.as_bytes(), "relay.earth.example").own.len(), 1);
    }
}

#[test]
fn our_own_field_is_counted_as_such() {
    let field = received().field();
    let expected = Hops {
        received: 1,
        own: vec![Passage {
            id: Some("01J9ZK".into()),
            recipients: vec!["jörg@moon.example".into()],
        }],
        upstream: Some("01J9ZK".into()),
    };
    assert_eq!(hops(field.as_bytes(), "Relay.Earth.Example."), expected);
    assert_eq!(hops(field.as_bytes(), "mail.earth.example").own, []);
}

#[test]
fn what_came_back_is_recognised_by_its_recipient() {
    let quoted = "\"a>b; (c\"@moon.example";
    for (written, asked, expected) in [
        (Some("bob@moon.example"), "bob@moon.example", true),
        (Some("bob@moon.example"), "Bob@Moon.Example", true),
        (Some("bob@moon.example"), "eve@moon.example", false),
        (Some(quoted), quoted, true),
        (None, "bob@moon.example", false),
    ] {
        let field = Received {
            recipient: written,
            ..received()
        }
        .field();
        let hops = hops(field.as_bytes(), "relay.earth.example");
        let asked = Address::parse(asked).unwrap();
        assert_eq!(hops.were_for(&asked), expected, "{field} {asked}");
    }
}

#[test]
fn the_id_of_who_handed_over_stands_in_the_first_field() {
    for (headers, upstream) in [
        ("Received: by a id 1\r\nReceived: by b id 2\r\n", Some("1")),
        (
            "Received: from x (y [192.0.2.1])\r\n\tby a (Postfix) with ESMTP id 4Zx9\r\n\tfor <a@b>; date\r\n",
            Some("4Zx9"),
        ),
        ("Subject: x\r\nReceived: by b id 2\r\n", None),
        (
            "X-Spam: Yes\r\nAuthentication-Results: a; none\r\nReceived: by b id 2\r\n",
            Some("2"),
        ),
        ("X-Spam: Yes\r\nSubject: x\r\nReceived: by b id 2\r\n", None),
        ("Received: by a; id 1\r\n", None),
        ("Received: by a id J\u{f6}rg\r\n", None),
        ("", None),
    ] {
        assert_eq!(
            hops(headers.as_bytes(), "x").upstream.as_deref(),
            upstream,
            "{headers}"
        );
    }
    let long = format!("Received: by a id {}\r\n", "x".repeat(65));
    assert_eq!(hops(long.as_bytes(), "x").upstream, None);
}

#[test]
fn hops_are_counted_in_the_header_section_only() {
    for (headers, received, own) in [
        ("", 0, 0),
        ("\r\nReceived: by x\r\n", 0, 0),
        ("Received: by x", 1, 1),
        ("Received: by x;date\r\n\r\nReceived: by x\r\n", 1, 1),
        ("RECEIVED : from y\r\n\tBY\r\n X\r\n (by z); d\r\n", 1, 1),
        ("Received: from y (by x) by z; by x\r\n", 1, 0),
        ("Received: from y (a (by x) \\) by x) by z\r\n", 1, 0),
        ("Received: from \"by x\" by z\r\n", 1, 0),
        (
            "Received: by x.example\r\nReceived: by x(comment)\r\nReceived: by\r\n",
            3,
            1,
        ),
        ("Received: (unclosed by x\r\n", 1, 0),
        (
            "X-Received: by x\r\nSubject: a\r\n Received: by x\r\nreceived: from b by x.\r\n",
            1,
            1,
        ),
        ("no colon\r\nReceived: by x\r\n", 1, 1),
        ("Received: by x\nReceived: by x\n\nReceived: by x\n", 2, 2),
    ] {
        let hops = hops(headers.as_bytes(), "x");
        assert_eq!((hops.received, hops.own.len()), (received, own), "{headers:?}");
    }
}

#[test]
fn fields_have_names_and_values() {
    let headers = b"A: b\r\n c\r\nno field\r\nD :\r\n\r\nE: f\r\n";
    let all: Vec<_> = fields(headers).collect();
    assert_eq!(all, [(&b"A"[..], &b" b\r\n c\r\n"[..]), (b"D", b"\r\n")]);
}

proptest! {
    #[test]
    fn no_value_adds_a_field(from in any::<String>(), id in "[\\r\\n\\t :;()a-z\\PC]{0,300}", recipient in any::<String>()) {
        let field = Received { from: Some(&from), by: &id, with: &id, id: &id, recipient: Some(&recipient), ..received() }.field();
        let body = field.strip_suffix("\r\n").unwrap();
        for line in body.split("\r\n").skip(1) {
            prop_assert!(line.starts_with(' ') && !line.trim().is_empty());
        }
        prop_assert!(!body.replace("\r\n", "").contains(['\r', '\n', '\0']));
        prop_assert_eq!(hops(field.as_bytes(), "x").received, 1);
    }

    #[test]
    fn any_header_section_is_judged(headers in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = hops(&headers, "x");
    }
}
