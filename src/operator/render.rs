//! `cpi render create_vm`: what the call would make, and nothing made.

use std::path::Path;

use serde_json::{Value, json};

use super::table::width;
use super::{mask, outline, print, to_json};
use crate::methods::create_vm;
use crate::stemcell;
use crate::vm::{NewVm, OwnDisk, VolumeNames, boot_disk, domain, needs, settings_drive};
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Arguments, Error, Request, Result};
use cpi_config::Config;
use libvirt_host::volume_name::{BOOT, EPHEMERAL, SETTINGS};
use libvirt_host::{Connection, Pool, Volume};
use libvirt_xml::element::Element;
use libvirt_xml::volume::VolumeFormat;

pub fn run(config_path: &Path, as_json: bool) -> Result<()> {
    let request = Request::read(std::io::stdin().lock())?;
    request.check_api_version()?;
    if request.method != "create_vm" {
        return Err(Error::cpi(format!(
            "the request is for {:?}, not for create_vm",
            request.method
        )));
    }
    let config = Config::load(config_path, &request.context)?;
    let vm = create_vm::plan(Arguments::new(request.arguments), &config)?;
    let (xml, settings) = render(&vm, &config)?;
    let columns = if as_json { usize::MAX } else { width() };
    let xml = outline::xml(&mask::masked_xml(&xml), columns);
    let settings = mask::settings(&settings);
    print(&if as_json {
        to_json(&json!({"vm": vm.cid.as_str(), "xml": xml, "settings": settings}))
    } else {
        format!("{xml}\n{}", to_json(&settings))
    })
}

fn render(vm: &NewVm, config: &Config) -> Result<(Element, Value)> {
    let libvirt = Connection::open(&config.libvirt)?;
    let files = active_pool(&libvirt, config.settings.stemcell_pool())?;
    files.require_files()?;
    let pool = active_pool(
        &libvirt,
        vm.properties.storage_pool.as_ref().unwrap_or(&files.name),
    )?;
    pool.require_copies()?;
    let (volume, record) = find_stemcell(&libvirt, &files, &vm.stemcell_cid)?;
    let needs = needs::of_vm(&libvirt, vm, &volume, &record, config)?;
    let (boot_format, chain) =
        boot_disk::layout(&libvirt, config.settings.boot_disk_clone, &pool, &volume.state()?)?;
    let names = VolumeNames::of(&vm.cid);
    let boot = disk(&pool, &names.boot, boot_format, BOOT)?;
    let mut disks = vec![OwnDisk {
        backing: chain,
        ..boot
    }];
    if vm.properties.ephemeral_disk > 0 {
        disks.push(disk(&pool, &names.ephemeral, VolumeFormat::Raw, EPHEMERAL)?);
    }
    disks.push(disk(&files, &names.settings, VolumeFormat::Raw, SETTINGS)?);
    // Refuses what does not fit on the drive.
    settings_drive::image(vm, &needs, config)?;
    let xml = domain::xml(vm, &needs, config, &libvirt, &disks)?;
    Ok((xml, settings_drive::document(vm, &needs, config)))
}

/// The call would start an inactive one.
fn active_pool(libvirt: &Connection, name: &str) -> Result<Pool> {
    let pool = libvirt.find_pool(name)?;
    let pool =
        pool.ok_or_else(|| Error::cloud(format!("storage pool {name} does not exist at {}", libvirt.uri)))?;
    if pool.info()?.active {
        return Ok(pool);
    }
    Err(Error::cloud(format!(
        "storage pool {name} is inactive, and rendering starts nothing: virsh pool-start {name}"
    )))
}

/// The stemcell's volume and its record, from the pools that are active: no other is started to look.
fn find_stemcell(libvirt: &Connection, first: &Pool, cid: &Cid) -> Result<(Volume, stemcell::Record)> {
    let missing = || {
        Error::cloud(format!(
            "stemcell {cid} does not exist in any active pool of {}; upload it again",
            libvirt.uri
        ))
    };
    let name = cid.stemcell_volume().ok_or_else(missing)?;
    let others = libvirt.active_pools()?;
    for pool in std::iter::once(first).chain(&others) {
        let Some(record) = pool.unless_stopped(stemcell::Record::read(libvirt, pool, cid))? else {
            continue;
        };
        let volume = match &record.volume {
            Some(light) => active_pool(libvirt, &light.pool)?.volume(&light.volume)?,
            None => pool.unless_stopped(pool.volume(&name))?.flatten(),
        };
        if let Some(volume) = volume {
            return Ok((volume, record));
        }
    }
    Err(missing())
}

/// A volume as it would be made.
fn disk(pool: &Pool, name: &str, format: VolumeFormat, serial: &'static str) -> Result<OwnDisk> {
    Ok(OwnDisk {
        pool: pool.name.clone(),
        volume: name.to_owned(),
        path: format!("{}/{name}", pool.info()?.target),
        format,
        backing: Some(Vec::new()),
        serial,
    })
}
