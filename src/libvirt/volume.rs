//! Storage volumes.

use std::io::Read;

use virt::error::{Error as LibvirtError, ErrorNumber};
use virt::storage_vol::StorageVol;
use virt::stream::Stream;
use virt::sys::VIR_STORAGE_VOL_DELETE_WITH_SNAPSHOTS;

use super::Connection;
use super::busy::when_free;
use super::connection::parse;
use super::errors::is;
use crate::rpc::{Error, ErrorType, Result};
use crate::xml::volume::VolumeFormat;

/// What one stream message carries at most, bytes: libvirt's own limit for all versions.
const CHUNK: usize = 262_120;

/// One volume of a pool.
pub struct Volume {
    pub(super) volume: StorageVol,
    pub name: String,
    pub pool: String,
}

/// What libvirt knows of a volume's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeState {
    /// None for formats that are neither raw nor qcow2, such as a directory.
    pub format: Option<VolumeFormat>,
    /// Virtual size, bytes.
    pub capacity: u64,
    /// Bytes taken from the pool.
    pub allocation: u64,
    /// Path of the volume this one is an overlay on.
    pub backing_path: Option<String>,
}

impl Volume {
    /// The file or device on the host.
    pub fn path(&self) -> Result<String> {
        self.volume
            .path()
            .map_err(|e| self.failed("reading the path of", e))
    }

    pub fn state(&self) -> Result<VolumeState> {
        let text = self.volume.xml_desc(0).map_err(|e| self.failed("reading", e))?;
        let xml = parse(&format!("volume {}", self.name), &text)?;
        let bytes = |name: &str| {
            xml.child(name)
                .and_then(|element| element.text().trim().parse().ok())
                .ok_or_else(|| Error::cpi(format!("libvirt's XML for volume {} has no {name}", self.name)))
        };
        let format = xml
            .descend(&["target", "format"])
            .and_then(|format| format.attribute("type"));
        Ok(VolumeState {
            format: match (xml.attribute("type"), format) {
                // What pools of blocks call a format says something else; what is in them is raw.
                (Some("block" | "network"), _) | (_, None) => Some(VolumeFormat::Raw),
                (_, Some(name)) => VolumeFormat::from_name(name),
            },
            capacity: bytes("capacity")?,
            allocation: bytes("allocation")?,
            backing_path: xml.descend(&["backingStore", "path"]).map(|path| path.text()),
        })
    }

    /// Deletes the volume; one that is already gone is fine.
    pub fn delete(&self) -> Result<()> {
        self.delete_with(0)
    }

    /// Deletes a Ceph image together with what it was copied through: for each copy of it, libvirt leaves a snapshot
    /// in it.
    ///
    /// # Errors
    /// `CloudError` while a copy lives, which shares what it has not changed with the image.
    pub fn delete_with_snapshots(&self) -> Result<()> {
        self.delete_with(VIR_STORAGE_VOL_DELETE_WITH_SNAPSHOTS)
            .map_err(|e| {
                if e.message.contains("failed to unprotect snapshot") {
                    e.during("snapshots taken of it still share its data, delete them first")
                } else {
                    e
                }
            })
    }

    fn delete_with(&self, flags: u32) -> Result<()> {
        match when_free(|| self.volume.delete(flags)) {
            Ok(()) => Ok(()),
            Err(e) if is(&e, ErrorNumber::NoStorageVolume) => Ok(()),
            Err(e) => Err(self.failed("deleting", e)),
        }
    }

    /// Fills the volume from its beginning with everything the reader gives, `length` bytes.
    ///
    /// Libvirt writes behind the stream's back and drops the error of a write that fails at the end, as on a full
    /// pool; nothing after it is written then. So the last data that can be told from a hole is read back.
    ///
    /// # Errors
    /// What the reader says, `NoDiskSpace`, or `CloudError`. The volume's content is undefined then.
    pub fn upload(&self, connection: &Connection, reader: &mut dyn Read, length: u64) -> Result<()> {
        let last = self.send(connection, reader, length)?;
        self.verify(connection, last.as_ref())
    }

