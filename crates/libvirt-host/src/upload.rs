//! Filling a volume through a stream.

use std::io;

use virt::error::{Error as LibvirtError, ErrorNumber};
use virt::stream::Stream;
use virt::sys::VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM;

use super::errors::is;
use super::{Connection, Volume, ffi};
use bosh_cpi::interrupt;
use bosh_cpi::measures::size;
use bosh_cpi::rpc::{Cause, Error, ErrorType, Result};
use bosh_cpi::sparse::{Content, Piece, is_zero};

/// Zeros become a hole where they fill a whole block of this size, bytes, counted from the volume's beginning. Small
/// enough for the gaps between files, large enough for a hole to be cheaper than its bytes.
const BLOCK: usize = 16 * 1024;

/// What one stream message carries at most, bytes. All versions of libvirt take 262,120; whole blocks end where pages
/// do.
const MESSAGE: usize = 15 * BLOCK;

impl Volume {
    /// Fills the volume from its beginning with all of the content, and returns its length in bytes. From `holes_from`
    /// (bytes) on, zeros travel and are stored as holes, where libvirt can do that; what the volume has there already
    /// must be zeros too.
    ///
    /// No more than `room` bytes are written, beside holes: a libvirtd of version 11.3 crashes when it finds no space.
    ///
    /// Libvirt writes behind the stream's back and drops the error of a write that fails at the end, as on a full
    /// pool; nothing after it is written then. So the last data that can be told from a hole is read back.
    ///
    /// # Errors
    /// What the content says, `NoDiskSpace`, or `CloudError`. The volume's content is undefined then.
    pub fn upload(
        &self,
        connection: &Connection,
        content: &mut dyn Content,
        holes_from: u64,
        room: u64,
    ) -> Result<u64> {
        let sent = self.send(connection, content, holes_from, room)?;
        self.verify(connection, &sent)?;
        Ok(sent.length)
    }

    /// Fills the volume, all of whose blocks are allocated, with these bytes: a full pool has no say any more. Reading
    /// back what was written would wait for libvirt, which reads the whole pool anew after an upload.
    pub(super) fn fill(&self, connection: &Connection, bytes: &[u8]) -> Result<()> {
        self.send(connection, &mut Bytes(Some(bytes)), u64::MAX, u64::MAX)
            .map(drop)
    }

    fn send(
        &self,
        connection: &Connection,
        content: &mut dyn Content,
        holes_from: u64,
        room: u64,
    ) -> Result<Sent> {
        let failed = |e| self.failed("uploading to", e);
        let (stream, takes_holes) = self.open(connection, holes_from < u64::MAX).map_err(failed)?;
        let mut sender = Sender {
            stream: &stream,
            holes_from: if takes_holes { holes_from } else { u64::MAX },
            hole: 0,
            left: room,
            sent: Sent::default(),
        };
        let outcome = sender.send_all(content);
        let sent = sender.sent;
        match outcome {
            Ok(()) => stream.finish().map_err(failed).map(|()| sent),
            Err(SendError::Interrupted(error)) => {
                abort(stream);
                Err(error)
            }
            Err(SendError::Read(e)) => {
                abort(stream);
                Err(Error::cloud(format!(
                    "reading what is to be uploaded to volume {}: {e}",
                    self.name
                )))
            }
            Err(SendError::NoRoom) => {
                abort(stream);
                Err(Error::new(
                    ErrorType::NoDiskSpace,
                    format!(
                        "uploading to volume {}: it takes more than the {} that are free in pool {}; free some room there, or \
                         name another pool",
                        self.name,
                        size(room),
                        self.pool
                    ),
                )
                .because(Cause::Full))
            }
            Err(SendError::Libvirt(e)) => {
                abort(stream);
                Err(failed(e))
            }
        }
    }

