//! What starts the disk of a stemcell, a BIOS or EFI: as its record says, or found out from its volume.

use super::record::Record;
use bosh_cpi::rpc::Error;
use cpi_config::Firmware;
use libvirt_host::{Connection, Volume};
use stemcell_image::firmware_of_file;

/// What starts the disk in this volume: as its record says, else found out from the volume. A BIOS where that cannot be
/// read, which the log tells of.
pub fn firmware(libvirt: &Connection, volume: &Volume, record: &Record) -> Firmware {
    record
        .firmware()
        .or_else(|| look(libvirt, volume))
        .unwrap_or(Firmware::Bios)
}

/// What starts the disk in this volume; None, which the log tells of, where that cannot be read.
pub fn look(libvirt: &Connection, volume: &Volume) -> Option<Firmware> {
    let outcome = volume.state().and_then(|state| match state.format {
        Some(format) => firmware_of_file(format, &mut |offset, length| volume.read(libvirt, offset, length)),
        None => Err(Error::cloud("it is neither raw nor qcow2")),
    });
    outcome
        .inspect_err(|e| {
            log::warn!(
                "what starts the disk in volume {} in pool {} cannot be read, so VMs are started by a BIOS unless \
                 settings.firmware or the cloud property firmware says efi: {e}",
                volume.name,
                volume.pool
            );
        })
        .ok()
}
