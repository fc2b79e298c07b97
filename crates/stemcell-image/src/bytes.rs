//! Numbers out of headers, and reading that ends where it must.

use std::io::{self, Read};

/// The big-endian number at `at`; zero beyond the end, which headers of fixed length don't reach.
pub(super) fn be_u32(bytes: &[u8], at: usize) -> u32 {
    array_at(bytes, at).map_or(0, u32::from_be_bytes)
}

pub(super) fn be_u64(bytes: &[u8], at: usize) -> u64 {
    array_at(bytes, at).map_or(0, u64::from_be_bytes)
}

/// As `be_u32`, little-endian.
pub(super) fn le_u16(bytes: &[u8], at: usize) -> u16 {
    array_at(bytes, at).map_or(0, u16::from_le_bytes)
}

pub(super) fn le_u32(bytes: &[u8], at: usize) -> u32 {
    array_at(bytes, at).map_or(0, u32::from_le_bytes)
}

pub(super) fn le_u64(bytes: &[u8], at: usize) -> u64 {
    array_at(bytes, at).map_or(0, u64::from_le_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk::<N>())
        .copied()
}

pub(super) fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// The file of a disk image, read from its beginning to its end: exactly `size` bytes, where a tar entry of a short
/// archive just ends.
pub(super) struct ImageFile<R> {
    data: R,
    size: u64,
    position: u64,
}

impl<R: Read> ImageFile<R> {
    pub(super) fn new(data: R, size: u64) -> Self {
        Self {
            data,
            size,
            position: 0,
        }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes not yet read.
    pub(super) fn left(&self) -> u64 {
        self.size - self.position
    }

    /// Fills the buffer.
    ///
    /// # Errors
    /// Also when the file has fewer bytes.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            filled += self.read_some(&mut buffer[filled..])?;
        }
        Ok(())
    }

    /// Passes over everything before this offset.
    ///
    /// # Errors
    /// Also when it is behind us, or beyond the file's end.
    pub(super) fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        let mut buffer = [0; 8192];
        if offset < self.position {
            return Err(damaged(format!("something at byte {offset} is used twice")));
        }
        while self.position < offset {
            let now = buffer
                .len()
                .min(usize::try_from(offset - self.position).unwrap_or(buffer.len()));
            self.read_some(&mut buffer[..now])?;
        }
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left())
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        loop {
            match self.data.read(&mut buffer[..left]) {
                Ok(0) => {
                    let message = format!("cut short after {} of {} bytes", self.position, self.size);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
                Ok(read) => {
                    self.position += read as u64;
                    return Ok(read);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
