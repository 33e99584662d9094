//! Header sections are judged for loops, and what our own fields say of an earlier passage is an id that can be shown and addresses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightpost_mail::{Address, trace::hops};

fuzz_target!(|octets: &[u8]| {
    let hops = hops(octets, "relay.earth.example");
    assert!(hops.own.len() <= hops.received);
    let passages = hops.own.iter();
    let ids = passages.clone().filter_map(|passage| passage.id.as_deref());
    for id in ids.chain(hops.upstream.as_deref()) {
        assert!(id.len() <= 64 && id.bytes().all(|octet| octet.is_ascii_graphic()));
    }
    for recipient in passages.flat_map(|passage| &passage.recipients) {
        let address = Address::parse(recipient).unwrap();
        assert!(hops.were_for(&address));
    }
});
