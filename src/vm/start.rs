//! Starting a VM that exists, with what it needs of the host. After a reboot of the host, pools and networks that libvirt
//! does not start by itself are inactive.

use std::collections::BTreeSet;
use std::path::Path;

use bosh_cpi::rpc::{Error, Result};
use libvirt_host::{Connection, Domain};
use libvirt_xml::element::Element;

/// Restarts the VM as its reset button would. A VM that does not run is booted, whatever state libvirt has saved of it.
///
/// # Errors
/// `CloudError`, not ok to retry where a pool or network is missing or does not start.
pub fn reboot(libvirt: &Connection, domain: &Domain) -> Result<()> {
    if domain.reset()? {
        return Ok(());
    }
    let doing = || format!("starting VM {}", domain.name);
    start_needs(libvirt, &domain.persistent_xml()?).map_err(|e| e.during(doing()))?;
    domain.boot()
}

/// Starts the pools of the VM's disks and the libvirt networks of its NICs.
fn start_needs(libvirt: &Connection, domain: &Element) -> Result<()> {
    let mut paths: Vec<String> = Vec::new();
    for source in sources(domain) {
        let path = source.attribute("file").or(source.attribute("dev"));
        paths.extend(path.map(str::to_owned));
        if let (Some(pool), Some(volume)) = (source.attribute("pool"), source.attribute("volume")) {
            paths.extend(backing_path(libvirt, pool, volume)?);
        }
    }
    for (pool, target) in libvirt.inactive_pool_targets()? {
        if paths.iter().any(|path| Path::new(path).starts_with(&target)) {
            libvirt.pool(&pool)?;
        }
    }
    for name in networks(domain) {
        let network = libvirt.find_network(name)?.ok_or_else(|| {
            Error::cloud(format!(
                "a NIC of it is on libvirt network {name}, which does not exist at {}; define that network (`virsh \
                 net-define`), or recreate the VM",
                libvirt.uri
            ))
        })?;
        network.ensure_active()?;
    }
    Ok(())
}

/// The file below a volume, which a domain that names only the volume does not tell. Starts the volume's pool.
fn backing_path(libvirt: &Connection, pool: &str, volume: &str) -> Result<Option<String>> {
    if libvirt.find_pool(pool)?.is_none() {
        return Err(Error::cloud(format!(
            "disk {volume} is in storage pool {pool}, which does not exist at {}; define that pool (`virsh pool-define`), \
             or recreate the VM",
            libvirt.uri
        )));
    }
    match libvirt.pool(pool)?.volume(volume)? {
        Some(volume) => Ok(volume.state()?.backing_path),
        // libvirt says so when it starts the VM.
        None => Ok(None),
    }
}

/// The `<source>` of each disk and of each layer below it.
fn sources(domain: &Element) -> Vec<&Element> {
    let mut sources = Vec::new();
    for disk in devices(domain, "disk") {
        let mut layer = Some(disk);
        while let Some(found) = layer {
            sources.extend(found.child("source"));
            layer = found.child("backingStore");
        }
    }
    sources
}

fn networks(domain: &Element) -> BTreeSet<&str> {
    devices(domain, "interface")
        .filter_map(|interface| interface.child("source")?.attribute("network"))
        .collect()
}

fn devices<'a>(domain: &'a Element, kind: &'a str) -> impl Iterator<Item = &'a Element> {
    domain
        .child("devices")
        .into_iter()
        .flat_map(move |devices| devices.children_named(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vm_needs_is_read_from_each_layer_of_its_disks() {
        let domain = Element::parse(
            "<domain><devices>\
             <disk type='volume'><source pool='p' volume='v'/></disk>\
             <disk type='file'><source file='/a/overlay'/><backingStore type='file'><source file='/b/base'/>\
             <backingStore/></backingStore></disk>\
             <disk type='block'><source dev='/dev/vg/disk'/></disk><disk type='file' device='cdrom'/>\
             <interface type='network'><source network='n'/></interface>\
             <interface type='bridge'><source bridge='br0'/></interface><interface type='user'/>\
             </devices></domain>",
        )
        .unwrap();
        let found: Vec<&str> = sources(&domain)
            .into_iter()
            .filter_map(|source| {
                ["pool", "file", "dev"]
                    .into_iter()
                    .find_map(|name| source.attribute(name))
            })
            .collect();
        assert_eq!(found, ["p", "/a/overlay", "/b/base", "/dev/vg/disk"]);
        assert_eq!(networks(&domain).into_iter().collect::<Vec<_>>(), ["n"]);
        assert_eq!(networks(&Element::new("domain")).len(), 0);
    }
}
