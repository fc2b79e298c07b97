//! A stemcell's `image` file: a tar, gzipped or not, with one disk image in it, or with an OVA, which is a tar too.

use super::image::{self, HEAD_BYTES, Image};
use super::{MIB, Pipeline, StemcellProperties, ovf};
use bosh_cpi::progress::{Progress, Reading};
use bosh_cpi::rpc::{Error, Result};
use cpi_config::Firmware;
use flate2::bufread::MultiGzDecoder;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use tar::{Archive, Entry};

/// What the names of disk images end in.
const EXTENSIONS: [&str; 5] = ["img", "raw", "qcow2", "vmdk", "vhd"];
const TAR_MAGIC: &[u8] = b"ustar";
const TAR_MAGIC_AT: usize = 257;
/// A tar inside the tar is looked into, as an OVA is one; a tar in that one is not.
const OUTERMOST: u32 = 0;
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
const READ_BYTES: usize = 256 * 1024;
const TAR_BLOCK: u64 = 512;
/// Bytes of the tar that may be something other than the image, its headers and padding included: bounds
/// what a small, hostile archive can make of itself.
const BESIDE_THE_IMAGE: u64 = 4 * MIB;

/// Finds the disk image in the stemcell's `image` file at `path`, and lets `consume` read all of it. Then
/// reads the archive to its end; if that shows it to be damaged, what `consume` returned is dropped, so a
/// guard in there undoes its work. Also returns the firmware that an `.ovf` beside the image names, if one does.
///
/// Errors: what `consume` failed with; `CloudError`, naming the file, when it can't be read, is no tar,
/// damaged or cut short, holds no image or more than one, when the image's size disagrees with `properties`,
/// and when `consume` did not read it to its end.
pub fn with_image<T>(
    path: &Path,
    properties: &StemcellProperties,
    consume: impl FnOnce(Image<'_>) -> Result<T>,
) -> Result<(T, Option<Firmware>)> {
    let outcome = open(path).and_then(|file| with_image_in(file, properties, consume));
    outcome.map_err(|error| error.during(format!("stemcell image {}", path.display())))?
}

/// As `with_image`, of an archive that is open; the inner result is `consume`'s own.
pub fn with_image_in<T>(
    mut archive: impl BufRead + Send + 'static,
    properties: &StemcellProperties,
    consume: impl FnOnce(Image<'_>) -> Result<T>,
) -> Result<Result<(T, Option<Firmware>)>> {
    let start = archive.fill_buf().map_err(not_opened)?;
    if start.is_empty() {
        return Err(Error::cloud("the file is empty"));
    }
    let tar = if start.starts_with(GZIP_MAGIC) {
        Pipeline::new(MultiGzDecoder::new(archive))
    } else {
        Pipeline::new(archive)
    };
    read_archive(tar.map_err(not_opened)?, properties, consume)
}

/// Bytes that a disk of this size (bytes) takes at least, if it is in the archive at `path`; 0 where only reading will
/// tell. Gzip makes a thousandth of zeros, which become holes, and no more than a hair of anything else.
pub fn least_bytes(path: &Path, capacity: u64) -> u64 {
    let gzipped = || {
        let mut file = File::open(path)?;
        let mut magic = [0; GZIP_MAGIC.len()];
        file.read_exact(&mut magic)?;
        let length = file.metadata()?.len();
        io::Result::Ok(if magic == GZIP_MAGIC { length } else { 0 })
    };
    // Whoever reads all of it will tell what is wrong with the file.
    let gzipped: u64 = gzipped().unwrap_or(0);
    (gzipped - gzipped / 256).saturating_sub(BESIDE_THE_IMAGE + capacity / 1000)
}

fn open(path: &Path) -> Result<BufReader<Reading<File>>> {
    let file = File::open(path).map_err(not_opened)?;
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let file = Reading::new(file, Progress::new("uploading stemcell", bytes));
    Ok(BufReader::with_capacity(READ_BYTES, file))
}

fn not_opened(error: io::Error) -> Error {
    Error::cloud(format!("opening it: {error}"))
}

/// What has been found so far, in the tar and in one inside it.
struct Search<'a, T, F> {
    properties: &'a StemcellProperties,
    meter: &'a Meter,
    /// Until there is an image for it.
    consume: Option<F>,
    consumed: Option<T>,
    /// As an `.ovf` says.
    firmware: Option<Firmware>,
    /// Names of what is no image.
    seen: Vec<String>,
}

/// The inner result is `consume`'s own.
fn read_archive<T>(
    mut source: Pipeline,
    properties: &StemcellProperties,
    consume: impl FnOnce(Image<'_>) -> Result<T>,
) -> Result<Result<(T, Option<Firmware>)>> {
    let meter = Meter::default();
    let mut search = Search {
        properties,
        meter: &meter,
        consume: Some(consume),
        consumed: None,
        firmware: None,
        seen: Vec::new(),
    };
    let mut metered = Metered {
        source: &mut source,
        meter: &meter,
    };
    let outcome = search.read_tar(&mut metered, OUTERMOST);
    // The decompressor checks its checksum only at the very end.
    match outcome {
        Ok(Ok(())) => io::copy(&mut metered, &mut io::sink()).map_err(unreadable)?,
        Ok(Err(error)) => return Ok(Err(error)),
        Err(error) => return Err(error),
    };
    let firmware = search.firmware;
    search
        .consumed
        .map(|consumed| Ok((consumed, firmware)))
        .ok_or_else(|| no_image(&search.seen))
}

impl<T, F: FnOnce(Image<'_>) -> Result<T>> Search<'_, T, F> {
    /// Reads a tar to its last entry.
    fn read_tar(&mut self, source: &mut dyn Read, depth: u32) -> Result<Result<()>> {
        let read = Cell::new(0);
        let mut archive = Archive::new(Counted { source, read: &read });
        let mut entries = archive.entries().map_err(unreadable)?;
        let mut is_first = true;
        loop {
            let next_header = read.get().next_multiple_of(TAR_BLOCK);
            let mut entry = match entries.next() {
                None if read.get() < next_header + TAR_BLOCK => {
                    return Err(Error::cloud("cut short: the tar has no end, or this is no tar"));
                }
                None => return Ok(Ok(())),
                Some(Err(error)) if is_first && error.kind() == io::ErrorKind::Other => {
                    return Err(Error::cloud(format!("neither a tar nor a gzipped tar: {error}")));
                }
                Some(Err(error)) => return Err(unreadable(error)),
                Some(Ok(entry)) => entry,
            };
            is_first = false;
            // Only for messages: nothing is ever written to a place that a name says.
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            refuse_pax_sparse(&mut entry, &name)?;
            if let Err(error) = self.read_entry(&mut entry, &name, depth)? {
                return Ok(Err(error));
            }
        }
    }

    fn read_entry(&mut self, entry: &mut Entry<'_, impl Read>, name: &str, depth: u32) -> Result<Result<()>> {
        let (size, is_file) = (entry.size(), is_file(entry));
        let meter = self.meter;
        let entry = &mut Filled { entry, meter };
        let head = read_head(entry).map_err(|e| self.while_passing(name, e))?;
        if (head.len() as u64) < size.min(HEAD_BYTES) {
            let message = format!("{name}: cut short after {} of {size} bytes", head.len());
            return Err(Error::cloud(message));
        }
        if is_file && depth == OUTERMOST && is_tar(&head) {
            let mut whole = Cursor::new(head).chain(entry);
            let outcome = self.read_tar(&mut whole, depth + 1).map_err(|e| e.during(name))?;
            io::copy(&mut whole, &mut io::sink()).map_err(unreadable)?;
            return Ok(outcome);
        }
        if is_file && (is_image_name(name) || image::is_image(&head)) {
            let Some(consume) = self.consume.take() else {
                return Err(Error::cloud(format!(
                    "holds more than one disk image, {name} being the second"
                )));
            };
            self.meter.allow(size);
            let whole = Cursor::new(head.as_slice()).chain(entry);
            let outcome = image::with_content(name, &head, whole, size, self.properties, consume);
            return Ok(outcome
                .map_err(|e| e.during(name))?
                .map(|value| self.consumed = Some(value)));
        }
        let is_ovf = is_file && size <= ovf::MAX_BYTES && image::extension(name).as_deref() == Some("ovf");
        let mut rest = Vec::new();
        let passed = if is_ovf {
            entry.read_to_end(&mut rest).map(|length| length as u64)
        } else {
            io::copy(entry, &mut io::sink())
        };
        if passed.map_err(|e| self.while_passing(name, e))? < size - head.len() as u64 {
            return Err(Error::cloud(format!("cut short in {name}")));
        }
        if is_ovf {
            self.firmware = self.firmware.or(ovf::firmware(&[head, rest].concat()));
        }
        if self.seen.len() < 10 {
            self.seen.push(name.to_owned());
        }
        Ok(Ok(()))
    }

    /// A large file that is no image is most often the image under a name that does not tell.
    fn while_passing(&mut self, name: &str, error: io::Error) -> Error {
        if self.consume.is_some() && self.meter.exceeded() {
            self.seen.push(name.to_owned());
            return no_image(&self.seen);
        }
        unreadable(error)
    }
}

fn read_head(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    entry.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head)
}

fn is_tar(head: &[u8]) -> bool {
    head.get(TAR_MAGIC_AT..)
        .is_some_and(|at| at.starts_with(TAR_MAGIC))
}

fn is_file(entry: &Entry<'_, impl Read>) -> bool {
    let kind = entry.header().entry_type();
    kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse()
}

/// Whether a file of this name can only be the disk: what is raw has nothing else to be told by. For each file, macOS
/// may add one with `._` in front.
fn is_image_name(name: &str) -> bool {
    let file_name = Path::new(name).file_name().unwrap_or_default();
    let is_own = !file_name.to_string_lossy().starts_with("._");
    is_own && image::extension(name).is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
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
    let names = EXTENSIONS.join(", *.");
    match seen {
        [] => Error::cloud("holds no disk image: the tar is empty"),
        _ => Error::cloud(format!(
            "holds no disk image (*.{names}), only {}",
            seen.join(", ")
        )),
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

    fn count(&self, bytes: u64) -> io::Result<()> {
        self.read.set(self.read.get() + bytes);
        if self.exceeded() {
            return Err(io::Error::other("more than 4 MiB beside the image"));
        }
        Ok(())
    }

    fn exceeded(&self) -> bool {
        self.read.get() > self.allowed.get()
    }
}

struct Metered<'a> {
    source: &'a mut Pipeline,
    meter: &'a Meter,
}

impl Read for Metered<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(into)?;
        self.meter.count(length as u64)?;
        Ok(length)
    }
}

/// A file in the tar. What its holes are filled with counts as well: it takes nothing of the tar, and may be any size.
struct Filled<'a, E> {
    entry: E,
    meter: &'a Meter,
}

impl<E: Read> Read for Filled<'_, E> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let before = self.meter.read.get();
        let length = self.entry.read(into)?;
        let of_tar = self.meter.read.get() - before;
        self.meter.count((length as u64).saturating_sub(of_tar))?;
        Ok(length)
    }
}

/// Counts what is read of one tar.
struct Counted<'a> {
    source: &'a mut dyn Read,
    read: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(into)?;
        self.read.set(self.read.get() + length as u64);
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
