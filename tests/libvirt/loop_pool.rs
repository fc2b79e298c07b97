//! A storage pool on a file system of its own: a file, through a loop device. It goes when it is dropped, so it is
//! declared before the sandbox whose VMs use it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::sandbox::{run, try_virsh, virsh};

pub struct LoopPool {
    pub name: String,
    directory: TempDir,
}

impl LoopPool {
    /// A pool on a new file system made by this command, of this size (MiB).
    pub fn new(mkfs: &[&str], size: u64) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "cpiloop-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = tempfile::Builder::new()
            .prefix(&name)
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        // From here on it is undone when dropped.
        let pool = Self { name, directory };
        let image = pool.directory.path().join("image");
        fs::File::create(&image).unwrap().set_len(size << 20).unwrap();
        let image = image.to_str().unwrap();
        run(mkfs[0], &[&mkfs[1..], &[image]].concat()).unwrap();
        fs::create_dir(pool.path()).unwrap();
        let path = pool.path();
        let path = path.to_str().unwrap();
        // The device goes with the mount.
        run("mount", &["-o", "loop", image, path]).unwrap();
        virsh(&["pool-create-as", &pool.name, "dir", "--target", path]);
        pool
    }

    /// Blocks shared between files.
    pub fn xfs(size: u64) -> Self {
        Self::new(&["mkfs.xfs", "-q", "-m", "reflink=1"], size)
    }

    /// All of it for everybody.
    pub fn ext4(size: u64) -> Self {
        Self::new(&["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal"], size)
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// Path of a volume.
    pub fn file(&self, volume: &str) -> String {
        self.path().join(volume).to_str().unwrap().to_owned()
    }

    /// Bytes free, when all that was written has got its blocks.
    pub fn free(&self) -> u64 {
        let path = self.path();
        run("sync", &["-f", path.to_str().unwrap()]).unwrap();
        let shown = run("df", &["-B1", "--output=avail", path.to_str().unwrap()]).unwrap();
        shown.lines().last().unwrap().trim().parse().unwrap()
    }

    /// Names of all files that are there, libvirt's idea aside.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lost+found")
            .collect();
        names.sort();
        names
    }
}

impl Drop for LoopPool {
    fn drop(&mut self) {
        let _ = try_virsh(&["pool-destroy", &self.name]);
        let _ = try_virsh(&["pool-undefine", &self.name]);
        let path = self.path();
        let path = path.to_str().unwrap();
        if run("umount", &[path]).is_err() && path_is_mounted(path) {
            // Something is still open; the device goes when that is closed.
            let _ = run("umount", &["-l", path]);
        }
    }
}

fn path_is_mounted(path: &str) -> bool {
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| mounts.contains(path))
}
