//! `create_vm(agent_id, stemcell_cid, cloud_properties, networks, disk_cids, env)`: a booting VM whose agent finds its
//! settings, or nothing at all: whatever fails, every resource made so far goes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Cpi;
use crate::agent::{Blobstore, Disks, Settings, cdrom, config_drive};
use crate::cid::Cid;
use crate::config::{BootDiskClone, DiskBus, DomainType, StemcellType};
use crate::disk::RunTimeOptions;
use crate::libvirt::{Connection, Pool, PoolKind, Volume};
use crate::logging;
use crate::network;
use crate::rpc::{Arguments, Error, ErrorType, Result};
use crate::throttle;
use crate::undo::Undo;
use crate::vm::{self, Nic, VmProperties, VolumeNames};
use crate::xml::disk::{Device, DiskSpec};
use crate::xml::domain::DomainSpec;
use crate::xml::element::Element;
use crate::xml::interface::InterfaceSpec;
use crate::xml::volume::{Backing, VolumeFormat, VolumeSpec};
use crate::xml::{disk, domain, interface, volume};

const MIB: u64 = 1024 * 1024;

/// Serials of the disks that live and die with the VM.
const BOOT: &str = "boot";
const EPHEMERAL: &str = "ephemeral";
const CONFIG: &str = "config";

/// The arguments, checked as far as that goes without libvirt.
struct NewVm {
    cid: Cid,
    uuid: uuid::Uuid,
    agent_id: String,
    stemcell_cid: Cid,
    properties: VmProperties,
    networks: Map<String, Value>,
    nics: Vec<Nic>,
    env: Map<String, Value>,
}

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let agent_id = arguments.string("agent_id")?;
    let stemcell_cid = arguments.cid("stemcell_cid")?;
    let cloud_properties = arguments.optional_object("cloud_properties")?;
    let networks = arguments.object("networks")?;
    // Hints for placement, and there is one host.
    arguments.optional_cids("disk_cids")?;
    let env = arguments.optional_object("env")?;
    arguments.end()?;

    let (cid, uuid) = Cid::new_vm();
    let vm = NewVm {
        cid,
        uuid,
        agent_id,
        stemcell_cid,
        properties: VmProperties::parse("argument 3 (cloud_properties)", cloud_properties)?,
        nics: vm::plan_nics(&networks, &cpi.config.settings.network_name)?,
        networks,
        env,
    };
    create(&vm, cpi).map_err(|error| {
        let error = error.during(format!("creating VM {}", vm.cid));
        match error.error_type {
            // The one type whose ok_to_retry the Director looks at here.
            ErrorType::CloudError => error.with_type(ErrorType::VmCreationFailed),
            _ => error,
        }
    })?;
    let vm_cid = Value::from(vm.cid.as_str());
    Ok(if cpi.api_version == 1 {
        vm_cid
    } else {
        json!([vm_cid, vm.networks])
    })
}

fn create(vm: &NewVm, cpi: &Cpi) -> Result<()> {
    let drive_image = settings_drive_image(vm, cpi)?;
    let libvirt = cpi.libvirt()?;
    let files = libvirt.pool(cpi.config.settings.stemcell_pool())?;
    files.require_files()?;
    let pool = libvirt.pool(vm.properties.storage_pool.as_ref().unwrap_or(&files.name))?;
    let stemcell = find_stemcell(libvirt, &files, &vm.stemcell_cid)?;
    network::require(libvirt, &vm.nics)?;
    network::require_free_addresses(libvirt, &cpi.config.settings, &vm.cid, &vm.nics)?;

    let _turn = throttle::wait(&cpi.config.throttle)?;
    let names = VolumeNames::of(&vm.cid);
    let mut undo = Undo::new();
    undo.push(format!("volumes of VM {}", vm.cid), || {
        vm::delete_volumes(cpi.libvirt_for_undo()?, &vm.cid).map(drop)
    });

    let mut disks = vec![(clone_stemcell(vm, cpi, &pool, &stemcell, &names.boot)?, BOOT)];
    if vm.properties.ephemeral_disk > 0 {
        let spec = VolumeSpec {
            name: &names.ephemeral,
            capacity: vm.properties.ephemeral_disk.saturating_mul(MIB),
            format: VolumeFormat::Raw,
            backing: None,
        };
        let xml = volume::from_template(&spec, &cpi.config.settings.storage_volume)?;
        disks.push(((pool.create_volume(&xml, spec.name)?, spec.format), EPHEMERAL));
    }
    disks.push((
        (
            upload_settings_drive(libvirt, &files, &names.config, &drive_image)?,
            VolumeFormat::Raw,
        ),
        CONFIG,
    ));

    let xml = domain_xml(vm, cpi, libvirt, &disks)?;
    // Before it is done: where the connection is lost, nobody knows whether it was.
    undo.push(format!("VM {}", vm.cid), || {
        vm::find(cpi.libvirt_for_undo()?, &vm.cid)?
            .map_or(Ok(()), |domain| domain.destroy().and_then(|()| domain.undefine()))
    });
    let domain = libvirt.define_domain(&xml, vm.cid.as_str())?;
    undo.push(format!("DHCP host entries of VM {}", vm.cid), || {
        network::unreserve(cpi.libvirt_for_undo()?, &vm.cid).map(drop)
    });
    network::reserve(libvirt, &cpi.config.settings, &vm.cid, &vm.nics)?;
    domain.set_autostart()?;
    {
        let _step = logging::step(format!("starting VM {}", vm.cid));
        domain.start()?;
    }
    undo.disarm();
    Ok(())
}

