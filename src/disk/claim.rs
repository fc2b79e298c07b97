//! That a disk is about to be deleted: said before it is looked who has it, in an empty volume `<disk cid>.deleting` in the
//! stemcells' pool. A call that attaches the disk at that moment puts it into a VM's definition before it looks for that
//! volume. So at least one of the two sees the other, and gives up.

use super::users;
use crate::cid::Cid;
use crate::config::Config;
use crate::libvirt::{Connection, Pool, Volume};
use crate::partial::{put, take_away};
use crate::rpc::{Error, ErrorType, Result};
use crate::undo::Undo;

/// What the name of such a volume ends in.
pub const SUFFIX: &str = ".deleting";

fn name_for(cid: &str) -> String {
    format!("{cid}{SUFFIX}")
}

/// From here on nobody can attach the disk, until the claim is dropped, or given up by `release`. A claim of a call that
/// was killed is taken over.
///
/// # Errors
/// `CloudError` naming the VMs that have the disk, running or only defined.
pub fn claim<'a>(
    libvirt: &Connection,
    config: &Config,
    cid: &Cid,
    volume: &Volume,
    libvirt_for_undo: &'a dyn Fn() -> Result<&'a Connection>,
) -> Result<Undo<'a>> {
    let records = libvirt.pool(config.settings.stemcell_pool())?;
    let name = name_for(cid.as_str());
    let mut claim = Undo::new();
    if records.volume(&name)?.is_none() {
        let (pool, name_then) = (records.name.clone(), name.clone());
        // Before it is done: where the connection is lost, nobody knows whether it was.
        claim.push(format!("volume {name}"), move || {
            take_away(&libvirt_for_undo()?.pool(&pool)?, &name_then).map(drop)
        });
        match put(&records, &name) {
            // To delete is what helps then.
            Err(e) if e.error_type == ErrorType::NoDiskSpace => log::warn!(
                "disk {cid} is deleted without a mark that keeps others from attaching it meanwhile: {e}"
            ),
            outcome => outcome?,
        }
    }
    let users = users(libvirt, &volume.name)?;
    if users.is_empty() {
        return Ok(claim);
    }
    Err(Error::cloud(format!(
        "it is attached to {}; detach it first",
        users.join(", ")
    )))
}

/// The claimed disk is gone, and the claim with it.
pub(super) fn release(records: &Pool, cid: &Cid) -> Result<()> {
    take_away(records, &name_for(cid.as_str())).map(drop)
}

/// For a call that has just put the disk into a VM's definition: that nobody deletes it at this time, or has deleted it.
///
/// # Errors
/// `CloudError`, `DiskNotFound`.
pub fn require_kept(records: &Pool, volume: &Volume) -> Result<()> {
    let mark = name_for(&volume.name);
    if records.volume(&mark)?.is_some() {
        return Err(Error::cloud(format!(
            "it is being deleted, or was to be by a call that was killed: delete it again, or, to keep it, delete volume \
             {mark} in pool {}, as `cpi prune` does once it is old",
            records.name
        )));
    }
    volume.path().map(drop)
}
