//! Reads the files of a settings drive back: of our own, and of those that the seed's CPI made.

use std::io::{Cursor, Read};

use fatfs::{Dir, FileSystem, FsOptions, ReadWriteSeek};

use super::DriveFile;

const SECTOR: usize = 2048;
/// Where ISO 9660 has its primary volume descriptor, and that its root directory's record.
const DESCRIPTOR: usize = 16 * SECTOR;
const ROOT_RECORD: usize = DESCRIPTOR + 156;
/// Deeper directories are none of a settings drive.
const MAX_DEPTH: usize = 8;
/// Larger files are none of a settings drive, bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Every file on a FAT or ISO 9660 drive. None for anything else, or a damaged one.
pub fn read_drive(mut image: Vec<u8>) -> Option<Vec<DriveFile>> {
    let mut files = Vec::new();
    if image.get(DESCRIPTOR..DESCRIPTOR + 6) == Some(b"\x01CD001") {
        let root = image.get(ROOT_RECORD..)?.to_vec();
        iso_directory(&image, &root, "", 0, &mut files)?;
    } else {
        let drive = FileSystem::new(Cursor::new(&mut image[..]), FsOptions::new()).ok()?;
        fat_directory(&drive.root_dir(), "", 0, &mut files).ok()?;
    }
    Some(files)
}

fn fat_directory<T: ReadWriteSeek>(
    directory: &Dir<'_, T>,
    path: &str,
    depth: usize,
    files: &mut Vec<DriveFile>,
) -> std::io::Result<()> {
    for entry in directory.iter() {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{path}{name}");
        if name == "." || name == ".." || depth > MAX_DEPTH {
        } else if entry.is_dir() {
            fat_directory(&entry.to_dir(), &format!("{path}/"), depth + 1, files)?;
        } else {
            let mut contents = Vec::new();
            entry.to_file().take(MAX_FILE_BYTES).read_to_end(&mut contents)?;
            files.push(DriveFile::new(path, contents));
        }
    }
    Ok(())
}

/// What the directory of this record holds. Plain ISO 9660 names, with Rock Ridge's where there are any.
fn iso_directory(
    image: &[u8],
    record: &[u8],
    path: &str,
    depth: usize,
    files: &mut Vec<DriveFile>,
) -> Option<()> {
    let mut rest = extent(image, record)?;
    while !rest.is_empty() {
        let length = usize::from(rest[0]);
        if length == 0 {
            // Records do not cross sectors: the rest of this one is empty.
            let used = rest.len() % SECTOR;
            rest = rest
                .get(if used == 0 { SECTOR } else { used }..)
                .unwrap_or_default();
            continue;
        }
        let record = rest.get(..length)?;
        rest = &rest[length..];
        let name = record.get(33..33 + usize::from(*record.get(32)?))?;
        // The directory itself, and the one above it.
        if matches!(name, [0] | [1]) {
            continue;
        }
        let name = rock_ridge_name(record, 33 + name.len()).unwrap_or_else(|| {
            let name = String::from_utf8_lossy(name);
            let name = name.split(';').next().unwrap_or_default();
            name.trim_end_matches('.').to_lowercase()
        });
        let is_directory = record[25] & 2 != 0;
        if !is_directory {
            files.push(DriveFile::new(format!("{path}{name}"), extent(image, record)?));
        } else if depth < MAX_DEPTH {
            iso_directory(image, record, &format!("{path}{name}/"), depth + 1, files)?;
        }
    }
    Some(())
}

/// The bytes that a directory record stands for.
fn extent<'a>(image: &'a [u8], record: &[u8]) -> Option<&'a [u8]> {
    let number = |at: usize| {
        let bytes = record.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let start = number(2)?.checked_mul(SECTOR)?;
    image.get(start..start.checked_add(number(10)?)?)
}

/// The `NM` entry among those that follow the name.
fn rock_ridge_name(record: &[u8], after: usize) -> Option<String> {
    let mut rest = record.get(after + (after % 2)..)?;
    loop {
        let length = usize::from(*rest.get(2)?);
        let entry = rest.get(..length).filter(|entry| entry.len() >= 4)?;
        if entry.starts_with(b"NM") {
            return Some(String::from_utf8_lossy(entry.get(5..)?).into_owned());
        }
        rest = &rest[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fat_image, iso_image};
    use proptest::prelude::*;

    #[test]
    fn both_kinds_of_drive_are_read_back() {
        let files = [
            DriveFile::new("ec2/latest/meta-data.json", "{}"),
            DriveFile::new("ec2/latest/user-data", "x".repeat(5000)),
            DriveFile::new("env", "settings"),
        ];
        for image in [fat_image("config-2", &files), iso_image("CDROM", &files)] {
            let mut read = read_drive(image.unwrap()).unwrap();
            read.sort_by(|a, b| a.path.cmp(&b.path));
            assert!(read == files, "{read:?}");
        }
    }

    proptest! {
        #[test]
        fn damage_is_no_panic(at in 0..60_000usize, with: u8) {
            for image in [
                fat_image("config-2", &[DriveFile::new("a/b", "c")]),
                iso_image("CDROM", &[DriveFile::new("a/b", "c")]),
            ] {
                let mut image = image.unwrap();
                let at = at % image.len();
                image[at] = with;
                read_drive(image);
            }
        }
    }
}
