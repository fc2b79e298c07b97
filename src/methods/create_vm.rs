//! `create_vm(agent_id, stemcell_cid, cloud_properties, networks, disk_cids, env)`: a booting VM whose agent finds its
//! settings, or nothing at all: whatever fails, every resource made so far goes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Cpi;
use crate::network;
use crate::stemcell;
use crate::throttle;
use crate::vm::{
    self, NewVm, OwnDisk, VmProperties, VolumeNames, boot_disk, domain, incomplete, needs, settings_drive,
};
use bosh_cpi::cid::Cid;
use bosh_cpi::logging;
use bosh_cpi::measures::MIB;
use bosh_cpi::rpc::{Arguments, Error, ErrorType, Result};
use cpi_config::Config;
use libvirt_host::Pool;
use libvirt_host::Undo;
use libvirt_host::volume_name::{EPHEMERAL, SETTINGS};
use libvirt_xml::volume::{VolumeFormat, VolumeSpec, from_template};

pub fn call(arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm = plan(arguments, &cpi.config)?;
    create(&vm, cpi).map_err(|error| {
        let error = error.during(format!("creating VM {}", vm.cid));
        match error.error_type {
            // The one type whose ok_to_retry the Director looks at here. What is not found is no VM or disk that the
            // caller knows of: it has gone in the middle of the call.
            ErrorType::CloudError
            | ErrorType::NetworkNotFound
            | ErrorType::DiskNotFound
            | ErrorType::VmNotFound => error.with_type(ErrorType::VmCreationFailed),
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

/// The VM that these arguments ask for, as far as they say without libvirt.
///
/// # Errors
/// `CpiError` or `CloudError` naming the argument.
pub fn plan(mut arguments: Arguments, config: &Config) -> Result<NewVm> {
    let agent_id = arguments.string("agent_id")?;
    let stemcell_cid = arguments.cid("stemcell_cid")?;
    let cloud_properties = arguments.optional_object("cloud_properties")?;
    let networks = arguments.object("networks")?;
    // Hints for placement, and there is one host.
    arguments.optional_cids("disk_cids")?;
    let env = arguments.optional_object("env")?;
    arguments.end()?;

    let (cid, uuid) = Cid::new_vm();
    Ok(NewVm {
        cid,
        uuid,
        agent_id,
        stemcell_cid,
        properties: VmProperties::parse("argument 3 (cloud_properties)", cloud_properties)?,
        nics: network::plan_nics(&networks, &config.settings.network_name)?,
        networks,
        env,
    })
}

/// That the ephemeral disk could be full some day. Files and file systems have limits of their own, some pools below this
/// one.
fn require_possible_size(vm: &NewVm, pool: &Pool) -> Result<()> {
    let asked = vm.properties.ephemeral_disk;
    if asked == 0 {
        return Ok(());
    }
    let limit = pool.capacity()? / MIB;
    if asked <= limit {
        return Ok(());
    }
    Err(Error::cloud(format!(
        "argument 3 (cloud_properties): ephemeral_disk is {asked} MiB, but all of pool {} is {limit} MiB (lower it, or name \
         a larger pool as storage_pool)",
        pool.name
    )))
}

fn create(vm: &NewVm, cpi: &Cpi) -> Result<()> {
    let config = &cpi.config;
    let libvirt = cpi.libvirt()?;
    let files = libvirt.pool(config.settings.stemcell_pool())?;
    files.require_files()?;
    let pool = libvirt.pool(vm.properties.storage_pool.as_ref().unwrap_or(&files.name))?;
    pool.require_copies()?;
    require_possible_size(vm, &pool)?;
    let (stemcell, record) = stemcell::get(libvirt, &files, &vm.stemcell_cid)?;
    let needs = needs::of_vm(libvirt, vm, &stemcell, &record, config)?;
    let drive_image = settings_drive::image(vm, &needs, config)?;
    network::require(libvirt, &vm.nics)?;
    let needs_entries = network::require_free_addresses(libvirt, &config.settings, &vm.cid, &vm.nics)?;

    let _guard = throttle::acquire(&config.throttle)?;
    let names = VolumeNames::of(&vm.cid);
    let pools = BTreeSet::from([files.name.clone(), pool.name.clone()]);
    let mut undo = Undo::new(libvirt);
    undo.push(format!("volumes of VM {}", vm.cid), |libvirt| {
        let wipe_blocks = config.settings.wipe_block_volumes;
        vm::delete_volumes(libvirt, &vm.cid, &pools, wipe_blocks).map(drop)
    });
    let clone = config.settings.boot_disk_clone;
    let mut disks = vec![boot_disk::create(
        libvirt,
        vm,
        clone,
        &pool,
        &stemcell,
        &names.boot,
    )?];
    stemcell::require_kept(libvirt, &stemcell)?;
    if vm.properties.ephemeral_disk > 0 {
        let _step = logging::step(format!("creating ephemeral disk {}", names.ephemeral));
        let spec = VolumeSpec {
            name: &names.ephemeral,
            capacity: vm.properties.ephemeral_disk.saturating_mul(MIB),
            format: VolumeFormat::Raw,
            backing: None,
        };
        let xml = from_template(&spec, &config.settings.storage_volume)?;
        let volume = pool.create_volume(&xml, spec.name)?;
        disks.push(OwnDisk::of(&volume, spec.format, Some(Vec::new()), EPHEMERAL)?);
    }
    let volume = settings_drive::upload(libvirt, &files, &names.settings, &drive_image)?;
    disks.push(OwnDisk::of(
        &volume,
        VolumeFormat::Raw,
        Some(Vec::new()),
        SETTINGS,
    )?);

    let mut xml = domain::xml(vm, &needs, config, libvirt, &disks)?;
    incomplete::mark(&mut xml);
    undo.push(format!("VM {}", vm.cid), |libvirt| {
        vm::find(libvirt, &vm.cid)?.map_or(Ok(()), |domain| domain.destroy().and_then(|()| domain.undefine()))
    });
    let domain = libvirt.define_domain(&xml, vm.cid.as_str())?;
    network::require_kept(libvirt, &vm.nics)?;
    if needs_entries {
        undo.push(format!("DHCP host entries of VM {}", vm.cid), |libvirt| {
            network::unreserve(libvirt, &vm.cid).map(drop)
        });
        network::reserve(libvirt, &config.settings, &vm.cid, &vm.nics)?;
    }
    if config.settings.vm_autostart {
        domain.set_autostart()?;
    }
    {
        let _step = logging::step(format!("starting VM {}", vm.cid));
        domain.start()?;
    }
    incomplete::complete(&domain)?;
    undo.disarm();
    Ok(())
}
