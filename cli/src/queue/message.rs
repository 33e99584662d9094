//! `lightpost queue show`: a message and its history as a timeline, by any id that it is known by.

use comfy_table::Cell;
use http::Method;
use jiff::Timestamp;
use lightpost_clock::{Clock, until};
use lightpost_queue::{EventView, MessageView};
use serde::Deserialize;

use super::{
    ask, escaped,
    listing::{sender, tone, why, word},
    read,
};
use crate::{
    args::Message,
    endpoint::Endpoint,
    failure::{Failure, code},
    output::{Output, Tone},
};

/// Messages that are shown where an id stands for several, such as the queue id of an MTA that hands over one by one.
const MOST: usize = 100;

/// The messages that an id stands for.
#[derive(Deserialize)]
struct Known {
    messages: Vec<MessageView>,
}

/// Runs the command.
pub(super) async fn run(options: &Message, output: Output) -> Result<(), Failure> {
    let endpoint = Endpoint::find(&options.place)?;
    let known = format!("/v1/messages?known_as={}&limit={MOST}", escaped(&options.id)?);
    let known: Known = read(&endpoint, &ask(&endpoint, Method::GET, &known).await?)?;
    let mut messages: Vec<MessageView> = Vec::new();
    for id in known.messages.iter().map(|message| message.id.to_string()) {
        let answer = ask(&endpoint, Method::GET, &format!("/v1/messages/{id}")).await?;
        messages.push(read(&endpoint, &answer)?);
    }
    match messages.as_slice() {
        [] => {
            let what = format!(
                "{endpoint}: there is no message {}; it may have been done and removed",
                options.id
            );
            let remedy = "`lightpost queue ls` shows what there is";
            Err(Failure::new(code::DATAERR, what, remedy))
        }
        [one] if output.json => output.value(one),
        _ if output.json => output.value(&serde_json::json!({ "messages": messages })),
        _ => messages.iter().enumerate().try_for_each(|(number, message)| {
            if number > 0 {
                output.line("")?;
            }
            show(message, output)
        }),
    }
}

fn show(message: &MessageView, output: Output) -> Result<(), Failure> {
    facts(message, output)?;
    output.line("")?;
    recipients(message, output)?;
    if message.history.is_empty() {
        return Ok(());
    }
    output.line("")?;
    message
        .history
        .iter()
        .try_for_each(|event| output.line(&line(event, message.accepted, output)))
}

fn facts(message: &MessageView, output: Output) -> Result<(), Failure> {
    let mut facts = vec![
        ("id", message.id.to_string()),
        ("from", sender(&message.sender)),
        ("size", format!("{} octets", message.size)),
        (
            "accepted",
            format!("{:.0} from {}", message.accepted, message.origin),
        ),
    ];
    if message.priority != 0 {
        facts.push(("priority", message.priority.to_string()));
    }
    if let Some(key) = &message.origin_id {
        facts.push(("key", key.clone()));
    }
    if let Some(upstream) = &message.upstream {
        facts.push(("upstream", upstream.clone()));
    }
    facts.iter().try_for_each(|(name, value)| {
        output.line(&format!(
            "{} {value}",
            output.paint(Tone::Faint, &format!("{name:9}"))
        ))
    })
}

fn recipients(message: &MessageView, output: Output) -> Result<(), Failure> {
    let now = Clock::system().now();
    let mut table = output.table(&["recipient", "status", "attempts", "remote", "why, next"]);
    for recipient in &message.recipients {
        table.add_row([
            Cell::new(&recipient.address),
            output.cell(tone(recipient.status), &word(&recipient.status)),
            Cell::new(recipient.attempts),
            Cell::new(recipient.remote.as_deref().unwrap_or_default()),
            Cell::new(why(recipient, now)),
        ]);
    }
    output.print_table(&table)
}

/// One event: when, how long after the acceptance, what.
fn line(event: &EventView, accepted: Timestamp, output: Output) -> String {
    let tone = match event.kind.as_str() {
        "delivered" => Tone::Good,
        "failed" | "expired" => Tone::Bad,
        "deferred" | "held" | "interrupted" => Tone::Waiting,
        _ => Tone::Strong,
    };
    let since = format!("+{:.3}s", until(accepted, event.at).as_secs_f64());
    let mut text = format!(
        "{:.3}  {since:>14}  {}",
        event.at,
        output.paint(tone, &format!("{:11}", event.kind))
    );
    for part in [
        event.recipient.as_deref(),
        event.remote.as_deref(),
        Some(event.detail.as_str()),
    ] {
        if let Some(part) = part.filter(|part| !part.is_empty()) {
            text.push_str("  ");
            text.push_str(part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_timeline() {
        let event = EventView {
            at: "2030-01-01T00:00:03.5Z".parse().unwrap(),
            kind: "sent".into(),
            recipient: None,
            remote: Some("https://gw1/in".into()),
            detail: "412 octets".into(),
        };
        let output = Output::new(true);
        assert_eq!(
            line(&event, "2030-01-01T00:00:00Z".parse().unwrap(), output),
            "2030-01-01T00:00:03.500Z         +3.500s  sent         https://gw1/in  412 octets"
        );
    }
}
