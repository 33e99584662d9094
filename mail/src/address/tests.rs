use super::*;

#[test]
fn valid_addresses_are_kept_as_written() {
    let long_local = format!("{}@x.example", "a".repeat(64));
    for (text, local, destination) in [
        ("a@b", "a", "b"),
        ("Ann.Lee@Moon.Example", "Ann.Lee", "moon.example"),
        ("a@moon.example.", "a", "moon.example"),
        ("a+b/c=d@x-y.example", "a+b/c=d", "x-y.example"),
        ("!#$%&'*+-/=?^_`{|}~@x", "!#$%&'*+-/=?^_`{|}~", "x"),
        (r#""a b"@x.example"#, r#""a b""#, "x.example"),
        (r#""a@b"@x.example"#, r#""a@b""#, "x.example"),
        (r#""a\"\\>"@x.example"#, r#""a\"\\>""#, "x.example"),
        (r#"""@x.example"#, r#""""#, "x.example"),
        ("a@[192.0.2.1]", "a", "[192.0.2.1]"),
        ("a@[IPv6:2001:DB8::1]", "a", "[ipv6:2001:db8::1]"),
        ("jörg@mönd.example", "jörg", "xn--mnd-sna.example"),
        ("月@Mönd.Example.", "月", "xn--mnd-sna.example"),
        ("\"jö rg\"@x", "\"jö rg\"", "x"),
        (&long_local, &"a".repeat(64), "x.example"),
    ] {
        let address = Address::parse(text).unwrap_or_else(|error| panic!("\"{text}\" {error}"));
        assert_eq!(
            (
                address.as_str(),
                address.local_part(),
                address.destination().as_str()
            ),
            (text, local, destination)
        );
    }
}

#[test]
fn each_broken_rule_has_its_own_error() {
    let label = "a".repeat(64);
    let label_address = format!("a@{label}.example");
    let long_local = format!("{}@x", "a".repeat(65));
    let label63 = "d".repeat(63);
    let long_domain = format!("a@{label63}.{label63}.{label63}.{label63}.x");
    let long_address = format!("{}@{label63}.{label63}.{label63}", "a".repeat(64));
    for (text, error) in [
        ("", AddressError::Empty),
        ("a", AddressError::NoDomain),
        ("a@", AddressError::NoDomain),
        ("\"a\"", AddressError::NoDomain),
        ("PostMaster", AddressError::Postmaster),
        ("@b", AddressError::NoLocalPart),
        (".a@b", AddressError::LocalDot),
        ("a.@b", AddressError::LocalDot),
        ("a..b@c", AddressError::LocalDot),
        ("a b@c", AddressError::LocalCharacter(' ')),
        ("a<b@c", AddressError::LocalCharacter('<')),
        ("a\u{a0}b@c", AddressError::LocalCharacter('\u{a0}')),
        ("a\"b\"@c", AddressError::LocalCharacter('"')),
        ("\"a\\ö\"@c", AddressError::LocalCharacter('ö')),
        ("\"a@b", AddressError::UnclosedQuote),
        ("\"a\\\"@b", AddressError::UnclosedQuote),
        ("\"a\"b@c", AddressError::AfterQuote),
        ("a@b@c", AddressError::DomainCharacter('@')),
        ("a\r\n@b", AddressError::Control('\r')),
        ("\"a\n\"@b", AddressError::Control('\n')),
        ("\"a\\\0\"@b", AddressError::Control('\0')),
        ("\"a\u{85}\"@b", AddressError::Control('\u{85}')),
        ("\"a\u{2028}\"@b", AddressError::Control('\u{2028}')),
        ("a@b\r", AddressError::Control('\r')),
        ("a@b c", AddressError::DomainCharacter(' ')),
        ("a@b>", AddressError::DomainCharacter('>')),
        ("a@b_c", AddressError::DomainCharacter('_')),
        ("a@.b", AddressError::EmptyLabel),
        ("a@b..c", AddressError::EmptyLabel),
        ("a@b..", AddressError::EmptyLabel),
        ("a@.", AddressError::EmptyLabel),
        ("a@-b", AddressError::Hyphen),
        ("a@b-.c", AddressError::Hyphen),
        (&label_address, AddressError::LabelTooLong(64)),
        (&long_local, AddressError::LocalTooLong(65)),
        (&long_domain, AddressError::DomainTooLong(257)),
        (&long_address, AddressError::TooLong(256)),
        ("a@[1.2.3]", AddressError::Literal),
        ("a@[1.2.3.4", AddressError::Literal),
        ("a@[2001:db8::1]", AddressError::Literal),
        ("a@[IPv6:1.2.3.4]", AddressError::Literal),
        ("a@[x:y]", AddressError::Literal),
        ("a@mönd\u{3000}b", AddressError::DomainCharacter('\u{3000}')),
        ("a@mön\u{ff20}d", AddressError::Idna),
        ("a@mön\u{fffd}d", AddressError::Idna),
    ] {
        assert_eq!(Address::parse(text), Err(error), "{text:?}");
    }
}

#[test]
fn paths_end_at_their_bracket_and_lose_their_route() {
    for (text, address, rest) in [
        ("<a@b>", "a@b", ""),
        ("<a@b> SIZE=1", "a@b", " SIZE=1"),
        (r#"<"a> b\""@c> X"#, r#""a> b\""@c"#, " X"),
        ("<@a,@b.example:c@d>", "c@d", ""),
        ("<@[IPv6:::1]:c@d>", "c@d", ""),
    ] {
        let (inner, left) = path::split(text).unwrap();
        assert_eq!((path::address(inner).unwrap().as_str(), left), (address, rest));
    }
    for text in ["@a", "@a:", "@a,b:c@d", "@:c@d", "@a,:c@d", "@[::1:c@d"] {
        assert!(path::address(text).is_err(), "{text}");
    }
    assert_eq!(path::split("<a@b"), Err(AddressError::Brackets));
    assert_eq!(path::split("a@b>"), Err(AddressError::Brackets));
    assert_eq!(path::split("<\"a@b>"), Err(AddressError::UnclosedQuote));
}

#[test]
fn serde_takes_only_addresses() {
    let address: Address = serde_json::from_str("\"a@b\"").unwrap();
    assert_eq!(serde_json::to_string(&address).unwrap(), "\"a@b\"");
    let error = serde_json::from_str::<Address>("\"a\"").unwrap_err();
    assert!(error.to_string().contains("has no domain"));
}
