use super::*;
use proptest::prelude::*;

const BLOCK: usize = 64 * 1024;

fn sum(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
}

fn footer(kind: u32, size: usize) -> Vec<u8> {
    let mut footer = vec![0; 512];
    footer[..8].copy_from_slice(MAGIC);
    let offset = if kind == 2 { u64::MAX } else { 512 };
    footer[16..24].copy_from_slice(&offset.to_be_bytes());
    footer[48..56].copy_from_slice(&(size as u64).to_be_bytes());
    footer[60..64].copy_from_slice(&kind.to_be_bytes());
    sum(&mut footer, 64);
    footer
}

/// A dynamic VHD of this disk, with its blocks in this order as far as it names them; others are not stored.
fn dynamic(disk: &[u8], order: &[usize]) -> Vec<u8> {
    let count = disk.len().div_ceil(BLOCK);
    let mut file = footer(3, disk.len());
    let mut header = vec![0; 1024];
    header[..8].copy_from_slice(HEADER_MAGIC);
    header[16..24].copy_from_slice(&1536u64.to_be_bytes());
    header[28..32].copy_from_slice(&(count as u32).to_be_bytes());
    header[32..36].copy_from_slice(&(BLOCK as u32).to_be_bytes());
    sum(&mut header, 36);
    file.extend(header);
    file.resize(1536 + (4 * count).next_multiple_of(512), 0xff);
    for index in order {
        let sector = (file.len() / 512) as u32;
        file[1536 + 4 * index..][..4].copy_from_slice(&sector.to_be_bytes());
        file.extend([0xff; 512]);
        let block = &disk[index * BLOCK..disk.len().min((index + 1) * BLOCK)];
        file.extend(block);
        file.resize(file.len() + BLOCK - block.len(), 0x55);
    }
    file.extend(footer(3, disk.len()));
    file
}

fn all(content: &mut dyn Content) -> io::Result<Vec<u8>> {
    let mut disk = Vec::new();
    loop {
        match content.next()? {
            Piece::Data(data) => disk.extend_from_slice(data),
            Piece::Hole(length) => disk.resize(disk.len() + length as usize, 0),
            Piece::End => return Ok(disk),
        }
    }
}

fn read(file: &[u8]) -> io::Result<Vec<u8>> {
    let mut vhd = DynamicVhd::open(ImageFile::new(file, file.len() as u64))?;
    if vhd.in_order() {
        all(&mut vhd)
    } else {
        all(&mut vhd.sorted()?)
    }
}

fn read_plain(file: &[u8]) -> io::Result<Vec<u8>> {
    all(&mut Plain::raw_or_fixed_vhd(ImageFile::new(
        file,
        file.len() as u64,
    )))
}

/// Blocks with data where the order names them.
fn disk(blocks: usize, beyond: usize, order: &[usize]) -> Vec<u8> {
    let mut disk = vec![0; blocks * BLOCK + beyond * 512];
    for index in order {
        let end = disk.len().min((index + 1) * BLOCK);
        disk[index * BLOCK..end].fill(*index as u8 + 1);
    }
    disk
}

#[test]
fn a_fixed_vhd_ends_before_its_footer() {
    for size in [512, 1024, 240 * 1024, 240 * 1024 + 512, 1_000_448] {
        let disk = vec![7; size];
        let with_footer = [disk.clone(), footer(2, size)].concat();
        assert!(read_plain(&with_footer).unwrap() == disk, "{size}");
        assert!(read_plain(&disk).unwrap() == disk, "{size} without a footer");
    }
    for (tail, says) in [
        (footer(2, 1536), "announces 1536 bytes, but there are 1024"),
        (footer(3, 1024), "says Dynamic"),
        (footer(4, 1024), "differencing"),
        ([MAGIC, &[0; 504]].concat(), "checksum is wrong"),
    ] {
        let message = read_plain(&[vec![7; 1024], tail].concat())
            .unwrap_err()
            .to_string();
        assert!(message.contains(says), "{message:?} has no {says:?}");
    }
}

#[test]
fn says_what_is_wrong_with_a_dynamic_vhd() {
    let good = dynamic(&disk(3, 1, &[0, 2]), &[0, 2]);
    let changed = |at: usize, bytes: &[u8], sums: bool| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        if sums {
            sum(&mut file[..512], 64);
            sum(&mut file[512..1536], 36);
        }
        file
    };
    for (file, says) in [
        (changed(100, &[1], false), "footer: damaged"),
        (changed(600, &[1], false), "header: damaged"),
        (changed(63, &[2], true), "begins with its footer"),
        (changed(63, &[4], true), "differencing"),
        (changed(63, &[9], true), "disk type 9"),
        (changed(48, &[0xff; 8], true), "virtual size"),
        (changed(48, &[0, 1], true), "blocks, which its table can't have"),
        (changed(16, &[0; 8], true), "used twice"),
        (changed(16, &[0, 0, 0, 1], true), "cut short"),
        (changed(512, b"x", true), "not where the footer says"),
        (changed(512 + 32, &[0, 0, 0, 1], true), "block size of 1 bytes"),
        (changed(1536, &[0; 4], false), "used twice"),
        (changed(1536, &[0x7f; 4], false), "cut short"),
        (good[..good.len() - 512].to_vec(), "cut short"),
        (good[..good.len() - 1].to_vec(), "no footer at its end"),
    ] {
        let message = read(&file).unwrap_err().to_string();
        assert!(message.contains(says), "{message:?} has no {says:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn gives_back_the_disk_whatever_the_order(
        order in prop::sample::subsequence((0..7usize).collect::<Vec<_>>(), 0..7).prop_shuffle(), beyond in 1..128usize
    ) {
        let disk = disk(6, beyond, &order);
        prop_assert!(read(&dynamic(&disk, &order)).unwrap() == disk);
    }

    #[test]
    fn damage_never_panics(at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..9)) {
        for limit in [1536, 2048, usize::MAX] {
            let mut file = dynamic(&disk(3, 1, &[0, 2]), &[0, 2]);
            let at = at.index(limit.min(file.len() - bytes.len()));
            file[at..at + bytes.len()].copy_from_slice(&bytes);
            sum(&mut file[..512], 64);
            sum(&mut file[512..1536], 36);
            let Ok(mut vhd) = DynamicVhd::open(ImageFile::new(file.as_slice(), file.len() as u64)) else { continue };
            while matches!(vhd.next(), Ok(Piece::Data(_) | Piece::Hole(_))) {}
        }
    }

    #[test]
    fn every_cut_is_an_error(at in any::<prop::sample::Index>()) {
        let file = dynamic(&disk(3, 1, &[2, 0]), &[2, 0]);
        prop_assert!(read(&file[..at.index(file.len())]).is_err());
    }
}
