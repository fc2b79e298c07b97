//! `delete_stemcell(stemcell_cid)`: refused while a VM's boot disk is an overlay on it; one that is gone is fine,
//! since the Director knows no error for that.

use serde_json::Value;

use super::Cpi;
use crate::rpc::{Arguments, Error, Result};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let stemcell_cid = arguments.cid("stemcell_cid")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let Some(name) = stemcell_cid.stemcell_volume() else {
        return Ok(Value::Null);
    };
    let Some(volume) = libvirt.volume_in_any_pool(&name, &[cpi.config.settings.stemcell_pool()])? else {
        return Ok(Value::Null);
    };
    let overlays = libvirt.overlays_on(&volume.path()?)?;
    if !overlays.is_empty() {
        return Err(Error::cloud(format!(
            "deleting stemcell {stemcell_cid}: these volumes are based on it: {}; delete their VMs first",
            overlays.join(", ")
        )));
    }
    volume.delete()?;
    Ok(Value::Null)
}
