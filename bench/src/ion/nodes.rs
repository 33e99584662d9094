//! The two nodes of `deploy/ion`, each in namespaces of its own.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use lightpost_tests::{
    Site,
    ion::{self, Node},
};

use crate::{Result, process};

/// The samples' contacts carry 100 Mbit/s, which ION keeps to; here its processors shall be the limit.
const CONTACT: (&str, &str) = (" 12500000", " 1000000000");

/// Two running nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// Earth and the Moon.
    pub(crate) pair: [Node; 2],
    _site: Site,
}

/// Why there can be no nodes here.
pub(crate) fn missing() -> Option<&'static str> {
    if !ion::is_on_path() {
        return Some("it is not installed (ionadmin is not on the PATH)");
    }
    (!process::is_root()).then_some("its nodes need namespaces, so root")
}

impl Nodes {
    /// Starts them, empty.
    pub(crate) fn start() -> Result<Self> {
        let site = Site::new();
        let pair = Node::pair_with(&site, |_, text| text.replace(CONTACT.0, CONTACT.1));
        Ok(Self { pair, _site: site })
    }
}

/// A program that runs another one on a node's host: for those that take a path and no command.
pub(crate) fn wrapper(node: &Node, program: &Path, file: &Path) -> Result<PathBuf> {
    let command = node.command(program);
    let mut script = String::from("#!/bin/sh\n");
    for (name, value) in command.get_envs() {
        let value = value.unwrap_or_default();
        let _ = writeln!(script, "export {}={}", name.to_string_lossy(), quoted(value));
    }
    script.push_str("exec");
    for word in words(&command) {
        let _ = write!(script, " {}", quoted(word));
    }
    script.push_str(" \"$@\"\n");
    let written = std::fs::write(file, script)
        .and_then(|()| std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)));
    written.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file.to_owned())
}

fn words(command: &Command) -> impl Iterator<Item = &OsStr> {
    std::iter::once(command.get_program()).chain(command.get_args())
}

fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))
}
