//! Light stemcells: their cloud properties name a volume that is there already, `{"volume": ..., "pool": ...}`.

use super::find::operators_volume;
use super::record::NamedVolume;
use bosh_cpi::rpc::{Error, Result};
use libvirt_host::volume_name::VolumeName;
use libvirt_host::{Connection, Volume};
use stemcell_image::StemcellProperties;

/// The volume that these cloud properties name, none where they name none; `pool` is the one where they name no other.
///
/// # Errors
/// `CloudError` for a volume that is part of a VM or a persistent disk: whoever made the stemcell would read it.
pub fn named_volume(properties: &StemcellProperties, pool: &str) -> Result<Option<NamedVolume>> {
    let Some(volume) = properties.volume.clone() else {
        return match properties.pool {
            Some(_) => Err(Error::cloud(
                "stemcell cloud property pool needs the property volume",
            )),
            None => Ok(None),
        };
    };
    let name = VolumeName::of(&volume);
    if matches!(
        name,
        Some(VolumeName::Disk(_) | VolumeName::Snapshot(_) | VolumeName::OfVm(..))
    ) {
        return Err(Error::cloud(format!(
            "stemcell cloud property volume names {volume}, which belongs to a VM or is a persistent disk"
        )));
    }
    let pool = properties.pool.clone().unwrap_or_else(|| pool.to_owned());
    Ok(Some(NamedVolume { pool, volume }))
}

/// The volume, which can be a VM's boot disk.
///
/// # Errors
/// `CloudError`.
pub fn check_volume(
    libvirt: &Connection,
    name: &NamedVolume,
    properties: &StemcellProperties,
) -> Result<Volume> {
    let volume = operators_volume(libvirt, name)?;
    let state = volume.state()?;
    let what = || format!("volume {} in pool {}", name.volume, name.pool);
    if state.format.is_none() {
        return Err(Error::cloud(format!("{} is neither raw nor qcow2", what())));
    }
    properties
        .check_size(state.capacity)
        .map_err(|e| e.during(what()))?;
    Ok(volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_volumes_of_the_operators_own_are_taken() {
        let uuid = "5f0bd1b5-5b3a-4b0e-9f0e-0123456789ab";
        for (volume, pool, expected) in [
            (None, None, Ok(None)),
            (None, Some("p"), Err("needs the property volume")),
            (Some("jammy.qcow2"), None, Ok(Some("default"))),
            (Some("jammy.qcow2"), Some("p"), Ok(Some("p"))),
            (Some("disk0123456789abcdef"), None, Err("persistent disk")),
            (Some(&*format!("pdisk-{uuid}")), None, Err("persistent disk")),
            (Some(&format!("vm-{uuid}-boot")), None, Err("belongs to a VM")),
            (Some(&format!("bdisk-{uuid}")), None, Err("belongs to a VM")),
        ] {
            let properties = StemcellProperties {
                volume: volume.map(str::to_owned),
                pool: pool.map(str::to_owned),
                ..Default::default()
            };
            match (named_volume(&properties, "default"), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.map(|found| found.pool).as_deref(), expected),
                (Err(error), Err(says)) => assert!(error.message.contains(says), "{error}"),
                (found, expected) => panic!("{volume:?}: {found:?}, not {expected:?}"),
            }
        }
    }
}
