//! A lock file in a directory that other users may write to: wherever its name leads, no other file is changed.

use std::fs::{File, Metadata, OpenOptions, symlink_metadata};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{FileExt as _, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use fs2::FileExt;
use rustix::fs::OFlags;
use rustix::io::Errno;

use bosh_cpi::logging;

/// Bytes of a lock file that an error shows. Ours are shorter.
const SHOWN_BYTES: u64 = 200;
/// How often a file that is replaced under our hands is opened again.
const MAX_OPENS: usize = 100;

/// An open lock file, locked or not. The kernel releases the lock when the process ends, however it ends.
pub struct LockFile {
    file: File,
    /// A file of another user can often be locked, but not written to.
    writable: bool,
}

impl LockFile {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// For a symbolic link, a file with further hard links, and anything but a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        for _ in 0..MAX_OPENS {
            match Self::open_once(path) {
                // Removed between two looks, or created by another call.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {
                    let directory = path.parent().unwrap_or(Path::new("/"));
                    directory.metadata()?;
                }
                outcome => return outcome,
            }
        }
        Err(Error::other("it is replaced all the time"))
    }

    /// An existing file is opened without O_CREAT, which the kernel refuses for other users' files in directories with
    /// the sticky bit (fs.protected_regular). A new one is created with O_EXCL, which follows no link.
    fn open_once(path: &Path) -> Result<Self> {
        let opened = match open_existing(path, true) {
            Err(e) if e.kind() == ErrorKind::NotFound => options(true).create_new(true).open(path),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                let file = open_existing(path, false).map_err(|_| e)?;
                require_lock_file(&file.metadata()?)?;
                return Ok(Self {
                    file,
                    writable: false,
                });
            }
            opened => opened,
        };
        let file = opened?;
        require_lock_file(&file.metadata()?)?;
        Ok(Self { file, writable: true })
    }

    /// Whether the lock was free, and is now held.
    pub fn try_lock(&self) -> Result<bool> {
        match FileExt::try_lock_exclusive(&self.file) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == fs2::lock_contended_error().kind() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Sleeps in the kernel until the lock is free.
    pub fn lock(&self) -> Result<()> {
        FileExt::lock_exclusive(&self.file)
    }

    /// Whether the path still leads to this file: a lock on a removed one keeps nobody out.
    pub fn is_at(&self, path: &Path) -> Result<bool> {
        let own = self.file.metadata()?;
        match symlink_metadata(path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Writes into the locked file who holds it, unless that is not possible, or somebody else's text is in it.
    pub fn sign(&self) -> Result<()> {
        if !self.is_ours_to_write()? {
            log::debug!("the lock file stays as it is: its content is not the CPI's, or it is read-only");
            return Ok(());
        }
        let now = logging::timestamp(SystemTime::now());
        let (pid, request) = (std::process::id(), logging::request_id());
        let text = format!("process {pid}, request {request}, since {now}\n");
        self.file.set_len(0)?;
        self.file.write_all_at(text.as_bytes(), 0)
    }

    /// Empties the locked file: the next holder may be no CPI, and write nothing.
    pub fn clear(&self) -> Result<()> {
        if self.is_ours_to_write()? {
            self.file.set_len(0)?;
        }
        Ok(())
    }

    fn is_ours_to_write(&self) -> Result<bool> {
        let mut start = vec![0; SHOWN_BYTES as usize];
        let read = self.file.read_at(&mut start, 0)?;
        Ok(self.writable && (read == 0 || is_signature(&start[..read])))
    }
}

/// What the holder of this lock wrote into it.
pub fn holder(path: &Path) -> Option<String> {
    let file = open_existing(path, false).ok()?;
    require_lock_file(&file.metadata().ok()?).ok()?;
    let mut bytes = Vec::new();
    file.take(SHOWN_BYTES).read_to_end(&mut bytes).ok()?;
    is_signature(&bytes).then(|| logging::on_one_line(String::from_utf8_lossy(&bytes).trim()))
}

/// `process 4711, request cpi-123456, since ...`, and nothing of another program's.
fn is_signature(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_prefix(b"process ") else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && rest[digits..].starts_with(b", request ")
}

fn open_existing(path: &Path, write: bool) -> Result<File> {
    options(write).open(path).map_err(|e| {
        if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
            Error::other("it is a symbolic link")
        } else if e.raw_os_error() == Some(Errno::NXIO.raw_os_error()) {
            Error::other("it is not a regular file")
        } else {
            e
        }
    })
}

/// Opened for writing where possible, as NFS wants it for an exclusive lock. A FIFO or a device would block without
/// O_NONBLOCK.
fn options(write: bool) -> OpenOptions {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(write)
        .custom_flags(flags.bits().cast_signed());
    options
}

fn require_lock_file(metadata: &Metadata) -> Result<()> {
    if !metadata.is_file() {
        return Err(Error::other("it is not a regular file"));
    }
    match metadata.nlink() {
        // Removed since it was opened.
        0 => Err(ErrorKind::NotFound.into()),
        1 => Ok(()),
        links => Err(Error::other(format!(
            "the same file has {links} names (hard links)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_an_empty_file_or_a_signature_is_written_to() {
        let directory = tempfile::tempdir().unwrap();
        for (content, is_signed) in [
            ("", true),
            ("process 1, request cpi-1, since 2026", true),
            ("process , request", false),
            ("process 1\n", false),
            ("4711\n", false),
        ] {
            let path = directory.path().join("lock");
            fs::write(&path, content).unwrap();
            let lock = LockFile::open(&path).unwrap();
            assert!(lock.try_lock().unwrap());
            lock.sign().unwrap();
            let signed = fs::read_to_string(&path).unwrap();
            let own = format!("process {}, request ", std::process::id());
            assert_eq!(signed.starts_with(&own), is_signed, "{content:?}");
            assert_eq!(holder(&path).is_some(), is_signed, "{content:?}");
            lock.clear().unwrap();
            let cleared = fs::read_to_string(&path).unwrap();
            assert_eq!(cleared, if is_signed { "" } else { content });
        }
    }

    #[test]
    fn a_removed_file_is_not_at_its_path_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = LockFile::open(&path).unwrap();
        assert!(lock.is_at(&path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!lock.is_at(&path).unwrap());
        let other = LockFile::open(&path).unwrap();
        assert!(other.is_at(&path).unwrap() && !lock.is_at(&path).unwrap());
    }
}
