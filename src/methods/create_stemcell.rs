//! `create_stemcell(image_path, cloud_properties, [env])`: the disk image in the stemcell becomes a volume that VMs'
//! boot disks are overlays on. It is decompressed and uploaded in one stream, without a copy in between.

use std::path::Path;

use serde_json::Value;

use super::Cpi;
use crate::cid::Cid;
use crate::logging;
use crate::rpc::{Arguments, Result};
use crate::stemcell::{StemcellProperties, with_image};
use crate::throttle;
use crate::undo::Undo;
use crate::xml::volume::{VolumeSpec, plain};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let image_path = arguments.string("image_path")?;
    let cloud_properties = arguments.object("cloud_properties")?;
    arguments.optional_object("env")?;
    arguments.end()?;
    let properties = StemcellProperties::parse(&Value::Object(cloud_properties))
        .map_err(|e| e.during("argument 2 (cloud_properties)"))?;

    let libvirt = cpi.libvirt()?;
    let pool = libvirt.pool(cpi.config.settings.stemcell_pool())?;
    pool.require_files()?;
    let stemcell_cid = Cid::new_stemcell();
    let name = stemcell_cid.as_str();
    let _turn = throttle::wait(&cpi.config.throttle)?;
    let _step = logging::step(format!("uploading stemcell {stemcell_cid}"));
    let undo = with_image(Path::new(&image_path), &properties, |image| {
        let spec = VolumeSpec {
            name,
            capacity: image.virtual_size,
            format: image.format,
            backing: None,
        };
        // Before it is done: where the connection is lost, nobody knows whether it was.
        let mut undo = Undo::new();
        undo.push(format!("volume {name}"), || delete_volume(cpi, name));
        let volume = pool.create_volume(&plain(&spec), name)?;
        volume.upload(libvirt, image.reader, image.file_size)?;
        Ok(undo)
    })?;
    undo.disarm();
    Ok(name.into())
}

fn delete_volume(cpi: &Cpi, name: &str) -> Result<()> {
    cpi.libvirt_for_undo()?
        .pool(cpi.config.settings.stemcell_pool())?
        .volume(name)?
        .map_or(Ok(()), |volume| volume.delete())
}
