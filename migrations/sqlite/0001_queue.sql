-- The queue. Times are milliseconds since 1970, ids of messages and exchanges the 16 octets of a ULID.
--
-- recipient.status: 0 queued, 1 held, 2 leased, 3 awaiting, 4 delivered, 5 failed, 6 expired, 7 cancelled; done from 4 on.

-- The one row from which ids are given out (never twice, so that a late answer cannot meet another's row) and the counts
-- that nobody has to scan for. Changed once per transaction.
CREATE TABLE ledger (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    message    INTEGER NOT NULL,
    recipient  INTEGER NOT NULL,
    spool      INTEGER NOT NULL,
    event      INTEGER NOT NULL,
    checks     INTEGER NOT NULL,
    open       INTEGER NOT NULL, -- messages that are not done
    queued     INTEGER NOT NULL,
    held       INTEGER NOT NULL,
    leased     INTEGER NOT NULL,
    awaiting   INTEGER NOT NULL,
    delivered  INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    expired    INTEGER NOT NULL,
    cancelled  INTEGER NOT NULL
) STRICT;
INSERT INTO ledger VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

CREATE TABLE message (
    seq          INTEGER PRIMARY KEY,
    id           BLOB    NOT NULL UNIQUE,
    sender       TEXT    NOT NULL, -- the whole argument of MAIL FROM
    size         INTEGER NOT NULL,
    longest_line INTEGER NOT NULL,
    flags        INTEGER NOT NULL, -- 1 eight-bit, 2 eight-bit headers, 4 NUL
    priority     INTEGER NOT NULL,
    origin       TEXT    NOT NULL,
    origin_id    TEXT,
    accepted     INTEGER NOT NULL,
    body         INTEGER NOT NULL,
    done         INTEGER           -- since when every recipient is done
) STRICT;
CREATE INDEX message_done ON message (done) WHERE done IS NOT NULL;

CREATE TABLE recipient (
    id          INTEGER PRIMARY KEY,
    message     INTEGER NOT NULL REFERENCES message (seq) ON DELETE CASCADE,
    argument    TEXT    NOT NULL, -- the whole argument of RCPT TO
    destination TEXT    NOT NULL,
    rank        INTEGER NOT NULL, -- the message's priority, negated: smaller goes first
    status      INTEGER NOT NULL,
    due         INTEGER,          -- when somebody has to look: queued, its time; leased and awaiting, the end of that
    expires     INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    reason      TEXT,
    owner       TEXT,             -- who leases
    exchange    BLOB,             -- the last one that carried it
    remote      TEXT,
    detail      TEXT
) STRICT;
CREATE INDEX recipient_message ON recipient (message);
CREATE INDEX recipient_due ON recipient (destination, rank, due) WHERE due IS NOT NULL;
CREATE INDEX recipient_leased ON recipient (owner) WHERE owner IS NOT NULL;
-- What an operator asks for and what is rare; what awaits is also looked for when the program starts.
CREATE INDEX recipient_rare ON recipient (status, message) WHERE status IN (1, 3, 5, 6, 7);

CREATE TABLE exchange (
    id         BLOB    PRIMARY KEY,
    message    INTEGER NOT NULL REFERENCES message (seq) ON DELETE CASCADE,
    gateway    TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    recipients TEXT    NOT NULL, -- JSON array of recipient.id
    begun      INTEGER NOT NULL,
    until      INTEGER NOT NULL,
    closed     INTEGER           -- since when no answer to it matters any more
) STRICT, WITHOUT ROWID;
CREATE INDEX exchange_message ON exchange (message);

-- The history: only ever added to, and removed with its message.
CREATE TABLE event (
    message   INTEGER NOT NULL REFERENCES message (seq) ON DELETE CASCADE,
    id        INTEGER NOT NULL,
    recipient INTEGER,
    at        INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    remote    TEXT,
    detail    TEXT    NOT NULL,
    PRIMARY KEY (message, id)
) STRICT, WITHOUT ROWID;

-- Bodies that no message has (yet, or any more): what is here when the program starts is removed in small steps.
CREATE TABLE spool (
    body INTEGER PRIMARY KEY
) STRICT;

-- key: body * 2^20 + number of the chunk. Body: twice message.seq, or twice ledger.spool and one.
CREATE TABLE chunk (
    key   INTEGER PRIMARY KEY,
    start INTEGER NOT NULL,
    data  BLOB    NOT NULL
) STRICT;

CREATE TABLE request (
    scope   TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    digest  BLOB    NOT NULL,
    status  INTEGER NOT NULL,
    body    BLOB    NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX request_expires ON request (expires);
