//! VHD, as Azure and Hyper-V have it: its footer, and the blocks of a dynamic one.
//!
//! Source: Microsoft's "Virtual Hard Disk Image Format Specification".

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::bytes::{ImageFile, be_u32, be_u64, damaged};
use super::plain::Plain;
use super::{MAX_VIRTUAL_SIZE, MIB};
use bosh_cpi::interrupt;
use bosh_cpi::sparse::{Content, Piece};

pub(super) const MAGIC: &[u8] = b"conectix";
pub(super) const FOOTER_BYTES: u64 = 512;

const HEADER_MAGIC: &[u8] = b"cxsparse";
const HEADER_BYTES: usize = 1024;
const SECTOR: u64 = 512;
const NOT_ALLOCATED: u32 = u32::MAX;
/// Larger block allocation tables are refused; this one is for a disk of 2 TiB, which is all a VHD can have.
const MAX_BLOCKS: u64 = 1 << 20;
const READ_BYTES: usize = 240 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fixed,
    Dynamic,
}

/// What the footer says; a dynamic VHD begins with a copy of it.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) kind: Kind,
    /// Bytes.
    pub(super) virtual_size: u64,
    /// Where a dynamic VHD has its header.
    header_offset: u64,
}

impl Footer {
    /// The footer in these 512 bytes; none where they are something else.
    ///
    /// # Errors
    /// A footer that is damaged, or of a VHD that leans on another one.
    pub(super) fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        if !bytes.starts_with(MAGIC) {
            return Ok(None);
        }
        check_sum("footer", bytes, 512, 64)?;
        let kind = match be_u32(bytes, 60) {
            2 => Kind::Fixed,
            3 => Kind::Dynamic,
            4 => {
                return Err(damaged(
                    "it is a differencing VHD, which needs another file; merge the two first",
                ));
            }
            other => return Err(damaged(format!("VHD footer: disk type {other} is unknown"))),
        };
        let virtual_size = be_u64(bytes, 48);
        if virtual_size == 0 || virtual_size > MAX_VIRTUAL_SIZE || !virtual_size.is_multiple_of(SECTOR) {
            return Err(damaged(format!(
                "VHD footer: a virtual size of {virtual_size} bytes is impossible"
            )));
        }
        Ok(Some(Self {
            kind,
            virtual_size,
            header_offset: be_u64(bytes, 16),
        }))
    }
}

/// The sum is the complement of that of all other bytes.
fn check_sum(what: &str, bytes: &[u8], length: usize, at: usize) -> io::Result<()> {
    let Some(bytes) = bytes.get(..length) else {
        return Err(damaged(format!("VHD {what}: cut short")));
    };
    let sum: u32 = bytes
        .iter()
        .enumerate()
        .filter(|(i, _)| !(at..at + 4).contains(i))
        .map(|(_, byte)| u32::from(*byte))
        .sum();
    if !sum == be_u32(bytes, at) {
        Ok(())
    } else {
        Err(damaged(format!("VHD {what}: damaged, its checksum is wrong")))
    }
}

/// A block that the file has.
#[derive(Debug, Clone, Copy)]
struct Block {
    /// Where it is in the file, its bitmap first; bytes.
    file_offset: u64,
    /// Where it is in the disk, bytes.
    disk_offset: u64,
}

/// The disk in a dynamic VHD.
pub(super) struct DynamicVhd<R> {
    file: ImageFile<R>,
    virtual_size: u64,
    block_size: u64,
    /// In the order of the file, to be taken from the end.
    blocks: Vec<Block>,
    /// Bytes of the disk given so far.
    position: u64,
    /// Bytes of the current block not given yet.
    block_left: u64,
    buffer: Vec<u8>,
    ended: bool,
}

impl<R: Read> DynamicVhd<R> {
    /// Reads everything before the blocks.
    pub(super) fn open(mut file: ImageFile<R>) -> io::Result<Self> {
        let mut bytes = vec![0; FOOTER_BYTES as usize];
        file.fill(&mut bytes)?;
        let footer = Footer::parse(&bytes)?.ok_or_else(|| damaged("no VHD"))?;
        if footer.kind != Kind::Dynamic {
            return Err(damaged("a fixed VHD that begins with its footer"));
        }
        file.skip_to(footer.header_offset)?;
        let mut header = vec![0; HEADER_BYTES];
        file.fill(&mut header)?;
        if !header.starts_with(HEADER_MAGIC) {
            return Err(damaged("VHD header: not where the footer says"));
        }
        check_sum("header", &header, HEADER_BYTES, 36)?;
        let block_size = u64::from(be_u32(&header, 32));
        if !block_size.is_power_of_two() || !(SECTOR..=256 * MIB).contains(&block_size) {
            return Err(damaged(format!(
                "VHD header: a block size of {block_size} bytes is impossible"
            )));
        }
        let count = footer.virtual_size.div_ceil(block_size);
        if count > MAX_BLOCKS || count > u64::from(be_u32(&header, 28)) {
            return Err(damaged(format!(
                "VHD header: a disk of {} bytes has {count} blocks, which its table can't have",
                footer.virtual_size
            )));
        }
        file.skip_to(be_u64(&header, 16))?;
        let blocks = read_table(&mut file, count, block_size)?;
        Ok(Self {
            file,
            virtual_size: footer.virtual_size,
            block_size,
            blocks,
            position: 0,
            block_left: 0,
            buffer: Vec::new(),
            ended: false,
        })
    }

