//! The drive that brings the agent its settings.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::volumes::{BOOT_POSITION, EPHEMERAL_POSITION};
use super::{Needs, NewVm, SettingsDrive};
use agent_drive::{Blobstore, Disks, Settings, cdrom, config_drive};
use bosh_cpi::logging;
use bosh_cpi::rpc::Result;
use cpi_config::{Config, DiskBus};
use libvirt_host::volume_name::{BOOT, EPHEMERAL};
use libvirt_host::{Connection, Pool, Volume};

/// What the agent is told.
pub fn document(vm: &NewVm, needs: &Needs, config: &Config) -> Value {
    let macs: BTreeMap<String, String> = vm
        .nics
        .iter()
        .flat_map(|nic| {
            nic.networks
                .iter()
                .map(|network| (network.clone(), nic.mac.clone()))
        })
        .collect();
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
            system: system_disk(needs.bus),
            ephemeral: (vm.properties.ephemeral_disk > 0).then(|| ephemeral_disk(needs.bus)),
            persistent: Map::new(),
        },
        env: Value::Object(vm.env.clone()),
    };
    settings.to_json()
}

/// The agent's settings on a drive of the kind that the stemcell's agent looks for.
///
/// # Errors
/// `CpiError` when they do not fit.
pub fn image(vm: &NewVm, needs: &Needs, config: &Config) -> Result<Vec<u8>> {
    let settings = document(vm, needs, config);
    match &needs.drive {
        SettingsDrive::ConfigDrive {
            label,
            format,
            metadata_path,
            userdata_path,
        } => {
            let public_key = Some(config.vm_ssh_key.public_key.as_str()).filter(|key| !key.is_empty());
            config_drive(
                *format,
                label,
                metadata_path,
                userdata_path,
                public_key,
                &settings,
            )
        }
        SettingsDrive::Cdrom { label, filename } => cdrom(label, filename, &settings),
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

/// A path that does not depend on the order in which the guest numbers its disks; on SCSI the disk's target.
fn system_disk(bus: DiskBus) -> String {
    match bus {
        DiskBus::Virtio => format!("/dev/disk/by-id/virtio-{BOOT}"),
        DiskBus::Scsi => BOOT_POSITION.to_string(),
    }
}

/// On SCSI for every agent: those of SCSI stemcells go by the id, old ones by the target, all others by the path. The id
/// is the best of them, since some of the old ones look for a target's host by the name `sda`, which any disk may get.
fn ephemeral_disk(bus: DiskBus) -> Value {
    match bus {
        DiskBus::Virtio => format!("/dev/disk/by-id/virtio-{EPHEMERAL}").into(),
        DiskBus::Scsi => json!({
            "id": EPHEMERAL,
            "path": format!("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{EPHEMERAL}"),
            "volume_id": EPHEMERAL_POSITION.to_string(),
        }),
    }
}
