//! `lightpost queue`: what a running program's operator routes say, for people and programs.

mod listing;
mod message;

use http::Method;
use lightpost_clock::Clock;
use lightpost_intake::operator::Changed;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use crate::{
    args::{Messages, Queue, QueueAction},
    connection::{self, Answer},
    endpoint::Endpoint,
    failure::{Failure, code},
    output::Output,
    problem, small_runtime,
};

/// Runs the command.
pub(crate) fn run(options: &Queue, output: Output) -> Result<(), Failure> {
    let runtime = small_runtime()?;
    runtime.block_on(async {
        match &options.action {
            QueueAction::Ls(list) => listing::run(list, output).await,
            QueueAction::Show(show) => message::run(show, output).await,
            QueueAction::Retry(messages) => operate("retry", messages, output).await,
            QueueAction::Hold(messages) => operate("hold", messages, output).await,
            QueueAction::Release(messages) => operate("release", messages, output).await,
            QueueAction::Cancel(messages) => operate("cancel", messages, output).await,
        }
    })
}

/// Asks and insists on a good answer.
async fn ask(endpoint: &Endpoint, method: Method, path: &str) -> Result<Answer, Failure> {
    let request = connection::request(endpoint, method, path)
        .body(connection::empty())
        .map_err(|error| {
            Failure::new(
                code::USAGE,
                format!("the request cannot be made: {error}"),
                "look at the id",
            )
        })?;
    let answer = connection::exchange(endpoint, request, &Clock::system())
        .await
        .map_err(|trouble| trouble.failure(endpoint))?;
    if answer.status.is_success() {
        return Ok(answer);
    }
    let (code, remedy) = match answer.status.as_u16() {
        401 => (code::NOPERM, "name the right --token-file"),
        403 => (code::NOPERM, ""),
        404 => (code::DATAERR, "`lightpost queue ls` shows what there is"),
        409 => (code::DATAERR, "`lightpost queue show` with that id shows them"),
        400 | 422 => (code::DATAERR, ""),
        _ => (code::TEMPFAIL, "try again later"),
    };
    let what = problem::text(answer.status.as_u16(), &answer.body);
    Err(Failure::new(code, format!("{endpoint}: {what}"), remedy))
}

/// Reads a good answer's body.
fn read<T: DeserializeOwned>(endpoint: &Endpoint, answer: &Answer) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::new(
            code::PROTOCOL,
            format!("{endpoint}: the answer is not understood: {error}"),
            "see that it is a lightpost program of this version that listens there",
        )
    })
}

/// Applies an operation to every message; what cannot be done does not keep the others from it.
async fn operate(operation: &str, messages: &Messages, output: Output) -> Result<(), Failure> {
    let endpoint = Endpoint::find(&messages.place)?;
    let mut last = None;
    for id in &messages.ids {
        match apply(&endpoint, operation, id).await {
            Ok(done) if output.json => output.value(&serde_json::json!({
                "id": id, "operation": operation, "changed": done.changed, "unchanged": done.unchanged,
            }))?,
            Ok(done) => effect(operation, &done)
                .iter()
                .try_for_each(|line| output.line(&format!("{id}: {line}")))?,
            Err(failure) if messages.ids.len() == 1 => return Err(failure),
            Err(failure) => {
                output.failure(&failure);
                last = Some(failure.code);
            }
        }
    }
    match last {
        None => Ok(()),
        Some(code) => Err(Failure::new(
            code,
            format!("not every message could be {}", past(operation)),
            "",
        )),
    }
}

/// An id as a URL takes it; MTAs' own have more than letters and digits in them.
fn escaped(id: &str) -> Result<String, Failure> {
    if id.is_empty() || !id.bytes().all(|octet| octet.is_ascii_graphic()) {
        let what = format!("\"{}\" is not a message's id", id.escape_debug());
        return Err(Failure::new(code::USAGE, what, "`lightpost queue ls` shows ids"));
    }
    Ok(form_urlencoded::byte_serialize(id.as_bytes()).collect())
}

async fn apply(endpoint: &Endpoint, operation: &str, id: &str) -> Result<Changed, Failure> {
    let id = escaped(id)?;
    let answer = ask(endpoint, Method::POST, &format!("/v1/messages/{id}/{operation}")).await?;
    read(endpoint, &answer)
}

fn past(operation: &str) -> &'static str {
    match operation {
        "retry" => "made due now",
        "hold" => "held",
        "release" => "released",
        _ => "withdrawn",
    }
}

/// What an operation did, and why it left the others: a line each.
fn effect(operation: &str, done: &Changed) -> Vec<String> {
    let past = past(operation);
    let first = match done.changed {
        0 if done.unchanged.is_empty() => Some(format!("no recipient that could be {past}")),
        0 => None,
        1 => Some(format!("1 recipient {past}")),
        more => Some(format!("{more} recipients {past}")),
    };
    let others = done.unchanged.iter().map(|other| {
        let (recipient, status) = (&other.recipient, listing::word(&other.status));
        format!("{recipient} is {status} and not {past}: {}", other.why)
    });
    first.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use lightpost_intake::operator::{Changed, Unchanged};
    use lightpost_queue::Status;

    use super::{effect, escaped};

    #[test]
    fn what_was_done_and_what_was_not() {
        let awaiting = Unchanged {
            recipient: "b@moon.example".into(),
            status: Status::Awaiting,
            until: None,
            why: "a reply is awaited".into(),
        };
        let line = "b@moon.example is awaiting and not made due now: a reply is awaited";
        for (changed, unchanged, expected) in [
            (0, vec![], vec!["no recipient that could be made due now"]),
            (0, vec![awaiting.clone()], vec![line]),
            (1, vec![awaiting], vec!["1 recipient made due now", line]),
            (2, vec![], vec!["2 recipients made due now"]),
        ] {
            assert_eq!(effect("retry", &Changed { changed, unchanged }), expected);
        }
    }

    #[test]
    fn ids_of_every_mta() {
        for (id, expected) in [
            ("01JD2XVQ6Y0G3T6T1N9YFJ7KQZ", Some("01JD2XVQ6Y0G3T6T1N9YFJ7KQZ")),
            ("4Zx9AbCd", Some("4Zx9AbCd")),
            ("1tGk3b-00000002Xyz-1AbC", Some("1tGk3b-00000002Xyz-1AbC")),
            ("a/../b?c=d&e", Some("a%2F..%2Fb%3Fc%3Dd%26e")),
            ("", None),
            ("a b", None),
            ("ä", None),
        ] {
            assert_eq!(escaped(id).ok().as_deref(), expected, "{id}");
        }
    }
}
