//! The `.ovf` beside a VMDK: what it says about firmware. Nothing else in it is needed, as the VMDK describes itself.

use cpi_config::Firmware;
use libvirt_xml::element::Element;

/// Bytes. Real ones have some ten thousand.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// The machine's firmware, as VMware's tools write it (`vmw:Config` with the key `firmware`); None where nothing is said,
/// nothing known, or the text is no XML.
pub fn firmware(text: &[u8]) -> Option<Firmware> {
    let document = Element::parse(std::str::from_utf8(text).ok()?).ok()?;
    let value = setting(&document, "firmware")?;
    match value.to_ascii_lowercase().as_str() {
        "efi" => Some(Firmware::Efi),
        "bios" => Some(Firmware::Bios),
        _ => None,
    }
}

fn setting<'a>(element: &'a Element, key: &str) -> Option<&'a str> {
    if local(&element.name) == "Config" && attribute(element, "key") == Some(key) {
        return attribute(element, "value");
    }
    element.elements().find_map(|child| setting(child, key))
}

fn attribute<'a>(element: &'a Element, name: &str) -> Option<&'a str> {
    let mut attributes = element.attributes.iter();
    attributes
        .find(|(key, _)| local(key) == name)
        .map(|(_, value)| value.as_str())
}

/// A name without the prefix that stands for its namespace.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ovf_says_about_firmware() {
        let ovf = |section: &str| {
            format!(
                "<?xml version=\"1.0\"?><Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" xmlns:vmw=\"http://www.vmware.com/schema/ovf\">\
                 <VirtualSystem ovf:id=\"vm\"><VirtualHardwareSection><Item/>{section}</VirtualHardwareSection></VirtualSystem></Envelope>"
            )
        };
        let config = |key: &str, value: &str| {
            ovf(&format!(
                "<vmw:Config ovf:required=\"false\" vmw:key=\"cpuHotAddEnabled\" vmw:value=\"efi\"/>\
                 <vmw:Config ovf:required=\"false\" vmw:key=\"{key}\" vmw:value=\"{value}\"/>"
            ))
        };
        for (text, expected) in [
            (config("firmware", "efi"), Some(Firmware::Efi)),
            (config("firmware", "EFI"), Some(Firmware::Efi)),
            (config("firmware", "bios"), Some(Firmware::Bios)),
            (config("firmware", "odd"), None),
            (config("other", "efi"), None),
            (ovf(""), None),
            (
                ovf("<Config key=\"firmware\" value=\"efi\"/>"),
                Some(Firmware::Efi),
            ),
            (String::new(), None),
            ("<Envelope>".to_owned(), None),
            ("<!DOCTYPE x><Envelope/>".to_owned(), None),
        ] {
            assert_eq!(firmware(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(firmware(b"\xff\xfe"), None);
    }
}
