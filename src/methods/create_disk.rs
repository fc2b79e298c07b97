//! `create_disk(size, cloud_properties, vm_cid)`: an empty persistent disk. The VM is only a hint for placement, and
//! there is one host.

use serde_json::Value;

use super::Cpi;
use crate::cid::Cid;
use crate::cloud_properties::CloudProperties;
use crate::rpc::{Arguments, Result};
use crate::undo::Undo;
use crate::xml::volume::{VolumeFormat, VolumeSpec, from_template};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let size = arguments.size_mib("size")?;
    let properties = CloudProperties::new(
        "argument 2 (cloud_properties)",
        arguments.optional_object("cloud_properties")?,
    );
    arguments.optional_cid("vm_cid")?;
    arguments.end()?;
    properties.end()?;

    let disk_cid = Cid::new_disk();
    let spec = VolumeSpec {
        name: disk_cid.as_str(),
        capacity: size * 1024 * 1024,
        format: VolumeFormat::Raw,
        backing: None,
    };
    let xml = from_template(&spec, &cpi.config.settings.storage_volume)?;
    let pool_name = &cpi.config.settings.storage_pool_name;
    let pool = cpi.libvirt()?.pool(pool_name)?;
    // Before it is done: where the connection is lost, nobody knows whether it was.
    let mut undo = Undo::new();
    undo.push(format!("volume {}", spec.name), || {
        cpi.libvirt_for_undo()?
            .pool(pool_name)?
            .volume(spec.name)?
            .map_or(Ok(()), |volume| volume.delete())
    });
    pool.create_volume(&xml, spec.name)?;
    undo.disarm();
    Ok(disk_cid.as_str().into())
}
