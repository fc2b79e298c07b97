//! Whether QEMU really runs here, as the user it runs as, on the volumes of the pool.

use super::Finding;
use crate::config::Config;
use crate::libvirt::Connection;
use crate::operator::probe::Probe;
use crate::rpc::Result;
use crate::xml::element::Element;

/// Starts a VM without anything to boot, paused, that goes again at once. It has the probe as its disk: that QEMU's user
/// may open files in the pool is not said by libvirt's being able to make them.
pub fn runs(libvirt: &Connection, config: &Config, domain_type: &str, probe: Option<&Probe>) -> Finding {
    let what = "QEMU";
    let with_disk = disk(libvirt, probe).and_then(|disk| start(libvirt, config, domain_type, disk));
    let Err(error) = with_disk else {
        let on = if probe.is_some() {
            " on a disk of the pool"
        } else {
            ""
        };
        return Finding::ok(what, format!("an empty VM of type {domain_type} started{on}"));
    };
    // QEMU's own reason gets lost now and then, so what it takes to start tells more.
    if let Some(probe) = probe
        && start(libvirt, config, domain_type, None).is_ok()
    {
        let pool = &probe.volume.pool;
        return Finding::wrong(what, format!("cannot use a disk of pool {pool}: {}", error.message)).cured_by(
            "let QEMU's user into every directory above the pool, on the host: namei -l PATH; chmod o+x DIRECTORY; \
             with AppArmor or SELinux: journalctl -k --grep=denied",
        );
    }
    Finding::wrong(
        what,
        format!("no VM of type {domain_type} starts: {}", error.message),
    )
    .cured_by(cure(&error.message))
}

fn start(libvirt: &Connection, config: &Config, domain_type: &str, disk: Option<Element>) -> Result<()> {
    let name = format!("cpi-check-{}", uuid::Uuid::new_v4());
    libvirt
        .start_passing(&domain(&name, config, domain_type, disk), &name)?
        .destroy()
}

fn cure(message: &str) -> &'static str {
    if message.contains("/dev/kvm")
        || message.contains("access KVM")
        || message.contains("failed to initialize kvm")
    {
        "let QEMU's user open /dev/kvm, on the host: usermod -aG kvm libvirt-qemu; chown root:kvm /dev/kvm; chmod 660 \
         /dev/kvm; systemctl restart libvirtd; or set settings.domain_type to qemu"
    } else if message.contains("access denied") || message.contains("authorization") {
        "let this user define and start VMs: see the rules of libvirt's access driver (polkit) on the host"
    } else {
        "see what QEMU says, on the host: journalctl -u libvirtd; ls -t /var/log/libvirt/qemu"
    }
}

fn disk(libvirt: &Connection, probe: Option<&Probe>) -> Result<Option<Element>> {
    use crate::xml::disk::{Device, DiskSpec, render};
    let Some(probe) = probe else { return Ok(None) };
    let Some(pool) = libvirt.find_pool(&probe.volume.pool)? else {
        return Ok(None);
    };
    let spec = DiskSpec {
        source: pool.disk_source(&probe.volume.name)?,
        path: &probe.volume.path()?,
        format: crate::xml::volume::VolumeFormat::Raw,
        bus: crate::config::DiskBus::Virtio,
        position: 0,
        serial: "probe",
        device: Device::Disk,
        options: crate::disk::RunTimeOptions::default(),
    };
    render(&spec, "").map(Some)
}

fn domain(name: &str, config: &Config, domain_type: &str, disk: Option<Element>) -> Element {
    let mut os_type = Element::new("type").with_text("hvm");
    if !config.settings.machine.is_empty() {
        os_type.set_attribute("machine", &config.settings.machine);
    }
    let mut devices = Element::new("devices");
    if let Some(disk) = disk {
        devices.push(disk);
    }
    devices.push(Element::new("memballoon").with_attribute("model", "none"));
    Element::new("domain")
        .with_attribute("type", domain_type)
        .with_child(Element::new("name").with_text(name))
        .with_child(
            Element::new("memory")
                .with_attribute("unit", "MiB")
                .with_text("32"),
        )
        .with_child(Element::new("vcpu").with_text("1"))
        .with_child(Element::new("os").with_child(os_type))
        .with_child(devices)
}
