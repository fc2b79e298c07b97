//! A VM's domain: its disks and NICs in one document.

use super::{Needs, NewVm};
use crate::network::Nic;
use bosh_cpi::rpc::{ErrorType, Result};
use cpi_config::{Config, DomainType, Firmware};
use libvirt_host::volume_name::SETTINGS;
use libvirt_host::{Connection, Volume};
use libvirt_xml::disk::{self, BackingFile, Device, DiskSpec, RunTimeOptions};
use libvirt_xml::domain::{self, DomainSpec, DomainTemplate};
use libvirt_xml::element::Element;
use libvirt_xml::interface::{self, InterfaceSpec};
use libvirt_xml::platform::Platform;
use libvirt_xml::volume::VolumeFormat;

/// A volume of the VM's, and the serial that the guest finds it by.
pub struct OwnDisk {
    pub pool: String,
    pub volume: String,
    /// On the host.
    pub path: String,
    pub format: VolumeFormat,
    /// The whole backing chain from the top; None where it cannot be told.
    pub backing: Option<Vec<BackingFile>>,
    pub serial: &'static str,
}

impl OwnDisk {
    pub fn of(
        volume: &Volume,
        format: VolumeFormat,
        backing: Option<Vec<BackingFile>>,
        serial: &'static str,
    ) -> Result<Self> {
        Ok(Self {
            pool: volume.pool.clone(),
            volume: volume.name.clone(),
            path: volume.path()?,
            format,
            backing,
            serial,
        })
    }
}

/// The `<domain>` to define, with these disks in their order.
///
/// # Errors
/// `CpiError` for a template that cannot be rendered, `CloudError` when libvirt cannot be asked.
pub fn xml(
    vm: &NewVm,
    needs: &Needs,
    config: &Config,
    libvirt: &Connection,
    disks: &[OwnDisk],
) -> Result<Element> {
    let settings = &config.settings;
    let template = template(vm, config);
    let domain_type = match settings.domain_type {
        // A template says itself what it wants.
        DomainType::Auto if template.is_none() => libvirt.best_domain_type()?,
        other => other,
    };
    let mut platform = platform(vm, needs, config, template.is_some());
    if platform.firmware == Some(Firmware::Efi) {
        platform.efi_loader = libvirt.efi_loader(platform.machine)?;
    }
    let spec = DomainSpec {
        name: vm.cid.as_str(),
        uuid: &vm.uuid.to_string(),
        memory: vm.properties.memory,
        cpus: vm.properties.cpu,
        domain_type,
        platform,
        console_log_dir: &settings.console_log_dir,
        disks: disk_elements(needs, config, libvirt, disks)?,
        interfaces: interface_elements(vm, config)?,
        devices: vm.properties.devices.clone(),
    };
    domain::render(spec, template).map_err(|error| {
        // A mistake in a VM type is no mistake of the CPI's configuration.
        if vm.properties.vm_domain.is_some() {
            error.with_type(ErrorType::CloudError)
        } else {
            error
        }
    })
}

fn disk_elements(
    needs: &Needs,
    config: &Config,
    libvirt: &Connection,
    disks: &[OwnDisk],
) -> Result<Vec<Element>> {
    let element = |(position, own): (usize, &OwnDisk)| {
        let spec = DiskSpec {
            source: libvirt.pool(&own.pool)?.disk_source(&own.volume)?,
            path: &own.path,
            backing: own.backing.as_deref(),
            format: own.format,
            bus: needs.bus,
            position,
            serial: own.serial,
            device: if own.serial == SETTINGS {
                needs.drive.device()
            } else {
                Device::Disk
            },
            options: RunTimeOptions::default(),
        };
        disk::render(&spec, &config.settings.disk_device)
    };
    disks.iter().enumerate().map(element).collect()
}

fn interface_elements(vm: &NewVm, config: &Config) -> Result<Vec<Element>> {
    let element = |nic: &Nic| {
        let spec = InterfaceSpec {
            link: &nic.link,
            properties: &nic.properties,
            mac: &nic.mac,
            addresses: &nic.addresses,
            vm_name: vm.cid.as_str(),
        };
        interface::render(&spec, &config.settings.manual_network_interface)
    };
    vm.nics.iter().map(element).collect()
}

