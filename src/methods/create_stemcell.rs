//! `create_stemcell(image_path, cloud_properties, [env])`: the disk image in the stemcell becomes a volume that VMs'
//! boot disks are overlays on. It is decompressed and uploaded in one stream, without a copy in between. A light
//! stemcell brings no image: its cloud properties name a volume that is there already.

use std::path::Path;

use serde_json::{Map, Value};

use super::Cpi;
use crate::sidecar::marker;
use crate::stemcell::{self, Record};
use crate::throttle;
use bosh_cpi::cid::Cid;
use bosh_cpi::logging;
use bosh_cpi::measures::size;
use bosh_cpi::rpc::{Arguments, Cause, Error, ErrorType, Result};
use cpi_config::Firmware;
use libvirt_host::{Connection, Pool, Undo};
use libvirt_xml::volume::{VolumeFormat, VolumeSpec, plain};
use stemcell_image::{StemcellProperties, least_bytes, with_image};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let image_path = arguments.string("image_path")?;
    let cloud_properties = arguments.object("cloud_properties")?;
    let env = arguments.optional_object("env")?;
    arguments.end()?;
    let properties = StemcellProperties::parse(&Value::Object(cloud_properties.clone()))
        .map_err(|e| e.during("argument 2 (cloud_properties)"))?;
    let pool_name = cpi.config.settings.stemcell_pool();
    let mut record = Record {
        properties: cloud_properties,
        tags: tags(env)?,
        volume: stemcell::named_volume(&properties, pool_name)?,
        firmware: None,
    };

    let libvirt = cpi.libvirt()?;
    let pool = libvirt.pool(pool_name)?;
    pool.require_files()?;
    let cid = Cid::new_stemcell();
    let _guard = throttle::acquire(&cpi.config.throttle)?;
    let (uploaded, firmware) = match &record.volume {
        Some(volume) => {
            let volume = stemcell::check_volume(libvirt, volume, &properties)?;
            (Undo::new(libvirt), stemcell::look_for_firmware(libvirt, &volume))
        }
        None => upload(libvirt, &pool, &cid, Path::new(&image_path), &properties)?,
    };
    record.firmware = firmware.map(|firmware| firmware.name().to_owned());
    let mut recorded = Undo::new(libvirt);
    recorded.push(format!("record of stemcell {cid}"), |libvirt| {
        Record::delete(&libvirt.pool(pool_name)?, &cid)
    });
    record.write(libvirt, &pool, &cid)?;
    if record.volume.is_none() {
        marker::complete(&pool, cid.as_str())?;
    }
    recorded.disarm();
    uploaded.disarm();
    Ok(cid.as_str().into())
}

/// From API version 3 on: `{"tags": {...}}`.
fn tags(mut env: Map<String, Value>) -> Result<Map<String, Value>> {
    match env.shift_remove("tags") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(tags)) => Ok(tags),
        Some(_) => Err(Error::cpi("argument 3 (env): tags must be an object")),
    }
}

fn upload<'a>(
    libvirt: &'a Connection,
    pool: &Pool,
    cid: &Cid,
    image_path: &Path,
    properties: &StemcellProperties,
) -> Result<(Undo<'a>, Option<Firmware>)> {
    let name = cid.as_str();
    let _step = logging::step(format!("uploading stemcell {cid}"));
    let room = pool.room()?;
    let ((volume, undo), announced) = with_image(image_path, properties, |image| {
        require_room(pool, room, least_bytes(image_path, image.capacity))
            .map_err(|e| e.during(format!("uploading stemcell {cid}")))?;
        let spec = VolumeSpec {
            name,
            capacity: image.capacity,
            format: image.format,
            backing: None,
        };
        let mut undo = Undo::new(libvirt);
        let (owned, pool_name) = (name.to_owned(), pool.name.clone());
        undo.push(format!("volume {name}"), move |libvirt| {
            delete_volume(&libvirt.pool(&pool_name)?, &owned)
        });
        marker::begin(pool, name)?;
        let volume = pool.create_volume(&plain(&spec), name)?;
        let length = volume.upload(libvirt, image.content, image.holes_from, room)?;
        volume.require_capacity(match image.format {
            VolumeFormat::Raw => length,
            VolumeFormat::Qcow2 => image.capacity,
        })?;
        Ok((volume, undo))
    })?;
    let firmware = announced.or_else(|| stemcell::look_for_firmware(libvirt, &volume));
    if let Some(firmware) = firmware {
        log::info!("VMs of stemcell {cid} are started by {}", firmware.name());
    }
    Ok((undo, firmware))
}

/// Before anything is created.
fn require_room(pool: &Pool, room: u64, least: u64) -> Result<()> {
    if least <= room {
        return Ok(());
    }
    Err(Error::new(
        ErrorType::NoDiskSpace,
        format!(
            "it takes {} at least, but {} are free in pool {}; free some room there, or name another pool as \
             settings.stemcell_pool_name",
            size(least),
            size(room),
            pool.name
        ),
    )
    .because(Cause::Full))
}

fn delete_volume(pool: &Pool, name: &str) -> Result<()> {
    pool.volume(name)?.map_or(Ok(()), |volume| volume.delete())?;
    marker::end(pool, name)
}
