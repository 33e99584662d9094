use super::*;

const OURS: &str = "Received: from mx.earth.example\r\n by relay.earth.example\r\n with ESMTP\r\n id 01;\r\n Sun, 22 Nov 2026 04:05:06 +0000\r\n";
const DATE: &str = "; Sun, 22 Nov 2026 04:05:06 +0000\r\n";
// As Postfix, Exim and OpenSMTPD write them.
const POSTFIX: &str = "from out.example (mail.out.example [192.0.2.7])\r\n\tby mx.earth.example (Postfix) with ESMTPS id 4XyZ\r\n\tfor <b@moon.example>";
const EXIM: &str = "from mail.out.example ([192.0.2.8] helo=out.example)\r\n\tby mx.earth.example with esmtps (TLS1.3) tls TLS_AES_256_GCM_SHA384\r\n\t(Exim 4.96)\r\n\t(envelope-from <a@out.example>)\r\n\tid 1oAbCd-0001";
const OPENSMTPD: &str = "from out.example (mail.out.example [2001:db8::7])\r\n\tby mx.earth.example (OpenSMTPD) with ESMTP id 9af";
const PICKUP: &str = "by mx.earth.example (Postfix, from userid 1000)\r\n\tid 7";
const SUBMITTED: &str = "from me (host [192.0.2.9]) by mx (Postfix) with ESMTPSA id 3";
const FILTER: &str = "from localhost (localhost [127.0.0.1]) by mx (Postfix) with ESMTP id 2";
const BORDER: &str = "from border (border [10.0.0.1]) by mx (Postfix) with ESMTP id 1";
/// What a client put there.
const FORGED: &str =
    "from bank.example (bank.example [198.51.100.1])\r\n\tby mx.earth.example (Postfix) with ESMTPSA id 1";

/// Of a mail from the peer `address` with these trace fields below ours.
fn origin(address: &str, fields: &[&str]) -> Origin {
    let source = Source {
        address: address.parse().ok(),
        helo: Some("peer.example".into()),
        ..Source::rest()
    };
    let mut headers = OURS.to_owned();
    for field in fields {
        headers.push_str(&format!("Received: {field}{DATE}"));
    }
    headers.push_str("Subject: x\r\n\r\nReceived: from a ([192.0.2.99]) by b; date\r\n");
    let relays = ["127.0.0.0/8", "10.0.0.0/8"].map(|net| net.parse().unwrap());
    Origin::of(&source, &relays, headers.as_bytes())
}

fn client(address: &str, helo: Option<&str>) -> Origin {
    Origin::Client {
        address: address.parse().unwrap(),
        helo: helo.map(str::to_owned),
    }
}

#[test]
fn the_client_of_the_last_trusted_relay() {
    let postfix = client("192.0.2.7", Some("out.example"));
    for (address, fields, expected) in [
        (
            "192.0.2.1",
            vec![POSTFIX],
            client("192.0.2.1", Some("peer.example")),
        ),
        ("127.0.0.1", vec![POSTFIX, FORGED], postfix.clone()),
        ("", vec![POSTFIX], postfix.clone()),
        (
            "127.0.0.1",
            vec![EXIM, FORGED],
            client("192.0.2.8", Some("out.example")),
        ),
        (
            "127.0.0.1",
            vec![OPENSMTPD],
            client("2001:db8::7", Some("out.example")),
        ),
        ("127.0.0.1", vec![FILTER, BORDER, POSTFIX, FORGED], postfix),
        ("127.0.0.1", vec![SUBMITTED, POSTFIX], Origin::Local),
        ("127.0.0.1", vec![PICKUP, POSTFIX], Origin::Local),
        ("127.0.0.1", vec![BORDER], Origin::Local),
        ("", vec![BORDER; 200], Origin::Local),
        (
            "127.0.0.1",
            vec!["from nowhere by mx with SMTP id 1", POSTFIX],
            Origin::Unknown,
        ),
        ("127.0.0.1", vec![], Origin::Unknown),
        ("", vec![], Origin::Unknown),
    ] {
        assert_eq!(origin(address, &fields), expected, "{address:?} {fields:?}");
    }
}

#[test]
fn a_client_that_calls_itself_a_trusted_relay_is_none() {
    for (field, expected) in [
        (
            "from [10.0.0.1] (rdns.example [192.0.2.66]) by mx (Postfix) with ESMTP id 2",
            "192.0.2.66",
        ),
        (
            "from [192.0.2.66] (helo=[10.0.0.1]) by mx with esmtp (Exim 4.96) id 2",
            "192.0.2.66",
        ),
        (
            "from rdns.example ([IPv6:2001:db8::66] helo=[127.0.0.1]) by mx with esmtp (Exim 4.96) id 2",
            "2001:db8::66",
        ),
    ] {
        let expected = client(expected, None);
        assert_eq!(origin("127.0.0.1", &[field, FORGED]), expected, "{field}");
    }
}
