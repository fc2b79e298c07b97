//! Storage pools.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use virt::error::ErrorNumber;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt::sys::{VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA, VIR_STORAGE_VOL_CREATE_REFLINK};

use super::busy::when_free;
use super::connection::parse;
use super::copying::watched;
use super::errors::{cause, cpi_error, is};
use super::{Connection, Volume, rbd};
use bosh_cpi::interrupt;
use bosh_cpi::rpc::{Cause, Error, ErrorType, Result};
use libvirt_xml::disk::DiskSource;
use libvirt_xml::element::Element;
use libvirt_xml::volume::{VolumeFormat, VolumeSpec, allocate_fully, for_raw_blocks, plain};

/// What a pool's volumes are, as far as it makes a difference here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolKind {
    /// Overlays, uploads and formats: dir, fs, netfs.
    Files,
    /// Raw blocks that may hold what somebody else wrote before: logical, disk, iscsi.
    Blocks,
    /// Ceph.
    Rbd,
    /// Neither files nor blocks that would need wiping: zfs and what there may be else.
    Other,
}

impl PoolKind {
    fn of(pool: &Element) -> Self {
        match pool.attribute("type") {
            Some("dir" | "fs" | "netfs") => Self::Files,
            Some("logical" | "disk" | "iscsi" | "iscsi-direct") => Self::Blocks,
            Some("rbd") => Self::Rbd,
            _ => Self::Other,
        }
    }
}

/// An active storage pool.
#[derive(Clone)]
pub struct Pool {
    pub(super) pool: StoragePool,
    pub name: String,
    /// Libvirt's description, once it has been asked for. Nothing that is read from it changes while a pool is active,
    /// but for how full it is.
    xml: Rc<OnceCell<Element>>,
}

impl Pool {
    pub(super) fn new(pool: StoragePool, name: &str) -> Self {
        Self {
            pool,
            name: name.to_owned(),
            xml: Rc::default(),
        }
    }

    pub(super) fn started(pool: StoragePool, name: &str) -> Result<Self> {
        let failed = |e| {
            cpi_error(e).during(format!(
                "starting storage pool {name}, which is inactive; see `virsh pool-start {name}`"
            ))
        };
        let asked = |e| cpi_error(e).during(format!("looking at storage pool {name}"));
        if !pool.is_active().map_err(asked)? {
            log::info!("storage pool {name} is inactive; starting it");
            if let Err(e) = pool.create(0) {
                // Another call may have been quicker.
                if !pool.is_active().map_err(asked)? {
                    return Err(failed(e));
                }
            }
        }
        Ok(Self::new(pool, name))
    }

    /// The outcome of looking into one of all active pools. None for a pool that has stopped since they were listed:
    /// it is passed over as if it had stopped before.
    pub fn unless_stopped<T>(&self, outcome: Result<T>) -> Result<Option<T>> {
        // Most looks find something out; then nobody need ask whether the pool is there.
        let error = match outcome {
            Ok(found) => return Ok(Some(found)),
            Err(error) => error,
        };
        match self.pool.is_active() {
            Ok(false) => Ok(None),
            Err(e) if is(&e, ErrorNumber::NoStoragePool) => Ok(None),
            Ok(true) | Err(_) => Err(error),
        }
    }

    /// Whether the pool is known to be active.
    fn is_active(&self) -> bool {
        self.pool.is_active().unwrap_or(false)
    }

    pub(super) fn xml(&self) -> Result<&Element> {
        if let Some(xml) = self.xml.get() {
            return Ok(xml);
        }
        let text = self
            .pool
            .xml_desc(0)
            .map_err(|e| cpi_error(e).during(format!("reading pool {}", self.name)))?;
        let xml = parse(&format!("pool {}", self.name), &text)?;
        Ok(self.xml.get_or_init(|| xml))
    }

    /// What the pool's volumes are.
    pub fn kind(&self) -> Result<PoolKind> {
        Ok(PoolKind::of(self.xml()?))
    }

