//! Content with holes: long runs of zeros that nobody needs to read, send or store.

use std::io;

/// The next part of some content, in order and without gaps.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// At least one byte.
    Data(&'a [u8]),
    /// So many zeros, in bytes; at least one.
    Hole(u64),
    End,
}

/// What delivers content piece by piece.
pub trait Content {
    /// The next piece; after the end, the end again.
    ///
    /// # Errors
    /// Why there is no more, in words for the operator.
    fn next(&mut self) -> io::Result<Piece<'_>>;
}

/// Whether all of it is zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|part| part == &ZEROS[..part.len()])
}
