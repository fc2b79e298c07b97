//! Templates of the operator's, and the values that are put into them: the first byte chooses what is rendered, a value
//! follows up to a zero, then the template.

use bosh_cpi::rpc::{ErrorType, Result};
use cpi_config::{DiskBus, DomainType, Firmware, Graphics};
use libvirt_xml::characters::is_representable;
use libvirt_xml::dhcp_host::{self, DhcpHostSpec};
use libvirt_xml::disk::{self, BackingFile, Device, DiskSource, DiskSpec};
use libvirt_xml::domain::{self, DomainSpec, DomainTemplate};
use libvirt_xml::element::Element;
use libvirt_xml::platform::{HugePages, Platform};
use libvirt_xml::volume::{self, VolumeFormat, VolumeSpec};

pub fn run(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else {
        return false;
    };
    let Some((value, template)) = std::str::from_utf8(rest)
        .ok()
        .and_then(|text| text.split_once('\0'))
    else {
        return false;
    };
    let rendered = match render(*kind, value, template) {
        Ok(rendered) => rendered,
        Err(error) => {
            assert_eq!(error.error_type, ErrorType::CpiError);
            assert!(
                error.message.starts_with("template settings."),
                "{}",
                error.message
            );
            return false;
        }
    };
    if !is_representable(value) {
        return false;
    }
    let read = Element::parse(&rendered.to_string()).expect("what was rendered can be read");
    if kind % 5 == 0 {
        assert_eq!(read.child("name").map(Element::text).as_deref(), Some(value));
    }
    if places_are_plain(template)
        && let Ok(plain) = render(*kind, "x", template)
    {
        assert_eq!(
            shape(&rendered),
            shape(&plain),
            "the value {value:?} made a difference to {template:?}"
        );
    }
    true
}

fn render(kind: u8, value: &str, template: &str) -> Result<Element> {
    match kind % 5 {
        0 => {
            let platform = Platform {
                machine: "pc",
                firmware: Some(Firmware::Efi),
                efi_loader: None,
                cpu_mode: "host-model",
                hugepages: Some(HugePages::OfSize(2)),
                graphics: Graphics::Vnc,
            };
            let spec = DomainSpec {
                name: value,
                uuid: value,
                memory: 512,
                cpus: 2,
                domain_type: DomainType::Qemu,
                platform,
                console_log_dir: value,
                disks: vec![Element::new("disk")],
                interfaces: vec![Element::new("interface")],
                devices: vec![Element::new("memballoon")],
            };
            let template = DomainTemplate {
                property: "settings.vm_domain",
                text: template,
            };
            domain::render(spec, Some(template))
        }
        1 => {
            let chain = [BackingFile {
                path: value.to_owned(),
                format: VolumeFormat::Raw,
            }];
            let spec = DiskSpec {
                source: DiskSource::File,
                path: value,
                backing: Some(&chain),
                format: VolumeFormat::Qcow2,
                bus: DiskBus::Scsi,
                position: 3,
                serial: value,
                device: Device::Cdrom,
                options: Default::default(),
            };
            disk::render(&spec, template)
        }
        2 => {
            let spec = VolumeSpec {
                name: value,
                capacity: 1 << 20,
                format: VolumeFormat::Raw,
                backing: None,
            };
            volume::from_template(&spec, template)
        }
        3 => {
            let address = [10, 0, 0, 5].into();
            let spec = DhcpHostSpec {
                network_name: value,
                mac: value,
                address,
                name: value,
                vm_name: value,
            };
            dhcp_host::render(&spec, template)
        }
        _ => libvirt_xml::template::render("settings.x", template, &[("Name", value), ("Size", "5")]),
    }
}

/// Whether placeholders stand where XML has text, and nowhere else.
fn places_are_plain(template: &str) -> bool {
    template.match_indices("{{").all(|(at, _)| {
        let before = &template[..at];
        before.ends_with('>') || before.ends_with("='") || before.ends_with("=\"")
    })
}

/// Names of elements and attributes: what no value may change.
fn shape(element: &Element) -> String {
    let attributes: Vec<&str> = element.attributes.iter().map(|(name, _)| name.as_str()).collect();
    let children: Vec<String> = element.elements().map(shape).collect();
    format!(
        "{}({})[{}]",
        element.name,
        attributes.join(","),
        children.join(",")
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    let domain = "<domain type='kvm'><name>{{.Name}}</name><uuid>{{ .UUID }}</uuid><memory unit='MiB'>{{.Memory}}</memory>\
        <vcpu>{{- .CPU -}}</vcpu><os><type>hvm</type><loader/></os><devices><serial type='pty'/></devices></domain>";
    let disk = "<disk type='file' device='{{.Device}}'><driver name='qemu' type='raw'/><source file='{{.TargetPath}}'/>\
        <target dev='{{.TargetDevice}}' bus='{{.TargetBus}}'/></disk>";
    let volume = "<volume><name>{{.Name}}</name><allocation unit=\"G\">0</allocation>\
        <capacity unit=\"{{.Unit}}\">{{.Size}}</capacity></volume>";
    let host =
        "<host name='{{.VmName}}' mac='{{.MacAddress}}' ip='{{.IpAddress}}'><a b='{{.NetworkName}}'/></host>";
    let any = "<!-- {{.Size}} --><a b='1'>{{.Name}}<![CDATA[{{.Name}}]]>&#33;</a>";
    let templates = [domain, disk, volume, host, any];
    let mut seeds = Vec::new();
    for (kind, template) in (0u8..).zip(templates) {
        for value in ["plain", "{{.Name}}'\"><&]]>{% x %}"] {
            seeds.push([&[kind][..], value.as_bytes(), b"\0", template.as_bytes()].concat());
        }
    }
    seeds
}
