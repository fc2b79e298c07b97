//! Disk image formats, told apart by content.

use std::io::{self, Read};
use std::mem;
use std::path::Path;

use super::bytes::{ImageFile, damaged};
use super::plain::Plain;
use super::qcow2::{self, parse_header};
use super::vhd::{self, DynamicVhd};
use super::vmdk::{self, Vmdk};
use super::{MAX_VIRTUAL_SIZE, MIB, StemcellProperties};
use bosh_cpi::rpc::{Error, Result};
use bosh_cpi::sparse::{Content, Piece};
use libvirt_xml::volume::VolumeFormat;

/// Formats that would otherwise pass for raw disks, and what to do about them.
const NOT_SUPPORTED: [(&[u8], &str); 8] = [
    (
        b"vhdxfile",
        "a VHDX image; convert it with qemu-img convert -O qcow2",
    ),
    (b"QED\0", "a QED image; convert it with qemu-img convert -O qcow2"),
    (
        b"COWD",
        "an old VMDK image; convert it with qemu-img convert -O qcow2",
    ),
    (
        vmdk::TEXT_MAGIC,
        "a VMDK that names other files; convert it with qemu-img convert -O vmdk -o subformat=streamOptimized",
    ),
    (b"LUKS\xba\xbe", "encrypted"),
    (b"\x1f\x8b", "compressed once more; unpack it"),
    (b"\xfd7zXZ\0", "compressed once more; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed once more; unpack it"),
];

/// Enough for a qcow2 header and its extensions, in bytes: the first cluster at QEMU's default size.
pub(super) const HEAD_BYTES: u64 = 64 * 1024;

/// Where the tables of a new, empty qcow2 volume end for certain, in bytes: the image's own have to go over them, zeros
/// included. With QEMU's clusters of 64 KiB, they take 8 bytes for each 512 MiB of the disk, and half a MiB.
fn end_of_new_tables(capacity: u64) -> u64 {
    MIB + (capacity >> 25)
}

/// The disk image inside a stemcell, ready to be read once.
pub struct Image<'a> {
    /// How it is stored.
    pub format: VolumeFormat,
    /// The size of the disk the guest sees, in bytes; of a raw disk less than that by 512 when only its end will tell
    /// whether it is a VHD.
    pub capacity: u64,
    /// Where zeros can be left out of the volume, in bytes from its beginning.
    pub holes_from: u64,
    /// What the volume is to hold, to its end.
    pub content: &'a mut dyn Content,
}

/// Whether a file that starts like this is a disk image, whatever its name.
pub(super) fn is_image(head: &[u8]) -> bool {
    [qcow2::MAGIC, vmdk::MAGIC, vmdk::TEXT_MAGIC, vhd::MAGIC]
        .iter()
        .any(|magic| head.starts_with(magic))
}

/// Whether a disk that starts like this is taken for an image of another format, once it is stored raw: libvirt reads
/// the format of a file out of the file. What such an image refers to could be any file of the host.
fn passes_for_image(disk: &[u8]) -> bool {
    is_image(disk) || NOT_SUPPORTED.iter().any(|(magic, _)| disk.starts_with(magic))
}

/// What follows the last dot of a file's name in the tar, in lower case.
pub(super) fn extension(name: &str) -> Option<String> {
    let extension = Path::new(name).extension()?;
    Some(extension.to_string_lossy().to_ascii_lowercase())
}

