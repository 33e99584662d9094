-- What the carrier that holds an exchange calls it (a bundle's id), from when it took it until the exchange leaves anew. What is held is
-- awaited over a restart.
ALTER TABLE exchange ADD COLUMN custody TEXT;
CREATE INDEX exchange_custody ON exchange (custody) WHERE custody IS NOT NULL;