fn find_stemcell(libvirt: &Connection, pool: &Pool, cid: &Cid) -> Result<Volume> {
    let missing = || {
        Error::cloud(format!(
            "stemcell {cid} does not exist in any active pool of {}; upload it again",
            libvirt.uri
        ))
    };
    let name = cid.stemcell_volume().ok_or_else(missing)?;
    libvirt
        .volume_in_any_pool(&name, &[&pool.name])?
        .ok_or_else(missing)
}

/// An overlay takes milliseconds and no space; pools that hold no files get a full copy.
fn clone_stemcell(
    vm: &NewVm,
    cpi: &Cpi,
    pool: &Pool,
    stemcell: &Volume,
    name: &str,
) -> Result<(Volume, VolumeFormat)> {
    let _step = logging::step(format!("creating boot disk {name}"));
    let state = stemcell.state()?;
    let format = state.format.ok_or_else(|| {
        Error::cloud(format!(
            "volume {} in pool {} is neither raw nor qcow2",
            stemcell.name, stemcell.pool
        ))
    })?;
    let capacity = vm
        .properties
        .boot_disk
        .map_or(state.capacity, |size| size.saturating_mul(MIB));
    if capacity < state.capacity {
        return Err(Error::cloud(format!(
            "boot_disk is smaller than the stemcell, which has {} MiB",
            state.capacity.div_ceil(MIB)
        )));
    }
    let holds_files = pool.kind()? == PoolKind::Files;
    let overlay = match cpi.config.settings.boot_disk_clone {
        BootDiskClone::Overlay => true,
        BootDiskClone::Full => false,
        BootDiskClone::Auto => holds_files,
    };
    if overlay {
        let backing = Some(Backing {
            path: stemcell.path()?,
            format,
        });
        let spec = VolumeSpec {
            name,
            capacity,
            format: VolumeFormat::Qcow2,
            backing,
        };
        return Ok((pool.create_volume(&volume::plain(&spec), name)?, spec.format));
    }
    let format = if holds_files { format } else { VolumeFormat::Raw };
    let spec = VolumeSpec {
        name,
        capacity: state.capacity,
        format,
        backing: None,
    };
    let copy = pool.clone_volume(&volume::plain(&spec), name, stemcell)?;
    if capacity > state.capacity {
        copy.resize(capacity)?;
    }
    Ok((copy, format))
}

fn upload_settings_drive(libvirt: &Connection, pool: &Pool, name: &str, image: &[u8]) -> Result<Volume> {
    let _step = logging::step(format!("uploading settings drive {name}"));
    let bytes = image.len() as u64;
    let spec = VolumeSpec {
        name,
        capacity: bytes,
        format: VolumeFormat::Raw,
        backing: None,
    };
    let volume = pool.create_volume(&volume::plain(&spec), name)?;
    volume.upload(libvirt, &mut &image[..], bytes)?;
    Ok(volume)
}

/// The agent's settings on a drive of the kind that the stemcell's agent looks for.
fn settings_drive_image(vm: &NewVm, cpi: &Cpi) -> Result<Vec<u8>> {
    let config = &cpi.config;
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

/// A path that does not depend on the order in which the guest numbers its disks.
fn device_path(bus: DiskBus, serial: &str) -> String {
    match bus {
        DiskBus::Virtio => format!("/dev/disk/by-id/virtio-{serial}"),
        DiskBus::Scsi => format!("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{serial}"),
    }
}

fn domain_xml(
    vm: &NewVm,
    cpi: &Cpi,
    libvirt: &Connection,
    disks: &[((Volume, VolumeFormat), &str)],
) -> Result<Element> {
    let settings = &cpi.config.settings;
    let config_device = match cpi.config.stemcell.stemcell_type {
        StemcellType::ConfigDrive => Device::Disk,
        StemcellType::Cdrom => Device::Cdrom,
    };
    let mut disk_elements = Vec::new();
    for (position, ((volume, format), serial)) in disks.iter().enumerate() {
        let spec = DiskSpec {
            source: libvirt.pool(&volume.pool)?.disk_source(&volume.name)?,
            path: &volume.path()?,
            format: *format,
            bus: settings.disk_bus,
            position,
            serial,
            device: if *serial == CONFIG {
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
