//! The drives that carry the settings into the guest: a config drive, or a CD-ROM.

use super::drive_file::{DriveFile, refuse_duplicates};
use super::iso::iso_image;
use bosh_cpi::rpc::{Error, Result};
use cpi_config::ConfigDriveFormat;
use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use serde_json::{Value, json};
use std::io::{self, Cursor, Write};

const MIB: usize = 1024 * 1024;
/// The largest config drive, in bytes.
pub const CONFIG_DRIVE_MAX_BYTES: usize = 2 * MIB;
const SIZES: [usize; 2] = [MIB, CONFIG_DRIVE_MAX_BYTES];

/// A config drive for the agent's `ConfigDrive` source, as openstack stemcells use it: `metadata_path` holds the public
/// key, `userdata_path` the settings. FAT, of 1 or 2 MiB, unless another format is given or FAT cannot hold the label.
///
/// Errors: `CpiError`, see [`fat_image`] and [`iso_image`].
pub fn config_drive(
    format: Option<ConfigDriveFormat>,
    label: &str,
    metadata_path: &str,
    userdata_path: &str,
    ssh_public_key: Option<&str>,
    settings: &Value,
) -> Result<Vec<u8>> {
    let files = config_drive_files(metadata_path, userdata_path, ssh_public_key, settings);
    let by_label = || match fat_label(label) {
        Ok(_) => ConfigDriveFormat::Vfat,
        Err(_) => ConfigDriveFormat::Iso9660,
    };
    match format.unwrap_or_else(by_label) {
        ConfigDriveFormat::Vfat => fat_image(label, &files),
        ConfigDriveFormat::Iso9660 => iso_image(label, &files),
    }
}

/// A CD-ROM for the agent's `CDROM` source, as vsphere stemcells use it: the settings in one file.
///
/// Errors: `CpiError`, see [`iso_image`].
pub fn cdrom(label: &str, filename: &str, settings: &Value) -> Result<Vec<u8>> {
    iso_image(label, &[DriveFile::new(filename, settings.to_string())])
}

/// The two files of a config drive, for a drive of either kind: old azure stemcells look for a label that
/// only [`iso_image`] can hold.
pub fn config_drive_files(
    metadata_path: &str,
    userdata_path: &str,
    ssh_public_key: Option<&str>,
    settings: &Value,
) -> [DriveFile; 2] {
    let metadata = match ssh_public_key {
        Some(key) => json!({ "public-keys": { "0": { "openssh-key": key } } }),
        None => json!({}),
    };
    [
        DriveFile::new(metadata_path, metadata.to_string()),
        DriveFile::new(userdata_path, settings.to_string()),
    ]
}

/// A FAT file system on a whole device, with no partition table: 1 MiB, or 2 MiB if the files need it. The
/// same label and files always give the same bytes.
///
/// The label stands in the boot sector and in the root directory; the guest's `/dev/disk/by-label/` goes by
/// the latter alone.
///
/// Errors: `CpiError` for a label or a path that FAT can't hold, and for files larger than the drive.
pub fn fat_image(label: &str, files: &[DriveFile]) -> Result<Vec<u8>> {
    let label = fat_label(label)?;
    refuse_duplicates(files)?;
    let mut outcome = Ok(());
    for size in SIZES {
        let mut image = vec![0; size];
        outcome = format_and_fill(&mut image, label, files);
        if outcome.is_ok() {
            return Ok(image);
        }
    }
    let bytes: usize = files.iter().map(|file| file.contents.len()).sum();
    Err(match outcome {
        Err(error) if bytes < MIB => Error::cpi(format!("writing the config drive: {error}")),
        _ => Error::cpi(format!(
            "agent settings of {bytes} bytes do not fit the 2 MiB config drive"
        )),
    })
}

fn format_and_fill(image: &mut [u8], label: [u8; 11], files: &[DriveFile]) -> io::Result<()> {
    let options = FormatVolumeOptions::new()
        .volume_label(label)
        .volume_id(volume_id(files));
    fatfs::format_volume(Cursor::new(&mut *image), options)?;
    let drive = mount(image)?;
    for file in files {
        let components = file.components().map_err(io::Error::other)?;
        let mut directory = drive.root_dir();
        for name in &components[..components.len() - 1] {
            directory = directory.create_dir(name)?;
        }
    }
    drive.unmount()?;
    // Before any file is written, when nothing but directories can look like a directory.
    mend_dot_entries(image);
    let drive = mount(image)?;
    for file in files {
        let path = file.components().map_err(io::Error::other)?.join("/");
        drive.root_dir().create_file(&path)?.write_all(&file.contents)?;
    }
    drive.unmount()
}

fn mount(image: &mut [u8]) -> io::Result<FileSystem<Cursor<&mut [u8]>>> {
    FileSystem::new(Cursor::new(image), FsOptions::new().time_provider(&EPOCH))
}

/// `fatfs` 0.3 gives `.` and `..` long names. They must be a directory's first two entries and have none,
/// or fsck.fat takes them for damage.
fn mend_dot_entries(image: &mut [u8]) {
    const ENTRY: usize = 32;
    let dot = |sector: &[u8], slot: usize, name: &[u8; 11]| sector[slot * ENTRY..].starts_with(name);
    for sector in image.chunks_exact_mut(512) {
        if dot(sector, 1, b".          ") && dot(sector, 3, b"..         ") {
            sector.copy_within(ENTRY..2 * ENTRY, 0);
            sector.copy_within(3 * ENTRY..4 * ENTRY, ENTRY);
            sector[2 * ENTRY..4 * ENTRY].fill(0);
            sector[2 * ENTRY] = DELETED;
            sector[3 * ENTRY] = DELETED;
        }
    }
}

const DELETED: u8 = 0xe5;

fn fat_label(label: &str) -> Result<[u8; 11]> {
    let bytes = label.as_bytes();
    if bytes.len() > 11 {
        return Err(Error::cpi(format!(
            "config drive label {label:?} is {} bytes long and FAT holds 11; \
             ISO 9660 (stemcell.config_drive_format iso9660) holds 32",
            bytes.len()
        )));
    }
    let allowed = |b: &u8| (b.is_ascii_graphic() || *b == b' ') && !b"\"*+,./:;<=>?[\\]|".contains(b);
    if label.trim().is_empty() || label.trim() != label || !bytes.iter().all(allowed) {
        return Err(Error::cpi(format!(
            "config drive label {label:?}: FAT takes 1 to 11 printable ASCII characters \
             without \"*+,./:;<=>?[\\]|"
        )));
    }
    let mut padded = [b' '; 11];
    padded[..bytes.len()].copy_from_slice(bytes);
    Ok(padded)
}

/// FNV-1a over everything on the drive, so that two VMs' drives differ and one VM's drive does not change.
fn volume_id(files: &[DriveFile]) -> u32 {
    files
        .iter()
        .flat_map(|file| file.path.as_bytes().iter().chain(&file.contents))
        .fold(0x811c_9dc5, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        })
}

/// FAT's own epoch as every file's time, whatever features another crate turns on in `fatfs`.
#[derive(Debug)]
struct Epoch;

static EPOCH: Epoch = Epoch;

impl TimeProvider for Epoch {
    fn get_current_date(&self) -> Date {
        Date {
            year: 1980,
            month: 1,
            day: 1,
        }
    }

    fn get_current_date_time(&self) -> DateTime {
        let time = Time {
            hour: 0,
            min: 0,
            sec: 0,
            millis: 0,
        };
        DateTime {
            date: self.get_current_date(),
            time,
        }
    }
}

#[cfg(test)]
mod tests;
