//! A test's own folder and loopback addresses.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
};

use tempfile::TempDir;

/// Held while the site lives, so that no other site takes the address.
const LOCK_PORT: u16 = 10_000;

/// A temporary folder and a loopback address that belong to one test.
///
/// All of 127.0.0.0/8 is this machine, so every test can have an address of its own and hand out ports below the
/// ephemeral range one after the other: they are known before anything is started, and nobody else can take them.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    address: Ipv4Addr,
    port: AtomicU16,
    _lock: TcpListener,
}

impl Site {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "it takes an address: not a default")]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("lightpost-").tempdir().unwrap();
        // Postfix's and Dovecot's own users walk through it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let pid = std::process::id();
        for attempt in 0..10_000_u32 {
            let mixed = pid
                .wrapping_mul(2_654_435_761)
                .wrapping_add(attempt.wrapping_mul(40_503));
            let address = Ipv4Addr::new(
                127,
                1 + (mixed >> 8) as u8 % 250,
                (mixed >> 16) as u8,
                1 + (mixed >> 24) as u8 % 250,
            );
            if let Ok(lock) = TcpListener::bind((address, LOCK_PORT)) {
                return Self {
                    folder,
                    address,
                    port: AtomicU16::new(LOCK_PORT + 1),
                    _lock: lock,
                };
            }
        }
        panic!("no free address in 127.0.0.0/8");
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path below the folder; its parents are made.
    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Makes a folder below the folder.
    pub fn make_folder(&self, name: &str) -> PathBuf {
        let path = self.folder().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes a file below the folder and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        IpAddr::V4(self.address)
    }

    /// A socket address that nobody has or will have.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.port.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_logs(self.folder());
        }
    }
}

/// The ends of all logs, for the report of a failed test.
fn show_logs(folder: &Path) {
    let mut logs: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    for log in logs {
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("--- the end of {}", log.display());
        for line in &lines[lines.len().saturating_sub(40)..] {
            eprintln!("{line}");
        }
    }
}
