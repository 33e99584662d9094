-- The id that who handed a message over has given it (the first Received field of the mail), and ways from the names by which others
-- know a message to the message.
ALTER TABLE message ADD COLUMN upstream TEXT;
CREATE INDEX message_upstream ON message (upstream) WHERE upstream IS NOT NULL;
CREATE INDEX message_origin ON message (origin_id) WHERE origin_id IS NOT NULL;
