//! XML as logs and people may see it.

use super::element::{Element, Node};

const MASK: &str = "(secret)";

/// Words in the names of attributes and elements whose values open something: `passwd` of a `<graphics>`, and whatever
/// a template brings.
const SECRET: &[&str] = &["passwd", "password", "passphrase", "secret", "token", "private"];

/// The element without what could be a secret. Command lines and environment for QEMU can hold anything.
pub fn masked(element: &Element) -> Element {
    let mut masked = element.clone();
    mask(&mut masked, false);
    masked
}

fn mask(element: &mut Element, within_secret: bool) {
    let local = element.name.rsplit(':').next().unwrap_or_default().to_lowercase();
    // A reference to a secret that libvirt keeps says where it is, not what it is.
    let is_reference =
        local == "secret" && element.elements().next().is_none() && element.text().trim().is_empty();
    let all = within_secret || (is_secret(&local) && !is_reference);
    let of_command_line = element.name.contains(':') && matches!(local.as_str(), "arg" | "env");
    for (name, value) in &mut element.attributes {
        let hidden = (all && name != "type" && name != "usage" && name != "uuid")
            || is_secret(&name.to_lowercase())
            || (of_command_line && name == "value");
        if hidden && !value.is_empty() {
            MASK.clone_into(value);
        }
    }
    for child in &mut element.children {
        match child {
            Node::Element(child) => mask(child, all),
            Node::Text(text) if all => MASK.clone_into(text),
            Node::Text(_) => {}
        }
    }
}

fn is_secret(name: &str) -> bool {
    SECRET.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_something_is_not_shown() {
        for (xml, expected) in [
            (
                "<graphics type='vnc' passwd='x'/>",
                "<graphics type='vnc' passwd='(secret)'/>",
            ),
            (
                "<auth username='u'><secret type='ceph' usage='c'/></auth>",
                "<auth username='u'><secret type='ceph' usage='c'/></auth>",
            ),
            (
                "<a><password>x</password></a>",
                "<a><password>(secret)</password></a>",
            ),
            ("<secret><v>x</v></secret>", "<secret><v>(secret)</v></secret>"),
            (
                "<q:commandline xmlns:q='u'><q:env name='N' value='x'/></q:commandline>",
                "<q:commandline xmlns:q='u'><q:env name='N' value='(secret)'/></q:commandline>",
            ),
            (
                "<disk><serial>boot</serial></disk>",
                "<disk><serial>boot</serial></disk>",
            ),
        ] {
            assert_eq!(masked(&Element::parse(xml).unwrap()).to_string(), expected);
        }
    }
}
