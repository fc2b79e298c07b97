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
        env: env(vm, needs, config),
    };
    settings.to_json()
}

/// The `env` argument. On a CD-ROM, which has no metadata, with the configured SSH key among the keys that the agent gives
/// to its user `vcap` (`GetAuthorizedKeys` in the agent's `settings/settings.go`); a config drive has it in its metadata.
fn env(vm: &NewVm, needs: &Needs, config: &Config) -> Value {
    let mut env = vm.env.clone();
    let key = config.vm_ssh_key.public_key.trim();
    if matches!(needs.drive, SettingsDrive::Cdrom { .. }) && !key.is_empty() {
        let bosh = env.entry("bosh").or_insert_with(|| json!({}));
        if let Value::Object(bosh) = bosh {
            let keys = bosh.entry("authorized_keys").or_insert_with(|| json!([]));
            // An `env` of another shape is the agent's to complain about.
            if let Value::Array(keys) = keys
                && !keys
                    .iter()
                    .any(|other| other.as_str().map(str::trim) == Some(key))
            {
                keys.push(key.into());
            }
        }
    }
    Value::Object(env)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{VmProperties, needs};
    use bosh_cpi::cid::Cid;
    use cpi_config::Firmware;
    use stemcell_image::StemcellProperties;

    fn env_in_settings(infrastructure: &str, key: &str, env: Value) -> Value {
        let (cid, uuid) = Cid::new_vm();
        let vm = NewVm {
            stemcell_cid: Cid::new_stemcell(),
            cid,
            uuid,
            agent_id: "a".to_owned(),
            properties: VmProperties::parse("x", Map::new()).unwrap(),
            networks: Map::new(),
            nics: Vec::new(),
            env: env.as_object().cloned().unwrap(),
        };
        let file = json!({"vm_ssh_key": {"public_key": key}});
        let config = Config::from_value("x", file, &Map::new()).unwrap();
        let stemcell = StemcellProperties::parse(&json!({"infrastructure": infrastructure})).unwrap();
        let needs = needs::of(&stemcell, Firmware::Bios, &config).unwrap();
        document(&vm, &needs, &config)["env"].clone()
    }

    #[test]
    fn a_cdrom_has_the_ssh_key_in_the_env() {
        let key = "ssh-ed25519 AAAA operator";
        for (env, expected) in [
            (json!({}), json!({"bosh": {"authorized_keys": [key]}})),
            (
                json!({"bosh": {"password": "*"}, "other": 1}),
                json!({"bosh": {"password": "*", "authorized_keys": [key]}, "other": 1}),
            ),
            (
                json!({"bosh": {"authorized_keys": ["ssh-rsa BBBB"]}}),
                json!({"bosh": {"authorized_keys": ["ssh-rsa BBBB", key]}}),
            ),
            (
                json!({"bosh": {"authorized_keys": [format!("{key}\n")]}}),
                json!({"bosh": {"authorized_keys": [format!("{key}\n")]}}),
            ),
            (json!({"bosh": null}), json!({"bosh": null})),
            (
                json!({"bosh": {"authorized_keys": "odd"}}),
                json!({"bosh": {"authorized_keys": "odd"}}),
            ),
        ] {
            assert_eq!(
                env_in_settings("vsphere", &format!("{key}\n"), env.clone()),
                expected
            );
            // As it came: a config drive has the key in its metadata.
            assert_eq!(env_in_settings("openstack", key, env.clone()), env);
            assert_eq!(env_in_settings("vsphere", "", env.clone()), env);
        }
    }
}
