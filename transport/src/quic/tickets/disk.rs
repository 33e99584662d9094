//! The file in which sessions outlive the process.
//!
//! One whole image at a time, written beside and moved into place: a used session is gone from the file with the next image, and a crash
//! leaves either the old image or the new one. The octets, all numbers big-endian:
//! a line of text with the version, 32 octets of what the sessions are bound to, the sessions (time of making: 8, flags: 1, ticket with its length: 2,
//! value with its length: 4), and the SHA-256 of all that.

use std::{io, path::Path};

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::sessions::Kept;
use crate::quic::reset;

/// Sessions of another version are not read: what rustls gives us to keep has a layout of its own.
const TITLE: &str = concat!("lightpost sessions 1 ", env!("CARGO_PKG_VERSION"), "\n");
const IDENTIFIED: u8 = 1;
const REVEALING: u8 = 2;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is damaged")]
    Damaged,
    #[error("it was written by another version")]
    Version,
    #[error("it belongs to another certificate or other trusted CAs")]
    Scope,
}

/// Writes `sessions`, oldest first, to `path`, readable by us only.
pub(super) fn write(path: &Path, scope: &[u8; 32], sessions: &[Kept]) -> io::Result<()> {
    reset::replace(path, &image(scope, sessions))
}

/// Reads what [`write`] has written, for the same `scope`. None when there is no such file.
pub(super) fn read(path: &Path, scope: &[u8; 32]) -> Result<Vec<Kept>, Unusable> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => {
            crate::tls::warn_if_open(path);
            parse(&read?, scope)
        }
    }
}

fn image(scope: &[u8; 32], sessions: &[Kept]) -> Vec<u8> {
    let mut image = [TITLE.as_bytes(), scope].concat();
    for kept in sessions {
        // Longer ones are never kept.
        let (Ok(ticket), Ok(value)) = (u16::try_from(kept.ticket.len()), u32::try_from(kept.value.len()))
        else {
            continue;
        };
        let identified = if kept.identified { IDENTIFIED } else { 0 };
        let revealing = if kept.revealing { REVEALING } else { 0 };
        image.extend(kept.made.to_be_bytes());
        image.push(identified | revealing);
        image.extend(ticket.to_be_bytes());
        image.extend(&kept.ticket);
        image.extend(value.to_be_bytes());
        image.extend(&kept.value);
    }
    let sum = digest(&SHA256, &image);
    image.extend(sum.as_ref());
    image
}

fn parse(image: &[u8], scope: &[u8; 32]) -> Result<Vec<Kept>, Unusable> {
    let (body, sum) = image
        .split_last_chunk::<SHA256_OUTPUT_LEN>()
        .ok_or(Unusable::Damaged)?;
    if digest(&SHA256, body).as_ref() != sum {
        return Err(Unusable::Damaged);
    }
    let rest = body.strip_prefix(TITLE.as_bytes()).ok_or(Unusable::Version)?;
    let mut rest = rest.strip_prefix(scope).ok_or(Unusable::Scope)?;
    let mut sessions = Vec::new();
    while !rest.is_empty() {
        sessions.push(one(&mut rest).ok_or(Unusable::Damaged)?);
    }
    Ok(sessions)
}

fn one(rest: &mut &[u8]) -> Option<Kept> {
    let made = u64::from_be_bytes(chunk(rest)?);
    let [flags] = chunk(rest)?;
    let ticket = u16::from_be_bytes(chunk(rest)?).into();
    let ticket = slice(rest, ticket)?;
    let value = u32::from_be_bytes(chunk(rest)?);
    let value = slice(rest, usize::try_from(value).ok()?)?;
    Some(Kept {
        ticket,
        value,
        made,
        identified: flags & IDENTIFIED != 0,
        revealing: flags & REVEALING != 0,
    })
}

fn chunk<const OCTETS: usize>(rest: &mut &[u8]) -> Option<[u8; OCTETS]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

fn slice(rest: &mut &[u8], octets: usize) -> Option<Vec<u8>> {
    let (taken, left) = rest.split_at_checked(octets)?;
    *rest = left;
    Some(taken.to_vec())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SCOPE: [u8; 32] = [4; 32];

    fn sessions() -> Vec<Kept> {
        let kept = |number: u8| Kept {
            ticket: vec![number; 32],
            value: vec![number; 300],
            made: 1_900_000_000 + u64::from(number),
            identified: number.is_multiple_of(2),
            revealing: number > 2,
        };
        (0..5).map(kept).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.sessions");
        assert!(read(&path, &SCOPE).unwrap().is_empty(), "none yet");
        for sessions in [sessions(), Vec::new()] {
            write(&path, &SCOPE, &sessions).unwrap();
            assert_eq!(read(&path, &SCOPE).unwrap(), sessions);
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_used_session_is_gone_from_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.sessions");
        write(&path, &SCOPE, &sessions()).unwrap();
        write(&path, &SCOPE, &sessions()[1..]).unwrap();
        let octets = std::fs::read(&path).unwrap();
        assert!(!octets.windows(32).any(|window| window == [0; 32]));
    }

    #[test]
    fn damage_is_noticed() {
        let whole = image(&SCOPE, &sessions());
        for at in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert!(parse(&damaged, &SCOPE).is_err(), "{at}");
            assert!(parse(&whole[..at], &SCOPE).is_err(), "{at}");
        }
        assert!(matches!(parse(&whole, &[5; 32]), Err(Unusable::Scope)));
        // Right sums over wrong contents.
        let summed = |body: &[u8]| [body, digest(&SHA256, body).as_ref()].concat();
        let body = &whole[..whole.len() - SHA256_OUTPUT_LEN];
        assert!(matches!(
            parse(&summed(&body[..body.len() - 1]), &SCOPE),
            Err(Unusable::Damaged)
        ));
        assert!(matches!(
            parse(&summed(b"lightpost sessions 0\n"), &SCOPE),
            Err(Unusable::Version)
        ));
    }
}
