//! What is wrong with an object, and where.

use crate::{EnhancedCode, envelope::ArgumentError};

/// An error, with its place. Transactions that ended before it still count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, octet {offset}, transaction {transaction} (begun on line {begun}): {kind}")]
pub struct DecodeError {
    /// Line of the object, from 1.
    pub line: u64,
    /// Octet of the object, from 0. An error that concerns a whole line or body names its first octet.
    pub offset: u64,
    /// The transaction that it belongs to, from 1; between transactions the one that would come next.
    pub transaction: usize,
    /// The line on which that transaction began (its MAIL); `line` where it has not.
    pub begun: u64,
    /// What is wrong.
    pub kind: DecodeErrorKind,
}

impl DecodeError {
    /// The enhanced status code that tells it to a peer.
    pub fn code(&self) -> EnhancedCode {
        self.kind.code()
    }
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The object ends before it should.
    #[error("the object ends {0}")]
    Truncated(&'static str),
    /// The object ends, and held no mail.
    #[error("the object holds no mail")]
    NoTransaction,
    /// Something follows QUIT.
    #[error("something follows QUIT")]
    AfterQuit,
    /// The command is not one of Batch SMTP.
    #[error("the command {0} does not belong into Batch SMTP")]
    Command(String),
    /// A line without a command.
    #[error("a command is missing")]
    EmptyLine,
    /// A command with an argument that it does not take, or not the one that it needs.
    #[error("{command}: {expected}")]
    Syntax {
        /// The command.
        command: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// A command where it has no place.
    #[error("{command} {fault}")]
    Sequence {
        /// The command.
        command: &'static str,
        /// Why it has no place here.
        fault: &'static str,
    },
    /// The argument of MAIL cannot be parsed.
    #[error("MAIL: {0}")]
    Mail(ArgumentError),
    /// A CR (`true`) or LF (`false`) that is no part of a line end as this object has them.
    #[error("a {} that is no line end of this object", if *.0 { "CR" } else { "LF" })]
    LineEnd(bool),
    /// A limit is exceeded.
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

impl DecodeErrorKind {
    /// The enhanced status code that tells it to a peer (RFC 3463, RFC 5248).
    pub fn code(&self) -> EnhancedCode {
        match self {
            Self::Truncated(_) | Self::NoTransaction | Self::LineEnd(_) => EnhancedCode::new(5, 6, 0),
            Self::AfterQuit | Self::Command(_) | Self::Sequence { .. } => EnhancedCode::new(5, 5, 1),
            Self::EmptyLine => EnhancedCode::new(5, 5, 2),
            Self::Syntax { .. } => EnhancedCode::new(5, 5, 4),
            Self::Mail(error) => error.sender_code(),
            Self::TooLarge { what, .. } if what.contains("recipients") => EnhancedCode::new(5, 5, 3),
            Self::TooLarge { what, .. } if what.contains("line") => EnhancedCode::new(5, 5, 2),
            Self::TooLarge { .. } => EnhancedCode::new(5, 3, 4),
        }
    }
}
