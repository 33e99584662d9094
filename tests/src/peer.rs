//! Where the peers and the programs under test are, and what to do when one is missing.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn required(path: PathBuf, what: &str, remedy: &str) -> PathBuf {
    assert!(
        path.exists(),
        "required peer missing: {what} ({} does not exist); {remedy}",
        path.display()
    );
    path
}

/// The release binary that is under test; `LIGHTPOST_BINARY` names another one, such as an installed package's.
pub fn lightpost() -> PathBuf {
    if let Some(named) = std::env::var_os("LIGHTPOST_BINARY") {
        return required(
            named.into(),
            "the binary that LIGHTPOST_BINARY names",
            "set it right",
        );
    }
    required(
        target().join("release/lightpost"),
        "the release binary lightpost",
        "run ./check, or cargo build --release -p lightpost",
    )
}

/// A program of a Debian package.
pub fn program(path: &str, package: &str) -> PathBuf {
    required(
        PathBuf::from(path),
        package,
        &format!("run ./check as root, or apt-get install {package}"),
    )
}

/// A file of a Debian package that `./check` unpacks, because it cannot be installed beside another.
pub fn unpacked(path: &str, package: &str) -> PathBuf {
    required(
        target().join("peers/mta").join(path),
        package,
        &format!("run ./check, which unpacks {package}"),
    )
}

/// A program of a crate that `./check` builds.
pub fn built(path: &str, package: &str) -> PathBuf {
    required(
        target().join("peers").join(path),
        package,
        &format!("run ./check, or cargo install {package} --locked --root target/peers/{package}"),
    )
}

/// The first of several places where a program of a Debian package can be.
pub fn program_in(places: &[&str], package: &str) -> PathBuf {
    let found = places.iter().find(|place| Path::new(place).exists());
    program(found.unwrap_or(&places[0]), package)
}

/// A program of the Python environment with the peers from PyPI, which `./check` makes.
pub fn python(name: &str) -> PathBuf {
    required(
        target().join("peers/bin").join(name),
        "the Python environment with aioquic and schemathesis",
        "run ./check, which makes it from tests/peers/requirements.txt",
    )
}

/// Fails the test unless it runs as root, which Postfix, Dovecot and mounts need.
pub fn require_root(what: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"));
    assert!(root, "{what} needs root: run ./check as root");
}
