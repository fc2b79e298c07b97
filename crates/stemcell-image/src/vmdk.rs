//! streamOptimized VMDK, as vSphere's OVAs have it: compressed pieces of the disk ("grains") one after the other, each
//! with a marker that says where it belongs.
//!
//! Source: VMware's "Virtual Disk Format 5.0".

mod inflaters;

use std::collections::VecDeque;
use std::io::{self, Read};

use inflaters::Inflaters;

use super::bytes::{ImageFile, damaged, le_u16, le_u32, le_u64};
use super::{MAX_VIRTUAL_SIZE, MIB};
use bosh_cpi::sparse::{Content, Piece};

pub(super) const MAGIC: &[u8] = b"KDMV";
/// How a VMDK begins that is a text naming other files.
pub(super) const TEXT_MAGIC: &[u8] = b"# Disk DescriptorFile";
/// What to do about other kinds of VMDK.
pub(super) const ADVICE: &str = "convert it with qemu-img convert -O vmdk -o subformat=streamOptimized";

const SECTOR: u64 = 512;
const COMPRESSED: u32 = 1 << 16;
const MARKERS: u32 = 1 << 17;
const DEFLATE: u16 = 1;
/// What stands for the grain directory's place when that comes after the grains.
const AT_END: u64 = u64::MAX;
const END_OF_STREAM: u32 = 0;
const NO_PARENT: &str = "ffffffff";

/// Bounds what is kept in memory of the tables before the grains, bytes: those of a disk of 128 GiB.
const MAX_FRONT: u64 = 16 * MIB;

/// The disk in a streamOptimized VMDK.
pub(super) struct Vmdk<R> {
    file: ImageFile<R>,
    virtual_size: u64,
    grain_bytes: u64,
    /// How many grains the tables before them announce.
    announced: Option<u64>,
    grains: u64,
    /// Bytes of the disk given so far.
    position: u64,
    inflaters: Inflaters,
    /// The grains in there: where they belong in the disk, and where their markers are in the file.
    ahead: VecDeque<(u64, u64)>,
    /// Where the next grain read may belong.
    next_offset: u64,
    /// All grains have been read.
    exhausted: bool,
    grain: Vec<u8>,
    ended: bool,
}

impl<R: Read> Vmdk<R> {
    /// Reads everything before the grains.
    pub(super) fn open(mut file: ImageFile<R>) -> io::Result<Self> {
        let mut header = vec![0; SECTOR as usize];
        file.fill(&mut header)?;
        let flags = le_u32(&header, 8);
        if flags & COMPRESSED == 0 || flags & MARKERS == 0 || le_u16(&header, 77) != DEFLATE {
            return Err(damaged(format!("this VMDK is not streamOptimized; {ADVICE}")));
        }
        let (sectors, grain_sectors) = (le_u64(&header, 12), le_u64(&header, 20));
        if sectors == 0 || sectors > MAX_VIRTUAL_SIZE / SECTOR {
            return Err(damaged(format!(
                "VMDK header: a virtual size of {sectors} sectors is impossible"
            )));
        }
        if !grain_sectors.is_power_of_two() || !(8..=2048).contains(&grain_sectors) {
            return Err(damaged(format!(
                "VMDK header: a grain of {grain_sectors} sectors is impossible"
            )));
        }
        let virtual_size = sectors * SECTOR;
        let grain_bytes = grain_sectors * SECTOR;
        let front = read_front(&mut file, header)?;
        refuse_parent(&front)?;
        Ok(Self {
            file,
            virtual_size,
            grain_bytes,
            announced: announced(&front, virtual_size.div_ceil(grain_bytes))?,
            grains: 0,
            position: 0,
            inflaters: Inflaters::new(usize::try_from(grain_bytes).unwrap_or(1))?,
            ahead: VecDeque::new(),
            next_offset: 0,
            exhausted: false,
            grain: Vec::new(),
            ended: false,
        })
    }

    pub(super) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Reads the next grain, past everything else, unless there is none.
    fn read_on(&mut self) -> io::Result<()> {
        loop {
            let at = self.file.position().next_multiple_of(SECTOR);
            // The last grain need not fill its sector.
            if self.file.left() <= at - self.file.position() {
                self.exhausted = true;
                return Ok(());
            }
            self.file.skip_to(at)?;
            let mut marker = [0; 12];
            self.file.fill(&mut marker)?;
            let (value, length) = (le_u64(&marker, 0), le_u32(&marker, 8));
            if length > 0 {
                return self.read_grain(value, length, at);
            }
            let mut kind = [0; 4];
            self.file.fill(&mut kind)?;
            if u32::from_le_bytes(kind) == END_OF_STREAM {
                self.announced.get_or_insert(self.grains);
                self.exhausted = true;
                return Ok(());
            }
            let end = value
                .checked_mul(SECTOR)
                .and_then(|length| length.checked_add(at + SECTOR))
                .ok_or_else(|| damaged(format!("VMDK: the marker at byte {at} is damaged")))?;
            self.file.skip_to(end)?;
        }
    }

