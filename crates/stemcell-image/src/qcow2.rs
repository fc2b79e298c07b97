//! The qcow2 header, as far as the CPI needs it.
//!
//! Source: QEMU's `docs/interop/qcow2.txt`.

mod disk;
mod tables;

pub use disk::read;
pub use tables::Checked;

use super::MAX_VIRTUAL_SIZE;
use bosh_cpi::rpc::{Error, Result};

pub(super) const MAGIC: &[u8] = b"QFI\xfb";

const VERSION_2_HEADER_BYTES: usize = 72;
const VERSION_3_HEADER_BYTES: usize = 104;

// Incompatible features. Dirty only means that reference counts want mending, which QEMU does on opening.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA_FILE: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

const END_OF_EXTENSIONS: u32 = 0;
const EXTERNAL_DATA_FILE_NAME: u32 = 0x4441_5441;
const ENCRYPTION_HEADER: u32 = 0x0537_be77;

/// What a qcow2 file that stands on its own says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qcow2Header {
    /// 2 or 3.
    pub version: u32,
    /// The size of the disk the guest sees, in bytes.
    pub virtual_size: u64,
    /// A cluster is 2 to this power bytes.
    pub cluster_bits: u32,
    /// Where the table is that all others are found by, in bytes.
    pub first_table: u64,
    /// How many entries it has.
    pub first_entries: u32,
    /// Whether entries of other tables are 16 bytes long instead of 8.
    pub extended: bool,
}

/// Parses the start of a qcow2 file: all of its first cluster, or as much as there is.
///
/// Errors: `CloudError` for what isn't qcow2, for damage, and for a file that leans on another one, which a
/// stemcell could use to read any file of the host.
pub fn parse_header(bytes: &[u8]) -> Result<Qcow2Header> {
    parse(bytes).map_err(|why| Error::cloud(format!("qcow2 header: {why}")))
}

fn parse(bytes: &[u8]) -> std::result::Result<Qcow2Header, String> {
    if !bytes.starts_with(MAGIC) {
        return Err("not a qcow2 file".into());
    }
    if bytes.len() < VERSION_2_HEADER_BYTES {
        return Err(format!("cut short after {} bytes", bytes.len()));
    }
    let version = u32_at(bytes, 4)?;
    if !(2..=3).contains(&version) {
        return Err(format!("version {version} is not supported, 2 and 3 are"));
    }
    if u64_at(bytes, 8)? != 0 {
        return Err("the image has a backing file; flatten it with qemu-img convert".into());
    }
    let cluster_bits = u32_at(bytes, 20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(format!("cluster_bits is {cluster_bits}, must be 9 to 21"));
    }
    let virtual_size = u64_at(bytes, 24)?;
    if virtual_size == 0 || virtual_size > MAX_VIRTUAL_SIZE {
        return Err(format!(
            "a virtual size of {virtual_size} bytes is not between 1 byte and 1 PiB"
        ));
    }
    if u32_at(bytes, 32)? != 0 {
        return Err("the image is encrypted".into());
    }
    let header_bytes = if version == 3 {
        version_3(bytes)?
    } else {
        VERSION_2_HEADER_BYTES
    };
    extensions(bytes, header_bytes, 1 << cluster_bits)?;
    Ok(Qcow2Header {
        version,
        virtual_size,
        cluster_bits,
        first_table: u64_at(bytes, 40)?,
        first_entries: u32_at(bytes, 36)?,
        extended: version == 3 && u64_at(bytes, 72)? & EXTENDED_L2 != 0,
    })
}

/// Checks what version 3 added and returns the header's length in bytes.
fn version_3(bytes: &[u8]) -> std::result::Result<usize, String> {
    let features = u64_at(bytes, 72)?;
    let header_bytes = u32_at(bytes, 100)? as usize;
    if features & EXTERNAL_DATA_FILE != 0 {
        return Err("the image keeps its data in another file".into());
    }
    if features & CORRUPT != 0 {
        return Err("the image is marked corrupt; mend it with qemu-img check -r all".into());
    }
    let unknown = features & !(DIRTY | COMPRESSION_TYPE | EXTENDED_L2);
    if unknown != 0 {
        return Err(format!("unknown incompatible features {unknown:#x}"));
    }
    if header_bytes < VERSION_3_HEADER_BYTES || !header_bytes.is_multiple_of(8) {
        return Err(format!("a header length of {header_bytes} bytes is impossible"));
    }
    Ok(header_bytes)
}

/// Walks the header extensions between `at` and the end of the first cluster, or of `bytes`.
fn extensions(bytes: &[u8], mut at: usize, cluster_bytes: usize) -> std::result::Result<(), String> {
    while at + 8 <= bytes.len().min(cluster_bytes) {
        let (kind, length) = (u32_at(bytes, at)?, u32_at(bytes, at + 4)? as usize);
        match kind {
            END_OF_EXTENSIONS => return Ok(()),
            EXTERNAL_DATA_FILE_NAME => return Err("the image keeps its data in another file".into()),
            ENCRYPTION_HEADER => return Err("the image is encrypted".into()),
            _ if length > cluster_bytes => {
                return Err(format!("header extension {kind:#x} is {length} bytes long"));
            }
            _ => at += 8 + length.next_multiple_of(8),
        }
    }
    Ok(())
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> std::result::Result<[u8; N], String> {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk::<N>())
        .copied()
        .ok_or_else(|| format!("cut short after {} bytes", bytes.len()))
}

fn u32_at(bytes: &[u8], at: usize) -> std::result::Result<u32, String> {
    Ok(u32::from_be_bytes(array_at(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> std::result::Result<u64, String> {
    Ok(u64::from_be_bytes(array_at(bytes, at)?))
}

#[cfg(test)]
mod tests;
