use http::HeaderValue;
use proptest::prelude::*;
use url::Url;

use super::*;
use crate::bundle::payload::{self, Content, Payload, PayloadError, read};

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn sample(body: &Bytes) -> (HeaderMap, Bytes) {
    let fields = headers(&[
        ("content-type", "application/batch-SMTP"),
        ("x-twice", "1"),
        ("x-twice", "2"),
    ]);
    let url: Url = "https://gw1.moon.example/inboundmail#ipn:2.25".parse().unwrap();
    let payload = payload::request(&url, &fields, body);
    (fields, payload)
}

#[test]
fn a_request_is_read_by_another_implementation() {
    let body = Bytes::from_static(OBJECT);
    let (_, payload) = sample(&body);
    let message = bhttp::Message::read_bhttp(&mut std::io::Cursor::new(&payload[..])).unwrap();
    assert_eq!(message.control().method(), Some(&b"POST"[..]));
    assert_eq!(message.control().scheme(), Some(&b"https"[..]));
    assert_eq!(message.control().authority(), Some(&b"gw1.moon.example"[..]));
    assert_eq!(message.control().path(), Some(&b"/inboundmail"[..]));
    assert_eq!(
        message.header().get(b"content-type"),
        Some(&b"application/batch-SMTP"[..])
    );
    assert_eq!(message.content(), OBJECT);
    assert!(message.trailer().is_empty());
}

#[test]
fn what_another_implementation_writes_is_read() {
    let mut message = bhttp::Message::response(bhttp::StatusCode::try_from(422_u16).unwrap());
    message.put_header("retry-after", "10");
    message.write_content(b"{}");
    let mut octets = Vec::new();
    message
        .write_bhttp(bhttp::Mode::KnownLength, &mut octets)
        .unwrap();
    let expected = Content {
        headers: headers(&[("retry-after", "10")]),
        body: Bytes::from_static(b"{}"),
    };
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    assert_eq!(read(&octets.into()), Ok(Payload::Response(status, expected)));
}

#[test]
fn what_is_neither_is_refused() {
    let body = Bytes::from_static(b"four");
    let (_, whole) = sample(&body);
    let cut = whole.slice(..whole.len() - 3);
    assert_eq!(read(&cut), Err(PayloadError::Cut("the content")));
    for (octets, expected) in [
        (&b""[..], PayloadError::Unknown),
        (b"\x02\x04POST", PayloadError::Unknown),
        (b"Subject: hello\r\n", PayloadError::Unknown),
        (b"\x01\x40\x64\x00", PayloadError::Interim),
        (b"\x00\x04", PayloadError::Cut("the control data")),
        (
            b"\x00\x03GET\x05https\x01a\x01/\x00",
            PayloadError::Cut("the length of the content"),
        ),
        (b"\x00\x03GET\x05https\x01a\x01/\x00\x00", PayloadError::Method),
        (
            b"\x00\x04POST\x05https\x01a\x01/\xbf\xff\xff\xff",
            PayloadError::TooLong {
                what: "the header section",
                octets: 0x3fff_ffff,
                most: 65_536,
            },
        ),
    ] {
        assert_eq!(read(&Bytes::from_static(octets)), Err(expected), "{octets:?}");
    }
    assert!(matches!(
        read(&Bytes::from_static(
            b"\x00\x04POST\x05https\x01a\x01/\x04\x01 \x01x\x00"
        )),
        Err(PayloadError::Head(_))
    ));
    let object = Bytes::from_static(b"ehlo x\r\n");
    assert_eq!(read(&object), Ok(Payload::BatchSmtp(object.clone())));
}

proptest! {
    #[test]
    fn any_request_comes_back(body in prop::collection::vec(any::<u8>(), 0..20_000)) {
        let body = Bytes::from(body);
        let (headers, payload) = sample(&body);
        prop_assert_eq!(read(&payload), Ok(Payload::Request(Content { headers, body })));
    }

    #[test]
    fn nothing_that_comes_does_harm(mut octets in prop::collection::vec(any::<u8>(), 0..200), first in 0_u8..4) {
        if let Some(octet) = octets.first_mut() {
            *octet = first;
        }
        let _ = read(&octets.into());
    }

    #[test]
    fn a_changed_octet_does_no_harm(place in 0_usize..120, to in any::<u8>()) {
        let (_, payload) = sample(&Bytes::from_static(b"some body"));
        let mut octets = payload.to_vec();
        if let Some(octet) = octets.get_mut(place) {
            *octet = to;
        }
        let _ = read(&octets.into());
    }
}
