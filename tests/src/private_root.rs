//! Peers whose Debian packages exclude each other (Postfix, Exim, OpenSMTPD): unpacked by `./check` below `target/peers/mta`, and run in a mount
//! namespace of their own, with the accounts and folders that their packages would have made.

use std::{fmt::Write as _, fs, path::PathBuf};

use crate::{Process, Site, peer};

/// The accounts that the packages make, and the one that Lightpost's makes.
const ACCOUNTS: [(&str, u32); 4] = [
    ("Debian-exim", 65_501),
    ("opensmtpd", 65_502),
    ("opensmtpq", 65_503),
    ("lightpost", 65_504),
];

/// An account's number.
pub fn account(name: &str) -> u32 {
    ACCOUNTS.iter().find(|(known, _)| *known == name).unwrap().1
}

/// A file of an unpacked package.
pub fn unpacked(path: &str, package: &str) -> PathBuf {
    peer::unpacked(path, package)
}

/// Starts a program of an unpacked package. `prepare` are lines of shell that run in its namespace before it.
pub fn start(
    site: &Site,
    name: &str,
    prepare: &str,
    program: &std::path::Path,
    arguments: &[&str],
) -> Process {
    peer::require_root(name);
    let accounts = |file: &str, line: &dyn Fn(&str, u32) -> String| {
        let mut text = fs::read_to_string(file).unwrap();
        for (account, id) in ACCOUNTS {
            writeln!(text, "{}", line(account, id)).unwrap();
        }
        site.write(&format!("{name}-etc/{}", file.replace('/', "-")), text)
    };
    let users = accounts("/etc/passwd", &|account, id| {
        format!("{account}:x:{id}:{id}::/:/usr/sbin/nologin")
    });
    let groups = accounts("/etc/group", &|account, id| format!("{account}:x:{id}:"));
    let script = format!(
        "#!/bin/sh\nset -e\nmount --bind {} /etc/passwd\nmount --bind {} /etc/group\n{prepare}\nexec \"$@\"\n",
        users.display(),
        groups.display()
    );
    let script = site.write(&format!("{name}-etc/start.sh"), script);
    let unshare = peer::program("/usr/bin/unshare", "util-linux");
    let mut all = vec![
        "--mount".to_owned(),
        "/bin/sh".into(),
        script.display().to_string(),
        program.display().to_string(),
    ];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Process::start(site, name, &unshare, all)
}
