//! Storage pools.

use virt::error::ErrorNumber;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt::sys::{VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA, VIR_STORAGE_VOL_CREATE_REFLINK};

use super::Volume;
use super::busy::when_free;
use super::connection::parse;
use super::errors::is;
use crate::rpc::{Error, Result};
use crate::xml::disk::DiskSource;
use crate::xml::element::Element;

/// What a pool's volumes are, as far as it makes a difference here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolKind {
    /// Overlays, uploads and formats: dir, fs, netfs.
    Files,
    /// Raw blocks that may hold what somebody else wrote before: logical, disk, iscsi.
    Blocks,
    /// Ceph.
    Rbd,
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

/// Monitors and secret are the pool's own, so that an operator only names the pool.
fn rbd_source(pool: &Element, volume: &str) -> Element {
    let ceph_pool = pool
        .descend(&["source", "name"])
        .map(Element::text)
        .unwrap_or_default();
    let mut source = Element::new("source")
        .with_attribute("protocol", "rbd")
        .with_attribute("name", format!("{}/{volume}", ceph_pool.trim()));
    let Some(pool_source) = pool.child("source") else {
        return source;
    };
    for host in pool_source.children_named("host") {
        source.push(host.clone());
    }
    if let Some(auth) = pool_source.child("auth") {
        let mut of_disk = Element::new("auth");
        if let Some(user) = auth.attribute("username") {
            of_disk.set_attribute("username", user);
        }
        if let Some(secret) = auth.child("secret") {
            of_disk.push(secret.clone().with_attribute("type", "ceph"));
        }
        source.push(of_disk);
    }
    source
}

/// An active storage pool.
pub struct Pool {
    pool: StoragePool,
    pub name: String,
}

impl Pool {
    pub(super) fn new(pool: StoragePool, name: &str) -> Self {
        Self {
            pool,
            name: name.to_owned(),
        }
    }

    pub(super) fn started(pool: StoragePool, name: &str) -> Result<Self> {
        let failed = |e| {
            Error::from(e).during(format!(
                "starting storage pool {name}, which is inactive; see `virsh pool-start {name}`"
            ))
        };
        if !pool.is_active().map_err(failed)? {
            log::info!("storage pool {name} is inactive; starting it");
            if let Err(e) = pool.create(0) {
                // Another call may have been quicker.
                if !pool.is_active().map_err(failed)? {
                    return Err(failed(e));
                }
            }
        }
        Ok(Self::new(pool, name))
    }

    fn xml(&self) -> Result<Element> {
        let text = self
            .pool
            .xml_desc(0)
            .map_err(|e| Error::from(e).during(format!("reading pool {}", self.name)))?;
        parse(&format!("pool {}", self.name), &text)
    }

    /// What the pool's volumes are.
    pub fn kind(&self) -> Result<PoolKind> {
        Ok(PoolKind::of(&self.xml()?))
    }

    /// What stemcells and settings drives need: volumes that are files, with overlays and uploads.
    ///
    /// # Errors
    /// `CloudError` saying what to name instead.
    pub fn require_files(&self) -> Result<()> {
        match self.kind()? {
            PoolKind::Files => Ok(()),
            PoolKind::Blocks | PoolKind::Rbd | PoolKind::Other => Err(Error::cloud(format!(
                "storage pool {} does not hold files, so libvirt cannot upload stemcells and settings drives to it; \
                 name a pool of type dir, fs or netfs as settings.stemcell_pool_name",
                self.name
            ))),
        }
    }

    /// How a domain names a volume of this pool.
    pub fn disk_source(&self, volume: &str) -> Result<DiskSource> {
        let xml = self.xml()?;
        Ok(match PoolKind::of(&xml) {
            PoolKind::Rbd => DiskSource::Network(rbd_source(&xml, volume)),
            PoolKind::Files | PoolKind::Blocks | PoolKind::Other => DiskSource::Volume {
                pool: self.name.clone(),
                volume: volume.to_owned(),
            },
        })
    }

    /// The volume of this name, if there is one. Libvirt answers from memory: the pool is not read anew.
    pub fn volume(&self, name: &str) -> Result<Option<Volume>> {
        match self.pool.lookup_storage_vol_by_name(name) {
            Ok(volume) => Ok(Some(self.own(volume, name))),
            // The pool may be somebody else's, and go while all of them are looked through.
            Err(e) if is(&e, ErrorNumber::NoStorageVolume) || is(&e, ErrorNumber::NoStoragePool) => Ok(None),
            Err(e) => Err(Error::from(e).during(format!("looking up volume {name} in pool {}", self.name))),
        }
    }

    /// Every volume of the pool, ours or not.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let failed = |e| Error::from(e).during(format!("listing the volumes of pool {}", self.name));
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

    fn create_volume_with(&self, xml: &Element, name: &str, flags: u32) -> Result<Volume> {
        let text = xml.to_string();
        let volume = when_free(|| StorageVol::create_xml(&self.pool, &text, flags))
            .map_err(|e| Error::from(e).during(format!("creating volume {name} in pool {}", self.name)))?;
        Ok(self.own(volume, name))
    }

    /// Creates a volume with the content of another one, without copying where the file system can share blocks.
    pub fn clone_volume(&self, xml: &Element, name: &str, from: &Volume) -> Result<Volume> {
        let text = xml.to_string();
        let clone = |flags| when_free(|| StorageVol::create_xml_from(&self.pool, &text, &from.volume, flags));
        let volume = clone(VIR_STORAGE_VOL_CREATE_REFLINK)
            .or_else(|_| clone(0))
            .map_err(|e| {
                Error::from(e).during(format!(
                    "copying volume {} to {name} in pool {}",
                    from.name, self.name
                ))
            })?;
        Ok(self.own(volume, name))
    }

    fn own(&self, volume: StorageVol, name: &str) -> Volume {
        Volume {
            volume,
            name: name.to_owned(),
            pool: self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rbd_disk_takes_monitors_and_secret_from_its_pool() {
        let pool = Element::parse(
            "<pool type='rbd'><name>ceph</name><source><host name='10.0.0.1' port='6789'/><host name='mon2'/>\
             <name>libvirt</name><auth type='ceph' username='admin'><secret uuid='u'/></auth></source></pool>",
        )
        .unwrap();
        assert_eq!(PoolKind::of(&pool), PoolKind::Rbd);
        assert_eq!(
            rbd_source(&pool, "v").to_string(),
            "<source protocol='rbd' name='libvirt/v'><host name='10.0.0.1' port='6789'/><host name='mon2'/>\
             <auth username='admin'><secret uuid='u' type='ceph'/></auth></source>"
        );
    }

    #[test]
    fn only_pools_of_files_take_uploads_and_overlays() {
        for (kind, expected) in [
            ("dir", PoolKind::Files),
            ("netfs", PoolKind::Files),
            ("logical", PoolKind::Blocks),
            ("iscsi", PoolKind::Blocks),
            ("zfs", PoolKind::Other),
        ] {
            assert_eq!(
                PoolKind::of(&Element::new("pool").with_attribute("type", kind)),
                expected
            );
        }
    }
}
