//! Whether a qcow2 file has all that its tables refer to: one that was cut off before it was packed is told by nothing
//! else. Looked at on its way, so tables that come before what refers to them are not; QEMU writes none such when it
//! converts an image.

use std::collections::BTreeMap;
use std::io;

use super::Qcow2Header;
use crate::bytes::{be_u64, damaged};
use bosh_cpi::sparse::{Content, Piece};

/// Bounds what is remembered: as many second tables as a disk of 32 TiB has with QEMU's clusters.
const MAX_FIRST_ENTRIES: u32 = 65_536;

pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
pub(super) const IS_COMPRESSED: u64 = 1 << 62;
pub(super) const IS_ZERO: u64 = 1;

/// A file's content, checked as it passes.
pub struct Checked<C> {
    content: C,
    tables: Tables,
}

impl<C> Checked<C> {
    pub fn new(content: C, header: &Qcow2Header, file_size: u64) -> io::Result<Self> {
        let tables = Tables::new(header, file_size)?;
        Ok(Self { content, tables })
    }
}

impl<C: Content> Content for Checked<C> {
    fn next(&mut self) -> io::Result<Piece<'_>> {
        let piece = self.content.next()?;
        if let Piece::Data(bytes) = &piece {
            self.tables.look_at(bytes)?;
        }
        Ok(piece)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Refers to tables of the second level.
    First,
    /// Refers to clusters of the disk.
    Second,
}

struct Tables {
    file_size: u64,
    cluster_bits: u32,
    position: u64,
    /// Tables still to come, or parts of them: their first byte, and the one behind them.
    coming: BTreeMap<u64, (u64, Level)>,
}

impl Tables {
    fn new(header: &Qcow2Header, file_size: u64) -> io::Result<Self> {
        let mut tables = Self {
            file_size,
            cluster_bits: header.cluster_bits,
            position: 0,
            coming: BTreeMap::new(),
        };
        let (offset, length) = (header.first_table, 8 * u64::from(header.first_entries));
        tables.require(offset, length)?;
        if header.first_entries <= MAX_FIRST_ENTRIES && !header.extended {
            tables.coming.insert(offset, (offset + length, Level::First));
        }
        Ok(tables)
    }

    fn require(&self, offset: u64, length: u64) -> io::Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.file_size => Ok(()),
            _ => Err(damaged(format!(
                "cut short: the qcow2 tables refer to byte {offset}, but there are {} bytes",
                self.file_size
            ))),
        }
    }

    /// Looks at the tables in the next bytes of the file.
    fn look_at(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.position + bytes.len() as u64;
        while let Some((&at, &(table_end, level))) = self.coming.first_key_value() {
            if at >= end {
                break;
            }
            self.coming.pop_first();
            for entry in (at..table_end.min(end)).step_by(8) {
                let index = usize::try_from(entry - self.position).unwrap_or(usize::MAX);
                self.follow(level, be_u64(bytes, index))?;
            }
            if table_end > end {
                self.coming.insert(end, (table_end, level));
            }
        }
        self.position = end;
        Ok(())
    }

    fn follow(&mut self, level: Level, entry: u64) -> io::Result<()> {
        let (offset, cluster) = (entry & OFFSET, 1 << self.cluster_bits);
        match level {
            Level::First if offset > 0 => {
                self.require(offset, cluster)?;
                if offset >= self.position {
                    self.coming.insert(offset, (offset + cluster, Level::Second));
                }
                Ok(())
            }
            // The bits above the offset count sectors; neither they nor the last cluster need be whole.
            Level::Second if entry & IS_COMPRESSED != 0 => {
                self.require(entry & ((1 << (70 - self.cluster_bits)) - 1), 1)
            }
            Level::Second if offset > 0 && entry & IS_ZERO == 0 => self.require(offset, 1),
            _ => Ok(()),
        }
    }
}
