//! `lightpost queue ls`.

use comfy_table::Cell;
use http::Method;
use jiff::Timestamp;
use lightpost_clock::{Clock, until};
use lightpost_config::duration_text;
use lightpost_queue::{MessageView, RecipientView, Status, Totals};
use serde::{Deserialize, Serialize};
use url::form_urlencoded::Serializer;

use super::{ask, read};
use crate::{
    args::List,
    endpoint::Endpoint,
    failure::Failure,
    output::{Output, Tone},
};

/// Messages that are asked for at once.
const PAGE: usize = 1000;

/// A page of a listing.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Page {
    messages: Vec<MessageView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<ulid::Ulid>,
}

/// Runs the command.
pub(super) async fn run(options: &List, output: Output) -> Result<(), Failure> {
    let endpoint = Endpoint::find(&options.place)?;
    let listing = pages(&endpoint, options).await?;
    if output.json {
        return output.value(&listing);
    }
    let now = Clock::system().now();
    let mut table = output.table(&[
        "id",
        "age",
        "octets",
        "sender",
        "recipient",
        "status",
        "why, next",
    ]);
    for message in &listing.messages {
        for (index, recipient) in message.recipients.iter().enumerate() {
            let first = |text: String| Cell::new(if index == 0 { text } else { String::new() });
            table.add_row([
                first(message.id.to_string()),
                first(short(until(message.accepted, now))),
                first(message.size.to_string()),
                first(sender(&message.sender)),
                Cell::new(&recipient.address),
                output.cell(tone(recipient.status), &word(&recipient.status)),
                Cell::new(why(recipient, now)),
            ]);
        }
    }
    if !listing.messages.is_empty() {
        output.print_table(&table)?;
    }
    if let Some(next) = listing.next {
        output.line(&output.paint(Tone::Faint, &format!("more: --after {next}")))?;
    }
    let totals: Totals = read(&endpoint, &ask(&endpoint, Method::GET, "/v1/totals").await?)?;
    output.line(&summary(&totals))
}

async fn pages(endpoint: &Endpoint, options: &List) -> Result<Page, Failure> {
    let mut listing = Page::default();
    let mut after = options.after;
    while listing.messages.len() < options.limit {
        let limit = (options.limit - listing.messages.len()).min(PAGE);
        let answer = ask(endpoint, Method::GET, &target(options, after, limit)).await?;
        let page: Page = read(endpoint, &answer)?;
        listing.messages.extend(page.messages);
        listing.next = page.next;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Ok(listing)
}

fn target(options: &List, after: Option<ulid::Ulid>, limit: usize) -> String {
    let after = after.map(|id| id.to_string());
    let mut query = Serializer::new(String::new());
    for (name, value) in [
        ("status", options.status.as_deref()),
        ("destination", options.destination.as_deref()),
        ("sender", options.sender.as_deref()),
        ("after", after.as_deref()),
    ] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.append_pair("limit", &limit.to_string());
    format!("/v1/messages?{}", query.finish())
}

/// A reverse-path for people.
pub(super) fn sender(text: &str) -> String {
    if text.is_empty() {
        "<>".into()
    } else {
        text.to_owned()
    }
}

/// The word that JSON has for a value.
pub(super) fn word(value: &impl Serialize) -> String {
    let text = serde_json::to_value(value).unwrap_or_default();
    text.as_str().unwrap_or("?").to_owned()
}

/// What a status means to an operator.
pub(super) fn tone(status: Status) -> Tone {
    match status {
        Status::Delivered => Tone::Good,
        Status::Failed | Status::Expired => Tone::Bad,
        Status::Cancelled => Tone::Faint,
        Status::Queued | Status::Held | Status::Leased | Status::Awaiting => Tone::Waiting,
    }
}

/// Why a recipient waits, what was said last, and when it goes on.
pub(super) fn why(recipient: &RecipientView, now: Timestamp) -> String {
    // What was said last begins with the reason where a settlement gave it.
    let said = recipient.detail.as_deref().unwrap_or_default();
    let reason = recipient.reason.map(|reason| word(&reason));
    let reason = reason.filter(|reason| !said.starts_with(&format!("{reason}:")) && said != reason);
    let next = recipient
        .due
        .map(|due| match (recipient.status, until(now, due)) {
            (_, span) if span.is_zero() => "due now".to_owned(),
            (Status::Leased, span) => format!("being sent, lease ends in {}", short(span)),
            (Status::Awaiting, span) => format!("reply awaited for {}", short(span)),
            (_, span) => format!("next try in {}", short(span)),
        });
    let parts = [reason, recipient.detail.clone(), next];
    parts
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

/// A span without fractions of a second.
fn short(span: std::time::Duration) -> String {
    duration_text(std::time::Duration::from_secs(span.as_secs()))
}

fn summary(totals: &Totals) -> String {
    let counts: Vec<String> = totals
        .recipients
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    match totals.messages {
        0 if counts.is_empty() => "the queue is empty".into(),
        1 => format!("1 message on its way; recipients: {}", counts.join(", ")),
        waiting => format!(
            "{waiting} messages on their way; recipients: {}",
            counts.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use lightpost_queue::{RecipientId, WaitReason};

    use super::*;

    #[test]
    fn why_tells_reason_words_and_time() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let mut recipient = RecipientView {
            id: RecipientId(1),
            address: "a@b".into(),
            destination: "b".into(),
            status: Status::Queued,
            reason: Some(WaitReason::NoReply),
            due: Some("2030-01-01T01:30:00Z".parse().unwrap()),
            expires: now,
            attempts: 1,
            exchange: None,
            remote: None,
            detail: Some("gw has not answered".into()),
        };
        assert_eq!(
            why(&recipient, now),
            "no-reply, gw has not answered, next try in 1h30m"
        );
        recipient.detail = Some("no-reply: gw is silent".into());
        assert_eq!(why(&recipient, now), "no-reply: gw is silent, next try in 1h30m");
        recipient.status = Status::Awaiting;
        (recipient.reason, recipient.detail) = (None, None);
        assert_eq!(why(&recipient, now), "reply awaited for 1h30m");
        recipient.due = Some(now);
        assert_eq!(why(&recipient, now), "due now");
    }

    #[test]
    fn totals_in_words() {
        assert_eq!(summary(&Totals::default()), "the queue is empty");
        let totals = Totals {
            recipients: [("queued".to_owned(), 2), ("held".to_owned(), 0)].into(),
            messages: 1,
        };
        assert_eq!(summary(&totals), "1 message on its way; recipients: 2 queued");
    }
}
