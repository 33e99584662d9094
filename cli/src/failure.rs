//! What ends a command, and its exit code.

use std::fmt;

use serde::Serialize;

/// Exit codes by sysexits.h, as far as they are used.
pub(crate) mod code {
    /// Wrong arguments.
    pub(crate) const USAGE: u8 = 64;
    /// The input is refused for good.
    pub(crate) const DATAERR: u8 = 65;
    /// A file that was named cannot be read.
    pub(crate) const NOINPUT: u8 = 66;
    /// A service does not answer.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// A defect of ours.
    pub(crate) const SOFTWARE: u8 = 70;
    /// The operating system refuses.
    pub(crate) const OSERR: u8 = 71;
    /// Reading or writing failed.
    pub(crate) const IOERR: u8 = 74;
    /// Try again later; the one code that every MTA keeps mail for.
    pub(crate) const TEMPFAIL: u8 = 75;
    /// The other side does not speak as it should.
    pub(crate) const PROTOCOL: u8 = 76;
    /// Not allowed.
    pub(crate) const NOPERM: u8 = 77;
    /// The configuration is wrong.
    pub(crate) const CONFIG: u8 = 78;
}

/// Why a command ended, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    /// Exit code.
    pub(crate) code: u8,
    /// What is wrong; empty when the command has told it already.
    #[serde(rename = "error")]
    pub(crate) what: String,
    /// What to do; empty when `what` says it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) remedy: String,
}

impl Failure {
    /// `what` is wrong; do `remedy`.
    pub(crate) fn new(code: u8, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// The same with another exit code.
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}
