//! Where tests make stemcells: a disk in any format that QEMU's tools write, in a tar.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::sandbox::{Sandbox, run};

pub const MIB: u64 = 1024 * 1024;
pub const KIB: u64 = 1024;
/// No multiple of anything that a format counts in, but sectors.
pub const DISK_BYTES: u64 = 40 * MIB + 5 * 512;

/// A directory to make stemcells in.
pub struct Workshop(PathBuf);

impl Workshop {
    /// With the disk that all formats are made of: a little data, most of it zeros.
    pub fn new(sandbox: &Sandbox) -> Self {
        let directory = sandbox.directory().join("workshop");
        fs::create_dir(&directory).unwrap();
        let workshop = Self(directory);
        let disk = File::create(workshop.path("disk.raw")).unwrap();
        disk.set_len(DISK_BYTES).unwrap();
        let noise = noise(300 * KIB as usize);
        for at in [0, MIB - 100, 5 * MIB + 7, 20 * MIB, DISK_BYTES - 300 * KIB] {
            disk.write_all_at(&noise, at).unwrap();
        }
        workshop
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// The disk in another format.
    pub fn convert(&self, format: &str, options: &str, name: &str) {
        let mut arguments = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            arguments.extend(["-o", options]);
        }
        let (from, to) = (self.path("disk.raw"), self.path(name));
        arguments.extend([from.as_str(), to.as_str()]);
        run("qemu-img", &arguments).unwrap();
    }

    /// A tar of these files.
    pub fn tar(&self, options: &str, to: &str, names: &[&str]) -> String {
        let to = self.path(to);
        let directory = self.path("");
        let mut arguments = vec![options, &to, "-C", &directory];
        arguments.extend(names);
        run("tar", &arguments).unwrap();
        to
    }

    /// As much of a file as the change leaves, under another name.
    pub fn changed(&self, from: &str, to: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(from)).unwrap();
        change(&mut bytes);
        self.write(to, &bytes);
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }
}

/// Bytes that no compressor makes smaller, none of them zero.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 | 1
        })
        .collect()
}
