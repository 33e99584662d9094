//! Stateless resets that work after a restart: a kept key, and connection ids that need no state to be recognised.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use quinn::{ConnectionId, ConnectionIdGenerator};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

/// Octets in the file.
const LENGTH: usize = 32;
/// Octets of a connection id.
const ID_LENGTH: usize = 8;
/// Octets of the longest one (RFC 9000 section 17.2).
const LONGEST_ID: usize = 20;

/// Reads the key by which peers know that a reset is ours from `path`, or makes one there that only we can read.
///
/// # Errors
/// When the file cannot be read or made, or holds something else.
pub(crate) fn key(path: &Path) -> io::Result<hmac::Key> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret(path, "reset key")?))
}

/// Reads 32 secret octets from `path`, or makes them there, for us only. `what` they are is told when they are not.
///
/// # Errors
/// As [`key`].
pub(crate) fn secret(path: &Path, what: &str) -> io::Result<Vec<u8>> {
    let about = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let octets = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path).map_err(about)?,
        read => read.map_err(about)?,
    };
    crate::tls::warn_if_open(path);
    if octets.len() != LENGTH {
        let what = format!("holds {} octets, a {what} has {LENGTH}; remove it", octets.len());
        return Err(about(io::Error::new(io::ErrorKind::InvalidData, what)));
    }
    Ok(octets)
}

fn make(path: &Path) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; LENGTH];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| io::Error::other("the system has no random numbers"))?;
    replace(path, &octets)?;
    Ok(octets)
}

/// Written beside, for us only, and moved into place, so that a crash leaves no half secret.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn replace(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let _ = std::fs::remove_file(beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)?;
    file.write_all(octets)?;
    file.sync_all()?;
    std::fs::rename(beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Random connection ids. Unlike quinn's own, which a restarted endpoint takes for garbage, they are answered with a reset.
pub(crate) struct RandomIds {
    random: SystemRandom,
    length: usize,
}

impl RandomIds {
    pub(crate) fn boxed() -> Box<dyn ConnectionIdGenerator> {
        Self::of_length(ID_LENGTH)
    }

    /// Ids of `length` octets, 1 to 20.
    pub(crate) fn of_length(length: usize) -> Box<dyn ConnectionIdGenerator> {
        Box::new(Self {
            random: SystemRandom::new(),
            length: length.clamp(1, LONGEST_ID),
        })
    }
}

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut octets = [0; LONGEST_ID];
        let octets = &mut octets[..self.length];
        if self.random.fill(octets).is_err() {
            // The id has to be unpredictable to outsiders only; the process cannot make keys any more either.
            tracing::error!("the system has no random numbers");
        }
        ConnectionId::new(octets)
    }

    fn cid_len(&self) -> usize {
        self.length
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
