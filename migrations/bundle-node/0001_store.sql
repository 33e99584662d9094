-- A row per bundle in custody (place is not null) or remembered so that it is not taken twice (place is null).
CREATE TABLE bundle (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Source, creation timestamp and, of a fragment, offset and length: what names it on the whole network.
    key TEXT NOT NULL UNIQUE,
    -- 'n:NAME' waits for a neighbour, 's:NUMBER' for a service of ours, 'f:KEY' for the other fragments, '-' for a route.
    place TEXT,
    rank INTEGER NOT NULL,
    destination TEXT NOT NULL,
    -- Milliseconds since 1970.
    received INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    -- The key whose integrity block was verified.
    verified TEXT,
    -- Where the octets are when they are not here.
    file TEXT,
    data BLOB,
    part_offset INTEGER,
    part_length INTEGER
);
CREATE INDEX bundle_place ON bundle (place, rank, id) WHERE place IS NOT NULL;
CREATE INDEX bundle_expires ON bundle (expires);

-- The last creation timestamp that was used.
CREATE TABLE stamp (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    time INTEGER NOT NULL
);
INSERT INTO stamp (id, time) VALUES (0, 0);
