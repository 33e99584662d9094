-- Whether an answer closed an exchange: its gateway has not taken it. One that was closed without an answer is opened again where the same recipients
-- come back to its gateway. Of what was closed before this is not known.
ALTER TABLE exchange ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
UPDATE exchange SET refused = 1 WHERE closed IS NOT NULL;
