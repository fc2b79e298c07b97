//! What a domain's machine is: its type, firmware, CPU, memory and screen. On top of our own domain as on an
//! operator's template.

use super::element::Element;
use cpi_config::{Firmware, Graphics};

/// A page size for the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HugePages {
    /// The host's default size of huge pages.
    Default,
    /// MiB.
    OfSize(u64),
}

/// What was asked for; where nothing was, the domain keeps what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform<'a> {
    /// `pc`, `q35` or any other that the host knows; or empty.
    pub machine: &'a str,
    pub firmware: Option<Firmware>,
    /// The host's file for EFI, where libvirt cannot be told to choose one without secure boot.
    pub efi_loader: Option<String>,
    /// A mode, or a model's name; or empty.
    pub cpu_mode: &'a str,
    pub hugepages: Option<HugePages>,
    pub graphics: Graphics,
}

impl Platform<'_> {
    /// Puts it into the `<domain>`.
    pub fn enforce(&self, domain: &mut Element) {
        let os = domain.child_or_new("os");
        if !self.machine.is_empty() {
            os.child_or_new("type").set_attribute("machine", self.machine);
        }
        match self.firmware {
            Some(Firmware::Efi) => by_efi(os, self.efi_loader.as_deref()),
            Some(Firmware::Bios) => by_bios(os),
            None => {}
        }
        if !self.cpu_mode.is_empty() {
            domain.remove_children("cpu");
            domain.push(cpu(self.cpu_mode));
        }
        if let Some(pages) = self.hugepages {
            let memory = domain.child_or_new("memoryBacking");
            memory.remove_children("hugepages");
            memory.push(hugepages(pages));
        }
        let kind = match self.graphics {
            Graphics::None => return,
            Graphics::Vnc => "vnc",
            Graphics::Spice => "spice",
        };
        let devices = domain.child_or_new("devices");
        if devices.child("graphics").is_none() {
            devices.push(
                Element::new("graphics")
                    .with_attribute("type", kind)
                    .with_attribute("autoport", "yes")
                    .with_attribute("listen", "127.0.0.1"),
            );
        }
    }
}

/// Libvirt chooses the file among those that the host has, and not one that insists on signed systems. A template that
/// names its file already has what was asked for.
fn by_efi(os: &mut Element, loader: Option<&str>) {
    if os.attribute("firmware") == Some("efi") || os.child("loader").is_some() {
        return;
    }
    if let Some(file) = loader {
        os.push(
            Element::new("loader")
                .with_attribute("readonly", "yes")
                .with_attribute("type", "pflash")
                .with_text(file),
        );
        return;
    }
    os.set_attribute("firmware", "efi");
    os.push(
        Element::new("firmware").with_child(
            Element::new("feature")
                .with_attribute("enabled", "no")
                .with_attribute("name", "secure-boot"),
        ),
    );
}

fn by_bios(os: &mut Element) {
    os.remove_attribute("firmware");
    for of_efi in ["firmware", "loader", "nvram"] {
        os.remove_children(of_efi);
    }
}

fn cpu(mode: &str) -> Element {
    if ["host-passthrough", "host-model", "maximum"].contains(&mode) {
        return Element::new("cpu").with_attribute("mode", mode);
    }
    Element::new("cpu")
        .with_attribute("mode", "custom")
        .with_attribute("match", "exact")
        .with_child(
            Element::new("model")
                .with_attribute("fallback", "allow")
                .with_text(mode),
        )
}

fn hugepages(pages: HugePages) -> Element {
    let hugepages = Element::new("hugepages");
    match pages {
        HugePages::Default => hugepages,
        HugePages::OfSize(size) => hugepages.with_child(
            Element::new("page")
                .with_attribute("size", size.to_string())
                .with_attribute("unit", "MiB"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Platform<'static> = Platform {
        machine: "",
        firmware: None,
        efi_loader: None,
        cpu_mode: "",
        hugepages: None,
        graphics: Graphics::None,
    };

    fn on(platform: Platform<'_>, template: &str) -> String {
        let mut domain = Element::parse(template).unwrap();
        platform.enforce(&mut domain);
        domain.to_string()
    }

    #[test]
    fn what_was_asked_for_replaces_the_templates_own() {
        let template = "<domain><os><type machine='pc'>hvm</type></os><cpu mode='host-model'/>\
            <memoryBacking><locked/><hugepages/></memoryBacking><devices/></domain>";
        assert_eq!(on(NOTHING, template), template);
        let everything = Platform {
            machine: "q35",
            firmware: Some(Firmware::Efi),
            efi_loader: None,
            cpu_mode: "EPYC",
            hugepages: Some(HugePages::OfSize(1024)),
            graphics: Graphics::Vnc,
        };
        assert_eq!(
            on(everything, template),
            "<domain><os firmware='efi'><type machine='q35'>hvm</type>\
             <firmware><feature enabled='no' name='secure-boot'/></firmware></os>\
             <memoryBacking><locked/><hugepages><page size='1024' unit='MiB'/></hugepages></memoryBacking>\
             <devices><graphics type='vnc' autoport='yes' listen='127.0.0.1'/></devices>\
             <cpu mode='custom' match='exact'><model fallback='allow'>EPYC</model></cpu></domain>"
        );
    }

    #[test]
    fn an_old_libvirt_is_told_the_file_for_efi() {
        let efi = Platform {
            firmware: Some(Firmware::Efi),
            efi_loader: Some("/ovmf.fd".to_owned()),
            ..NOTHING
        };
        assert_eq!(
            on(efi, "<domain><os><type>hvm</type></os></domain>"),
            "<domain><os><type>hvm</type><loader readonly='yes' type='pflash'>/ovmf.fd</loader></os></domain>"
        );
    }

    #[test]
    fn a_templates_own_efi_stays_until_a_bios_is_asked_for() {
        for template in [
            "<domain><os firmware='efi'><type>hvm</type><firmware><feature name='secure-boot' enabled='yes'/></firmware></os></domain>",
            "<domain><os><type>hvm</type><loader type='pflash'>/a</loader><nvram template='/b'/></os></domain>",
        ] {
            let with = |firmware| Platform { firmware, ..NOTHING };
            assert_eq!(on(with(None), template), template);
            assert_eq!(on(with(Some(Firmware::Efi)), template), template);
            assert_eq!(
                on(with(Some(Firmware::Bios)), template),
                "<domain><os><type>hvm</type></os></domain>"
            );
        }
    }

    #[test]
    fn a_screen_of_the_templates_own_stays() {
        let template = "<domain><os/><devices><graphics type='spice'/></devices></domain>";
        let vnc = Platform {
            graphics: Graphics::Vnc,
            ..NOTHING
        };
        assert_eq!(on(vnc, template), template);
    }
}
