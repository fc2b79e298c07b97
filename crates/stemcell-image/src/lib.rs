//! The disk image inside a stemcell's `image` file.
//!
//! The image is read once, as a stream, and memory stays within a few MiB. Nothing is unpacked to disk, but for a VHD
//! whose blocks are out of order.

mod archive;
mod bytes;
mod firmware;
mod image;
mod ovf;
mod pipeline;
mod plain;
mod properties;
mod qcow2;
mod vhd;
mod vmdk;

pub use archive::{least_bytes, with_image, with_image_in};
pub use firmware::{ReadAt, of_file as firmware_of_file};
pub use image::{Image, with_content};
pub use pipeline::Pipeline;
pub use properties::StemcellProperties;
pub use qcow2::{Qcow2Header, parse_header};

const MIB: u64 = 1024 * 1024;
/// The largest virtual disk believed, in bytes: 1 PiB.
const MAX_VIRTUAL_SIZE: u64 = 1 << 50;
