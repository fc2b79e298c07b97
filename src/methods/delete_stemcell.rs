//! `delete_stemcell(stemcell_cid)`: refused while a VM's boot disk is an overlay on it, or while nobody can know; one
//! that is gone is fine, since the Director knows no error for that. The volume that a light stemcell stands for stays.

use serde_json::Value;

use super::Cpi;
use crate::disk::{unread_pools, users};
use crate::sidecar::marker;
use crate::stemcell::{self, Record};
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Arguments, Error, ErrorType, Result};
use libvirt_host::Undo;
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, Volume};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let stemcell_cid = arguments.cid("stemcell_cid")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let pool = libvirt.pool(cpi.config.settings.stemcell_pool())?;
    let Some(stemcell) = stemcell::find(libvirt, &pool, &stemcell_cid)? else {
        return Ok(Value::Null);
    };
    if let Some(volume) = stemcell.volume {
        delete_volume(libvirt, cpi, &stemcell_cid, &volume)
            .map_err(|e| e.during(format!("deleting stemcell {stemcell_cid}")))?;
    }
    Record::delete(&stemcell.pool, &stemcell_cid)?;
    marker::end(&stemcell.pool, &stemcell::volume_name(&stemcell_cid))?;
    Ok(Value::Null)
}

/// Deletes the volume unless something is based on it. The marker is there before anything is checked; create_vm checks
/// for it once its overlay is there. So one of the two sees the other.
fn delete_volume(libvirt: &Connection, cpi: &Cpi, cid: &Cid, volume: &Volume) -> Result<()> {
    let pool = libvirt.pool(&volume.pool)?;
    let marker = VolumeName::Deleting(stemcell::volume_name(cid));
    let mut undo = Undo::new(libvirt);
    if !marker::exists(&pool, &marker)? {
        let (name, of_undo) = (pool.name.clone(), marker.clone());
        undo.push(format!("volume {marker}"), move |libvirt| {
            marker::remove(&libvirt.pool(&name)?, &of_undo).map(drop)
        });
        match marker::put(&pool, &marker) {
            // To delete the stemcell is what helps then.
            Err(e) if e.error_type == ErrorType::NoDiskSpace => {
                log::warn!("pool {} has no room for the marker {marker}: {e}", pool.name);
            }
            outcome => outcome?,
        }
    }
    let vms: Vec<String> = users::of(libvirt, &volume.name)?
        .into_iter()
        .map(|user| user.domain.name)
        .collect();
    let settings = &cpi.config.settings;
    let ours = [
        settings.storage_pool_name.as_str(),
        settings.stemcell_pool(),
        &pool.name,
    ];
    let overlays = libvirt.overlays_on(&volume.path()?, &ours)?;
    let mut based: Vec<String> = overlays.into_iter().map(|overlay| overlay.name).collect();
    let is_named = |vm: &String| based.iter().any(|overlay| overlay.starts_with(vm.as_str()));
    let others: Vec<String> = vms.into_iter().filter(|vm| !is_named(vm)).collect();
    based.extend(others);
    if !based.is_empty() {
        return Err(Error::cloud(format!(
            "these are based on it: {} (delete their VMs first)",
            based.join(", ")
        )));
    }
    unread_pools::require_none(libvirt, &cpi.config)?;
    volume.delete()?;
    undo.disarm();
    marker::remove(&pool, &marker).map(drop)
}