    /// A stream to the volume, and whether holes may be sent through it: libvirt before 3.4, and drivers for other
    /// storage, know none.
    fn open(
        &self,
        connection: &Connection,
        with_holes: bool,
    ) -> std::result::Result<(Stream, bool), LibvirtError> {
        if with_holes {
            let stream = Stream::new(&connection.connect, 0)?;
            match self.when_free(|| {
                self.volume
                    .upload(&stream, 0, 0, VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
            }) {
                Ok(()) => return Ok((stream, true)),
                Err(e) if knows_no_holes(&e) => log::debug!("uploading without holes: {}", e.message()),
                Err(e) => return Err(e),
            }
        }
        let stream = Stream::new(&connection.connect, 0)?;
        self.when_free(|| self.volume.upload(&stream, 0, 0, 0))?;
        Ok((stream, false))
    }

    fn verify(&self, connection: &Connection, sent: &Sent) -> Result<()> {
        // To libvirt, a length of 0 is all there is.
        if sent.last.is_empty()
            || self.read(connection, sent.last_offset, sent.last.len() as u64)? == sent.last
        {
            return Ok(());
        }
        Err(Error::new(
            ErrorType::NoDiskSpace,
            format!(
                "uploading to volume {} in pool {}: not everything was written: No space left on device, \
                 or a fault that only libvirtd's log tells",
                self.name, self.pool
            ),
        ))
    }
}

fn knows_no_holes(error: &LibvirtError) -> bool {
    [
        ErrorNumber::InvalidArg,
        ErrorNumber::NoSupport,
        ErrorNumber::ArgumentUnsupported,
        ErrorNumber::OperationUnsupported,
    ]
    .into_iter()
    .any(|number| is(error, number))
}

/// The first error is the one to tell; the stream ends either way.
fn abort(stream: Stream) {
    if let Err(e) = stream.abort() {
        log::debug!("aborting a stream: {}", e.message());
    }
}

enum SendError {
    Interrupted(Error),
    Read(io::Error),
    NoRoom,
    Libvirt(LibvirtError),
}

impl From<LibvirtError> for SendError {
    fn from(error: LibvirtError) -> Self {
        Self::Libvirt(error)
    }
}

/// What has been sent so far.
#[derive(Default)]
struct Sent {
    /// Bytes, holes included.
    length: u64,
    /// The last block, or part of one, that is not all zeros, and where it is.
    last: Vec<u8>,
    last_offset: u64,
}

struct Sender<'a> {
    stream: &'a Stream,
    holes_from: u64,
    /// Bytes of a hole that has not been sent yet: there may be more of it.
    hole: u64,
    /// Bytes that may be written yet.
    left: u64,
    sent: Sent,
}

impl Sender<'_> {
    fn send_all(&mut self, content: &mut dyn Content) -> std::result::Result<(), SendError> {
        loop {
            interrupt::check().map_err(SendError::Interrupted)?;
            match content.next().map_err(SendError::Read)? {
                Piece::Data(data) => self.data(data),
                Piece::Hole(length) => self.zeros(length),
                Piece::End => return Ok(self.end_hole()?),
            }?;
        }
    }

    /// Runs of blocks with data go as they are, others as holes.
    fn data(&mut self, mut data: &[u8]) -> std::result::Result<(), SendError> {
        while !data.is_empty() {
            let position = self.sent.length;
            let first = block_at(position, data);
            let zero = is_zero(&data[..first]);
            let mut run = first;
            while run < data.len() && run < MESSAGE {
                let next = block_at(position + run as u64, &data[run..]);
                if is_zero(&data[run..run + next]) != zero {
                    break;
                }
                run += next;
            }
            let (now, rest) = data.split_at(run);
            if zero {
                self.zeros(run as u64)?;
            } else {
                self.send(now)?;
            }
            data = rest;
        }
        Ok(())
    }

    /// Bytes that are not all zeros in the last block.
    fn send(&mut self, data: &[u8]) -> std::result::Result<(), SendError> {
        self.end_hole()?;
        let end = self.sent.length + data.len() as u64;
        let last = match end % BLOCK as u64 {
            0 => BLOCK,
            part => usize::try_from(part).unwrap_or(BLOCK),
        };
        let last = &data[data.len().saturating_sub(last)..];
        self.sent.last.clear();
        self.sent.last.extend_from_slice(last);
        self.sent.last_offset = end - last.len() as u64;
        self.send_as_it_is(data)
    }

    fn send_as_it_is(&mut self, data: &[u8]) -> std::result::Result<(), SendError> {
        self.left = self
            .left
            .checked_sub(data.len() as u64)
            .ok_or(SendError::NoRoom)?;
        for message in data.chunks(MESSAGE) {
            let mut rest = message;
            while !rest.is_empty() {
                let sent = self.stream.send(rest)?;
                rest = &rest[usize::try_from(sent).unwrap_or(0)..];
            }
        }
        self.sent.length += data.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, length: u64) -> std::result::Result<(), SendError> {
        static ZEROS: [u8; MESSAGE] = [0; MESSAGE];
        let as_bytes = self.holes_from.saturating_sub(self.sent.length).min(length);
        let mut left = as_bytes;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(MESSAGE).min(MESSAGE);
            self.send_as_it_is(&ZEROS[..now])?;
            left -= now as u64;
        }
        self.hole += length - as_bytes;
        self.sent.length += length - as_bytes;
        Ok(())
    }

    fn end_hole(&mut self) -> std::result::Result<(), LibvirtError> {
        match std::mem::take(&mut self.hole) {
            0 => Ok(()),
            length => ffi::send_hole(self.stream, length),
        }
    }
}

/// How much of `data`, which is at `position`, belongs to its first block.
fn block_at(position: u64, data: &[u8]) -> usize {
    let into_block = usize::try_from(position % BLOCK as u64).unwrap_or(0);
    data.len().min(BLOCK - into_block)
}

struct Bytes<'a>(Option<&'a [u8]>);

impl Content for Bytes<'_> {
    fn next(&mut self) -> io::Result<Piece<'_>> {
        Ok(match self.0.take() {
            Some(bytes) if !bytes.is_empty() => Piece::Data(bytes),
            _ => Piece::End,
        })
    }
}
