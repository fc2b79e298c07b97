//! `<domain>`: a VM with all its disks and NICs, defined in one go.

use super::element::{Element, Node};
use super::platform::Platform;
use super::template;
use bosh_cpi::rpc::{Error, Result};
use cpi_config::DomainType;

/// Root ports of a PCIe machine: one for each of its own devices and for 24 disks to come, with some to spare. Firmware
/// looks at each one, so more would make every boot slower.
const PCIE_ROOT_PORTS: usize = 36;

/// A domain has one of each at most, so the operator's takes the place of ours.
const ONE_OF_A_KIND: &[&str] = &["emulator", "memballoon", "iommu", "vsock"];

/// A VM to define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec<'a> {
    pub name: &'a str,
    pub uuid: &'a str,
    /// MiB.
    pub memory: u64,
    pub cpus: u64,
    /// `kvm` or `qemu`; `auto` leaves a template's own choice, and is for templates only.
    pub domain_type: DomainType,
    pub platform: Platform<'a>,
    /// Directory on the host for console logs, or empty.
    pub console_log_dir: &'a str,
    pub disks: Vec<Element>,
    pub interfaces: Vec<Element>,
    /// The operator's own, as they are.
    pub devices: Vec<Element>,
}

/// An operator's domain template, and what it is called in messages.
#[derive(Debug, Clone, Copy)]
pub struct DomainTemplate<'a> {
    pub property: &'a str,
    pub text: &'a str,
}

/// The `<domain>` from the operator's template, or our own when there is none.
///
/// # Errors
/// `CpiError` for a template that cannot be rendered or is no `<domain>`.
pub fn render(spec: DomainSpec<'_>, template: Option<DomainTemplate<'_>>) -> Result<Element> {
    let mut domain = if let Some(DomainTemplate { property, text }) = template {
        let (memory, cpus) = (spec.memory.to_string(), spec.cpus.to_string());
        let values = [
            ("Name", spec.name),
            ("UUID", spec.uuid),
            ("Memory", memory.as_str()),
            ("CPU", cpus.as_str()),
        ];
        let domain = template::render(property, text, &values)?;
        if domain.name != "domain" {
            return Err(Error::cpi(format!(
                "template {property}: it renders to <{}>, not to <domain>",
                domain.name
            )));
        }
        domain
    } else {
        default_domain(&spec)
    };
    enforce(&mut domain, spec);
    Ok(domain)
}

fn enforce(domain: &mut Element, spec: DomainSpec<'_>) {
    domain.child_or_new("name").set_text(spec.name);
    domain.child_or_new("uuid").set_text(spec.uuid);
    match spec.domain_type {
        DomainType::Auto => {}
        DomainType::Kvm => domain.set_attribute("type", "kvm"),
        DomainType::Qemu => domain.set_attribute("type", "qemu"),
    }
    spec.platform.enforce(domain);
    let devices = domain.child_or_new("devices");
    // A template for another machine has no slots for hot-plug on this one.
    if is_pcie(spec.platform.machine) && !has_controller(devices, "pci") {
        add(devices, slots_for_hot_plug(spec.platform.machine));
    }
    for device in &spec.devices {
        if ONE_OF_A_KIND.contains(&device.name.as_str()) {
            devices.remove_children(&device.name);
        }
    }
    add(devices, spec.devices);
    if spec.disks.iter().any(is_on_scsi) && !has_controller(devices, "scsi") {
        devices.push(scsi_controller());
    }
    add(devices, spec.disks);
    add(devices, spec.interfaces);
}

fn add(devices: &mut Element, more: Vec<Element>) {
    devices.children.extend(more.into_iter().map(Node::Element));
}

/// Whether there is a first controller of this type.
fn has_controller(devices: &Element, kind: &str) -> bool {
    devices.children_named("controller").any(|controller| {
        controller.attribute("type") == Some(kind)
            && matches!(controller.attribute("index"), None | Some("0"))
    })
}

fn is_on_scsi(disk: &Element) -> bool {
    disk.child("target")
        .is_some_and(|target| target.attribute("bus") == Some("scsi"))
}

fn default_domain(spec: &DomainSpec<'_>) -> Element {
    let mut domain = Element::new("domain")
        .with_attribute("type", "kvm")
        .with_child(
            Element::new("memory")
                .with_attribute("unit", "MiB")
                .with_text(spec.memory.to_string()),
        )
        .with_child(Element::new("vcpu").with_text(spec.cpus.to_string()))
        .with_child(
            Element::new("os")
                .with_child(Element::new("type").with_text("hvm"))
                .with_child(Element::new("boot").with_attribute("dev", "hd")),
        )
        .with_child(
            Element::new("features")
                .with_child(Element::new("acpi"))
                .with_child(Element::new("apic")),
        )
        .with_child(cpu(spec.domain_type))
        .with_child(Element::new("clock").with_attribute("offset", "utc"))
        .with_child(Element::new("on_poweroff").with_text("destroy"))
        .with_child(Element::new("on_reboot").with_text("restart"))
        .with_child(Element::new("on_crash").with_text("restart"));
    let devices = domain.child_or_new("devices");
    for controller in slots_for_hot_plug(spec.platform.machine) {
        devices.push(controller);
    }
    devices.push(serial(spec));
    devices.push(
        Element::new("console").with_attribute("type", "pty").with_child(
            Element::new("target")
                .with_attribute("type", "serial")
                .with_attribute("port", "0"),
        ),
    );
    devices.push(
        Element::new("rng").with_attribute("model", "virtio").with_child(
            Element::new("backend")
                .with_attribute("model", "random")
                .with_text("/dev/urandom"),
        ),
    );
    devices.push(Element::new("memballoon").with_attribute("model", "virtio"));
    domain
}

