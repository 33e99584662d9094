-- When the sender hears that the mail is late, if he is to: none once nothing waits or nothing more is said. What was queued before has none.
ALTER TABLE recipient ADD COLUMN notice INTEGER;
CREATE INDEX recipient_notice ON recipient (notice) WHERE notice IS NOT NULL;
