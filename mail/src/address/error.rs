//! Why a text is not an address: one variant per rule, each worded to stand behind the quoted address.

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing was given.
    #[error("is empty")]
    Empty,
    /// No `@` and no domain.
    #[error("has no domain")]
    NoDomain,
    /// `postmaster` without a domain, which SMTP allows (RFC 5321 section 4.1.1.3) and a relay cannot route.
    #[error("has no domain: a relay cannot tell whose postmaster is meant")]
    Postmaster,
    /// Nothing before the `@`.
    #[error("has nothing before the @")]
    NoLocalPart,
    /// A character that the grammar does not allow in the local part unless it is quoted.
    #[error("has the character {} in its local part, where it would need quotes", .0.escape_debug())]
    LocalCharacter(char),
    /// A dot at the start or end of the local part, or two in a row.
    #[error("has a misplaced dot in its local part")]
    LocalDot,
    /// A quoted local part without its closing quote.
    #[error("has a quoted local part that is not closed")]
    UnclosedQuote,
    /// Something other than `@` behind the closing quote.
    #[error("has something other than @ behind the closing quote of its local part")]
    AfterQuote,
    /// A control character, a line end or NUL, quoted or not.
    #[error("holds the control character {}", .0.escape_unicode())]
    Control(char),
    /// The local part is over 64 octets (RFC 5321 section 4.5.3.1.1).
    #[error("has a local part of {0} octets, more than 64")]
    LocalTooLong(usize),
    /// The domain is over 255 octets (RFC 5321 section 4.5.3.1.2), as written or as A-labels.
    #[error("has a domain of {0} octets, more than 255")]
    DomainTooLong(usize),
    /// The address is over 254 octets, so that its path is over 256 (RFC 5321 section 4.5.3.1.3).
    #[error("has {0} octets, more than 254")]
    TooLong(usize),
    /// An empty label in the domain: a leading dot or two in a row.
    #[error("has an empty label in its domain")]
    EmptyLabel,
    /// A label of more than 63 octets.
    #[error("has a label of {0} octets in its domain, more than 63")]
    LabelTooLong(usize),
    /// A hyphen at the start or end of a label.
    #[error("has a hyphen at the start or end of a label in its domain")]
    Hyphen,
    /// A character that no domain has.
    #[error("has the character {} in its domain", .0.escape_debug())]
    DomainCharacter(char),
    /// The domain has characters beyond ASCII and is not a valid internationalised one (RFC 5890, UTS 46).
    #[error("has a domain that is not a valid internationalised one")]
    Idna,
    /// Brackets that hold neither an IPv4 address nor `IPv6:` and an IPv6 address (RFC 5321 section 4.1.3).
    #[error("has an address literal that is neither [IPv4] nor [IPv6:...]")]
    Literal,
    /// No `<` and `>` around a path, or not in pairs.
    #[error("is not enclosed in < and >")]
    Brackets,
    /// A source route (RFC 5321 appendix C) that does not follow its grammar.
    #[error("has a malformed source route")]
    SourceRoute,
}
