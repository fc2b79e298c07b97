//! The drive that brings the agent its settings.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::NewVm;
use super::volumes::{BOOT, EPHEMERAL};
use crate::agent::{Blobstore, Disks, Settings, cdrom, config_drive};
use crate::config::{Config, DiskBus, StemcellType};
use crate::libvirt::{Connection, Pool, Volume};
use crate::logging;
use crate::rpc::Result;

/// The agent's settings on a drive of the kind that the stemcell's agent looks for.
///
/// # Errors
/// `CpiError` when they do not fit.
pub fn image(vm: &NewVm, config: &Config) -> Result<Vec<u8>> {
    let macs: BTreeMap<String, String> = vm
        .nics
        .iter()
        .flat_map(|nic| {
            nic.networks
                .iter()
                .map(|network| (network.clone(), nic.mac.clone()))
        })
        .collect();
    let bus = config.settings.disk_bus;
    let settings = Settings {
        agent_id: vm.agent_id.clone(),
        vm_cid: vm.cid.to_string(),
        mbus: config.agent.mbus.expose().to_owned(),
        ntp: config.agent.ntp.clone(),
        blobstore: Blobstore {
            provider: config.agent.blobstore.provider.clone(),
            options: config.agent.blobstore.options.expose().clone(),
        },
        networks: vm.networks.clone(),
        macs,
        disks: Disks {
            system: device_path(bus, BOOT),
            ephemeral: (vm.properties.ephemeral_disk > 0).then(|| device_path(bus, EPHEMERAL).into()),
            persistent: Map::new(),
        },
        env: Value::Object(vm.env.clone()),
    };
    let stemcell = &config.stemcell;
    match stemcell.stemcell_type {
        StemcellType::ConfigDrive => {
            let public_key = Some(config.vm_ssh_key.public_key.as_str()).filter(|key| !key.is_empty());
            let (metadata, userdata) = (&stemcell.metadata_path, &stemcell.userdata_path);
            config_drive(
                &stemcell.label,
                metadata,
                userdata,
                public_key,
                &settings.to_json(),
            )
        }
        StemcellType::Cdrom => cdrom(&stemcell.label, &stemcell.filename, &settings.to_json()),
    }
}

/// Puts the image into a volume of this pool, which must hold files.
///
/// # Errors
/// `NoDiskSpace` or `CloudError`.
pub fn upload(libvirt: &Connection, pool: &Pool, name: &str, image: &[u8]) -> Result<Volume> {
    let _step = logging::step(format!("uploading settings drive {name}"));
    pool.create_with_content(libvirt, name, image)
}

/// A path that does not depend on the order in which the guest numbers its disks.
fn device_path(bus: DiskBus, serial: &str) -> String {
    match bus {
        DiskBus::Virtio => format!("/dev/disk/by-id/virtio-{serial}"),
        DiskBus::Scsi => format!("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{serial}"),
    }
}
