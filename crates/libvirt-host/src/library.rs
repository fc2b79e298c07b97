//! Which client library of libvirt this process has loaded, and what is in it or under it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use virt::connect::Connect;

use super::versions::version;

/// Before this version a wait for a reply that another thread ends leaves its watch behind, which then writes to memory
/// that is in use for something else (CVE-2024-4418). As libvirt counts versions.
const SAFE_SINCE: u32 = 10_004_000;

/// The client library.
pub struct Library {
    /// As libvirt counts versions: 11.3.0 is 11003000.
    version: u32,
    pub path: PathBuf,
    /// Name and version, or file, of what else reads what a host sends.
    pub parts: Vec<(String, String)>,
}

impl Library {
    /// # Errors
    /// What the kernel, or the library, does not tell.
    pub fn loaded() -> std::io::Result<Self> {
        let version = Connect::version().map_err(std::io::Error::other)?;
        let maps = fs::read_to_string("/proc/self/maps")?;
        let mut files: Vec<&Path> = maps
            .lines()
            .filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])))
            .collect();
        files.dedup();
        let path =
            find(&files, "libvirt.so.").ok_or_else(|| std::io::Error::other("libvirt.so.0 is not loaded"))?;
        let of_the_note = parts_in(&fs::read(path)?);
        let parts = if of_the_note.is_empty() {
            ["libgnutls.so.", "libsasl2.so.", "libxml2.so.", "libssh.so."]
                .iter()
                .filter_map(|name| Some((name.trim_end_matches(".so.").to_owned(), find(&files, name)?)))
                .map(|(name, file)| (name, real(file)))
                .collect()
        } else {
            of_the_note
        };
        Ok(Self {
            version,
            path: path.to_owned(),
            parts,
        })
    }

    /// As people write it: 11.3.0.
    pub fn version(&self) -> String {
        version(self.version)
    }

    /// Whether this version can crash calls. A distribution may have backported the fix, which no version tells.
    pub fn may_crash(&self) -> bool {
        self.version < SAFE_SINCE
    }
}

fn find<'a>(files: &[&'a Path], prefix: &str) -> Option<&'a Path> {
    let fits = |file: &&&Path| {
        file.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    files.iter().find(fits).copied()
}

/// The file that a link names has the whole version in its name.
fn real(file: &Path) -> String {
    fs::canonicalize(file)
        .unwrap_or_else(|_| file.to_owned())
        .display()
        .to_string()
}

/// The components that the package's own library names in its ELF note of package metadata, type 0xcafe1a7e of `FDO`.
fn parts_in(library: &[u8]) -> Vec<(String, String)> {
    const HEADER: &[u8] = b"\x7e\x1a\xfe\xcaFDO\0";
    let note = || {
        let start = library.windows(HEADER.len()).position(|bytes| bytes == HEADER)? + HEADER.len();
        let end = library[start..].iter().position(|byte| *byte == 0)? + start;
        let note: Value = serde_json::from_slice(&library[start..end]).ok()?;
        let parts = note.get("components")?.as_object()?.iter();
        Some(
            parts
                .map(|(name, version)| (name.clone(), version.as_str().unwrap_or_default().to_owned()))
                .collect(),
        )
    };
    note().unwrap_or_default()
}

/// What `ssh -V` says of the OpenSSH client, which connections over SSH run.
///
/// # Errors
/// When there is no `ssh` in PATH.
pub fn ssh_client() -> std::io::Result<String> {
    let output = Command::new("ssh").arg("-V").output()?;
    Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_names_the_parts_and_a_library_without_one_has_none() {
        let mut library = b"\x7fELF\x04\0\0\0\x60\0\0\0\x7e\x1a\xfe\xcaFDO\0".to_vec();
        library.extend(br#"{"name":"libvirt","components":{"gmp":"2:6.2","libvirt":"11.3.0"}}"#);
        library.extend(b"\0\0more");
        let expected = [("gmp", "2:6.2"), ("libvirt", "11.3.0")];
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
            .collect();
        assert_eq!(parts_in(&library), expected);
        assert_eq!(parts_in(&library[..40]), []);
        assert_eq!(parts_in(b"\x7fELF"), []);
    }
}