    /// What stemcells and settings drives need: volumes that are files, with overlays and uploads.
    ///
    /// # Errors
    /// `CloudError` saying what to name instead.
    pub fn require_files(&self) -> Result<()> {
        let xml = self.xml()?;
        match PoolKind::of(xml) {
            PoolKind::Files => Ok(()),
            PoolKind::Blocks | PoolKind::Rbd | PoolKind::Other => Err(Error::cloud(format!(
                "storage pool {} is of type {}: it holds no files, which stemcells and settings drives are uploaded \
                 as; name a pool of type dir, fs or netfs as settings.stemcell_pool_name",
                self.name,
                xml.attribute("type").unwrap_or("unknown")
            ))),
        }
    }

    /// What a boot disk needs: that libvirt can copy a stemcell from another pool to it.
    ///
    /// # Errors
    /// `CloudError` saying what to name instead.
    pub fn require_copies(&self) -> Result<()> {
        match self.kind()? {
            PoolKind::Rbd => Err(Error::cloud(format!(
                "storage pool {} is of type rbd, which libvirt cannot copy a stemcell to; \
                 it is for persistent disks, name another one in the VM's cloud property storage_pool",
                self.name
            ))),
            PoolKind::Files | PoolKind::Blocks | PoolKind::Other => Ok(()),
        }
    }

    /// Whether other hosts see the pool's volumes too, and make volumes there that this libvirt does not know of.
    pub fn is_shared(&self) -> Result<bool> {
        Ok(matches!(
            self.xml()?.attribute("type"),
            Some("netfs" | "rbd" | "gluster" | "sheepdog" | "vstorage")
        ))
    }

    /// Whether libvirt can change the size of the pool's volumes.
    pub fn resizes(&self) -> Result<bool> {
        Ok(!matches!(
            self.xml()?.attribute("type"),
            Some("logical" | "zfs" | "disk" | "iscsi" | "iscsi-direct" | "scsi" | "mpath")
        ))
    }

    /// How a domain names a volume of this pool, apart from its path.
    pub fn disk_source(&self, volume: &str) -> Result<DiskSource> {
        let xml = self.xml()?;
        Ok(match PoolKind::of(xml) {
            PoolKind::Files => DiskSource::File,
            PoolKind::Blocks | PoolKind::Other => DiskSource::Block,
            PoolKind::Rbd => DiskSource::Network(rbd::source(xml, volume)),
        })
    }

    /// The volume of this name, if there is one. Libvirt answers from memory: the pool is not read anew.
    pub fn volume(&self, name: &str) -> Result<Option<Volume>> {
        match self.pool.lookup_storage_vol_by_name(name) {
            Ok(volume) => Ok(Some(self.own(volume, name))),
            // The pool may be somebody else's, and go while all of them are looked through.
            Err(e) if is(&e, ErrorNumber::NoStorageVolume) || is(&e, ErrorNumber::NoStoragePool) => Ok(None),
            Err(e) => Err(cpi_error(e).during(format!("looking up volume {name} in pool {}", self.name))),
        }
    }

