//! `[seal]`: whose seals on mail are verified, with keys from a file and without any question to a resolver.

use std::{collections::HashMap, fmt, io::Read, path::Path, sync::Arc};

use lightpost_config::Section;
use mail_auth::common::{parse::TxtRecordParser, verify::DomainKey};

use super::readable;

/// The largest file that is read.
const LARGEST: u64 = 1024 * 1024;

/// `[seal]`
#[derive(Clone)]
#[non_exhaustive]
pub struct Seals {
    /// Whether mail without a good seal is refused.
    pub require: bool,
    /// The keys by their owner names, with the final dot.
    pub(crate) keys: Arc<HashMap<Box<str>, Arc<DomainKey>>>,
}

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.keys.keys().collect();
        f.debug_struct("Seals")
            .field("require", &self.require)
            .field("keys", &names)
            .finish()
    }
}

/// Reads the section; `None` when the file lacks it.
pub(super) fn read(section: &Section<'_>) -> Option<Seals> {
    if !section.present() {
        return None;
    }
    section.require::<String>("keys");
    let require = section.get_or("require", false);
    let path = readable(section, "keys").filter(|path| path.exists())?;
    match load(&path) {
        Ok(keys) => Some(Seals {
            require,
            keys: Arc::new(keys),
        }),
        Err(what) => {
            section.wrong(
                "keys",
                format!("{}{what}", path.display()),
                "write one key per line: its owner name and its DKIM record, \"relay1._domainkey.earth.example v=DKIM1; k=rsa; p=...\"".into(),
            );
            None
        }
    }
}

fn load(path: &Path) -> Result<HashMap<Box<str>, Arc<DomainKey>>, String> {
    let failed = |error: std::io::Error| format!(" cannot be read: {error}");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LARGEST {
        return Err(format!(" has more than {LARGEST} octets"));
    }
    parse(&text)
}

fn parse(text: &str) -> Result<HashMap<Box<str>, Arc<DomainKey>>, String> {
    let mut keys = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!(", line {}: {what}", number + 1);
        let (owner, record) = line
            .split_once(char::is_whitespace)
            .ok_or_else(|| wrong("there is no record behind the name"))?;
        let owner = owner.trim_end_matches('.').to_ascii_lowercase();
        if !owner.contains("._domainkey.") || !owner.is_ascii() {
            return Err(wrong("the name is not that of a key, SELECTOR._domainkey.DOMAIN"));
        }
        // As in a zone file, the record may stand in quotes.
        let record = record.trim().trim_matches('"');
        let key = DomainKey::parse(record.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
        if keys
            .insert(format!("{owner}.").into_boxed_str(), Arc::new(key))
            .is_some()
        {
            return Err(wrong("the name stands there twice"));
        }
    }
    if keys.is_empty() {
        return Err(" has no key".into());
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    #[test]
    fn files_of_keys() {
        let good = format!(
            "# who seals\n\nRelay1._domainkey.Earth.example.  {KEY}\nb._domainkey.b.example \"{KEY}\"\n"
        );
        let mut names: Vec<_> = parse(&good).unwrap().into_keys().collect();
        names.sort();
        assert_eq!(
            names,
            [
                "b._domainkey.b.example.".into(),
                "relay1._domainkey.earth.example.".into()
            ] as [Box<str>; 2]
        );
        for (text, expected) in [
            (String::new(), "has no key"),
            ("a._domainkey.b".into(), "line 1: there is no record"),
            (
                format!("earth.example {KEY}"),
                "line 1: the name is not that of a key",
            ),
            ("\na._domainkey.b v=DKIM1; k=rsa; p=".into(), "line 2: "),
            (
                format!("a._domainkey.b {KEY}\nA._domainkey.b. {KEY}"),
                "line 2: the name stands there twice",
            ),
        ] {
            let error = parse(&text).err().unwrap();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
