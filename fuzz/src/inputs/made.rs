//! Small disk images and archives, made here, and checksums put right in what was made of them by chance.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

const SECTOR: usize = 512;

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// A qcow2 of 32 KiB with one of its 64 clusters stored, as QEMU lays it out.
pub fn qcow2(version: u32) -> Vec<u8> {
    let cluster = SECTOR as u64;
    let mut file = vec![0; 6 * SECTOR];
    file[..4].copy_from_slice(b"QFI\xfb");
    put(&mut file, 4, version.to_be_bytes());
    put(&mut file, 20, 9u32.to_be_bytes());
    put(&mut file, 24, (64 * cluster).to_be_bytes());
    put(&mut file, 36, 1u32.to_be_bytes());
    put(&mut file, 40, (3 * cluster).to_be_bytes());
    put(&mut file, 48, cluster.to_be_bytes());
    put(&mut file, 56, 1u32.to_be_bytes());
    if version == 3 {
        put(&mut file, 96, 4u32.to_be_bytes());
        put(&mut file, 100, 104u32.to_be_bytes());
    }
    // The table of reference counts, one block of them, and the two tables of clusters.
    const OWNED: u64 = 1 << 63;
    put(&mut file, SECTOR, (2 * cluster).to_be_bytes());
    for number in 0..6 {
        put(&mut file, 2 * SECTOR + 2 * number, 1u16.to_be_bytes());
    }
    put(&mut file, 3 * SECTOR, (OWNED | (4 * cluster)).to_be_bytes());
    put(
        &mut file,
        4 * SECTOR + 8 * 5,
        (OWNED | (5 * cluster)).to_be_bytes(),
    );
    file[5 * SECTOR..].fill(b'd');
    file
}

/// The same, with this sector as the disk's first.
pub fn qcow2_of(version: u32, sector: &[u8]) -> Vec<u8> {
    let mut file = qcow2(version);
    put(
        &mut file,
        4 * SECTOR,
        ((1u64 << 63) | (5 * SECTOR as u64)).to_be_bytes(),
    );
    file[5 * SECTOR..].copy_from_slice(sector);
    file
}

/// The first sector of a disk with an active EFI system partition and no boot code.
pub fn mbr_for_efi() -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    put(&mut sector, 446, [0x80, 0, 0, 0, 0xef, 0, 0, 0]);
    put(&mut sector, 454, 1u32.to_le_bytes());
    put(&mut sector, 510, [0x55, 0xaa]);
    sector
}

/// A disk with a GPT of four entries, the second of them an EFI system partition.
pub fn gpt_for_efi() -> Vec<u8> {
    let mut disk = mbr_for_efi();
    disk[450] = 0xee;
    disk.resize(3 * SECTOR, 0);
    put(&mut disk, SECTOR, *b"EFI PART");
    put(&mut disk, SECTOR + 72, 2u64.to_le_bytes());
    put(&mut disk, SECTOR + 80, 4u32.to_le_bytes());
    put(&mut disk, SECTOR + 84, 128u32.to_le_bytes());
    let kind = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
    put(&mut disk, 2 * SECTOR + 128, kind);
    disk
}

/// A streamOptimized VMDK of 16 KiB with two of its four grains stored. Its tables come before the grains, as QEMU
/// writes them, or nowhere but announced at the end, as VMware does.
pub fn vmdk(tables_in_front: bool) -> Vec<u8> {
    const GRAIN: usize = 8 * SECTOR;
    let mut file = vec![0; 6 * SECTOR];
    file[..4].copy_from_slice(b"KDMV");
    put(&mut file, 4, 3u32.to_le_bytes());
    put(&mut file, 8, 0x30001u32.to_le_bytes());
    put(&mut file, 12, 32u64.to_le_bytes());
    put(&mut file, 20, 8u64.to_le_bytes());
    put(&mut file, 28, 1u64.to_le_bytes());
    put(&mut file, 36, 1u64.to_le_bytes());
    put(&mut file, 44, 512u32.to_le_bytes());
    put(
        &mut file,
        56,
        if tables_in_front { 2 } else { u64::MAX }.to_le_bytes(),
    );
    put(&mut file, 64, 7u64.to_le_bytes());
    put(&mut file, 73, *b"\n \r\n");
    put(&mut file, 77, 1u16.to_le_bytes());
    let descriptor = b"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n";
    file[SECTOR..][..descriptor.len()].copy_from_slice(descriptor);
    put(&mut file, 2 * SECTOR, 3u32.to_le_bytes());
    file.resize(7 * SECTOR, 0);
    for number in [1u64, 3] {
        if tables_in_front {
            let sector = (file.len() / SECTOR) as u32;
            put(&mut file, 3 * SECTOR + 4 * number as usize, sector.to_le_bytes());
        }
        let mut grain = ZlibEncoder::new(Vec::new(), Compression::best());
        grain.write_all(&[b'g'; GRAIN]).expect("a vector takes all");
        let grain = grain.finish().expect("a vector takes all");
        file.extend((number * 8).to_le_bytes());
        file.extend((grain.len() as u32).to_le_bytes());
        file.extend(grain);
        file.resize(file.len().next_multiple_of(SECTOR), 0);
    }
    if !tables_in_front {
        file.resize(file.len() + SECTOR, 0);
    }
    file
}

