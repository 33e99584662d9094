//! `lightpost ion-agent`: the helper process of a path through ION.

use lightpost_ion::HelperError;

use crate::failure::{Failure, code};

/// Runs it. What is wrong with ION goes to the relay, which tells the operator; the exit code is for those who look at processes.
pub(crate) fn run() -> Result<(), Failure> {
    lightpost_ion::run_helper().map_err(|error| {
        let (code, remedy) = match &error {
            HelperError::ByHand => (code::USAGE, "configure a path with an ION node instead"),
            HelperError::Protocol => (
                code::PROTOCOL,
                "let the relay start its helper from its own program",
            ),
            HelperError::System(_) => (code::OSERR, ""),
            HelperError::Node(_) => (code::UNAVAILABLE, ""),
        };
        Failure::new(code, error.to_string(), remedy)
    })
}
