//! Storage volumes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use virt::error::{Error as LibvirtError, ErrorNumber};
use virt::storage_vol::StorageVol;
use virt::stream::Stream;
use virt::sys::{VIR_STORAGE_VOL_DELETE_WITH_SNAPSHOTS, VIR_STORAGE_VOL_RESIZE_ALLOCATE};

use super::Connection;
use super::busy::when_free;
use super::connection::parse;
use super::errors::{cpi_error, is};
use bosh_cpi::logging;
use bosh_cpi::rpc::{Cause, Error, Result};
use libvirt_xml::element::Element;
use libvirt_xml::volume::VolumeFormat;

/// What one stream message carries at most, bytes: libvirt's own limit for all versions.
const CHUNK: usize = 262_120;

/// What file systems mostly allocate at once, bytes.
const BLOCK: u64 = 4096;

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
    /// File or device on the host.
    pub path: String,
    /// Path of the volume this one is an overlay on.
    pub backing_path: Option<String>,
    /// The format of that volume, as this one's header says. None where it says none, or one that is neither raw nor
    /// qcow2.
    pub backing_format: Option<VolumeFormat>,
    /// When it was last written to, by the clock of who keeps the file. None where the storage does not say, as all
    /// but files: what libvirt says of a block device is the age of its node, and each QEMU has a node of its own.
    pub modified: Option<SystemTime>,
}

impl VolumeState {
    /// From libvirt's XML for the volume of this name.
    pub(super) fn read(name: &str, xml: &Element) -> Result<Self> {
        let bytes = |what: &str| {
            xml.child(what)
                .and_then(|element| element.text().trim().parse().ok())
                .ok_or_else(|| Error::cpi(format!("libvirt's XML for volume {name} has no {what}")))
        };
        let format = xml
            .descend(&["target", "format"])
            .and_then(|format| format.attribute("type"));
        Ok(Self {
            format: match (xml.attribute("type"), format) {
                // What pools of blocks call a format says something else; what is in them is raw.
                (Some("block" | "network"), _) | (_, None) => Some(VolumeFormat::Raw),
                (_, Some(name)) => VolumeFormat::from_name(name),
            },
            capacity: bytes("capacity")?,
            allocation: bytes("allocation")?,
            path: xml
                .descend(&["target", "path"])
                .map(Element::text)
                .unwrap_or_default(),
            backing_path: xml.descend(&["backingStore", "path"]).map(|path| path.text()),
            backing_format: xml
                .descend(&["backingStore", "format"])
                .and_then(|format| VolumeFormat::from_name(format.attribute("type")?)),
            modified: xml
                .descend(&["target", "timestamps", "mtime"])
                .filter(|_| xml.attribute("type") != Some("block"))
                .and_then(|time| time_of(&time.text())),
        })
    }
}

impl Volume {
    /// A volume that was looked up without its pool.
    pub(super) fn found(volume: StorageVol) -> Result<Self> {
        let looked_up = || {
            let pool = volume.lookup_storage_pool()?.name()?;
            Ok::<_, LibvirtError>((volume.name()?, pool))
        };
        let (name, pool) = looked_up().map_err(|e| cpi_error(e).during("looking up a volume's pool"))?;
        Ok(Self { volume, name, pool })
    }

    /// The file or device on the host.
    pub fn path(&self) -> Result<String> {
        self.volume
            .path()
            .map_err(|e| self.failed("reading the path of", e))
    }

    pub fn state(&self) -> Result<VolumeState> {
        VolumeState::read(&self.name, &self.xml()?)
    }

    pub(super) fn xml(&self) -> Result<Element> {
        let text = self.volume.xml_desc(0).map_err(|e| self.failed("reading", e))?;
        parse(&format!("volume {}", self.name), &text)
    }

