//! `set_vm_metadata(vm_cid, metadata)`: `name` becomes the domain's title, every key an entry of its `<metadata>`.

use serde_json::Value;

use super::Cpi;
use crate::vm;
use bosh_cpi::rpc::{Arguments, Result};
use libvirt_xml::metadata::{PREFIX, VM_NAMESPACE, to_element};

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let vm_cid = arguments.cid("vm_cid")?;
    let metadata = arguments.object("metadata")?;
    arguments.end()?;

    let domain = vm::get(cpi.libvirt()?, &vm_cid)?;
    domain.set_metadata(PREFIX, VM_NAMESPACE, Some(&to_element("vm", &metadata)))?;
    let title = metadata
        .get("name")
        .and_then(Value::as_str)
        .map(as_title)
        .filter(|title| !title.is_empty());
    domain.set_title(title.as_deref())?;
    Ok(Value::Null)
}

/// A title is one line of text that XML can hold; the exact value is in the metadata.
fn as_title(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') {
                ' '
            } else {
                c
            }
        })
        .collect::<String>()
        .trim()
        .to_owned()
}
