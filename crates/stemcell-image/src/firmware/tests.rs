use proptest::prelude::*;

use super::*;

const GENERIC_CODE: &[u8] = b"\xfa\xb8\x00\x10\x8e\xd0";
const GRUB_CODE: &[u8] = b"\xeb\x63\x90 GRUB \0Geom\0Hard Disk\0Read\0 Error";
const FAT_SAYS: &[u8] = b"\xeb\x3cThis is not a bootable disk.  Please insert a bootable floppy";

/// A disk of 64 sectors.
fn disk(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut disk = vec![0; 64 * 512];
    for (at, bytes) in parts {
        disk[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    disk
}

/// A disk with this code in its first sector, and partitions of these types, the second and on 16 sectors behind the one
/// before.
fn mbr(code: &[u8], partitions: &[(u8, u8)], boot_sector: &[u8]) -> Vec<u8> {
    let mut bytes = disk(&[(0, code), (510, BOOT_SIGNATURE), (16 * 512, boot_sector)]);
    if !boot_sector.is_empty() {
        bytes[16 * 512 + 510..][..2].copy_from_slice(BOOT_SIGNATURE);
    }
    for (number, (status, kind)) in (0u8..).zip(partitions) {
        let at = MBR_PARTITIONS_AT + usize::from(number) * MBR_PARTITION_BYTES;
        bytes[at] = *status;
        bytes[at + 4] = *kind;
        bytes[at + 8] = 16 * (number + 1);
    }
    bytes
}

/// A GPT with entries of these types, from sector 4 on.
fn gpt(code: &[u8], types: &[[u8; 16]]) -> Vec<u8> {
    let mut bytes = mbr(code, &[(0, TYPE_PROTECTIVE)], b"");
    bytes[512..520].copy_from_slice(GPT_MAGIC);
    bytes[512 + 72] = 4;
    bytes[512 + 80] = 8;
    bytes[512 + 84] = 128;
    for (number, kind) in types.iter().enumerate() {
        bytes[4 * 512 + number * 128..][..16].copy_from_slice(kind);
    }
    bytes
}

fn of_bytes(bytes: &[u8]) -> Firmware {
    let mut longest = 0;
    let found = of_disk(&mut |offset, length| {
        assert!(length > 0);
        longest = longest.max(length);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let to = from.saturating_add(length as usize).min(bytes.len());
        Ok(bytes[from..to].to_vec())
    });
    assert!(longest <= 512 * 1024, "{longest}");
    found.unwrap()
}

#[test]
fn what_is_started_by_which() {
    let (esp, linux) = (TYPE_EFI_SYSTEM, 0x83);
    let (active, other_guid) = (IS_ACTIVE, [7; 16]);
    for (what, bytes, firmware) in [
        ("nothing", vec![], Firmware::Bios),
        ("zeros", disk(&[]), Firmware::Bios),
        ("a boot sector alone", mbr(GENERIC_CODE, &[], b""), Firmware::Bios),
        (
            "jammy for OpenStack",
            mbr(GRUB_CODE, &[(0, linux)], b""),
            Firmware::Bios,
        ),
        (
            "vSphere, partitioned by parted",
            mbr(GENERIC_CODE, &[(0, esp), (0, linux)], FAT_SAYS),
            Firmware::Efi,
        ),
        (
            "vSphere, partitioned by sfdisk",
            mbr(b"", &[(active, esp), (0, linux)], FAT_SAYS),
            Firmware::Efi,
        ),
        (
            "code, and an active partition that says it cannot be booted",
            mbr(GENERIC_CODE, &[(active, esp)], FAT_SAYS),
            Firmware::Efi,
        ),
        (
            "code, and an active partition without a boot sector",
            mbr(GENERIC_CODE, &[(active, esp)], b""),
            Firmware::Efi,
        ),
        (
            "syslinux in the EFI system partition",
            mbr(GENERIC_CODE, &[(active, esp)], b"\xeb\x58SYSLINUX"),
            Firmware::Bios,
        ),
        (
            "both, by GRUB",
            mbr(GRUB_CODE, &[(0, esp), (0, linux)], FAT_SAYS),
            Firmware::Bios,
        ),
        ("GPT for a BIOS", gpt(b"", &[GUID_BIOS_BOOT]), Firmware::Bios),
        (
            "GPT for EFI",
            gpt(b"", &[other_guid, GUID_EFI_SYSTEM]),
            Firmware::Efi,
        ),
        (
            "GPT for both",
            gpt(GRUB_CODE, &[GUID_BIOS_BOOT, GUID_EFI_SYSTEM]),
            Firmware::Bios,
        ),
        (
            "GPT with a BIOS boot partition",
            gpt(b"", &[GUID_EFI_SYSTEM, other_guid, GUID_BIOS_BOOT]),
            Firmware::Bios,
        ),
        (
            "GPT with code in front",
            gpt(GENERIC_CODE, &[GUID_EFI_SYSTEM]),
            Firmware::Bios,
        ),
        ("GPT of nothing", gpt(b"", &[other_guid]), Firmware::Bios),
        (
            "no signature",
            disk(&[(MBR_PARTITIONS_AT + 4, &[esp])]),
            Firmware::Bios,
        ),
    ] {
        assert_eq!(of_bytes(&bytes), firmware, "{what}");
        // What is cut off is nothing.
        for length in [0, 1, 440, 511, 513, 520, 4 * 512] {
            of_bytes(&bytes[..length.min(bytes.len())]);
        }
    }
}

#[test]
fn a_table_beyond_the_disk_is_none() {
    let good = gpt(b"", &[GUID_EFI_SYSTEM]);
    assert_eq!(of_bytes(&good), Firmware::Efi);
    for (at, bytes) in [
        (72, u64::MAX.to_le_bytes().to_vec()),
        (72, (1u64 << 40).to_le_bytes().to_vec()),
        (80, 0u32.to_le_bytes().to_vec()),
        (84, 0u32.to_le_bytes().to_vec()),
        (84, u32::MAX.to_le_bytes().to_vec()),
    ] {
        let mut bad = good.clone();
        bad[512 + at..][..bytes.len()].copy_from_slice(&bytes);
        assert_eq!(of_bytes(&bad), Firmware::Bios, "{at}: {bytes:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..4096),
        is_signed in any::<bool>(),
        is_gpt in any::<bool>(),
    ) {
        if is_signed && bytes.len() > 1024 {
            bytes[BOOT_SIGNATURE_AT..][..2].copy_from_slice(BOOT_SIGNATURE);
            if is_gpt {
                bytes[MBR_PARTITIONS_AT + 4] = TYPE_PROTECTIVE;
                bytes[512..520].copy_from_slice(GPT_MAGIC);
            }
        }
        of_bytes(&bytes);
        let mut read = |offset: u64, length: u64| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let to = from.saturating_add(length as usize).min(bytes.len());
            Ok(bytes[from..to].to_vec())
        };
        let _ = of_file(VolumeFormat::Qcow2, &mut read);
    }

    #[test]
    fn spoiled_tables_are_no_panic(at in 0..8 * 512usize, value in any::<u64>(), is_gpt in any::<bool>()) {
        let mut bytes = if is_gpt {
            gpt(b"", &[GUID_EFI_SYSTEM])
        } else {
            mbr(GENERIC_CODE, &[(IS_ACTIVE, TYPE_EFI_SYSTEM)], FAT_SAYS)
        };
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        of_bytes(&bytes);
    }
}
