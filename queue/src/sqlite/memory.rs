//! What the writer knows without asking.
//!
//! To read a row back costs more than to write it: each goes through sqlx's thread on its own. So from one transaction to the next the
//! writer keeps the recipients that are under way, and small messages from when it stored them until they are claimed. All of it is what
//! the database holds, committed; it is given up when a transaction fails, when somebody else has written, and when it becomes too much.
//! Rows are boxed: tables of them would be of megabytes, moved at each growth.

use std::collections::{HashMap, HashSet};

use super::tx::Recipient;
use crate::{ClaimedMessage, RecipientId};

/// The most recipients that are kept.
const RECIPIENTS: usize = 8192;
/// The most octets of messages that are kept.
const OCTETS: usize = 4 * 1024 * 1024;
/// What a message takes beside its body, about.
const ENVELOPE: usize = 1024;
/// Bodies up to this size come along with a claim: reading each by itself costs more than all the rest of it.
pub(super) const SMALL: usize = 16 * 1024;

/// Rows as they are in the database.
#[derive(Default)]
pub(super) struct Memory {
    /// SQLite's `data_version` when they were seen: another one means that another connection has written.
    version: i64,
    /// Recipients by id. Not all of a message's need be here.
    recipients: HashMap<i64, Box<Recipient>>,
    /// Messages by number that were never claimed, with all of their recipients.
    fresh: HashMap<i64, Box<ClaimedMessage>>,
    octets: usize,
}

impl Memory {
    /// Forgets everything unless it was seen at `version`.
    pub(super) fn at(self, version: i64) -> Self {
        if self.version == version {
            return self;
        }
        Self {
            version,
            ..Self::default()
        }
    }

    pub(super) fn recipient(&self, id: i64) -> Option<&Recipient> {
        self.recipients.get(&id).map(Box::as_ref)
    }

    pub(super) fn recipient_mut(&mut self, id: i64) -> Option<&mut Recipient> {
        self.recipients.get_mut(&id).map(Box::as_mut)
    }

    /// Takes a recipient in that is not known yet.
    pub(super) fn learn(&mut self, id: i64, recipient: Recipient) {
        self.recipients.entry(id).or_insert_with(|| Box::new(recipient));
    }

    /// Keeps a message that is being stored until it is claimed.
    pub(super) fn keep(&mut self, seq: i64, message: ClaimedMessage) {
        let octets = octets(&message);
        if self.octets + octets > OCTETS {
            self.fresh.clear();
            self.octets = 0;
        }
        self.octets += octets;
        self.fresh.insert(seq, Box::new(message));
    }

    /// A message that was kept and of which all recipients are known; from now on it is not kept.
    pub(super) fn take(&mut self, seq: i64) -> Option<ClaimedMessage> {
        let message = *self.fresh.remove(&seq)?;
        self.octets = self.octets.saturating_sub(octets(&message));
        let known = |RecipientId(id): RecipientId| self.recipients.contains_key(&id);
        message
            .recipients
            .iter()
            .all(|one| known(one.id))
            .then_some(message)
    }

    /// Forgets messages that are removed.
    pub(super) fn forget(&mut self, messages: &HashSet<i64>) {
        for seq in messages {
            self.take(*seq);
        }
        self.recipients
            .retain(|_, recipient| !messages.contains(&recipient.message));
    }

    /// What to keep after a commit: not those that are `done`, and not too many.
    pub(super) fn settled(mut self, done: &[i64]) -> Self {
        for id in done {
            self.recipients.remove(id);
        }
        if self.recipients.len() > RECIPIENTS {
            return Self {
                version: self.version,
                ..Self::default()
            };
        }
        self
    }
}

fn octets(message: &ClaimedMessage) -> usize {
    message.content.as_ref().map_or(0, bytes::Bytes::len) + ENVELOPE * (1 + message.recipients.len())
}
