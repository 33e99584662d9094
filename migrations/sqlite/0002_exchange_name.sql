-- The name that an exchange's object says EHLO with: a repeat says the same, whatever the agent is called by then. Empty where it was
-- not kept.
ALTER TABLE exchange ADD COLUMN name TEXT NOT NULL DEFAULT '';
