-- On which terms an exchange has left: the client's number for what its path was taken to accept, so that a repeat is the same object whatever is
-- configured by then. None where it was not kept.
ALTER TABLE exchange ADD COLUMN terms INTEGER;
