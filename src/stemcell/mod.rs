//! Stemcells: what their cloud properties say, and the disk image inside the `image` file.
//!
//! The image is read once, as a stream: nothing is unpacked to disk and memory stays within a few MiB.

mod archive;
mod image;
mod pipeline;
mod properties;
mod qcow2;

pub use archive::{Image, with_image};
pub use pipeline::Pipeline;
pub use properties::StemcellProperties;
pub use qcow2::{Qcow2Header, parse_header};

const MIB: u64 = 1024 * 1024;
/// The largest virtual disk believed, in bytes: 1 PiB.
const MAX_VIRTUAL_SIZE: u64 = 1 << 50;
