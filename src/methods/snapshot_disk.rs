//! `snapshot_disk(disk_cid, metadata)`: a copy of the disk as it is at one moment, a volume of its own whose cid
//! attach_disk takes. A running VM goes on meanwhile.

use serde_json::Value;

use super::Cpi;
use crate::cid::Cid;
use crate::disk::{self, Attachments, Record};
use crate::libvirt::{Connection, Domain, PoolKind, Volume, VolumeState};
use crate::logging;
use crate::partial;
use crate::rpc::{Arguments, Result};
use crate::undo::Undo;
use crate::xml::backup;
use crate::xml::element::Element;
use crate::xml::volume::{VolumeFormat, VolumeSpec, plain};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let disk_cid = arguments.cid("disk_cid")?;
    let metadata = arguments.optional_object("metadata")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let volume = disk::get(libvirt, &cpi.config, &disk_cid)?;
    let records = libvirt.pool(cpi.config.settings.stemcell_pool())?;
    let snapshot_cid = Cid::new_snapshot();
    let doing = || format!("taking snapshot {snapshot_cid} of disk {disk_cid}");
    let mut undo = Undo::new();
    undo.push(format!("snapshot {snapshot_cid}"), || {
        let libvirt = cpi.libvirt_for_undo()?;
        disk::delete_copy_if_there(libvirt, &cpi.config, &snapshot_cid)?;
        partial::end(&libvirt.pool(&records.name)?, snapshot_cid.as_str())
    });
    partial::begin(&records, snapshot_cid.as_str()).map_err(|e| e.during(doing()))?;
    let of_disk = Record::read(libvirt, &records, &disk_cid)?;
    copy(libvirt, &disk_cid, &volume, &of_disk, &snapshot_cid).map_err(|e| e.during(doing()))?;

    let record = Record {
        metadata,
        replaces: None,
        ..of_disk
    };
    record
        .write(libvirt, &records, &snapshot_cid)
        .and_then(|()| partial::complete(&records, snapshot_cid.as_str()))
        .map_err(|e| e.during(doing()))?;
    undo.disarm();
    Ok(snapshot_cid.as_str().into())
}

fn copy(
    libvirt: &Connection,
    disk_cid: &Cid,
    volume: &Volume,
    record: &Record,
    snapshot_cid: &Cid,
) -> Result<()> {
    let _step = logging::step(format!("copying disk {disk_cid} to snapshot {snapshot_cid}"));
    let pool = libvirt.pool(&volume.pool)?;
    let state = disk::state(volume, record)?;
    let spec = VolumeSpec {
        name: snapshot_cid.as_str(),
        capacity: state.capacity,
        format: record.format,
        backing: None,
    };
    let kind = pool.kind()?;
    // Ceph takes its own point-in-time copies, whoever writes to the image.
    if kind != PoolKind::Rbd {
        for name in disk::users(libvirt, &volume.name)? {
            let domain = libvirt.domain(&name)?;
            let attachments = Attachments::of(&domain)?;
            if let Some(live) = attachments.live_disk(&volume.name) {
                libvirt.require_live_copies()?;
                let target = pool.create_volume(&plain(&spec), spec.name)?;
                return back_up(&domain, &attachments, live, kind, &target, &state);
            }
        }
    }
    pool.clone_volume(&plain(&spec), spec.name, volume)?;
    // Libvirt may have read the pool just before it copied.
    let after = disk::state(volume, record)?;
    if kind == PoolKind::Rbd {
        return Ok(());
    }
    disk::require_unwritten(libvirt, volume, &state, &after)
}

/// Has QEMU copy the disk as it is now, while the guest goes on writing.
fn back_up(
    domain: &Domain,
    attachments: &Attachments,
    disk: &Element,
    kind: PoolKind,
    target: &Volume,
    state: &VolumeState,
) -> Result<()> {
    let wanted = disk
        .child("target")
        .and_then(|target| target.attribute("dev"))
        .unwrap_or_default();
    let path = target.path()?;
    let to = match kind {
        PoolKind::Files => backup::Target::File(&path),
        PoolKind::Blocks | PoolKind::Rbd | PoolKind::Other => backup::Target::Block(&path),
    };
    let format = state.format.unwrap_or(VolumeFormat::Raw);
    domain.back_up(&backup::push(attachments.live_targets(), wanted, format, to))
}
