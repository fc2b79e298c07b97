//! Stemcells: what their cloud properties say, the disk image inside the `image` file, and what is remembered.
//!
//! The image is read once, as a stream, and memory stays within a few MiB. Nothing is unpacked to disk, but for a VHD
//! whose blocks are out of order.

mod archive;
mod bytes;
mod find;
mod firmware;
mod image;
mod light;
mod ovf;
mod pipeline;
mod plain;
mod properties;
mod qcow2;
mod record;
mod vhd;
mod vmdk;

pub use archive::{least_bytes, with_image};
pub use find::{find, get, require_kept};
pub use firmware::{firmware, look as look_for_firmware};
pub use image::Image;
// For tests of bad input: the same readers, without a file.
#[doc(hidden)]
pub use archive::with_image_in;
#[doc(hidden)]
pub use firmware::of_file as firmware_of_file;
#[doc(hidden)]
pub use image::with_content;
pub use light::{check_volume, named_volume};
pub use pipeline::Pipeline;
pub use properties::StemcellProperties;
pub use qcow2::{Qcow2Header, parse_header};
pub use record::{NamedVolume, Record, volume_name};

const MIB: u64 = 1024 * 1024;
/// The largest virtual disk believed, in bytes: 1 PiB.
const MAX_VIRTUAL_SIZE: u64 = 1 << 50;
