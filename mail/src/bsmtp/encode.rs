//! The generator: strict output, one transaction per object.

use crate::{Envelope, lines::BodyFacts};

/// The commands before the body: EHLO, MAIL, RCPT, DATA. `SIZE` is set from `facts`, `BODY` and `SMTPUTF8` are added where the body or
/// the addresses need them. Then follow the stuffed canonical body ([`crate::lines::Stuffer`]) and [`TAIL`].
pub fn head(_name: &str, _envelope: &Envelope, _facts: &BodyFacts) -> Vec<u8> {
    unimplemented!()
}

/// What ends an object after its body: the final dot and QUIT.
pub const TAIL: &[u8] = b".\r\nQUIT\r\n";

/// The value of `required-extensions` for the object that [`head`] starts: the keywords that it uses, in fixed order.
pub fn required_extensions(_envelope: &Envelope, _facts: &BodyFacts) -> String {
    unimplemented!()
}