/// The image in a file of `file_size` bytes that starts with `head`, of which `reader` gives all. Its name counts only
/// where the content says nothing: a disk cannot be raw in a file that is named as another format.
///
/// Errors: the inner one is `consume`'s own. `CloudError` for formats that are not supported, for damage, and for sizes
/// that can't be: see [`StemcellProperties::check_size`]; a file may exceed the disk's size by an eighth and 64 MiB, more
/// than tables ever take.
pub fn with_content<T>(
    name: &str,
    head: &[u8],
    reader: impl Read,
    file_size: u64,
    properties: &StemcellProperties,
    consume: impl FnOnce(Image<'_>) -> Result<T>,
) -> Result<Result<T>> {
    if file_size == 0 {
        return Err(Error::cloud("the image is empty"));
    }
    if let Some((_, what)) = NOT_SUPPORTED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(Error::cloud(format!("the image is {what}")));
    }
    let check = |virtual_size: u64| {
        properties.check_size(virtual_size)?;
        if virtual_size > MAX_VIRTUAL_SIZE || file_size > virtual_size + virtual_size / 8 + 64 * MIB {
            return Err(Error::cloud(format!(
                "an image of {virtual_size} bytes can't take {file_size} bytes"
            )));
        }
        Ok(virtual_size)
    };
    let file = ImageFile::new(reader, file_size);
    let unreadable = |e: io::Error| Error::cloud(e.to_string());
    if head.starts_with(qcow2::MAGIC) {
        let header = parse_header(head)?;
        let capacity = check(header.virtual_size)?;
        let content = qcow2::Checked::new(Plain::whole(file), &header, file_size).map_err(unreadable)?;
        return watch(
            VolumeFormat::Qcow2,
            capacity,
            end_of_new_tables(capacity),
            content,
            consume,
        );
    }
    if head.starts_with(vmdk::MAGIC) {
        let vmdk = Vmdk::open(file).map_err(unreadable)?;
        let capacity = check(vmdk.virtual_size())?;
        return watch(VolumeFormat::Raw, capacity, 0, vmdk, consume);
    }
    if head.starts_with(vhd::MAGIC) {
        let vhd = DynamicVhd::open(file).map_err(unreadable)?;
        let capacity = check(vhd.virtual_size())?;
        return if vhd.in_order() {
            watch(VolumeFormat::Raw, capacity, 0, vhd, consume)
        } else {
            let disk = vhd.sorted().map_err(unreadable)?;
            watch(VolumeFormat::Raw, capacity, 0, disk, consume)
        };
    }
    check(file_size)?;
    let disk = match extension(name).as_deref() {
        Some(format @ ("qcow2" | "vmdk")) => {
            return Err(Error::cloud(format!(
                "damaged: it does not begin as a {format} file does"
            )));
        }
        Some("vhd") => Plain::fixed_vhd(file),
        _ => Plain::raw_or_fixed_vhd(file),
    };
    watch(VolumeFormat::Raw, disk.body(), 0, disk, consume)
}

/// Lets `consume` read the content, which it has to do to its end.
fn watch<T>(
    format: VolumeFormat,
    capacity: u64,
    holes_from: u64,
    content: impl Content,
    consume: impl FnOnce(Image<'_>) -> Result<T>,
) -> Result<Result<T>> {
    let mut watched = Watched {
        content,
        is_at_start_of_disk: format == VolumeFormat::Raw,
        ended: false,
        failure: None,
    };
    let outcome = consume(Image {
        format,
        capacity,
        holes_from,
        content: &mut watched,
    });
    // Why the image could not be read says more than what its consumer made of that.
    if let Some(failure) = watched.failure {
        return Err(Error::cloud(failure));
    }
    if outcome.is_ok() && !watched.ended {
        return Err(Error::cloud("it was not taken to its end"));
    }
    Ok(outcome)
}

struct Watched<C> {
    content: C,
    /// The next piece begins what will be stored as a raw disk.
    is_at_start_of_disk: bool,
    ended: bool,
    failure: Option<String>,
}

impl<C: Content> Content for Watched<C> {
    fn next(&mut self) -> io::Result<Piece<'_>> {
        let is_at_start_of_disk = mem::take(&mut self.is_at_start_of_disk);
        let piece = match self.content.next() {
            Ok(Piece::Data(disk)) if is_at_start_of_disk && passes_for_image(disk) => {
                Err(damaged("the disk in it is itself a disk image; pack that one"))
            }
            piece => piece,
        };
        match &piece {
            Ok(piece) => self.ended = *piece == Piece::End,
            Err(error) => self.failure = Some(error.to_string()),
        }
        piece
    }
}