    pub(super) fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Whether the file has the blocks in the order of the disk, as `qemu-img` writes them. One that a virtual machine
    /// wrote has them in the order of first use.
    pub(super) fn in_order(&self) -> bool {
        self.blocks
            .is_sorted_by_key(|block| std::cmp::Reverse(block.disk_offset))
    }

    /// The same disk by way of a sparse temporary file, for blocks out of order. The file has no name, and goes with the
    /// content.
    pub(super) fn sorted(mut self) -> io::Result<Plain<File>> {
        let to_disk = |e: io::Error| {
            io::Error::new(
                e.kind(),
                format!("writing a temporary file, as the blocks of this VHD are out of order: {e}"),
            )
        };
        let file = tempfile::tempfile().map_err(to_disk)?;
        file.set_len(self.virtual_size).map_err(to_disk)?;
        while let Some(block) = self.next_block()? {
            interrupt::check().map_err(|e| io::Error::other(e.message))?;
            let mut at = block.disk_offset;
            while self.block_left > 0 {
                let data = self.block_data()?;
                if !bosh_cpi::sparse::is_zero(data) {
                    file.write_all_at(data, at).map_err(to_disk)?;
                }
                at += data.len() as u64;
            }
        }
        self.expect_footer()?;
        Ok(Plain::whole(ImageFile::new(file, self.virtual_size)))
    }

    /// Goes to the next block's data.
    fn next_block(&mut self) -> io::Result<Option<Block>> {
        let Some(block) = self.blocks.pop() else {
            return Ok(None);
        };
        self.file
            .skip_to(block.file_offset + bitmap_bytes(self.block_size))?;
        self.block_left = self.block_size.min(self.virtual_size - block.disk_offset);
        Ok(Some(block))
    }

    fn block_data(&mut self) -> io::Result<&[u8]> {
        let length = usize::try_from(self.block_left)
            .unwrap_or(READ_BYTES)
            .min(READ_BYTES);
        self.buffer.resize(length, 0);
        self.file.fill(&mut self.buffer)?;
        self.block_left -= length as u64;
        Ok(&self.buffer)
    }

    /// A file that was cut off has none at its end.
    fn expect_footer(&mut self) -> io::Result<()> {
        let left = self.file.left();
        let mut bytes = vec![0; FOOTER_BYTES as usize];
        self.file
            .skip_to(self.file.position() + left.saturating_sub(FOOTER_BYTES))?;
        if left < FOOTER_BYTES {
            return Err(damaged("cut short: the VHD has no footer at its end"));
        }
        self.file.fill(&mut bytes)?;
        match Footer::parse(&bytes)? {
            Some(footer) if footer.kind == Kind::Dynamic && footer.virtual_size == self.virtual_size => {
                Ok(())
            }
            Some(_) => Err(damaged("the VHD's footer and its copy differ")),
            None => Err(damaged("cut short: the VHD has no footer at its end")),
        }
    }
}

impl<R: Read> Content for DynamicVhd<R> {
    fn next(&mut self) -> io::Result<Piece<'_>> {
        if self.block_left == 0 && !self.ended {
            let next = self
                .blocks
                .last()
                .map_or(self.virtual_size, |block| block.disk_offset);
            let hole = next
                .checked_sub(self.position)
                .ok_or_else(|| damaged("the blocks of this VHD are out of order"))?;
            if hole > 0 {
                self.position = next;
                return Ok(Piece::Hole(hole));
            }
            if self.next_block()?.is_none() {
                self.expect_footer()?;
                self.ended = true;
            }
        }
        if self.ended {
            return Ok(Piece::End);
        }
        let left = self.block_left;
        self.block_data()?;
        self.position += left - self.block_left;
        Ok(Piece::Data(&self.buffer))
    }
}

/// A bit for each sector of a block, in whole sectors.
fn bitmap_bytes(block_size: u64) -> u64 {
    (block_size / SECTOR).div_ceil(8).next_multiple_of(SECTOR)
}

/// The blocks that the table tells of, last in the file first.
fn read_table(file: &mut ImageFile<impl Read>, count: u64, block_size: u64) -> io::Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut entry = [0; 4];
    for index in 0..count {
        file.fill(&mut entry)?;
        let sector = u32::from_be_bytes(entry);
        if sector != NOT_ALLOCATED {
            blocks.push(Block {
                file_offset: u64::from(sector) * SECTOR,
                disk_offset: index * block_size,
            });
        }
    }
    blocks.sort_by_key(|block| std::cmp::Reverse(block.file_offset));
    Ok(blocks)
}

#[cfg(test)]
mod tests;
