//! Any text: no panic, and what is an address can stand on a line of its own, between angle brackets and in a route.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightpost_mail::{Address, Recipient};

fuzz_target!(|text: &str| {
    let Ok(address) = Address::parse(text) else {
        return;
    };
    assert_eq!(address.as_str(), text);
    assert!(!text.chars().any(char::is_control));
    assert!(text.len() <= 254 && address.local_part().len() <= 64);
    assert_eq!(format!("{}@{}", address.local_part(), address.domain()), text);
    if !address.local_part().starts_with('"') {
        assert!(!text.contains([' ', '<', '>', '"']));
    }
    let destination = address.destination();
    assert!(destination.is_ascii() && !destination.is_empty() && !destination.ends_with('.'));
    assert_eq!(destination, destination.to_ascii_lowercase());
    let recipient: Recipient = format!("<{text}> NOTIFY=NEVER").parse().expect("an address in brackets");
    assert_eq!(recipient.address, address);
});