fn serial(spec: &DomainSpec<'_>) -> Element {
    let mut serial = Element::new("serial").with_attribute("type", "pty");
    if !spec.console_log_dir.is_empty() {
        let file = format!("{}/{}.log", spec.console_log_dir.trim_end_matches('/'), spec.name);
        serial.push(
            Element::new("log")
                .with_attribute("file", file)
                .with_attribute("append", "on"),
        );
    }
    serial.with_child(Element::new("target").with_attribute("port", "0"))
}

/// The host's own CPU where it runs the guest's instructions itself, a plain model where QEMU emulates one.
fn cpu(domain_type: DomainType) -> Element {
    match domain_type {
        DomainType::Qemu => Element::new("cpu")
            .with_attribute("mode", "custom")
            .with_attribute("match", "exact")
            .with_child(
                Element::new("model")
                    .with_attribute("fallback", "allow")
                    .with_text("qemu64"),
            ),
        DomainType::Auto | DomainType::Kvm => Element::new("cpu").with_attribute("mode", "host-passthrough"),
    }
}

/// A `pc` machine has 31 slots and gets 31 more behind a bridge; a PCIe machine has none but its root ports.
fn slots_for_hot_plug(machine: &str) -> Vec<Element> {
    let controller = |model: &str| {
        Element::new("controller")
            .with_attribute("type", "pci")
            .with_attribute("model", model)
    };
    if is_pcie(machine) {
        let mut controllers = vec![controller("pcie-root")];
        controllers.extend((0..PCIE_ROOT_PORTS).map(|_| controller("pcie-root-port")));
        controllers
    } else {
        vec![controller("pci-root"), controller("pci-bridge")]
    }
}

fn is_pcie(machine: &str) -> bool {
    machine.contains("q35") || machine.starts_with("virt")
}

fn scsi_controller() -> Element {
    Element::new("controller")
        .with_attribute("type", "scsi")
        .with_attribute("index", "0")
        .with_attribute("model", "virtio-scsi")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpi_config::{Firmware, Graphics};

    fn spec() -> DomainSpec<'static> {
        DomainSpec {
            name: "vm-1",
            uuid: "00000000-0000-4000-8000-000000000001",
            memory: 512,
            cpus: 2,
            domain_type: DomainType::Auto,
            platform: platform(""),
            console_log_dir: "",
            disks: vec![Element::new("disk")],
            interfaces: vec![Element::new("interface")],
            devices: Vec::new(),
        }
    }

    fn platform(machine: &str) -> Platform<'_> {
        Platform {
            machine,
            firmware: Some(Firmware::Bios),
            efi_loader: None,
            cpu_mode: "",
            hugepages: None,
            graphics: Graphics::None,
        }
    }

    fn by(text: &str) -> Option<DomainTemplate<'_>> {
        Some(DomainTemplate {
            property: "settings.vm_domain",
            text,
        })
    }

    #[test]
    fn name_and_uuid_are_enforced_and_devices_join_the_templates_own() {
        let template = "<domain type='kvm'><name>mine</name><memory unit='MiB'>{{.Memory}}</memory>\
            <vcpu>{{.CPU}}</vcpu><devices><serial type='pty'/><memballoon model='virtio'/></devices><os/></domain>";
        assert_eq!(
            render(spec(), by(template)).unwrap().to_string(),
            "<domain type='kvm'><name>vm-1</name><memory unit='MiB'>512</memory><vcpu>2</vcpu><devices>\
             <serial type='pty'/><memballoon model='virtio'/><disk/><interface/></devices><os/>\
             <uuid>00000000-0000-4000-8000-000000000001</uuid></domain>"
        );
        let qemu = DomainSpec {
            domain_type: DomainType::Qemu,
            disks: vec![
                Element::parse("<disk><target dev='vda' bus='virtio'/></disk>").unwrap(),
                Element::parse("<disk><target dev='sdb' bus='scsi'/></disk>").unwrap(),
            ],
            devices: vec![
                Element::parse("<memballoon model='none'/>").unwrap(),
                Element::new("hostdev"),
            ],
            ..spec()
        };
        let domain = render(qemu, by(template)).unwrap();
        assert_eq!(domain.attribute("type"), Some("qemu"));
        assert!(domain.to_string().contains(
            "<serial type='pty'/><memballoon model='none'/><hostdev/>\
                           <controller type='scsi' index='0' model='virtio-scsi'/><disk>"
        ));
    }

    #[test]
    fn a_template_of_something_else_is_refused() {
        assert!(
            render(spec(), by("<network/>"))
                .unwrap_err()
                .message
                .contains("not to <domain>")
        );
    }

    #[test]
    fn there_are_slots_for_disks_to_come() {
        let ports = |machine, template| {
            let spec = DomainSpec {
                platform: platform(machine),
                ..spec()
            };
            let domain = render(spec, template).unwrap();
            domain
                .child("devices")
                .unwrap()
                .children_named("controller")
                .count()
        };
        assert_eq!(ports("q35", None), PCIE_ROOT_PORTS + 1);
        assert_eq!(ports("pc", None), 2);
        // A template that is put on a PCIe machine gets them too, unless it has its own.
        assert_eq!(ports("q35", by("<domain/>")), PCIE_ROOT_PORTS + 1);
        let own = "<domain><devices><controller type='pci' model='pcie-root'/></devices></domain>";
        assert_eq!(ports("q35", by(own)), 1);
        assert_eq!(ports("", by("<domain/>")), 0);
    }
}