const VHD_BLOCK: usize = 4096;

fn vhd_footer(kind: u32, size: u64) -> Vec<u8> {
    let mut footer = vec![0; SECTOR];
    footer[..8].copy_from_slice(b"conectix");
    put(&mut footer, 8, 2u32.to_be_bytes());
    put(&mut footer, 12, 0x10000u32.to_be_bytes());
    put(
        &mut footer,
        16,
        if kind == 2 { u64::MAX } else { 512 }.to_be_bytes(),
    );
    // Of other makers, QEMU believes cylinders, heads and sectors.
    put(&mut footer, 28, *b"win ");
    put(&mut footer, 40, size.to_be_bytes());
    put(&mut footer, 48, size.to_be_bytes());
    put(&mut footer, 60, kind.to_be_bytes());
    footer
}

/// A dynamic VHD of four blocks, with these stored in this order.
pub fn dynamic_vhd(stored: &[usize]) -> Vec<u8> {
    let size = 4 * VHD_BLOCK as u64;
    let mut file = vhd_footer(3, size);
    let mut header = vec![0; 2 * SECTOR];
    header[..8].copy_from_slice(b"cxsparse");
    put(&mut header, 8, u64::MAX.to_be_bytes());
    put(&mut header, 16, 1536u64.to_be_bytes());
    put(&mut header, 24, 0x10000u32.to_be_bytes());
    put(&mut header, 28, 4u32.to_be_bytes());
    put(&mut header, 32, (VHD_BLOCK as u32).to_be_bytes());
    file.extend(header);
    file.resize(file.len() + SECTOR, 0xff);
    for number in stored {
        let sector = (file.len() / SECTOR) as u32;
        put(&mut file, 1536 + 4 * number, sector.to_be_bytes());
        file.resize(file.len() + SECTOR, 0xff);
        file.resize(file.len() + VHD_BLOCK, b'b');
    }
    file.extend(vhd_footer(3, size));
    repair_vhd(&mut file);
    file
}

pub fn fixed_vhd() -> Vec<u8> {
    let mut file = vec![b'r'; 3 * SECTOR];
    file.extend(vhd_footer(2, 3 * SECTOR as u64));
    repair_vhd(&mut file);
    file
}

/// Makes the sums of footers and of the header right, where these are.
pub fn repair_vhd(file: &mut [u8]) {
    let last = file.len().saturating_sub(SECTOR);
    for (magic, at, length, sum_at) in [
        (b"conectix", 0, SECTOR, 64),
        (b"conectix", last, SECTOR, 64),
        (b"cxsparse", SECTOR, 2 * SECTOR, 36),
    ] {
        if let Some(part) = file.get_mut(at..at + length)
            && part.starts_with(magic)
        {
            part[sum_at..sum_at + 4].fill(0);
            let sum: u32 = part.iter().map(|byte| u32::from(*byte)).sum();
            put(part, sum_at, (!sum).to_be_bytes());
        }
    }
}

/// A tar of these files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content)
            .expect("a vector takes all");
    }
    tar.into_inner().expect("a vector takes all")
}

/// A tar of one file with a hole of `hole` bytes and 512 bytes behind it, as GNU tar stores it.
pub fn sparse_tar(name: &str, hole: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(SECTOR as u64);
    header.set_mode(0o644);
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.sparse[0].set_offset(hole);
        gnu.sparse[0].set_length(SECTOR as u64);
        gnu.set_real_size(hole + SECTOR as u64);
    }
    header.set_cksum();
    let mut file = header.as_bytes().to_vec();
    file.extend([b's'; SECTOR]);
    file.extend([0; 2 * SECTOR]);
    file
}

/// Makes the sums of tar headers right, where these are.
pub fn repair_tar(file: &mut [u8]) {
    for block in file
        .chunks_exact_mut(SECTOR)
        .filter(|block| block[257..].starts_with(b"ustar"))
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let text = format!("{sum:06o}\0");
        block[148..148 + text.len()].copy_from_slice(text.as_bytes());
    }
}

pub fn gzip(bytes: &[u8], level: Compression) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), level);
    gzip.write_all(bytes).expect("a vector takes all");
    gzip.finish().expect("a vector takes all")
}
