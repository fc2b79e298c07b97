//! `<domain>`: a VM with all its disks and NICs, defined in one go.

use super::element::{Element, Node};
use super::template;
use crate::config::DomainType;
use crate::rpc::{Error, Result};

/// Root ports of a PCIe machine: one for each of its own devices and for 24 disks to come, with some to spare. Firmware
/// looks at each one, so more would make every boot slower.
const PCIE_ROOT_PORTS: usize = 36;

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
    /// Machine type, or empty for libvirt's default.
    pub machine: &'a str,
    /// Whether disks are on a virtio-scsi bus.
    pub scsi: bool,
    /// Directory on the host for console logs, or empty.
    pub console_log_dir: &'a str,
    pub disks: Vec<Element>,
    pub interfaces: Vec<Element>,
}

/// The `<domain>` from the operator's `settings.vm_domain`, or our own when that is empty.
///
/// # Errors
/// `CpiError` for a template that cannot be rendered or is no `<domain>`.
pub fn render(spec: DomainSpec<'_>, template: &str) -> Result<Element> {
    let mut domain = if template.is_empty() {
        default_domain(&spec)
    } else {
        let (memory, cpus) = (spec.memory.to_string(), spec.cpus.to_string());
        let values = [
            ("Name", spec.name),
            ("UUID", spec.uuid),
            ("Memory", memory.as_str()),
            ("CPU", cpus.as_str()),
        ];
        let domain = template::render("settings.vm_domain", template, &values)?;
        if domain.name != "domain" {
            return Err(Error::cpi(format!(
                "template settings.vm_domain: it renders to <{}>, not to <domain>",
                domain.name
            )));
        }
        domain
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
    let scsi = spec.scsi;
    let devices = domain.child_or_new("devices");
    if scsi && !devices.children_named("controller").any(is_first_scsi_controller) {
        devices.push(scsi_controller());
    }
    for device in spec.disks.into_iter().chain(spec.interfaces) {
        devices.children.push(Node::Element(device));
    }
}

fn default_domain(spec: &DomainSpec<'_>) -> Element {
    let mut os_type = Element::new("type").with_text("hvm");
    if !spec.machine.is_empty() {
        os_type.set_attribute("machine", spec.machine);
    }
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
                .with_child(os_type)
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
    for controller in slots_for_hot_plug(spec.machine) {
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

fn is_first_scsi_controller(controller: &Element) -> bool {
    controller.attribute("type") == Some("scsi") && matches!(controller.attribute("index"), None | Some("0"))
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

    fn spec() -> DomainSpec<'static> {
        DomainSpec {
            name: "vm-1",
            uuid: "00000000-0000-4000-8000-000000000001",
            memory: 512,
            cpus: 2,
            domain_type: DomainType::Auto,
            machine: "",
            scsi: false,
            console_log_dir: "",
            disks: vec![Element::new("disk")],
            interfaces: vec![Element::new("interface")],
        }
    }

    #[test]
    fn name_and_uuid_are_enforced_and_devices_join_the_templates_own() {
        let template = "<domain type='kvm'><name>mine</name><memory unit='MiB'>{{.Memory}}</memory>\
            <vcpu>{{.CPU}}</vcpu><devices><serial type='pty'/></devices></domain>";
        assert_eq!(
            render(spec(), template).unwrap().to_string(),
            "<domain type='kvm'><name>vm-1</name><memory unit='MiB'>512</memory><vcpu>2</vcpu><devices>\
             <serial type='pty'/><disk/><interface/></devices>\
             <uuid>00000000-0000-4000-8000-000000000001</uuid></domain>"
        );
        let qemu = DomainSpec {
            domain_type: DomainType::Qemu,
            scsi: true,
            ..spec()
        };
        let domain = render(qemu, template).unwrap();
        assert_eq!(domain.attribute("type"), Some("qemu"));
        assert!(
            domain
                .to_string()
                .contains("<controller type='scsi' index='0' model='virtio-scsi'/><disk/>")
        );
    }

    #[test]
    fn a_template_of_something_else_is_refused() {
        assert!(
            render(spec(), "<network/>")
                .unwrap_err()
                .message
                .contains("not to <domain>")
        );
    }

    #[test]
    fn the_default_has_slots_for_disks_to_come() {
        let ports = |machine| {
            let domain = render(DomainSpec { machine, ..spec() }, "").unwrap();
            domain
                .child("devices")
                .unwrap()
                .children_named("controller")
                .count()
        };
        assert_eq!(ports("q35"), PCIE_ROOT_PORTS + 1);
        assert_eq!(ports("pc"), 2);
    }
}