    /// The grain that belongs at `sector`, and whose marker is at byte `at` of the file.
    fn read_grain(&mut self, sector: u64, length: u32, at: u64) -> io::Result<()> {
        let offset = sector
            .checked_mul(SECTOR)
            .filter(|offset| *offset < self.virtual_size)
            .ok_or_else(|| wrong_grain(at, "is beyond the disk's end"))?;
        if offset < self.next_offset {
            return Err(wrong_grain(at, &format!("is out of order; {ADVICE}")));
        }
        if u64::from(length) > 2 * self.grain_bytes {
            return Err(wrong_grain(at, "is longer than it can be"));
        }
        self.inflaters
            .put(length as usize, |buffer| self.file.fill(buffer))?;
        self.ahead.push_back((offset, at));
        self.next_offset = offset + self.grain_bytes;
        self.grains += 1;
        Ok(())
    }

    /// What comes after the last grain.
    fn finish(&mut self) -> io::Result<()> {
        let end = self.file.position() + self.file.left();
        self.file.skip_to(end)?;
        match self.announced {
            None => Err(damaged("cut short: the VMDK has no end-of-stream marker")),
            Some(announced) if announced != self.grains => Err(damaged(format!(
                "cut short: the VMDK's tables tell of {announced} grains, but there are {}",
                self.grains
            ))),
            Some(_) => Ok(()),
        }
    }
}

impl<R: Read> Content for Vmdk<R> {
    fn next(&mut self) -> io::Result<Piece<'_>> {
        if self.ended {
            return Ok(Piece::End);
        }
        while !self.exhausted && self.inflaters.has_room() {
            self.read_on()?;
        }
        let next = self
            .ahead
            .front()
            .map_or(self.virtual_size, |(offset, _)| *offset);
        if next > self.position {
            let hole = next - self.position;
            self.position = next;
            return Ok(Piece::Hole(hole));
        }
        let Some((_, at)) = self.ahead.pop_front() else {
            self.finish()?;
            self.ended = true;
            return Ok(Piece::End);
        };
        let length = self.grain_bytes.min(self.virtual_size - self.position);
        if self
            .inflaters
            .take(&mut self.grain)
            .is_none_or(|found| found < length)
        {
            return Err(wrong_grain(at, "is damaged: it does not decompress"));
        }
        self.position += length;
        Ok(Piece::Data(&self.grain[..usize::try_from(length).unwrap_or(0)]))
    }
}

fn wrong_grain(at: u64, why: &str) -> io::Error {
    damaged(format!("VMDK: the grain at byte {at} {why}"))
}

/// Header, descriptor, and the tables where they come before the grains.
fn read_front(file: &mut ImageFile<impl Read>, mut header: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = le_u64(&header, 64)
        .checked_mul(SECTOR)
        .filter(|length| (SECTOR..=MAX_FRONT).contains(length))
        .ok_or_else(|| damaged("VMDK header: its tables are larger than those of a disk of 128 GiB"))?;
    // Before anything of this length is allocated.
    if length - SECTOR > file.left() {
        return Err(damaged("cut short: the VMDK ends before its first grain"));
    }
    header.resize(usize::try_from(length).unwrap_or(0), 0);
    file.fill(&mut header[SECTOR as usize..])?;
    Ok(header)
}

/// A VMDK with a parent holds only what differs from another file.
fn refuse_parent(front: &[u8]) -> io::Result<()> {
    let sectors = |at| usize::try_from(le_u64(front, at).saturating_mul(SECTOR)).unwrap_or(usize::MAX);
    let (start, length) = (sectors(28), sectors(36));
    let descriptor = front.get(start..start.saturating_add(length)).unwrap_or_default();
    let text = String::from_utf8_lossy(descriptor);
    let parent = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("parentCID="))
        .next();
    match parent {
        Some(parent) if !parent.trim_end_matches('\0').eq_ignore_ascii_case(NO_PARENT) => Err(damaged(
            format!("this VMDK needs another one, its parent; {ADVICE}"),
        )),
        _ => Ok(()),
    }
}

/// How many grains the tables before the grains announce; none where the tables come later. QEMU writes no
/// end-of-stream marker, so this is how a file that was cut off is told from a whole one.
fn announced(front: &[u8], grains: u64) -> io::Result<Option<u64>> {
    let directory = le_u64(front, 56);
    if directory == AT_END {
        return Ok(None);
    }
    let wrong = || damaged("VMDK header: the grain tables are not where it says");
    let table_entries = u64::from(le_u32(front, 44));
    if table_entries == 0 {
        return Err(wrong());
    }
    let table_at = |sector: u64, entries: u64| {
        let start = usize::try_from(sector.checked_mul(SECTOR)?).ok()?;
        let length = usize::try_from(entries.checked_mul(4)?).ok()?;
        front.get(start..start.checked_add(length)?)
    };
    let tables = table_at(directory, grains.div_ceil(table_entries)).ok_or_else(wrong)?;
    let (mut found, mut looked_at) = (0, 0);
    for table in entries(tables).filter(|sector| *sector != 0) {
        looked_at += table_entries;
        // Tables that overlap would make much work of a small file.
        if looked_at > front.len() as u64 {
            return Err(wrong());
        }
        let table = table_at(u64::from(table), table_entries).ok_or_else(wrong)?;
        found += entries(table).filter(|sector| *sector != 0).count() as u64;
    }
    Ok(Some(found))
}

fn entries(table: &[u8]) -> impl Iterator<Item = u32> {
    table.chunks_exact(4).map(|entry| le_u32(entry, 0))
}

#[cfg(test)]
mod tests;
