//! What libvirt says on stderr and in no error: why it did not take a server's certificate, above all.

use std::fs::File;
use std::io::{Read, Seek};

use rustix::stdio::{dup2_stderr, stderr};

/// Does the work, and returns what went to stderr meanwhile in place of writing it there.
pub(super) fn said_during(work: impl FnOnce()) -> std::io::Result<String> {
    let mut file = tempfile::tempfile()?;
    let diverted = Diverted::to(&file)?;
    work();
    drop(diverted);
    file.rewind()?;
    let mut said = Vec::new();
    file.read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Puts stderr back when it is dropped, whatever happened.
struct Diverted {
    stderr: std::os::fd::OwnedFd,
}

impl Diverted {
    fn to(file: &File) -> std::io::Result<Self> {
        let saved = rustix::io::fcntl_dupfd_cloexec(stderr(), 3)?;
        dup2_stderr(file)?;
        Ok(Self { stderr: saved })
    }
}

impl Drop for Diverted {
    fn drop(&mut self) {
        // Without stderr the log is lost, but not the call.
        let _ = dup2_stderr(&self.stderr);
    }
}
