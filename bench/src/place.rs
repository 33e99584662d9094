//! The folder of a run, on a real disk: a queue in memory would measure nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::Result;

/// Filesystems that do not survive a power cut.
const VOLATILE: [&str; 3] = ["tmpfs", "ramfs", "devtmpfs"];

/// The folder of a run.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    filesystem: String,
    device: String,
    _folder: Option<TempDir>,
}

impl Place {
    /// Makes a folder in `folder`, beside the release binaries by default.
    pub(crate) fn new(folder: Option<&Path>, keep: bool) -> Result<Self> {
        let parent = match folder {
            Some(folder) => folder.to_owned(),
            None => beside()?.join("bench-runs"),
        };
        let failed = |error: std::io::Error| format!("{}: {error}; name another --folder", parent.display());
        fs::create_dir_all(&parent).map_err(failed)?;
        let folder = tempfile::Builder::new()
            .prefix("run-")
            .disable_cleanup(keep)
            .tempdir_in(&parent)
            .map_err(failed)?;
        // Postfix's own user walks through it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let path = folder.path().canonicalize().map_err(failed)?;
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let (device, filesystem) = mount_of(&mounts, &path);
        if VOLATILE.contains(&filesystem.as_str()) {
            return Err(format!(
                "{} lies on {filesystem}, which survives no power cut; name a --folder on a disk",
                path.display()
            ));
        }
        Ok(Self {
            path,
            filesystem,
            device,
            _folder: Some(folder),
        })
    }

    /// A folder below it.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// A place below this one.
    pub(crate) fn below(&self, name: &str) -> Result<Self> {
        Ok(Self {
            path: self.folder(name)?,
            filesystem: self.filesystem.clone(),
            device: self.device.clone(),
            _folder: None,
        })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what lies in it now, for the room; what stays is removed with the run's folder.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
    }

    /// Where it is.
    pub(crate) fn describe(&self) -> String {
        format!(
            "queues and databases: {} ({} on {})",
            self.path.display(),
            self.filesystem,
            self.device
        )
    }
}

/// The folder of the release binaries.
pub(crate) fn beside() -> Result<PathBuf> {
    let binary =
        std::env::current_exe().map_err(|error| format!("where this program is cannot be told: {error}"))?;
    Ok(binary.parent().unwrap_or(Path::new(".")).to_owned())
}

/// Octets that are free where `path` is, by `df`.
pub(crate) fn free(path: &Path) -> Option<u64> {
    let output = std::process::Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(path)
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .nth(1)?
        .trim()
        .parse()
        .ok()
}

/// Device and type of the filesystem of `path`: the longest mount point that it begins with.
fn mount_of(mounts: &str, path: &Path) -> (String, String) {
    let mut best = (0, "unknown".to_owned(), "unknown".to_owned());
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(point), Some(kind)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if path.starts_with(point) && point.len() >= best.0 {
            best = (point.len(), device.to_owned(), kind.to_owned());
        }
    }
    (best.1, best.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/disk xfs rw 0 0\n";
        let kind = |path: &str| mount_of(mounts, Path::new(path)).1;
        assert_eq!(kind("/home/a"), "ext4");
        assert_eq!(kind("/tmp/a"), "tmpfs");
        assert_eq!(kind("/tmp/disk/a"), "xfs");
        assert_eq!(kind("/tmpfoo"), "ext4");
    }
}
