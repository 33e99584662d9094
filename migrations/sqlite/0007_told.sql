-- Until when a sender who was told of late mail for a destination hears of no other mail for it, unless he asks. Changed in the transaction that
-- stores the notice; what is over is removed with later ones.
CREATE TABLE told (
    sender      TEXT    NOT NULL, -- the reverse-path
    destination TEXT    NOT NULL,
    until       INTEGER NOT NULL,
    PRIMARY KEY (sender, destination)
) STRICT, WITHOUT ROWID;
CREATE INDEX told_until ON told (until);
