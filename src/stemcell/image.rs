//! Disk image formats, told apart by content.

use super::qcow2::{self, parse_header};
use super::{MAX_VIRTUAL_SIZE, MIB, StemcellProperties};
use crate::rpc::{Error, Result};
use crate::xml::volume::VolumeFormat;

/// Formats that would otherwise pass for raw disks.
const NOT_SUPPORTED: [(&[u8], &str); 6] = [
    (b"KDMV", "a VMDK image"),
    (b"COWD", "a VMDK image"),
    (b"vhdxfile", "a VHDX image"),
    (b"conectix", "a dynamic VHD image"),
    (b"QED\0", "a QED image"),
    (b"\x1f\x8b", "compressed once more"),
];

/// Enough for a qcow2 header and its extensions, in bytes: the first cluster at QEMU's default size.
pub(super) const HEAD_BYTES: u64 = 64 * 1024;

/// The format and virtual size (bytes) of an image of `file_size` bytes that starts with `head`.
///
/// Errors: `CloudError` for other formats, and for sizes that can't be: see [`StemcellProperties::check_size`];
/// a qcow2 file may exceed its virtual size by an eighth and 64 MiB, more than its metadata ever takes.
pub(super) fn recognise(
    head: &[u8],
    file_size: u64,
    properties: &StemcellProperties,
) -> Result<(VolumeFormat, u64)> {
    if file_size == 0 {
        return Err(Error::cloud("the image is empty"));
    }
    if let Some((_, what)) = NOT_SUPPORTED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(Error::cloud(format!(
            "the image is {what}; only qcow2 and raw are supported"
        )));
    }
    let (format, virtual_size) = if head.starts_with(qcow2::MAGIC) {
        (VolumeFormat::Qcow2, parse_header(head)?.virtual_size)
    } else {
        (VolumeFormat::Raw, file_size)
    };
    properties.check_size(virtual_size)?;
    let most = match format {
        VolumeFormat::Qcow2 => virtual_size + virtual_size / 8 + 64 * MIB,
        VolumeFormat::Raw => MAX_VIRTUAL_SIZE,
    };
    if file_size > most {
        return Err(Error::cloud(format!(
            "an image of {virtual_size} bytes can't take {file_size} bytes as {}",
            format.name()
        )));
    }
    Ok((format, virtual_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qcow2(virtual_size: u64) -> Vec<u8> {
        let mut head = vec![0; 104];
        head[..4].copy_from_slice(qcow2::MAGIC);
        head[7] = 2;
        head[23] = 16;
        head[24..32].copy_from_slice(&virtual_size.to_be_bytes());
        head
    }

    #[test]
    fn formats_and_bounds() {
        let small = qcow2(800 * MIB);
        for (head, file_size, disk, expected) in [
            (&small[..], 100, None, Ok((VolumeFormat::Qcow2, 800 * MIB))),
            (
                &small,
                900 * MIB + 64 * MIB,
                None,
                Ok((VolumeFormat::Qcow2, 800 * MIB)),
            ),
            (&small, 900 * MIB + 64 * MIB + 1, None, Err("can't take")),
            (&small, 100, Some(800), Ok((VolumeFormat::Qcow2, 800 * MIB))),
            (&small, 100, Some(700), Err("disagrees with cloud property disk")),
            (
                b"\xeb\x63\x90",
                10 * MIB,
                Some(10),
                Ok((VolumeFormat::Raw, 10 * MIB)),
            ),
            (
                b"\xeb\x63\x90",
                11 * MIB + 1,
                Some(10),
                Err("disagrees with cloud property disk"),
            ),
            (b"", 1, None, Ok((VolumeFormat::Raw, 1))),
            (b"", 0, None, Err("empty")),
            (b"", MAX_VIRTUAL_SIZE + 1, None, Err("can't take")),
            (b"QFI\xfb", 4, None, Err("cut short")),
            (b"KDMV\x03", 100, None, Err("VMDK")),
            (b"\x1f\x8b\x08", 100, None, Err("compressed")),
        ] {
            let properties = StemcellProperties {
                disk,
                ..Default::default()
            };
            match (recognise(head, file_size, &properties), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(complaint)) => assert!(error.message.contains(complaint), "{error}"),
                (found, expected) => panic!("{file_size} {disk:?}: {found:?}, not {expected:?}"),
            }
        }
    }
}
