//! Files with secrets that everybody on the host can read, as `lightpost check` warns of them.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use lightpost_server::Warning;
use toml::{Table, Value};

/// Keys of a configuration that name a file with a secret; in `[bundle.key.NAME]` it is `file`.
const KEYS: [&str; 3] = ["key", "token", "tokens"];

/// The warnings about the files that the configuration `file` names.
pub(crate) fn open_to_all(file: &Path) -> Vec<Warning> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let Ok(table) = text.parse::<Table>() else {
        return Vec::new();
    };
    let mut named = Vec::new();
    walk(&table, "", &mut named);
    let folder = file.parent().unwrap_or(Path::new("."));
    named
        .into_iter()
        .filter_map(|(key, secret)| warning(key, folder.join(secret)))
        .collect()
}

fn walk(table: &Table, path: &str, named: &mut Vec<(String, PathBuf)>) {
    for (key, value) in table {
        let whole = format!("{path}{key}");
        match value {
            Value::String(secret) if KEYS.contains(&key.as_str()) => named.push((whole, secret.into())),
            Value::String(secret) if path.starts_with("bundle.key.") && key == "file" => {
                named.push((whole, secret.into()));
            }
            Value::Table(inner) => walk(inner, &format!("{whole}."), named),
            Value::Array(items) => {
                for (number, item) in items.iter().enumerate() {
                    if let Value::Table(inner) = item {
                        walk(inner, &format!("{whole}[{number}]."), named);
                    }
                }
            }
            _ => {}
        }
    }
}

fn warning(key: String, file: PathBuf) -> Option<Warning> {
    let mode = std::fs::metadata(&file).ok()?.permissions().mode() & 0o777;
    (mode & 0o007 != 0).then(|| Warning {
        key: key.into(),
        file,
        what: format!("everybody on this host can read this secret (mode {mode:03o})"),
        remedy: "give it to the user of the service, mode 600".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_that_is_open_is_named_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in [
            ("a", 0o644),
            ("b", 0o600),
            ("c", 0o640),
            ("d", 0o604),
            ("e", 0o666),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, "x").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let file = folder.path().join("x.toml");
        let text = "tls.key = 'a'\ntls.certificate = 'a'\n[path.moon]\ntoken = 'b'\n[ingest]\ntokens = 'c'\n[[peer]]\ntoken = 'd'\n[[peer]]\n\
                    token = 'absent'\n[bundle.key.one]\nfile = 'e'\nkind = 'integrity'\n";
        std::fs::write(&file, text).unwrap();
        let mut keys: Vec<String> = open_to_all(&file)
            .into_iter()
            .map(|warning| format!("{} {}", warning.key, warning.file.display()))
            .collect();
        let at = |key: &str, name: &str| format!("{key} {}", folder.path().join(name).display());
        keys.sort();
        assert_eq!(
            keys,
            [
                at("bundle.key.one.file", "e"),
                at("peer[0].token", "d"),
                at("tls.key", "a")
            ]
        );
    }
}
