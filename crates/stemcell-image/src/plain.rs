//! Images that are stored as they are: qcow2 files, raw disks, and raw disks with the footer of a fixed VHD.

use std::io::{self, Read};

use super::bytes::{ImageFile, damaged};
use super::vhd::{FOOTER_BYTES, Footer, Kind};
use bosh_cpi::sparse::{Content, Piece};

/// What is read at once, bytes: one message's worth of whole pages.
const READ_BYTES: usize = 240 * 1024;

/// The bytes of a file.
pub(super) struct Plain<R> {
    file: ImageFile<R>,
    /// Bytes at the end that may be the footer of a fixed VHD: 0 or 512.
    tail: u64,
    /// They have to be one.
    needs_footer: bool,
    buffer: Vec<u8>,
}

impl<R: Read> Plain<R> {
    /// All bytes, whatever they are.
    pub(super) fn whole(file: ImageFile<R>) -> Self {
        Self {
            file,
            tail: 0,
            needs_footer: false,
            buffer: Vec::new(),
        }
    }

    /// A disk's bytes, without the footer if there is one.
    pub(super) fn raw_or_fixed_vhd(file: ImageFile<R>) -> Self {
        let may_have_footer = file.left() > FOOTER_BYTES && file.left().is_multiple_of(FOOTER_BYTES);
        Self {
            tail: if may_have_footer { FOOTER_BYTES } else { 0 },
            ..Self::whole(file)
        }
    }

    /// As `raw_or_fixed_vhd`, of a file that is no disk without its footer.
    pub(super) fn fixed_vhd(file: ImageFile<R>) -> Self {
        Self {
            needs_footer: true,
            ..Self::raw_or_fixed_vhd(file)
        }
    }

    /// Bytes that are part of the disk for certain.
    pub(super) fn body(&self) -> u64 {
        self.file.left() - self.tail
    }
}

impl<R: Read> Content for Plain<R> {
    fn next(&mut self) -> io::Result<Piece<'_>> {
        let at_tail = self.file.left() == self.tail;
        let left = if at_tail { self.tail } else { self.body() };
        let length = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
        self.buffer.resize(length, 0);
        self.file.fill(&mut self.buffer)?;
        if at_tail {
            self.tail = 0;
            if is_footer(&self.buffer, self.file.position() - left)? {
                self.needs_footer = false;
                return Ok(Piece::End);
            }
            if self.needs_footer {
                return Err(damaged("cut short: the VHD has no footer at its end"));
            }
        }
        Ok(match self.buffer.as_slice() {
            [] => Piece::End,
            data => Piece::Data(data),
        })
    }
}

/// Whether the last bytes of a disk of `size` bytes are a fixed VHD's footer.
fn is_footer(bytes: &[u8], size: u64) -> io::Result<bool> {
    let Some(footer) = Footer::parse(bytes)? else {
        return Ok(false);
    };
    if footer.kind != Kind::Fixed {
        return Err(damaged(format!(
            "the VHD footer says {:?}, but the file is that of a fixed VHD",
            footer.kind
        )));
    }
    if footer.virtual_size != size {
        return Err(damaged(format!(
            "the VHD footer announces {} bytes, but there are {size}",
            footer.virtual_size
        )));
    }
    Ok(true)
}
