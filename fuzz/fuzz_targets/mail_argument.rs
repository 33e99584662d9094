//! Any argument of MAIL and RCPT: no panic, one printable line, an exact round trip, errors that are short and printable.
#![no_main]

use std::{fmt::Display, str::FromStr};

use libfuzzer_sys::fuzz_target;
use lightpost_mail::{Recipient, Sender, envelope::ArgumentError};

fn check<T: FromStr<Err = ArgumentError> + Display + PartialEq + std::fmt::Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            assert!(!written.chars().any(char::is_control));
            assert_eq!(written.parse::<T>().as_ref(), Ok(&value));
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.chars().any(char::is_control));
            assert!(message.len() < 4096);
        }
    }
}

fuzz_target!(|text: &str| {
    check::<Sender>(text);
    check::<Recipient>(text);
    check::<Sender>(&format!("<a@b> {text}"));
    check::<Recipient>(&format!("<a@b> {text}"));
});
