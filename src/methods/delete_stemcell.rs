//! `delete_stemcell(stemcell_cid)`: refused while a VM's boot disk is an overlay on it; one that is gone is fine,
//! since the Director knows no error for that. The volume that a light stemcell stands for stays.

use serde_json::Value;

use super::Cpi;
use crate::partial;
use crate::rpc::{Arguments, Error, Result};
use crate::stemcell::{self, Record};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let stemcell_cid = arguments.cid("stemcell_cid")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let pool = libvirt.pool(cpi.config.settings.stemcell_pool())?;
    let Some(stemcell) = stemcell::find(libvirt, &pool, &stemcell_cid)? else {
        return Ok(Value::Null);
    };
    if let Some(volume) = stemcell.volume {
        let overlays = libvirt.overlays_on(&volume.path()?)?;
        if !overlays.is_empty() {
            return Err(Error::cloud(format!(
                "deleting stemcell {stemcell_cid}: these volumes are based on it: {}; delete their VMs first",
                overlays.join(", ")
            )));
        }
        volume.delete()?;
    }
    Record::delete(&stemcell.pool, &stemcell_cid)?;
    partial::end(&stemcell.pool, &stemcell::volume_name(&stemcell_cid))?;
    Ok(Value::Null)
}
