//! What the BOSH agent in the guest reads at boot: its settings, and the drive that carries them.
//!
//! Pure functions: plain data in, JSON or the bytes of a whole drive out.

mod config_drive;
mod drive_file;
mod iso;
mod read_drive;
mod settings;

pub use config_drive::{CONFIG_DRIVE_MAX_BYTES, cdrom, config_drive, config_drive_files, fat_image};
pub use drive_file::DriveFile;
pub use iso::iso_image;
pub use read_drive::read_drive;
pub use settings::{Blobstore, Disks, Settings};

#[cfg(test)]
mod external_tools;
