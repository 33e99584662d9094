-- What senders and destinations have used up of their daily allowances (UTC days since 1970). Changed only where an allowance is set, in the
-- transaction that stores the mail.
CREATE TABLE usage (
    day      INTEGER NOT NULL,
    kind     INTEGER NOT NULL, -- 0 sender, 1 destination
    name     TEXT    NOT NULL,
    messages INTEGER NOT NULL,
    octets   INTEGER NOT NULL,
    PRIMARY KEY (day, kind, name)
) STRICT, WITHOUT ROWID;
