//! What a stemcell's disk is started by, a BIOS or EFI: read out of its partition table and boot code.
//!
//! A disk without an EFI system partition is for a BIOS. With one, it is for EFI unless a BIOS would find something to
//! start: a BIOS boot partition (GPT), GRUB in the first sector, or other code there that goes on to an active partition
//! with a boot sector. Tools that write partition tables leave code of that last kind behind, and `mkfs.fat` a boot
//! sector that only says it is none, so neither by itself means anything.

use super::bytes::{le_u32, le_u64};
use super::image::HEAD_BYTES;
use super::qcow2;
use bosh_cpi::rpc::Result;
use cpi_config::Firmware;
use libvirt_xml::volume::VolumeFormat;

/// Reads so many bytes (at least one) at this offset; fewer where the content ends.
pub type ReadAt<'a> = dyn FnMut(u64, u64) -> Result<Vec<u8>> + 'a;

/// Bytes. QEMU shows no other size of sectors to guests, unless a template says so.
const SECTOR: u64 = 512;
const BOOT_CODE_BYTES: usize = 440;
const MBR_PARTITIONS_AT: usize = 446;
const MBR_PARTITION_BYTES: usize = 16;
const BOOT_SIGNATURE_AT: usize = 510;
const BOOT_SIGNATURE: &[u8] = b"\x55\xaa";
const IS_ACTIVE: u8 = 0x80;
const TYPE_EFI_SYSTEM: u8 = 0xef;
const TYPE_PROTECTIVE: u8 = 0xee;

const GPT_MAGIC: &[u8] = b"EFI PART";
/// C12A7328-F81F-11D2-BA4B-00A0C93EC93B.
const GUID_EFI_SYSTEM: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
/// 21686148-6449-6E6F-744E-656564454649.
const GUID_BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";
/// Entries and bytes of a GPT that are looked at; it has 128 of 128 bytes.
const MAX_ENTRIES: u32 = 1024;
const MAX_ENTRY_BYTES: u32 = 512;

/// In the code of GRUB's first sector, which goes by no partition.
const GRUB: &[u8] = b"GRUB";
/// In the boot sector that mkfs.fat writes.
const NOT_BOOTABLE: &[u8] = b"not a bootable disk";

/// What starts the disk in this file.
///
/// # Errors
/// What `file` fails with; `CloudError` for a qcow2 that cannot be read by itself.
pub fn of_file(format: VolumeFormat, file: &mut ReadAt<'_>) -> Result<Firmware> {
    match format {
        VolumeFormat::Raw => of_disk(file),
        VolumeFormat::Qcow2 => {
            let header = qcow2::parse_header(&file(0, HEAD_BYTES)?)?;
            of_disk(&mut |offset, length| qcow2::read(file, &header, offset, length))
        }
    }
}

fn of_disk(disk: &mut ReadAt<'_>) -> Result<Firmware> {
    let start = disk(0, 2 * SECTOR)?;
    if !has_boot_signature(&start) {
        return Ok(Firmware::Bios);
    }
    let partitions = mbr_partitions(&start);
    let second = start.get(SECTOR as usize..).unwrap_or_default();
    let is_gpt = partitions
        .iter()
        .any(|partition| partition.kind == TYPE_PROTECTIVE);
    let boots = if is_gpt && second.starts_with(GPT_MAGIC) {
        of_gpt(disk, second, boot_code(&start).is_some())?
    } else {
        of_mbr(disk, &start, &partitions)?
    };
    Ok(if boots.by_efi && !boots.by_bios {
        Firmware::Efi
    } else {
        Firmware::Bios
    })
}

#[derive(Debug, Clone, Copy)]
struct Boots {
    by_bios: bool,
    by_efi: bool,
}

fn of_gpt(disk: &mut ReadAt<'_>, header: &[u8], has_code: bool) -> Result<Boots> {
    let (at, number, length) = (le_u64(header, 72), le_u32(header, 80), le_u32(header, 84));
    let mut boots = Boots {
        by_bios: has_code,
        by_efi: false,
    };
    let bytes = u64::from(number.min(MAX_ENTRIES)) * u64::from(length);
    let Some(at) = at.checked_mul(SECTOR) else {
        return Ok(boots);
    };
    if bytes == 0 || !(128..=MAX_ENTRY_BYTES).contains(&length) {
        return Ok(boots);
    }
    for entry in disk(at, bytes)?.chunks_exact(length as usize) {
        boots.by_bios |= entry.starts_with(&GUID_BIOS_BOOT);
        boots.by_efi |= entry.starts_with(&GUID_EFI_SYSTEM);
    }
    Ok(boots)
}

fn of_mbr(disk: &mut ReadAt<'_>, start: &[u8], partitions: &[Partition]) -> Result<Boots> {
    let mut boots = Boots {
        by_bios: false,
        by_efi: partitions
            .iter()
            .any(|partition| partition.kind == TYPE_EFI_SYSTEM),
    };
    let Some(code) = boot_code(start) else {
        return Ok(boots);
    };
    boots.by_bios = contains(code, GRUB);
    if boots.by_efi && !boots.by_bios {
        for active in partitions.iter().filter(|partition| partition.is_active) {
            let sector = disk(active.start, SECTOR)?;
            boots.by_bios |= has_boot_signature(&sector) && !contains(&sector, NOT_BOOTABLE);
        }
    }
    Ok(boots)
}

struct Partition {
    is_active: bool,
    kind: u8,
    /// Bytes.
    start: u64,
}

/// Those four that are in the first sector, without empty ones.
fn mbr_partitions(start: &[u8]) -> Vec<Partition> {
    let table = start
        .get(MBR_PARTITIONS_AT..BOOT_SIGNATURE_AT)
        .unwrap_or_default();
    table
        .chunks_exact(MBR_PARTITION_BYTES)
        .filter(|entry| entry[4] != 0)
        .map(|entry| Partition {
            is_active: entry[0] == IS_ACTIVE,
            kind: entry[4],
            start: u64::from(le_u32(entry, 8)) * SECTOR,
        })
        .collect()
}

fn boot_code(start: &[u8]) -> Option<&[u8]> {
    let code = start.get(..BOOT_CODE_BYTES)?;
    code.iter().any(|byte| *byte != 0).then_some(code)
}

fn has_boot_signature(sector: &[u8]) -> bool {
    sector
        .get(BOOT_SIGNATURE_AT..)
        .is_some_and(|end| end.starts_with(BOOT_SIGNATURE))
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests;