    /// Fills the volume, all of whose blocks are allocated, with these bytes: a full pool has no say any more. Reading
    /// back what was written would wait for libvirt, which reads the whole pool anew after an upload.
    pub(super) fn fill(&self, connection: &Connection, bytes: &[u8]) -> Result<()> {
        self.send(connection, &mut &bytes[..], bytes.len() as u64)
            .map(drop)
    }

    fn send(&self, connection: &Connection, reader: &mut dyn Read, length: u64) -> Result<Option<Sent>> {
        let failed = |e| self.failed("uploading to", e);
        let stream = Stream::new(&connection.connect, 0).map_err(failed)?;
        when_free(|| self.volume.upload(&stream, 0, length, 0)).map_err(failed)?;
        match send_all(&stream, reader) {
            Ok(last) => stream.finish().map_err(failed).map(|()| last),
            Err(SendError::Read(e)) => {
                abort(stream);
                Err(Error::cloud(format!(
                    "reading what is to be uploaded to volume {}: {e}",
                    self.name
                )))
            }
            Err(SendError::Libvirt(e)) => {
                abort(stream);
                Err(failed(e))
            }
        }
    }

    fn verify(&self, connection: &Connection, last: Option<&Sent>) -> Result<()> {
        let Some(sent) = last else { return Ok(()) };
        if self.read(connection, sent.offset, sent.bytes.len() as u64)? == sent.bytes {
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

    /// The whole content of a small volume, `limit` bytes at most.
    pub fn download(&self, connection: &Connection, limit: u64) -> Result<Vec<u8>> {
        self.read(connection, 0, limit)
    }

    fn read(&self, connection: &Connection, offset: u64, length: u64) -> Result<Vec<u8>> {
        let failed = |e| self.failed("downloading", e);
        let stream = Stream::new(&connection.connect, 0).map_err(failed)?;
        when_free(|| self.volume.download(&stream, offset, length, 0)).map_err(failed)?;
        let mut content = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            match stream.recv(&mut chunk).map_err(failed)? {
                0 => break,
                received => content.extend_from_slice(&chunk[..usize::try_from(received).unwrap_or(0)]),
            }
        }
        stream.finish().map_err(failed)?;
        Ok(content)
    }

    /// Overwrites the content, so that the next owner of the blocks cannot read it.
    pub fn wipe(&self) -> Result<()> {
        when_free(|| self.volume.wipe(0)).map_err(|e| self.failed("wiping", e))
    }

    /// Grows the volume to this many bytes.
    pub fn resize(&self, bytes: u64) -> Result<()> {
        when_free(|| self.volume.resize(bytes, 0)).map_err(|e| self.failed("resizing", e))
    }

    fn failed(&self, doing: &str, e: LibvirtError) -> Error {
        Error::from(e).during(format!("{doing} volume {} in pool {}", self.name, self.pool))
    }
}

enum SendError {
    Read(std::io::Error),
    Libvirt(LibvirtError),
}

/// A piece of what was uploaded.
struct Sent {
    offset: u64,
    bytes: Vec<u8>,
}

/// Sends everything; returns the last chunk that is not all zeros.
fn send_all(stream: &Stream, reader: &mut dyn Read) -> std::result::Result<Option<Sent>, SendError> {
    let mut last: Option<Sent> = None;
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let filled = read_full(reader, &mut chunk).map_err(SendError::Read)?;
        if filled == 0 {
            return Ok(last);
        }
        let mut rest = &chunk[..filled];
        while !rest.is_empty() {
            let sent = stream.send(rest).map_err(SendError::Libvirt)?;
            rest = &rest[usize::try_from(sent).unwrap_or(0)..];
        }
        if chunk[..filled].iter().any(|byte| *byte != 0) {
            // The buffers take turns.
            let mut buffer = last.take().map_or_else(Vec::new, |sent| sent.bytes);
            std::mem::swap(&mut buffer, &mut chunk);
            buffer.truncate(filled);
            last = Some(Sent {
                offset,
                bytes: buffer,
            });
            chunk.resize(CHUNK, 0);
        }
        offset += filled as u64;
    }
}

/// Full chunks make few messages, whatever sizes the reader prefers.
fn read_full(reader: &mut dyn Read, chunk: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match reader.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The first error is the one to tell; the stream ends either way.
fn abort(stream: Stream) {
    if let Err(e) = stream.abort() {
        log::debug!("aborting a stream: {}", e.message());
    }
}
