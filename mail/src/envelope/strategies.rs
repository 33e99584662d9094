//! Arbitrary envelopes for property tests.

use proptest::{collection::vec, option, prelude::*};

use super::*;

pub(crate) fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\\.[a-z0-9-]{1,10}){0,2}@[a-z0-9]{1,10}(\\.[a-zA-Z0-9]{1,10}){0,3}\\.?",
        "\"([ !#-\\[\\]-~äλ月]|\\\\[ -~]){0,12}\"@[a-z]{1,8}\\.example",
        "[äöλ月a-z]{1,10}@[a-z]{1,5}ö\\.example",
        "[a-z]{1,5}@\\[192\\.0\\.2\\.[1-9]\\]",
        "[a-z]{1,5}@\\[IPv6:2001:db8::[1-9a-f]\\]",
    ]
    .prop_filter_map("an address", |text| Address::parse(&text).ok())
}

fn notify() -> impl Strategy<Value = Notify> {
    any::<(bool, bool, bool)>().prop_map(|(success, failure, delay)| match (success, failure, delay) {
        (false, false, false) => Notify::Never,
        _ => Notify::On {
            success,
            failure,
            delay,
        },
    })
}

fn deliver_by() -> impl Strategy<Value = DeliverBy> {
    (any::<bool>(), -999_999_999..=999_999_999, any::<bool>()).prop_map(|(returned, seconds, trace)| {
        let mode = if returned && seconds > 0 {
            DeliverByMode::Return
        } else {
            DeliverByMode::Notify
        };
        DeliverBy { seconds, mode, trace }
    })
}

fn mail_parameters() -> impl Strategy<Value = MailParameters> {
    (
        option::of(prop_oneof![Just(Body::SevenBit), Just(Body::EightBitMime)]),
        option::of(0_u64..50_000_000),
        any::<bool>(),
        option::of(prop_oneof![Just(Ret::Full), Just(Ret::Headers)]),
        option::of("[ -~]{1,30}"),
        option::of(-9_i8..=9),
        option::of(deliver_by()),
    )
        .prop_map(
            |(body, size, smtputf8, ret, envid, mt_priority, deliver_by)| MailParameters {
                body,
                size,
                smtputf8,
                ret,
                envid,
                mt_priority,
                deliver_by,
            },
        )
}

fn orcpt() -> impl Strategy<Value = (String, String)> {
    prop_oneof![
        ("rfc822|x-[a-z]{1,8}", "[ -~ä]{1,40}"),
        ("utf-8|UTF-8", "[ -~äλ月\u{1f680}]{1,30}"),
    ]
}

pub(crate) fn sender() -> impl Strategy<Value = Sender> {
    (option::weighted(0.9, address()), mail_parameters()).prop_map(|(address, parameters)| Sender {
        path: address.map_or(ReversePath::Null, ReversePath::Address),
        parameters,
    })
}

pub(crate) fn recipient() -> impl Strategy<Value = Recipient> {
    (address(), option::of(notify()), option::of(orcpt())).prop_map(|(address, notify, orcpt)| Recipient {
        address,
        parameters: RcptParameters { notify, orcpt },
    })
}

pub(crate) fn envelope() -> impl Strategy<Value = Envelope> {
    (sender(), vec(recipient(), 1..5)).prop_map(|(sender, recipients)| Envelope { sender, recipients })
}
