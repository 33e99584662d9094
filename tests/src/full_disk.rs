//! A disk that is small enough to be filled.

use std::{fs, path::PathBuf, process::Command};

use crate::{Site, peer};

/// A tmpfs of a few megabytes.
#[derive(Debug)]
pub struct SmallDisk {
    /// Where it is mounted.
    pub folder: PathBuf,
}

impl SmallDisk {
    /// Mounts one of `size` (as `mount` takes it) in the site's folder.
    pub fn mount(site: &Site, name: &str, size: &str) -> Self {
        peer::require_root("mounting a small disk");
        let folder = site.make_folder(name);
        let options = format!("size={size}");
        let status = Command::new("/bin/mount")
            .args(["-t", "tmpfs", "-o", &options, "lightpost-test"])
            .arg(&folder)
            .status()
            .unwrap();
        assert!(status.success(), "a tmpfs cannot be mounted here: {status}");
        Self { folder }
    }

    /// Takes `size` octets that [`SmallDisk::make_room`] gives back.
    pub fn take(&self, size: usize) {
        fs::write(self.folder.join("ballast"), vec![0; size]).unwrap();
    }

    /// Takes all room that is left, too.
    pub fn fill(&self) {
        // Larger pieces first; the last free page goes too.
        let mut ballast = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("ballast"))
            .unwrap();
        for size in [1 << 20, 4096, 1] {
            while std::io::Write::write_all(&mut ballast, &vec![0; size]).is_ok() {}
        }
    }

    /// Gives the room back.
    pub fn make_room(&self) {
        fs::remove_file(self.folder.join("ballast")).unwrap();
    }

    /// Mounts it read-only, or writable again. Files that are open for writing forbid that.
    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        let status = Command::new("/bin/mount")
            .args(["-o", options])
            .arg(&self.folder)
            .status()
            .unwrap();
        assert!(status.success(), "remount: {status}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("/bin/umount").arg("-l").arg(&self.folder).status();
    }
}
