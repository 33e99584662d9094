//! `[path.NAME.bundle]`: how a path uses bundles.

use std::time::Duration;

use lightpost_config::Section;

/// What a request bundle holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// The whole request as binary HTTP (RFC 9292); the reply comes in a bundle, too.
    #[default]
    Http,
    /// The Batch SMTP object alone (draft-blanchet-dtn-email-over-bp), for peers that know nothing of us. Nobody replies.
    BatchSmtp,
}

/// What happens to an exchange that a bundle carried and that nobody answered in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoReply {
    /// It leaves again as it left before.
    #[default]
    Repeat,
    /// It leaves again by another way of the path, where there is one.
    Other,
    /// The mail is returned.
    GiveUp,
}

/// How a path uses bundles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What a request holds.
    pub form: Form,
    /// How long an answer is awaited; derived from the path when `None`.
    pub reply_within: Option<Duration>,
    /// What follows when none comes.
    pub no_reply: NoReply,
    /// Whether status reports are asked for: of deletion and, with [`Form::BatchSmtp`], of delivery.
    pub reports: bool,
}

impl Options {
    /// Reads `payload`, `reply_within`, `no_reply` and `reports`.
    pub fn read(section: &Section<'_>) -> Self {
        let form = section.parse("payload", "write \"http\" or \"batch-smtp\"", |text| match text {
            "http" => Ok(Form::Http),
            "batch-smtp" => Ok(Form::BatchSmtp),
            _ => Err("is not a form of payload".to_owned()),
        });
        let choices = "write \"repeat\", \"other\" or \"give-up\"";
        let no_reply = section.parse("no_reply", choices, |text| match text {
            "repeat" => Ok(NoReply::Repeat),
            "other" => Ok(NoReply::Other),
            "give-up" => Ok(NoReply::GiveUp),
            _ => Err("is not a choice".to_owned()),
        });
        Self {
            form: form.unwrap_or_default(),
            reply_within: section.get("reply_within"),
            no_reply: no_reply.unwrap_or_default(),
            reports: section.get_or("reports", true),
        }
    }
}
