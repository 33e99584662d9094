//! Keys, DKIM signatures and ARC verification by programs of their own: openssl and Debian's python3-dkim.

use std::{path::PathBuf, process::Command};

use crate::{
    Site, peer,
    process::{self, Finished},
};

/// An RSA key with the name under which it is published.
#[derive(Debug)]
pub struct SigningKey {
    /// The private key in PEM.
    pub file: PathBuf,
    /// The selector.
    pub selector: String,
    /// The domain.
    pub domain: String,
    /// The public key's record.
    pub record: String,
}

impl SigningKey {
    /// Makes one.
    pub fn new(site: &Site, selector: &str, domain: &str) -> Self {
        let openssl = peer::program("/usr/bin/openssl", "openssl");
        let file = site.path(&format!("{selector}.{domain}.pem"));
        let made = process::run(
            Command::new(&openssl)
                .args(["genrsa", "-traditional", "-out"])
                .arg(&file)
                .arg("2048"),
            b"",
        );
        assert!(made.status.success(), "{}", made.stderr);
        let public = process::run(
            Command::new(&openssl).args(["rsa", "-pubout", "-in"]).arg(&file),
            b"",
        );
        assert!(public.status.success(), "{}", public.stderr);
        let base64: String = public
            .stdout
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        Self {
            file,
            selector: selector.to_owned(),
            domain: domain.to_owned(),
            record: format!("v=DKIM1; k=rsa; p={base64}"),
        }
    }

    /// The name under which it is published.
    pub fn owner(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    /// The line of a zone file, its name relative to the domain.
    pub fn in_zone(&self) -> String {
        let strings: Vec<String> = self
            .record
            .as_bytes()
            .chunks(200)
            .map(|part| format!("\"{}\"", String::from_utf8_lossy(part)))
            .collect();
        format!("{}._domainkey IN TXT {}", self.selector, strings.join(" "))
    }

    /// A mail with a DKIM signature by this key.
    pub fn sign(&self, mail: &[u8]) -> Vec<u8> {
        let file = self.file.display().to_string();
        let signed = run(&["sign", &self.selector, &self.domain, &file], mail);
        assert!(signed.status.success(), "{}", signed.stderr);
        signed.stdout.into_bytes()
    }

    /// What a mail's ARC chain is worth with this key alone: `pass`, `fail` or `none`, and why.
    pub fn arc(&self, mail: &[u8]) -> String {
        let said = run(&["arc", &format!("{}.", self.owner()), &self.record], mail);
        assert!(said.status.success(), "{}", said.stderr);
        said.stdout
    }
}

fn run(arguments: &[&str], mail: &[u8]) -> Finished {
    peer::program("/usr/lib/python3/dist-packages/dkim", "python3-dkim");
    let python = peer::program("/usr/bin/python3", "python3");
    let script = peer::root().join("tests/peers/signatures.py");
    process::run(Command::new(python).arg(script).args(arguments), mail)
}
