use super::*;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;
use std::io::Write;
use std::process::Command;

const GRAIN: usize = 64 * 1024;

/// Where the tables are that tell which grains there are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tables {
    /// As QEMU writes them, with no end-of-stream marker.
    InFront,
    /// As VMware's tools write them.
    AtEnd,
}

fn pad(file: &mut Vec<u8>) {
    file.resize(file.len().next_multiple_of(512), 0);
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A streamOptimized VMDK of this disk, whose length is in whole sectors.
fn write(disk: &[u8], tables: Tables) -> Vec<u8> {
    let grains = disk.len().div_ceil(GRAIN);
    let table_sectors = grains.next_multiple_of(512) * 4 / 512;
    let front = if tables == Tables::InFront {
        3 + table_sectors
    } else {
        128
    };
    let mut file = vec![0; front * 512];
    put(&mut file, 0, MAGIC);
    put(&mut file, 4, &3u32.to_le_bytes());
    put(&mut file, 8, &(COMPRESSED | MARKERS | 1).to_le_bytes());
    let directory = if tables == Tables::InFront { 2 } else { AT_END };
    for (at, value) in [
        (12, disk.len() as u64 / 512),
        (20, GRAIN as u64 / 512),
        (28, 1),
        (36, 1),
        (56, directory),
        (64, front as u64),
    ] {
        put(&mut file, at, &value.to_le_bytes());
    }
    put(&mut file, 44, &512u32.to_le_bytes());
    put(&mut file, 73, b"\n \r\n");
    put(&mut file, 77, &DEFLATE.to_le_bytes());
    put(
        &mut file,
        512,
        b"# Disk DescriptorFile\nCID=12345678\nparentCID=ffffffff\nversion=1\ncreateType=\"streamOptimized\"\n",
    );
    let mut entries = vec![0u8; table_sectors * 512];
    for (index, grain) in disk.chunks(GRAIN).enumerate() {
        if bosh_cpi::sparse::is_zero(grain) {
            continue;
        }
        let mut whole = grain.to_vec();
        whole.resize(GRAIN, 0);
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&whole).unwrap();
        let compressed = encoder.finish().unwrap();
        put(&mut entries, 4 * index, &sector_of(&file));
        file.extend((index as u64 * GRAIN as u64 / 512).to_le_bytes());
        file.extend((compressed.len() as u32).to_le_bytes());
        file.extend(compressed);
        pad(&mut file);
    }
    match tables {
        Tables::InFront => {
            put(&mut file, 3 * 512, &entries);
            for table in 0..grains.div_ceil(512) {
                put(&mut file, 1024 + 4 * table, &(3 + 4 * table as u32).to_le_bytes());
            }
        }
        Tables::AtEnd => {
            let mut directory = vec![0; 512];
            for (index, table) in entries.chunks(2048).enumerate() {
                put(&mut directory, 4 * index, &mark(&mut file, 4, 1));
                file.extend(table);
            }
            let place = mark(&mut file, 1, 2);
            file.extend(directory);
            mark(&mut file, 1, 3);
            let mut footer = file[..512].to_vec();
            footer[56..64].fill(0);
            put(&mut footer, 56, &place);
            file.extend(footer);
            mark(&mut file, 0, END_OF_STREAM);
        }
    }
    file
}

/// The sector that comes next.
fn sector_of(file: &[u8]) -> [u8; 4] {
    ((file.len() / 512) as u32).to_le_bytes()
}

/// A marker of metadata in so many sectors, which come next; the first of them.
fn mark(file: &mut Vec<u8>, sectors: u64, kind: u32) -> [u8; 4] {
    file.extend(sectors.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    file.extend(kind.to_le_bytes());
    pad(file);
    sector_of(file)
}

fn read(file: &[u8]) -> io::Result<Vec<u8>> {
    let mut vmdk = Vmdk::open(ImageFile::new(file, file.len() as u64))?;
    let mut disk = Vec::new();
    loop {
        match vmdk.next()? {
            Piece::Data(data) => disk.extend_from_slice(data),
            Piece::Hole(length) => disk.resize(disk.len() + length as usize, 0),
            Piece::End => return Ok(disk),
        }
        assert!(disk.len() as u64 <= vmdk.virtual_size());
    }
}

/// Grains with data where the pattern says so.
fn disk(pattern: &[bool], beyond: usize) -> Vec<u8> {
    let mut disk = vec![0; pattern.len() * GRAIN + beyond * 512];
    for (index, _) in pattern.iter().enumerate().filter(|(_, used)| **used) {
        disk[index * GRAIN + index..][..3000].fill(index as u8 + 1);
    }
    if beyond > 0 {
        *disk.last_mut().unwrap() = 9;
    }
    disk
}

fn complaint(file: &[u8]) -> String {
    read(file).unwrap_err().to_string()
}

/// So the files of these tests are what others take for a VMDK too.
#[test]
fn qemu_reads_the_same_disk() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let disk = disk(&[true, false, true, true, false], 70);
    for tables in [Tables::InFront, Tables::AtEnd] {
        std::fs::write(path("vmdk"), write(&disk, tables)).unwrap();
        let status = Command::new("qemu-img")
            .args(["convert", "-f", "vmdk", "-O", "raw"])
            .args([path("vmdk"), path("raw")])
            .status()
            .expect("qemu-img is needed by this test");
        assert!(status.success(), "{tables:?}");
        assert!(std::fs::read(path("raw")).unwrap() == disk, "{tables:?}");
    }
}

