//! Disk images by themselves. The first byte of an input says what is done with it, the image follows.

use bosh_cpi::rpc::{Error, ErrorType, Result};
use bosh_cpi::sparse::Piece;
use libvirt_xml::volume::VolumeFormat;
use stemcell_image::{Image, StemcellProperties, with_content};

use super::made;

const MIB: u64 = 1024 * 1024;
/// Bytes of data after which the pool is full.
const POOL: u64 = 8 * MIB;

/// The stemcell says how large its disk is: 1 MiB.
pub const DISK_IS_KNOWN: u8 = 1;
/// Checksums are put right.
pub const REPAIRED: u8 = 2;
/// The file is shorter than announced.
const CUT_SHORT: u8 = 4;
/// Whoever reads the image stops after the first piece.
const LEFT_UNREAD: u8 = 8;
/// The file is named as a VHD, and not as what may be raw.
const NAMED_VHD: u8 = 16;

pub fn run(bytes: &[u8]) -> bool {
    let Some((what, file)) = bytes.split_first() else {
        return false;
    };
    let mut file = file.to_vec();
    if what & REPAIRED != 0 {
        made::repair_vhd(&mut file);
    }
    let size = file.len() as u64 + if what & CUT_SHORT != 0 { 700 } else { 0 };
    let properties = properties(*what);
    let mut ended = false;
    let named_vhd = what & NAMED_VHD != 0;
    let outcome = with_content(
        if named_vhd { "root.vhd" } else { "root.img" },
        &file[..file.len().min(65536)],
        &file[..],
        size,
        &properties,
        |mut image| {
            if what & LEFT_UNREAD != 0 {
                ended = matches!(image.content.next(), Ok(Piece::End));
                return Ok((image.format, image.capacity));
            }
            ended = true;
            let taken = take(&mut image, &properties)?;
            if image.format == VolumeFormat::Qcow2 {
                assert_eq!(taken, size, "a qcow2 is stored as it is");
            }
            Ok((image.format, image.capacity))
        },
    );
    match outcome {
        Ok(Ok(_)) => {
            assert!(ended, "what was left unread passes for whole");
            assert!(what & CUT_SHORT == 0, "what is cut short passes for whole");
            true
        }
        Ok(Err(error)) | Err(error) => {
            assert_eq!(error.error_type, ErrorType::CloudError);
            assert!(!error.message.is_empty());
            false
        }
    }
}

pub fn properties(what: u8) -> StemcellProperties {
    StemcellProperties {
        disk: (what & DISK_IS_KNOWN != 0).then_some(1),
        ..Default::default()
    }
}

/// Reads the image as an upload does, and returns its length in bytes: never more than `disk` allows.
pub fn take(image: &mut Image<'_>, properties: &StemcellProperties) -> Result<u64> {
    let (mut data, mut all) = (0, 0);
    loop {
        match image.content.next().map_err(|e| Error::cloud(e.to_string()))? {
            Piece::Data(bytes) => {
                assert!(!bytes.is_empty());
                let is_raw_disk = image.format == VolumeFormat::Raw && all == 0;
                assert!(
                    !is_raw_disk || !bytes.starts_with(b"QFI\xfb"),
                    "libvirt takes it for a qcow2"
                );
                data += bytes.len() as u64;
                all += bytes.len() as u64;
            }
            Piece::Hole(length) => {
                assert!(length > 0);
                all += length;
            }
            Piece::End => break,
        }
        if let Some(disk) = properties.disk {
            // Sizes are rounded to a MiB, and a qcow2 has its tables on top.
            let most = match image.format {
                VolumeFormat::Raw => (disk + 1) * MIB,
                VolumeFormat::Qcow2 => (disk + 1) * MIB * 9 / 8 + 64 * MIB,
            };
            assert!(all <= most, "{all} bytes of a disk of {disk} MiB");
        }
        if data > POOL {
            return Err(Error::cloud("the pool is full"));
        }
    }
    assert_eq!(
        image.content.next().ok(),
        Some(Piece::End),
        "after the end, the end again"
    );
    if image.format == VolumeFormat::Raw {
        // Only its end tells whether the last sector is a fixed VHD's footer.
        assert!(
            [0, 512].contains(&all.wrapping_sub(image.capacity)),
            "{all} bytes of {}",
            image.capacity
        );
    }
    Ok(all)
}

fn seeds(images: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let whats = [0, DISK_IS_KNOWN | REPAIRED];
    whats
        .iter()
        .flat_map(|what| images.iter().map(move |image| [&[*what][..], image].concat()))
        .collect()
}

pub fn qcow2_seeds() -> Vec<Vec<u8>> {
    seeds(&[made::qcow2(2), made::qcow2(3)])
}

pub fn vmdk_seeds() -> Vec<Vec<u8>> {
    seeds(&[made::vmdk(true), made::vmdk(false)])
}

pub fn vhd_seeds() -> Vec<Vec<u8>> {
    seeds(&[
        made::dynamic_vhd(&[0, 2]),
        made::dynamic_vhd(&[3, 1]),
        made::fixed_vhd(),
    ])
}
