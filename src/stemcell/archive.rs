//! A stemcell's `image` file: a tar, gzipped or not, with one disk image in it.

use super::image::{HEAD_BYTES, recognise};
use super::{MIB, Pipeline, StemcellProperties};
use crate::rpc::{Error, Result};
use crate::xml::volume::VolumeFormat;
use flate2::bufread::MultiGzDecoder;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use tar::{Archive, Entry};

const NAMES: [&str; 2] = ["root.img", "disk.raw"];
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
const READ_BYTES: usize = 256 * 1024;
const TAR_BLOCK: u64 = 512;
/// Bytes of the tar that may be something other than the image, its headers and padding included: bounds
/// what a small, hostile archive can make of itself.
const BESIDE_THE_IMAGE: u64 = 4 * MIB;

/// The disk image inside a stemcell, ready to be read once.
pub struct Image<'a> {
    pub format: VolumeFormat,
    /// What `reader` delivers, in bytes.
    pub file_size: u64,
    /// The size of the disk the guest sees, in bytes.
    pub virtual_size: u64,
    /// Ends after `file_size` bytes, or fails: it never ends early.
    pub reader: &'a mut dyn Read,
}

/// Finds the disk image in the stemcell's `image` file at `path`, and lets `consume` read all of it. Then
/// reads the archive to its end; if that shows it to be damaged, what `consume` returned is dropped, so a
/// guard in there undoes its work.
///
/// Errors: what `consume` failed with; `CloudError`, naming the file, when it can't be read, is no tar,
/// damaged or cut short, holds no image or more than one, when the image's size disagrees with `properties`,
/// and when `consume` left some of it unread.
pub fn with_image<T>(
    path: &Path,
    properties: &StemcellProperties,
    consume: impl FnOnce(Image<'_>) -> Result<T>,
) -> Result<T> {
    open(path)
        .and_then(|archive| read_archive(archive, properties, consume))
        .map_err(|error| error.during(format!("stemcell image {}", path.display())))?
}

fn open(path: &Path) -> Result<Pipeline> {
    let failed = |error: io::Error| Error::cloud(format!("opening it: {error}"));
    let mut file = BufReader::with_capacity(READ_BYTES, File::open(path).map_err(failed)?);
    let start = file.fill_buf().map_err(failed)?;
    if start.is_empty() {
        return Err(Error::cloud("the file is empty"));
    }
    if start.starts_with(GZIP_MAGIC) {
        Pipeline::new(MultiGzDecoder::new(file)).map_err(failed)
    } else {
        Pipeline::new(file).map_err(failed)
    }
}

/// The inner result is `consume`'s own.
fn read_archive<T>(
    source: Pipeline,
    properties: &StemcellProperties,
    consume: impl FnOnce(Image<'_>) -> Result<T>,
) -> Result<Result<T>> {
    let meter = Meter::default();
    let mut archive = Archive::new(Metered {
        source,
        meter: &meter,
    });
    let mut consume = Some(consume);
    let mut consumed = None;
    let mut seen = Vec::new();
    let mut entries = archive.entries().map_err(unreadable)?;
    loop {
        let next_header = meter.read.get().next_multiple_of(TAR_BLOCK);
        let mut entry = match entries.next() {
            None if meter.read.get() < next_header + TAR_BLOCK => {
                return Err(Error::cloud("cut short: the tar has no end, or this is no tar"));
            }
            None => break,
            Some(Err(error)) if seen.is_empty() && error.kind() == io::ErrorKind::Other => {
                return Err(Error::cloud(format!("neither a tar nor a gzipped tar: {error}")));
            }
            Some(Err(error)) => return Err(unreadable(error)),
            Some(Ok(entry)) => entry,
        };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        refuse_pax_sparse(&mut entry, &name)?;
        if is_image(&entry, &name) {
            let Some(consume) = consume.take() else {
                return Err(Error::cloud(format!(
                    "holds more than one disk image, {name} being the second"
                )));
            };
            meter.allow(entry.size());
            match read_image(&mut entry, properties, consume).map_err(|error| error.during(&name))? {
                Ok(value) => consumed = Some(value),
                Err(error) => return Ok(Err(error)),
            }
        } else {
            let passed = io::copy(&mut entry, &mut io::sink());
            if consumed.is_none() && meter.exceeded() {
                seen.push(name);
                return Err(no_image(&seen));
            }
            if passed.map_err(unreadable)? < entry.size() {
                return Err(Error::cloud(format!("cut short in {name}")));
            }
        }
        if seen.len() < 10 {
            seen.push(name);
        }
    }
    // The decompressor checks its checksum only at the very end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unreadable)?;
    consumed.map(Ok).ok_or_else(|| no_image(&seen))
}

fn read_image<T>(
    entry: &mut Entry<'_, impl Read>,
    properties: &StemcellProperties,
    consume: impl FnOnce(Image<'_>) -> Result<T>,
) -> Result<Result<T>> {
    let file_size = entry.size();
    let mut head = Vec::new();
    let head_bytes = file_size.min(HEAD_BYTES);
    entry
        .take(head_bytes)
        .read_to_end(&mut head)
        .map_err(unreadable)?;
    if (head.len() as u64) < head_bytes {
        return Err(Error::cloud(format!(
            "cut short after {} of {file_size} bytes",
            head.len()
        )));
    }
    let (format, virtual_size) = recognise(&head, file_size, properties)?;
    let mut reader = ImageReader {
        data: Cursor::new(head).chain(entry),
        file_size,
        left: file_size,
        failure: None,
    };
    let outcome = consume(Image {
        format,
        file_size,
        virtual_size,
        reader: &mut reader,
    });
    // Why the image could not be read says more than what its consumer made of that.
    if let Some(failure) = reader.failure {
        return Err(Error::cloud(failure));
    }
    if outcome.is_ok() && reader.left > 0 {
        let taken = file_size - reader.left;
        return Err(Error::cloud(format!(
            "only {taken} of {file_size} bytes were taken"
        )));
    }
    Ok(outcome)
}

fn is_image(entry: &Entry<'_, impl Read>, name: &str) -> bool {
    let kind = entry.header().entry_type();
    let regular = kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse();
    regular && NAMES.contains(&name.trim_start_matches("./"))
}

/// The `tar` crate fills the holes of GNU's own sparse format and knows nothing of the pax one, whose maps
/// would end up inside the disk.
fn refuse_pax_sparse(entry: &mut Entry<'_, impl Read>, name: &str) -> Result<()> {
    let Some(extensions) = entry.pax_extensions().map_err(unreadable)? else {
        return Ok(());
    };
    for extension in extensions {
        if extension
            .map_err(unreadable)?
            .key_bytes()
            .starts_with(b"GNU.sparse.")
        {
            return Err(Error::cloud(format!(
                "{name} is stored as a pax sparse file, which is not supported; pack it with tar --format=gnu"
            )));
        }
    }
    Ok(())
}

fn no_image(seen: &[String]) -> Error {
    let names = NAMES.join(" or ");
    match seen {
        [] => Error::cloud(format!("holds no {names}: the tar is empty")),
        _ => Error::cloud(format!("holds no {names}, only {}", seen.join(", "))),
    }
}

fn unreadable(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::cloud("cut short: the compressed data has no end"),
        _ => Error::cloud(format!("reading it: {error}")),
    }
}

/// Counts what is read of the tar, and ends it when it grows beyond all reason.
struct Meter {
    read: Cell<u64>,
    allowed: Cell<u64>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            read: Cell::new(0),
            allowed: Cell::new(BESIDE_THE_IMAGE),
        }
    }
}

impl Meter {
    fn allow(&self, bytes: u64) {
        self.allowed.set(self.allowed.get().saturating_add(bytes));
    }

    fn exceeded(&self) -> bool {
        self.read.get() > self.allowed.get()
    }
}

struct Metered<'a> {
    source: Pipeline,
    meter: &'a Meter,
}

impl Read for Metered<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(into)?;
        self.meter.read.set(self.meter.read.get() + length as u64);
        if self.meter.exceeded() {
            return Err(io::Error::other("more than 4 MiB beside the image"));
        }
        Ok(length)
    }
}

/// Delivers exactly `file_size` bytes, where a tar entry of a short archive just ends.
struct ImageReader<R> {
    data: R,
    file_size: u64,
    left: u64,
    failure: Option<String>,
}

impl<R: Read> Read for ImageReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() || self.left == 0 {
            return Ok(0);
        }
        let outcome = match self.data.read(into) {
            Ok(0) => {
                let taken = self.file_size - self.left;
                let message = format!("cut short after {taken} of {} bytes", self.file_size);
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
            }
            outcome => outcome,
        };
        match &outcome {
            Ok(length) => self.left -= *length as u64,
            Err(error) => self.failure = Some(error.to_string()),
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