    /// That libvirt finds a disk of this many bytes in what was uploaded.
    ///
    /// # Errors
    /// `CloudError`.
    pub fn require_capacity(&self, bytes: u64) -> Result<()> {
        let found = self.state()?.capacity;
        if found == bytes {
            return Ok(());
        }
        Err(Error::cloud(format!(
            "after the upload, volume {} in pool {} has a disk of {found} bytes instead of {bytes}; libvirtd's log may \
             tell why",
            self.name, self.pool
        )))
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
                if e.cause == Cause::Shared {
                    e.during("snapshots taken of it still share its data, delete them first")
                } else {
                    e
                }
            })
    }

    fn delete_with(&self, flags: u32) -> Result<()> {
        let _step = logging::step(format!("deleting volume {} in pool {}", self.name, self.pool));
        match self.when_free(|| self.volume.delete(flags)) {
            Ok(()) => Ok(()),
            Err(e) if is(&e, ErrorNumber::NoStorageVolume) => Ok(()),
            Err(e) => Err(self.failed("deleting", e)),
        }
    }

    /// The whole content of a small volume, `limit` bytes at most.
    pub fn download(&self, connection: &Connection, limit: u64) -> Result<Vec<u8>> {
        self.read(connection, 0, limit)
    }

    /// So many bytes of the content (0: all) from this offset on; fewer where it ends.
    pub fn read(&self, connection: &Connection, offset: u64, length: u64) -> Result<Vec<u8>> {
        let failed = |e| self.failed("downloading", e);
        let stream = Stream::new(&connection.connect, 0).map_err(failed)?;
        self.when_free(|| self.volume.download(&stream, offset, length, 0))
            .map_err(failed)?;
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

    /// Overwrites the content, so that the next owner of the blocks cannot read it; a volume that is gone is fine.
    pub(super) fn wipe(&self) -> Result<()> {
        let _step = logging::step(format!("wiping volume {} in pool {}", self.name, self.pool));
        match self.when_free(|| self.volume.wipe(0)) {
            Err(e) if !is(&e, ErrorNumber::NoStorageVolume) => Err(self.failed("wiping", e)),
            _ => Ok(()),
        }
    }

    /// Grows the volume to this many bytes.
    pub fn resize(&self, bytes: u64) -> Result<()> {
        self.resize_with(bytes, 0)
    }

    fn resize_with(&self, bytes: u64, flags: u32) -> Result<()> {
        self.when_free(|| self.volume.resize(bytes, flags))
            .map_err(|e| self.failed("resizing", e))
    }

    /// Puts these bytes over the content of a small raw volume, and the filler over what is left of it. One that is too
    /// small is grown by zeros first, whose blocks are allocated as those that it has.
    ///
    /// # Errors
    /// `NoDiskSpace`, the content being what it was; `CloudError`.
    pub fn replace_content(&self, connection: &Connection, bytes: &[u8], filler: u8) -> Result<()> {
        let state = self.state()?;
        let mut capacity = state.capacity;
        if bytes.len() as u64 > capacity {
            // Libvirt takes a size below the blocks that are there already for shrinking.
            capacity = state.allocation.max(bytes.len() as u64).next_multiple_of(BLOCK);
            self.resize_with(capacity, VIR_STORAGE_VOL_RESIZE_ALLOCATE)?;
        }
        let mut content = bytes.to_vec();
        content.resize(usize::try_from(capacity).unwrap_or(bytes.len()), filler);
        self.fill(connection, &content)
    }

    /// Makes the libvirt call, again while another job is at work on the volume.
    pub(super) fn when_free<T>(
        &self,
        call: impl FnMut() -> std::result::Result<T, LibvirtError>,
    ) -> std::result::Result<T, LibvirtError> {
        when_free(|| self.pool_is_active(), call)
    }

    pub(super) fn pool_is_active(&self) -> bool {
        self.volume
            .lookup_storage_pool()
            .and_then(|pool| pool.is_active())
            .unwrap_or(false)
    }

    pub(super) fn failed(&self, doing: &str, e: LibvirtError) -> Error {
        cpi_error(e).during(format!("{doing} volume {} in pool {}", self.name, self.pool))
    }
}

/// Seconds since 1970 and, after a dot, nanoseconds; 0 where the file system does not know.
fn time_of(text: &str) -> Option<SystemTime> {
    let (seconds, nanoseconds) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let nanoseconds = Duration::from_nanos(nanoseconds.parse().ok()?);
    let since = Duration::from_secs(seconds.parse().ok()?).checked_add(nanoseconds)?;
    // A time beyond all that clocks can show is none.
    UNIX_EPOCH.checked_add(since).filter(|_| !since.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libvirt_says_of_a_volume() {
        let read = |xml: &str| VolumeState::read("v", &Element::parse(xml).unwrap());
        let sizes = "<capacity unit='bytes'>8</capacity><allocation unit='bytes'>4</allocation>";
        let target = "<target><path>/v</path><format type='qcow2'/>\
                      <timestamps><mtime>5.0</mtime></timestamps></target>";
        let backing = "<backingStore><path>/base</path><format type='raw'/></backingStore>";
        let overlay = format!("{backing}{target}");
        let state = VolumeState {
            format: Some(VolumeFormat::Qcow2),
            capacity: 8,
            allocation: 4,
            path: "/v".to_owned(),
            backing_path: Some("/base".to_owned()),
            backing_format: Some(VolumeFormat::Raw),
            modified: Some(UNIX_EPOCH + Duration::from_secs(5)),
        };
        let file = read(&format!("<volume type='file'>{sizes}{overlay}</volume>"));
        assert_eq!(file.unwrap(), state);
        for (kind, format, is) in [
            ("file", "<format type='raw'/>", Some(VolumeFormat::Raw)),
            ("file", "<format type='dir'/>", None),
            ("file", "", Some(VolumeFormat::Raw)),
            ("block", "<format type='linux'/>", Some(VolumeFormat::Raw)),
            ("network", "<format type='luks'/>", Some(VolumeFormat::Raw)),
        ] {
            let xml = format!("<volume type='{kind}'>{sizes}<target>{format}</target></volume>");
            assert_eq!(read(&xml).unwrap().format, is, "{xml}");
        }
        for (missing, xml) in [
            ("capacity", "<volume><allocation>4</allocation></volume>"),
            (
                "capacity",
                "<volume><capacity>8 G</capacity><allocation>4</allocation></volume>",
            ),
            ("allocation", "<volume><capacity>8</capacity></volume>"),
        ] {
            let message = read(xml).unwrap_err().message;
            assert_eq!(message, format!("libvirt's XML for volume v has no {missing}"));
        }
    }

    #[test]
    fn timestamps_as_libvirt_writes_them() {
        let at = |seconds, nanoseconds| Some(UNIX_EPOCH + Duration::new(seconds, nanoseconds));
        assert_eq!(time_of("1341933637.273190990"), at(1_341_933_637, 273_190_990));
        assert_eq!(time_of("1341933637"), at(1_341_933_637, 0));
        for nothing in ["0.000000000", "0", "", "-5.1", "x"] {
            assert_eq!(time_of(nothing), None, "{nothing}");
        }
    }
}