    /// Every volume of the pool, ours or not.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let failed = |e| cpi_error(e).during(format!("listing the volumes of pool {}", self.name));
        let volumes = match self.pool.list_all_volumes(0) {
            // As above.
            Err(e) if is(&e, ErrorNumber::NoStoragePool) => Vec::new(),
            listed => listed.map_err(failed)?,
        };
        volumes
            .into_iter()
            .map(|volume| {
                let name = volume.name().map_err(failed)?;
                Ok(self.own(volume, &name))
            })
            .collect()
    }

    /// Creates a volume as `<volume>` says.
    ///
    /// # Errors
    /// `NoDiskSpace` when the pool is full, else `CloudError`.
    pub fn create_volume(&self, xml: &Element, name: &str) -> Result<Volume> {
        self.create_volume_with(xml, name, 0)
    }

    /// Creates a qcow2 volume with its tables in place.
    pub fn create_volume_with_metadata(&self, xml: &Element, name: &str) -> Result<Volume> {
        self.create_volume_with(xml, name, VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA)
    }

    /// Creates a raw volume of exactly this content, for small ones. Its blocks are allocated first, since libvirt can
    /// drop the error of a write that finds no space.
    ///
    /// # Errors
    /// `NoDiskSpace`, `CloudError`; a volume that could not be filled may be left then.
    pub fn create_with_content(&self, connection: &Connection, name: &str, content: &[u8]) -> Result<Volume> {
        let mut xml = plain(&VolumeSpec {
            name,
            capacity: content.len() as u64,
            format: VolumeFormat::Raw,
            backing: None,
        });
        allocate_fully(&mut xml);
        let volume = self.create_volume(&xml, name)?;
        volume.fill(connection, content)?;
        Ok(volume)
    }

    fn create_volume_with(&self, xml: &Element, name: &str, flags: u32) -> Result<Volume> {
        interrupt::check()?;
        let pool = self.xml()?;
        require_creation(pool, &self.name)?;
        let text = fit(xml, pool).to_string();
        self.require_room(pool, xml)?;
        log::debug!("pool {}: {text}", self.name);
        let started = Instant::now();
        let volume = when_free(
            || self.is_active(),
            || StorageVol::create_xml(&self.pool, &text, flags),
        )
        .map_err(|e| {
            self.explain(cpi_error(e), pool, started.elapsed())
                .during(format!("creating volume {name} in pool {}", self.name))
        })?;
        Ok(self.own(volume, name))
    }

    /// Creates a volume with the content of another one, without copying where the file system can share blocks.
    pub fn clone_volume(&self, xml: &Element, name: &str, from: &Volume) -> Result<Volume> {
        interrupt::check()?;
        let pool = self.xml()?;
        require_creation(pool, &self.name)?;
        let text = fit(xml, pool).to_string();
        log::debug!("pool {}: {text}, a copy of {}", self.name, from.name);
        let clone = |flags| {
            when_free(
                || self.is_active() && from.pool_is_active(),
                || StorageVol::create_xml_from(&self.pool, &text, &from.volume, flags),
            )
        };
        let started = Instant::now();
        let copy = || match PoolKind::of(pool) {
            // Whether it can is only known by trying. Where nothing can be written at all, libvirt cannot forget the first
            // try either, and only the first error says why.
            PoolKind::Files => clone(VIR_STORAGE_VOL_CREATE_REFLINK).or_else(|first| {
                clone(0).map_err(|second| {
                    if cause(&second) == Cause::InUse {
                        first
                    } else {
                        second
                    }
                })
            }),
            PoolKind::Blocks | PoolKind::Rbd | PoolKind::Other => clone(0),
        };
        let total = from.state().map_or(0, |state| state.allocation);
        let volume = watched(&self.pool, name, total, copy).map_err(|e| {
            self.explain(cpi_error(e), pool, started.elapsed())
                .during(format!(
                    "copying volume {} to {name} in pool {}",
                    from.name, self.name
                ))
        })?;
        Ok(self.own(volume, name))
    }

    /// Bytes of the whole pool, whatever is used of them.
    pub fn capacity(&self) -> Result<u64> {
        self.pool
            .info()
            .map(|info| info.capacity)
            .map_err(|e| cpi_error(e).during(format!("reading the size of pool {}", self.name)))
    }

    /// Ceph takes images of any size, those included that could never be filled.
    fn require_room(&self, pool: &Element, volume: &Element) -> Result<()> {
        let bytes = |xml: &Element| {
            xml.child("capacity")
                .and_then(|capacity| capacity.text().trim().parse::<u64>().ok())
        };
        match (PoolKind::of(pool), bytes(volume), bytes(pool)) {
            // A Ceph that has just started says 0 until its OSDs have told what they have.
            (PoolKind::Rbd, Some(wanted), Some(whole)) if whole > 0 && wanted > whole => Err(Error::new(
                ErrorType::NoDiskSpace,
                format!(
                    "a volume of {wanted} bytes does not fit in pool {}, which has {whole} bytes in all",
                    self.name
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Grows a volume of this pool to this many bytes.
    ///
    /// # Errors
    /// `NoDiskSpace`, `CloudError`.
    pub fn grow_volume(&self, volume: &Volume, bytes: u64) -> Result<()> {
        let started = Instant::now();
        volume.resize(bytes).or_else(|e| {
            let waited = started.elapsed();
            Err(self.explain(e, self.xml()?, waited))
        })
    }

    /// What the failure of a write of this duration means.
    fn explain(&self, error: Error, pool: &Element, waited: Duration) -> Error {
        match PoolKind::of(pool) {
            PoolKind::Rbd => rbd::explain(error, waited, || self.answers_reads()),
            PoolKind::Files | PoolKind::Blocks | PoolKind::Other => error,
        }
    }

    /// Whether the storage behind the pool lets itself be read, as far as a few of its volumes tell: one may just be
    /// being made, or waiting for another call.
    pub(super) fn answers_reads(&self) -> bool {
        let volumes = self.pool.list_all_volumes(0).unwrap_or_default();
        volumes.iter().take(3).any(|volume| {
            let started = Instant::now();
            volume.xml_desc(0).is_ok() || started.elapsed() < rbd::WAITED
        })
    }

    /// Deletes a volume that something was written to. A pool of raw blocks hands them out again as they are, so they are
    /// wiped first, if `settings.wipe_block_volumes` says so.
    pub fn delete_volume(&self, volume: &Volume, wipe_blocks: bool) -> Result<()> {
        if wipe_blocks && self.kind()? == PoolKind::Blocks {
            volume.wipe()?;
        }
        volume.delete()
    }

    fn own(&self, volume: StorageVol, name: &str) -> Volume {
        Volume {
            volume,
            name: name.to_owned(),
            pool: self.name.clone(),
        }
    }
}

/// Refuses pools that volumes of our names cannot be made in.
fn require_creation(pool: &Element, name: &str) -> Result<()> {
    let kind = pool.attribute("type").unwrap_or("unknown");
    let reason = match kind {
        "disk" => "its volumes are partitions, which have names of their own",
        "iscsi" | "iscsi-direct" | "scsi" | "mpath" => {
            "its volumes are made where the storage is, not through libvirt"
        }
        _ => return Ok(()),
    };
    Err(Error::cloud(format!(
        "storage pool {name} is of type {kind}: {reason}; name a pool of type dir, fs, netfs, logical, zfs or rbd"
    )))
}

/// The volume as this pool can make it.
fn fit(volume: &Element, pool: &Element) -> Element {
    match PoolKind::of(pool) {
        PoolKind::Blocks => for_raw_blocks(volume),
        PoolKind::Files | PoolKind::Rbd | PoolKind::Other => volume.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(kind: &str) -> Element {
        Element::new("pool").with_attribute("type", kind)
    }

    #[test]
    fn only_pools_of_files_take_uploads_and_overlays() {
        for (kind, expected) in [
            ("dir", PoolKind::Files),
            ("netfs", PoolKind::Files),
            ("logical", PoolKind::Blocks),
            ("iscsi", PoolKind::Blocks),
            ("zfs", PoolKind::Other),
            ("rbd", PoolKind::Rbd),
        ] {
            assert_eq!(PoolKind::of(&pool(kind)), expected);
        }
    }

    #[test]
    fn pools_that_name_their_volumes_themselves_are_refused() {
        for kind in ["disk", "iscsi", "iscsi-direct", "scsi", "mpath"] {
            let message = require_creation(&pool(kind), "p").unwrap_err().message;
            assert!(
                message.contains(&format!("pool p is of type {kind}")) && message.contains("logical"),
                "{message}"
            );
        }
        for kind in ["dir", "fs", "netfs", "logical", "zfs", "rbd"] {
            require_creation(&pool(kind), "p").unwrap();
        }
    }

    #[test]
    fn each_kind_of_pool_gets_volumes_it_can_make() {
        let volume = plain(&VolumeSpec {
            name: "v",
            capacity: 8 << 20,
            format: VolumeFormat::Raw,
            backing: None,
        });
        let thin = "<volume><allocation>0</allocation><name>v</name><capacity>8388608</capacity>\
                    <target><format type='raw'/></target></volume>";
        let thick = "<volume><allocation>8388608</allocation><name>v</name><capacity>8388608</capacity><target/></volume>";
        for (kind, expected) in [("dir", thin), ("rbd", thin), ("zfs", thin), ("logical", thick)] {
            assert_eq!(fit(&volume, &pool(kind)).to_string(), expected, "{kind}");
        }
    }
}
