//! A mail to an object.

use std::io::{Read, Seek, Write};

use lightpost_mail::{
    Envelope, Recipient, Sender,
    bsmtp::encode::{TAIL, head},
    lines::{BareLineEnds, BodyFacts, Canonicaliser, Stuffer},
};

use super::{broken, reader, writer};
use crate::{
    args::Encode,
    failure::{Failure, code},
    output::Output,
};

/// Octets of a canonical body that are kept in memory; the rest goes to an unnamed file, because SIZE comes first.
const IN_MEMORY: usize = 1024 * 1024;
const CHUNK: usize = 64 * 1024;

/// Runs the command.
pub(super) fn run(options: &Encode, output: Output) -> Result<(), Failure> {
    let envelope = envelope(&options.sender, &options.recipients)?;
    let mut source = reader(options.input.as_deref())?;
    let mut target = writer(options.output.as_deref())?;
    let (mut body, facts) = canonical(&mut source)?;
    let to = options.output.as_deref();
    let name = to.map_or_else(|| "standard output".into(), |path| path.display().to_string());
    write(&mut target, &options.name, &envelope, &facts, &mut body).map_err(|error| broken(&name, &error))?;
    if output.json && to.is_some() {
        output.value(&serde_json::json!({
            "file": to,
            "size": facts.size,
            "required_extensions": lightpost_mail::bsmtp::encode::required_extensions(&envelope, &facts),
        }))?;
    }
    Ok(())
}

fn envelope(sender: &str, recipients: &[String]) -> Result<Envelope, Failure> {
    let refused = |text: &str, error: String| {
        let what = format!("{}: {error}", text.escape_debug());
        Failure::new(
            code::DATAERR,
            what,
            "write it as user@domain or '<user@domain> PARAMETERS'",
        )
    };
    let sender = if sender.trim().is_empty() { "<>" } else { sender };
    Ok(Envelope {
        sender: sender
            .parse::<Sender>()
            .map_err(|error| refused(sender, error.to_string()))?,
        recipients: recipients
            .iter()
            .map(|text| {
                text.parse::<Recipient>()
                    .map_err(|error| refused(text, error.to_string()))
            })
            .collect::<Result<_, _>>()?,
    })
}

fn canonical(source: &mut dyn Read) -> Result<(tempfile::SpooledTempFile, BodyFacts), Failure> {
    let mut machine = Canonicaliser::new(BareLineEnds::Normalise);
    let mut body = tempfile::spooled_tempfile(IN_MEMORY);
    let (mut chunk, mut lines) = (vec![0; CHUNK], Vec::new());
    let bare = |error: lightpost_mail::lines::BareLineEnd| Failure::new(code::DATAERR, error.to_string(), "");
    loop {
        let read = source
            .read(&mut chunk)
            .map_err(|error| broken("the mail", &error))?;
        if read == 0 {
            break;
        }
        lines.clear();
        machine
            .push(chunk.get(..read).unwrap_or_default(), &mut lines)
            .map_err(bare)?;
        body.write_all(&lines)
            .map_err(|error| broken("a temporary file", &error))?;
    }
    lines.clear();
    let facts = machine.finish(&mut lines).map_err(bare)?;
    body.write_all(&lines)
        .and_then(|()| body.rewind())
        .map_err(|error| broken("a temporary file", &error))?;
    Ok((body, facts))
}

fn write(
    target: &mut dyn Write,
    name: &str,
    envelope: &Envelope,
    facts: &BodyFacts,
    body: &mut dyn Read,
) -> std::io::Result<()> {
    target.write_all(&head(name, envelope, facts))?;
    let mut stuffer = Stuffer::new();
    let (mut chunk, mut stuffed) = (vec![0; CHUNK], Vec::new());
    loop {
        let read = body.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        stuffed.clear();
        stuffer.push(chunk.get(..read).unwrap_or_default(), &mut stuffed);
        target.write_all(&stuffed)?;
    }
    target.write_all(TAIL)?;
    target.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_becomes_an_object() {
        let envelope = envelope("", &["<b@c.example> NOTIFY=NEVER".into()]).unwrap();
        let (mut body, facts) = canonical(&mut &b"Subject: x\n\n.\nend"[..]).unwrap();
        let mut object = Vec::new();
        write(&mut object, "here.example", &envelope, &facts, &mut body).unwrap();
        let text = String::from_utf8(object).unwrap();
        assert!(text.starts_with("EHLO here.example\r\nMAIL FROM:<>"), "{text}");
        assert!(
            text.contains(
                "RCPT TO:<b@c.example> NOTIFY=NEVER\r\nDATA\r\nSubject: x\r\n\r\n..\r\nend\r\n.\r\nQUIT\r\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn bad_addresses_are_refused_with_their_text() {
        let failure = envelope("a@b.example", &["nobody".into()]).unwrap_err();
        assert_eq!(failure.code, code::DATAERR);
        assert!(failure.what.contains("nobody"), "{failure}");
    }
}
