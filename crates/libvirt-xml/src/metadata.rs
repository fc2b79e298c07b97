//! `<metadata>` of ours in a domain: what the Director said about VMs and disks.

use serde_json::{Map, Value};

use super::characters::is_representable;
use super::element::Element;

/// The prefix under which `virsh metadata` and `virsh dumpxml` show our elements.
pub const PREFIX: &str = "bosh";

/// The namespace of a VM's own metadata.
pub const VM_NAMESPACE: &str = "https://github.com/libvirt-bosh-cpi/vm/1.0";

/// Libvirt keeps one element a namespace, so each disk has its own.
pub fn disk_namespace(disk_cid: &str) -> String {
    format!("https://github.com/libvirt-bosh-cpi/disk/1.0#{disk_cid}")
}

/// `<name><entry key='…'>value</entry>…</name>`. Strings stand as they are, anything else as JSON; so do strings
/// that XML has no way to write, marked `encoding='json'`.
pub fn to_element(name: &str, entries: &Map<String, Value>) -> Element {
    let mut element = Element::new(name);
    for (key, value) in entries {
        let mut entry = Element::new("entry");
        if is_representable(key) {
            entry.set_attribute("key", key);
        } else {
            entry.set_attribute("key", in_ascii_json(&Value::String(key.clone())));
            entry.set_attribute("key-encoding", "json");
        }
        match value {
            Value::String(text) if is_representable(text) => entry.set_text(text),
            other => {
                entry.set_attribute("encoding", "json");
                entry.set_text(in_ascii_json(other));
            }
        }
        element.push(entry);
    }
    element
}

/// What `to_element` was given.
pub fn from_element(element: &Element) -> Map<String, Value> {
    let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    element
        .elements()
        .filter(|entry| entry.name.rsplit(':').next() == Some("entry"))
        .filter_map(|entry| {
            let key = entry.attribute("key")?;
            let key = match (entry.attribute("key-encoding"), json(key)) {
                (Some(_), Value::String(key)) => key,
                _ => key.to_owned(),
            };
            let text = entry.text();
            let value = if entry.attribute("encoding").is_some() {
                json(&text)
            } else {
                Value::String(text)
            };
            Some((key, value))
        })
        .collect()
}

/// What a domain's description holds under this namespace; nothing when it holds nothing.
pub fn of_domain(domain: &Element, namespace: &str) -> Map<String, Value> {
    find(domain, namespace).map(from_element).unwrap_or_default()
}

/// The element of this namespace in a domain's description.
pub fn find<'a>(domain: &'a Element, namespace: &str) -> Option<&'a Element> {
    let of_namespace = |element: &&Element| element.attributes.iter().any(|(_, value)| value == namespace);
    domain.child("metadata")?.elements().find(of_namespace)
}

/// JSON with everything outside ASCII escaped, so that XML takes any character.
fn in_ascii_json(value: &Value) -> String {
    let mut out = String::new();
    for c in value.to_string().chars() {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn values_of_any_type_survive() {
        let entries = json!({"name": "a/0 <&>'\"", "n": 5, "null": null, "list": [1, "\u{fffe}"], "": "", "c": "\u{1}",
            "\u{2}key": " padded \n"});
        let Value::Object(entries) = entries else {
            unreachable!()
        };
        let written = to_element("vm", &entries).to_string();
        assert_eq!(from_element(&Element::parse(&written).unwrap()), entries);
    }

    proptest! {
        #[test]
        fn any_text_survives(key in any::<String>(), value in any::<String>()) {
            let mut entries = Map::new();
            entries.insert(key, Value::String(value));
            let written = to_element("vm", &entries).to_string();
            prop_assert_eq!(from_element(&Element::parse(&written).unwrap()), entries);
        }
    }
}