/// The VM's own template, or the one for all VMs.
fn template<'a>(vm: &'a NewVm, config: &'a Config) -> Option<DomainTemplate<'a>> {
    let own = vm.properties.vm_domain.as_deref();
    let for_all = Some(config.settings.vm_domain.as_str()).filter(|text| !text.is_empty());
    own.map(|text| DomainTemplate {
        property: "vm_domain (cloud property)",
        text,
    })
    .or(for_all.map(|text| DomainTemplate {
        property: "settings.vm_domain",
        text,
    }))
}

/// Whether the VM is started by what its stemcell is made for, since nothing else says what by.
pub fn leaves_firmware_open(vm: &NewVm, config: &Config) -> bool {
    let chosen = vm.properties.firmware.unwrap_or(config.settings.firmware);
    chosen.is_none() && template(vm, config).is_none()
}

/// What the VM's cloud properties say, else the configuration; a template has to say the rest by itself.
fn platform<'a>(vm: &'a NewVm, needs: &Needs, config: &'a Config, has_template: bool) -> Platform<'a> {
    let (properties, settings) = (&vm.properties, &config.settings);
    let mut machine = properties.machine.as_deref().unwrap_or(&settings.machine);
    let mut firmware = properties.firmware.unwrap_or(settings.firmware);
    if !has_template {
        let firmware = *firmware.get_or_insert(needs.firmware);
        // Some distributions have EFI firmware for this machine only.
        if machine.is_empty() && firmware == Firmware::Efi {
            machine = "q35";
        }
    }
    Platform {
        machine,
        firmware,
        efi_loader: None,
        cpu_mode: properties.cpu_mode.as_deref().unwrap_or(&settings.cpu_mode),
        hugepages: properties.hugepages,
        graphics: settings.graphics,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::vm::{VmProperties, needs};
    use bosh_cpi::cid::Cid;
    use stemcell_image::StemcellProperties;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn new_vm(cloud_properties: Value) -> NewVm {
        let (cid, uuid) = Cid::new_vm();
        NewVm {
            stemcell_cid: Cid::new_stemcell(),
            cid,
            uuid,
            agent_id: "a".to_owned(),
            properties: VmProperties::parse("x", object(cloud_properties)).unwrap(),
            networks: Map::new(),
            nics: Vec::new(),
            env: Map::new(),
        }
    }

    fn config(settings: Value) -> Config {
        Config::from_value("x", json!({ "settings": settings }), &Map::new()).unwrap()
    }

    #[test]
    fn a_template_says_itself_what_is_left_open() {
        let efi = Some(Firmware::Efi);
        let bios = Some(Firmware::Bios);
        for (stemcell, properties, settings, own, templates) in [
            (Firmware::Bios, json!({}), json!({}), ("", bios), ("", None)),
            // A stemcell that is built for EFI, and a machine that there is firmware for.
            (Firmware::Efi, json!({}), json!({}), ("q35", efi), ("", None)),
            (
                Firmware::Bios,
                json!({"firmware": "efi"}),
                json!({}),
                ("q35", efi),
                ("", efi),
            ),
            (
                Firmware::Bios,
                json!({}),
                json!({"firmware": "efi"}),
                ("q35", efi),
                ("", efi),
            ),
            // What is named stays.
            (
                Firmware::Bios,
                json!({"machine": "pc"}),
                json!({"firmware": "efi"}),
                ("pc", efi),
                ("pc", efi),
            ),
            (
                Firmware::Efi,
                json!({"firmware": "bios"}),
                json!({"machine": "q35"}),
                ("q35", bios),
                ("q35", bios),
            ),
        ] {
            let (vm, config) = (new_vm(properties), config(settings));
            let needs = needs::of(&StemcellProperties::default(), stemcell, &config).unwrap();
            for (has_template, expected) in [(false, own), (true, templates)] {
                let platform = platform(&vm, &needs, &config, has_template);
                assert_eq!(
                    (platform.machine, platform.firmware),
                    expected,
                    "{has_template} {stemcell:?}"
                );
            }
        }
    }

    #[test]
    fn a_vms_own_template_comes_before_that_for_all() {
        let property = |cloud_properties, settings| {
            template(&new_vm(cloud_properties), &config(settings))
                .map(|template| template.property.to_owned())
        };
        let (own, for_all) = (
            json!({"vm_domain": "<domain/>"}),
            json!({"vm_domain": "<domain/>"}),
        );
        assert_eq!(property(json!({}), json!({})), None);
        assert_eq!(
            property(json!({}), for_all.clone()).as_deref(),
            Some("settings.vm_domain")
        );
        assert_eq!(
            property(own, for_all).as_deref(),
            Some("vm_domain (cloud property)")
        );
    }
}
