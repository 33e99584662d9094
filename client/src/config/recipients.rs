//! `[[route]] recipients`: who exists on the far side, so that nobody waits a light-hour to learn that he misspelt a name.

use std::{
    collections::HashSet,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use lightpost_mail::Address;

/// The largest file that is read.
const LARGEST: u64 = 64 * 1024 * 1024;

/// A list of recipients in a file that may change while the program runs. Clones share what was read last.
#[derive(Clone, Debug)]
pub struct Recipients {
    file: PathBuf,
    state: Arc<RwLock<State>>,
}

#[derive(Debug)]
struct State {
    list: Arc<List>,
    /// Of the file that was looked at last, good or bad.
    stamp: Stamp,
}

/// What tells one state of a file from another.
type Stamp = (Option<SystemTime>, u64, u64);

#[derive(Debug, Default, PartialEq, Eq)]
struct List {
    /// Whole addresses, the domain as a routing key.
    addresses: HashSet<String>,
    /// Local parts, of every domain of the route.
    locals: HashSet<String>,
    /// What local parts may begin with.
    prefixes: Vec<String>,
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipientsError {
    /// The file.
    #[error("{file} cannot be read: {cause}")]
    Read {
        /// Which.
        file: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A line of it.
    #[error("{file}, line {line}: \"{text}\" is neither an address nor a local part")]
    Line {
        /// Which.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What stands there.
        text: String,
    },
}

impl Recipients {
    /// Reads a list.
    ///
    /// # Errors
    /// [`RecipientsError`]
    pub fn load(file: &Path) -> Result<Self, RecipientsError> {
        let (list, stamp) = read(file)?;
        Ok(Self {
            file: file.to_owned(),
            state: Arc::new(RwLock::new(State {
                list: Arc::new(list),
                stamp,
            })),
        })
    }

    /// Whether the address is in the list. Local parts are compared without regard to case, and the postmaster exists everywhere (RFC
    /// 5321 section 4.5.1).
    pub fn contain(&self, address: &Address) -> bool {
        let list = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.list.clone()
        };
        let local = address.local_part().to_lowercase();
        local == "postmaster"
            || list.locals.contains(&local)
            || list
                .prefixes
                .iter()
                .any(|prefix| local.starts_with(prefix.as_str()))
            || list
                .addresses
                .contains(&format!("{local}@{}", address.destination()))
    }

    /// Reads the file again if it has changed, and says so in the log; a file that cannot be used leaves the list as it was. Blocks.
    pub fn reload(&self) {
        let before = self.state.read().unwrap_or_else(PoisonError::into_inner).stamp;
        let now = std::fs::metadata(&self.file).map_or((None, 0, 0), |found| stamp(&found));
        if now == before {
            return;
        }
        let (list, stamp) = match read(&self.file) {
            Ok((list, stamp)) => {
                tracing::info!(
                    file = %self.file.display(),
                    recipients = list.addresses.len() + list.locals.len() + list.prefixes.len(),
                    "the list of recipients is read again"
                );
                (Some(Arc::new(list)), stamp)
            }
            Err(error) => {
                tracing::error!(%error, "the list of recipients stays as it was; mend the file");
                (None, now)
            }
        };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.stamp = stamp;
        if let Some(list) = list {
            state.list = list;
        }
    }
}

fn read(file: &Path) -> Result<(List, Stamp), RecipientsError> {
    let failed = |cause| RecipientsError::Read {
        file: file.to_owned(),
        cause,
    };
    let opened = std::fs::File::open(file).map_err(failed)?;
    let stamp = stamp(&opened.metadata().map_err(failed)?);
    let mut text = String::new();
    opened
        .take(LARGEST + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > LARGEST {
        return Err(failed(std::io::Error::other(format!(
            "it has more than {LARGEST} octets"
        ))));
    }
    let list = parse(&text).map_err(|(line, text)| RecipientsError::Line {
        file: file.to_owned(),
        line,
        text,
    })?;
    Ok((list, stamp))
}

fn parse(text: &str) -> Result<List, (usize, String)> {
    let mut list = List::default();
    for (number, line) in text.lines().enumerate() {
        let word = line.trim();
        if word.is_empty() || word.starts_with('#') {
            continue;
        }
        let wrong = || (number + 1, word.escape_debug().take(100).collect());
        let any = Address::parse(&format!("{}@x", word.trim_end_matches('*')));
        if let (Some(prefix), Ok(_)) = (word.strip_suffix('*'), &any) {
            list.prefixes.push(prefix.to_lowercase());
        } else if any.is_ok() {
            list.locals.insert(word.to_lowercase());
        } else {
            let address = Address::parse(word).map_err(|_| wrong())?;
            let local = address.local_part().to_lowercase();
            list.addresses
                .insert(format!("{local}@{}", address.destination()));
        }
    }
    Ok(list)
}

fn stamp(found: &std::fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    (found.modified().ok(), found.len(), found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(list: &Recipients, address: &str) -> bool {
        list.contain(&Address::parse(address).unwrap())
    }

    #[test]
    fn addresses_local_parts_and_prefixes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("recipients");
        std::fs::write(&file, "# who\nalice\nBob@Moon.Example\n\nlist-*\n\"a b\"\n").unwrap();
        let list = Recipients::load(&file).unwrap();
        for (address, expected) in [
            ("alice@moon.example", true),
            ("Alice@a.moon.example", true),
            ("bob@MOON.example", true),
            ("bob@a.moon.example", false),
            ("list-x@moon.example", true),
            ("list@moon.example", false),
            ("\"a b\"@moon.example", true),
            ("postmaster@moon.example", true),
            ("carol@moon.example", false),
        ] {
            assert_eq!(known(&list, address), expected, "{address}");
        }
    }

    #[test]
    fn a_changed_file_counts_and_a_bad_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("recipients");
        std::fs::write(&file, "alice\n").unwrap();
        let list = Recipients::load(&file).unwrap();
        let shared = list.clone();
        std::fs::write(&file, "alice\nbob\n").unwrap();
        list.reload();
        assert!(known(&shared, "bob@moon.example"));
        std::fs::write(&file, "carol\nnot a recipient\n").unwrap();
        list.reload();
        assert!(known(&shared, "bob@moon.example") && !known(&shared, "carol@moon.example"));
        let error = Recipients::load(&file).unwrap_err().to_string();
        assert!(
            error.ends_with("line 2: \"not a recipient\" is neither an address nor a local part"),
            "{error}"
        );
        std::fs::remove_file(&file).unwrap();
        list.reload();
        assert!(known(&shared, "bob@moon.example"));
        std::fs::write(&file, "carol\n").unwrap();
        list.reload();
        assert!(known(&shared, "carol@moon.example") && !known(&shared, "bob@moon.example"));
    }
}
