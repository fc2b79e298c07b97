//! Storage pools.

use virt::error::ErrorNumber;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;

use super::Volume;
use super::busy::when_free;
use super::connection::parse;
use super::errors::is;
use crate::rpc::{Error, Result};
use crate::xml::element::Element;

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

    /// The pool's type as libvirt names it: `dir`, `netfs`, `logical`, `rbd`, ...
    pub fn kind(&self) -> Result<String> {
        let text = self
            .pool
            .xml_desc(0)
            .map_err(|e| Error::from(e).during(format!("reading pool {}", self.name)))?;
        let xml = parse(&format!("pool {}", self.name), &text)?;
        Ok(xml.attribute("type").unwrap_or_default().to_owned())
    }

    /// Whether the pool's volumes are files, on which overlays can be made.
    pub fn holds_files(&self) -> Result<bool> {
        Ok(matches!(self.kind()?.as_str(), "dir" | "fs" | "netfs"))
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
        let text = xml.to_string();
        let volume = when_free(|| StorageVol::create_xml(&self.pool, &text, 0))
            .map_err(|e| Error::from(e).during(format!("creating volume {name} in pool {}", self.name)))?;
        Ok(self.own(volume, name))
    }

    /// Creates a volume with the content of another one.
    pub fn clone_volume(&self, xml: &Element, name: &str, from: &Volume) -> Result<Volume> {
        let text = xml.to_string();
        let volume =
            when_free(|| StorageVol::create_xml_from(&self.pool, &text, &from.volume, 0)).map_err(|e| {
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
