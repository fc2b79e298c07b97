//! A VM's domain: its disks and NICs in one document.

use super::NewVm;
use super::volumes::SETTINGS;
use crate::config::{Config, DiskBus, DomainType, StemcellType};
use crate::disk::RunTimeOptions;
use crate::libvirt::{Connection, Volume};
use crate::rpc::Result;
use crate::xml::disk::{self, Device, DiskSpec};
use crate::xml::domain::{self, DomainSpec};
use crate::xml::element::Element;
use crate::xml::interface::{self, InterfaceSpec};
use crate::xml::volume::VolumeFormat;

/// A volume of the VM's, and the serial that the guest finds it by.
pub struct OwnDisk {
    pub volume: Volume,
    pub format: VolumeFormat,
    pub serial: &'static str,
}

/// The `<domain>` to define, with these disks in their order.
///
/// # Errors
/// `CpiError` for a template that cannot be rendered, `CloudError` when libvirt cannot be asked.
pub fn xml(vm: &NewVm, config: &Config, libvirt: &Connection, disks: &[OwnDisk]) -> Result<Element> {
    let settings = &config.settings;
    let config_device = match config.stemcell.stemcell_type {
        StemcellType::ConfigDrive => Device::Disk,
        StemcellType::Cdrom => Device::Cdrom,
    };
    let mut disk_elements = Vec::new();
    for (
        position,
        OwnDisk {
            volume,
            format,
            serial,
        },
    ) in disks.iter().enumerate()
    {
        let spec = DiskSpec {
            source: libvirt.pool(&volume.pool)?.disk_source(&volume.name)?,
            path: &volume.path()?,
            format: *format,
            bus: settings.disk_bus,
            position,
            serial,
            device: if *serial == SETTINGS {
                config_device
            } else {
                Device::Disk
            },
            options: RunTimeOptions::default(),
        };
        disk_elements.push(disk::render(&spec, &settings.disk_device)?);
    }
    let interfaces = vm
        .nics
        .iter()
        .map(|nic| {
            let spec = InterfaceSpec {
                link: &nic.link,
                properties: &nic.properties,
                mac: &nic.mac,
                addresses: &nic.addresses,
                vm_name: vm.cid.as_str(),
            };
            interface::render(&spec, &settings.manual_network_interface)
        })
        .collect::<Result<Vec<_>>>()?;
    let domain_type = match settings.domain_type {
        // A template says itself what it wants.
        DomainType::Auto if settings.vm_domain.is_empty() => libvirt.best_domain_type()?,
        other => other,
    };
    let spec = DomainSpec {
        name: vm.cid.as_str(),
        uuid: &vm.uuid.to_string(),
        memory: vm.properties.memory,
        cpus: vm.properties.cpu,
        domain_type,
        machine: &settings.machine,
        scsi: settings.disk_bus == DiskBus::Scsi,
        console_log_dir: &settings.console_log_dir,
        disks: disk_elements,
        interfaces,
    };
    domain::render(spec, &settings.vm_domain)
}