#[test]
fn says_what_is_wrong() {
    let good = write(&disk(&[true, false, true, true], 3), Tables::AtEnd);
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        put(&mut file, at, bytes);
        file
    };
    let first_grain = 128 * 512;
    for (file, says) in [
        (changed(8, &[3, 0, 0, 0]), "not streamOptimized"),
        (changed(77, &[0]), "not streamOptimized"),
        (changed(12, &[0; 8]), "virtual size"),
        (changed(12, &[0xff; 8]), "virtual size"),
        (changed(20, &[3]), "grain of 3 sectors"),
        (changed(20, &[0, 0, 1]), "grain of 65536 sectors"),
        (changed(64, &[0xff; 8]), "tables"),
        (changed(64, &[0, 0x7f]), "cut short"),
        (changed(56, &[0; 8]), "grain tables"),
        (
            changed(512 + 34 + 11, b"12345678"),
            "needs another one, its parent",
        ),
        (changed(first_grain, &[0xff; 8]), "beyond the disk's end"),
        (changed(first_grain, &[0, 2]), "out of order"),
        (changed(first_grain + 8, &[0xff; 4]), "longer than it can be"),
        (changed(first_grain + 20, &[0xff; 8]), "does not decompress"),
        (good[..good.len() - 512].to_vec(), "no end-of-stream marker"),
        (good[..first_grain + 5].to_vec(), "cut short"),
    ] {
        let message = complaint(&file);
        assert!(message.contains(says), "{message:?} has no {says:?}");
    }
    let in_front = write(&disk(&[true; 4], 0), Tables::InFront);
    let last_grain = in_front.len() - 1024;
    let message = complaint(&in_front[..last_grain]);
    assert!(message.contains("tell of 4 grains, but there are 3"), "{message}");
}

#[test]
fn a_directory_of_one_table_over_and_over_is_not_followed() {
    let mut front = vec![0; 4096];
    put(&mut front, 44, &100u32.to_le_bytes());
    put(&mut front, 56, &1u64.to_le_bytes());
    for entry in 0..512 {
        put(&mut front, 512 + 4 * entry, &1u32.to_le_bytes());
    }
    assert!(announced(&front, 51_200).is_err());
    assert_eq!(announced(&front, 3_000).unwrap(), Some(3_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn gives_back_the_disk(pattern in prop::collection::vec(any::<bool>(), 1..12), beyond in 0..127usize) {
        let disk = disk(&pattern, beyond);
        for tables in [Tables::InFront, Tables::AtEnd] {
            prop_assert!(read(&write(&disk, tables)).unwrap() == disk, "{:?}", tables);
        }
    }

    #[test]
    fn every_cut_is_an_error(at in any::<prop::sample::Index>()) {
        for tables in [Tables::InFront, Tables::AtEnd] {
            let file = write(&disk(&[true, false, true], 1), tables);
            // What pads the last sector is not missed.
            prop_assert!(read(&file[..at.index(file.len() - 511)]).is_err());
        }
    }

    #[test]
    fn damage_never_panics(at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..9)) {
        for tables in [Tables::InFront, Tables::AtEnd] {
            let mut file = write(&disk(&[true, false, true], 1), tables);
            // Most of it in the header and the first marker.
            for limit in [512, 200 * 512] {
                let at = at.index(limit.min(file.len() - bytes.len()));
                put(&mut file, at, &bytes);
                let mut vmdk = match Vmdk::open(ImageFile::new(file.as_slice(), file.len() as u64)) {
                    Ok(vmdk) => vmdk,
                    Err(_) => continue,
                };
                while matches!(vmdk.next(), Ok(Piece::Data(_) | Piece::Hole(_))) {}
            }
        }
    }
}
