//! `snapshot_disk(disk_cid, metadata)`: a copy of the disk as it is at one moment, a volume of its own whose cid
//! attach_disk takes. A running VM goes on meanwhile.

use serde_json::Value;

use super::Cpi;
use crate::disk::{self, Attachments, Claim, Record, users};
use crate::sidecar::marker;
use bosh_cpi::cid::Cid;
use bosh_cpi::logging;
use bosh_cpi::rpc::{Arguments, Error, Result};
use libvirt_host::Undo;
use libvirt_host::{Connection, Domain, PoolKind, Volume, VolumeState};
use libvirt_xml::backup;
use libvirt_xml::element::Element;
use libvirt_xml::volume::{VolumeFormat, VolumeSpec, plain};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let disk_cid = arguments.cid("disk_cid")?;
    let metadata = arguments.optional_object("metadata")?;
    arguments.end()?;

    let libvirt = cpi.libvirt()?;
    let volume = disk::get(libvirt, &cpi.config, &disk_cid)?;
    let pool = libvirt.pool(&volume.pool)?;
    let snapshot_cid = Cid::new_snapshot();
    let doing = || format!("taking snapshot {snapshot_cid} of disk {disk_cid}");
    let mut undo = Undo::new(libvirt);
    undo.push(format!("snapshot {snapshot_cid}"), |libvirt| {
        disk::delete_copy_if_there(libvirt, &cpi.config, &snapshot_cid)?;
        marker::end(&libvirt.pool(&pool.name)?, snapshot_cid.as_str())
    });
    marker::begin(&pool, snapshot_cid.as_str()).map_err(|e| e.during(doing()))?;
    let of_disk = Record::read(libvirt, &cpi.config, &volume)?;
    let snapshot = copy(cpi, &disk_cid, &volume, &of_disk, &snapshot_cid).map_err(|e| e.during(doing()))?;

    let record = Record {
        metadata,
        replaces: None,
        ..of_disk
    };
    record
        .write(libvirt, &cpi.config, &snapshot)
        .and_then(|()| marker::complete(&pool, snapshot_cid.as_str()))
        .map_err(|e| e.during(doing()))?;
    undo.disarm();
    Ok(snapshot_cid.as_str().into())
}

/// The snapshot's volume.
fn copy(cpi: &Cpi, disk_cid: &Cid, volume: &Volume, record: &Record, snapshot_cid: &Cid) -> Result<Volume> {
    let _step = logging::step(format!("copying disk {disk_cid} to snapshot {snapshot_cid}"));
    let libvirt = cpi.libvirt()?;
    let pool = libvirt.pool(&volume.pool)?;
    let state = disk::state(volume, record)?;
    let spec = VolumeSpec {
        name: snapshot_cid.as_str(),
        capacity: state.capacity,
        format: record.format.unwrap_or_default(),
        backing: None,
    };
    let users = users::of(libvirt, &volume.name)?;
    for user in &users {
        user.attachments
            .require_top_layer(&user.domain, &volume.name, || Ok(state.path.clone()))?;
    }
    users::require_no_overlay(libvirt, volume)?;
    let kind = pool.kind()?;
    // Ceph takes its own point-in-time copies, whoever writes to the image.
    if kind == PoolKind::Rbd {
        return pool.clone_volume(&plain(&spec), spec.name, volume);
    }
    for user in &users {
        if let Some(live) = user.attachments.live_disk(&volume.name) {
            libvirt.require_live_copies()?;
            let target = pool.create_volume(&plain(&spec), spec.name)?;
            let copied = back_up(&user.domain, &user.attachments, live, kind, &target, &state);
            // QEMU copies only to a target of the same size.
            return copied
                .map(|()| target)
                .map_err(|error| match disk::state(volume, record) {
                    Ok(now) if now.capacity != state.capacity => Error::cloud(format!(
                        "the disk was resized before the copy began ({error}); try again"
                    ))
                    .retryable(),
                    _ => error,
                });
        }
    }
    if !users.is_empty() {
        // Its VM is stopped, and may be started meanwhile.
        return copy_unwritten(libvirt, volume, record, &spec, &state);
    }
    // Nobody had it a moment ago.
    let claim = Claim::on(libvirt, disk_cid, volume).map_err(Error::retryable)?;
    let snapshot = copy_unwritten(libvirt, volume, record, &spec, &state)?;
    claim.require_held()?;
    Ok(snapshot)
}

/// Copies a disk that nobody writes to.
///
/// # Errors
/// `CloudError`, retryable where something has written to it meanwhile.
fn copy_unwritten(
    libvirt: &Connection,
    volume: &Volume,
    record: &Record,
    spec: &VolumeSpec<'_>,
    state: &VolumeState,
) -> Result<Volume> {
    let pool = libvirt.pool(&volume.pool)?;
    let copy = pool.clone_volume(&plain(spec), spec.name, volume)?;
    // Libvirt may have read the pool just before it copied.
    disk::require_unwritten(libvirt, volume, state, &disk::state(volume, record)?)?;
    Ok(copy)
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
