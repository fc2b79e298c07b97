//! A second pool beside a sandbox's.

use std::fs;
use std::path::PathBuf;

use crate::sandbox::{Sandbox, run, try_virsh, virsh};

/// A pool beside a sandbox's that is still defined when it is stopped. It goes when it is dropped.
pub struct DefinedPool {
    pub name: String,
    pub directory: PathBuf,
}

impl DefinedPool {
    pub fn new(sandbox: &Sandbox) -> Self {
        let pool = Self {
            name: format!("{}-defined", sandbox.name),
            directory: sandbox.directory().join("defined"),
        };
        fs::create_dir(&pool.directory).unwrap();
        pool.define();
        pool
    }

    pub fn define(&self) {
        let target = self.directory.to_str().unwrap();
        virsh(&["pool-define-as", &self.name, "dir", "--target", target]);
        virsh(&["pool-start", &self.name]);
    }

    pub fn files(&self) -> usize {
        fs::read_dir(&self.directory).unwrap().count()
    }
}

impl Drop for DefinedPool {
    fn drop(&mut self) {
        for command in ["pool-destroy", "pool-undefine"] {
            let _ = try_virsh(&[command, &self.name]);
        }
    }
}

/// A pool of type netfs, which libvirt takes to be shared with other hosts. The kernel of test machines may have no NFS:
/// what is mounted there has the name of an export, and libvirt leaves it as it is.
pub struct SharedPool {
    pub name: String,
    pub directory: PathBuf,
}

impl SharedPool {
    pub fn new(sandbox: &Sandbox) -> Self {
        let pool = Self {
            name: format!("{}-shared", sandbox.name),
            directory: sandbox.directory().join("shared"),
        };
        fs::create_dir(&pool.directory).unwrap();
        let (export, target) = (format!("/{}", pool.name), pool.directory.to_str().unwrap());
        let source = format!("127.0.0.1:{export}");
        run("mount", &["-t", "tmpfs", &source, target, "-o", "mode=755"]).unwrap();
        virsh(&[
            "pool-create-as",
            &pool.name,
            "netfs",
            "--source-host",
            "127.0.0.1",
            "--source-path",
            &export,
            "--target",
            target,
        ]);
        pool
    }
}

impl Drop for SharedPool {
    fn drop(&mut self) {
        let _ = try_virsh(&["pool-destroy", &self.name]);
        let _ = run("umount", &[self.directory.to_str().unwrap()]);
    }
}
