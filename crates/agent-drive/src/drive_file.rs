//! A file on a settings drive, and the paths such a file may have.

use bosh_cpi::rpc::{Error, Result};

/// One file of a settings drive. Directories on its way are made as needed.
#[derive(Clone, PartialEq, Eq)]
pub struct DriveFile {
    /// `/` between components; a `/` in front is allowed and means nothing.
    pub path: String,
    pub contents: Vec<u8>,
}

/// Only the size of the contents: they hold passwords and keys.
impl std::fmt::Debug for DriveFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DriveFile({:?}, {} bytes)", self.path, self.contents.len())
    }
}

impl DriveFile {
    pub fn new(path: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            contents: contents.into(),
        }
    }

    /// The path's components, outermost first, never empty.
    ///
    /// Errors: `CpiError` for a path that FAT or ISO 9660 can't hold. One rule for both, so that a
    /// configuration that works with one type of drive works with the other.
    pub(super) fn components(&self) -> Result<Vec<&str>> {
        let components: Vec<&str> = self
            .path
            .strip_prefix('/')
            .unwrap_or(&self.path)
            .split('/')
            .collect();
        let refuse = |why: &str| Err(Error::cpi(format!("settings drive path {:?}: {why}", self.path)));
        if components.len() > MAX_DEPTH {
            return refuse("more than 7 components");
        }
        for component in &components {
            if component.is_empty() || *component == "." || *component == ".." {
                return refuse("empty, . and .. components are not allowed");
            }
            if component.len() > MAX_COMPONENT {
                return refuse("a component is longer than 100 characters");
            }
            if !component.chars().all(allowed) || component.ends_with([' ', '.']) {
                return refuse(
                    "components hold printable ASCII without \"*:<>?\\|, and end in no space or dot",
                );
            }
        }
        Ok(components)
    }
}

/// ISO 9660 allows eight levels, the root being one of them.
const MAX_DEPTH: usize = 7;
/// What fits a 255-byte ISO 9660 directory record beside its Rock Ridge fields, rounded down.
const MAX_COMPONENT: usize = 100;

fn allowed(c: char) -> bool {
    (c.is_ascii_graphic() || c == ' ') && !"\"*:<>?\\|".contains(c)
}

/// Errors: `CpiError` when two files share a path. Case does not count, as the guest's FAT ignores it.
pub(super) fn refuse_duplicates(files: &[DriveFile]) -> Result<()> {
    for (index, file) in files.iter().enumerate() {
        let path = file.components()?;
        for earlier in &files[..index] {
            let earlier = earlier.components()?;
            let shared = path.len().min(earlier.len());
            if path[..shared]
                .join("/")
                .eq_ignore_ascii_case(&earlier[..shared].join("/"))
            {
                return Err(Error::cpi(format!(
                    "settings drive paths {:?} and {:?} exclude each other; set different ones",
                    earlier.join("/"),
                    file.path
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_no_drive_can_hold_are_refused() {
        for (path, allowed) in [
            ("env", true),
            ("/env", true),
            ("ec2/latest/meta-data.json", true),
            ("configs/User Data", true),
            ("", false),
            ("/", false),
            ("a//b", false),
            ("a/", false),
            ("../env", false),
            ("a/./b", false),
            ("a:b", false),
            ("tab\tbed", false),
            ("caf\u{e9}", false),
            ("dot.", false),
            ("a/b/c/d/e/f/g", true),
            ("a/b/c/d/e/f/g/h", false),
        ] {
            assert_eq!(DriveFile::new(path, "").components().is_ok(), allowed, "{path:?}");
        }
        assert!(DriveFile::new("x".repeat(100), "").components().is_ok());
        assert!(DriveFile::new("x".repeat(101), "").components().is_err());
    }

    #[test]
    fn two_files_need_two_paths() {
        for (one, other, distinct) in [
            ("a/b", "a/c", true),
            ("a/b", "A/C", true),
            ("a/b", "/A/B", false),
            ("a", "a/b", false),
            ("a/b", "a", false),
        ] {
            let files = [DriveFile::new(one, ""), DriveFile::new(other, "")];
            assert_eq!(refuse_duplicates(&files).is_ok(), distinct, "{one} {other}");
        }
    }

    #[test]
    fn contents_stay_out_of_debug_output() {
        let file = DriveFile::new("env", "nats://user:secret@10.0.0.1");
        assert_eq!(format!("{file:?}"), "DriveFile(\"env\", 27 bytes)");
    }
}
