//! The mark of a VM that create_vm has not completed: an element in the domain's `<metadata>`, from its definition on until
//! it has started. A call that is killed meanwhile leaves it there, and tells `cpi prune` that nobody was told of the VM.

use bosh_cpi::rpc::Result;
use libvirt_host::Domain;
use libvirt_xml::element::Element;
use libvirt_xml::metadata;

const NAMESPACE: &str = "https://github.com/libvirt-bosh-cpi/creating/1.0";

/// Marks the description that is about to be defined.
pub fn mark(domain: &mut Element) {
    let mark = Element::new("creating:vm").with_attribute("xmlns:creating", NAMESPACE);
    domain.child_or_new("metadata").push(mark);
}

pub fn is_marked(domain: &Element) -> bool {
    metadata::find(domain, NAMESPACE).is_some()
}

/// Takes the mark away. If this fails, the VM has to go.
///
/// # Errors
/// What libvirt says.
pub fn complete(domain: &Domain) -> Result<()> {
    domain.set_metadata("creating", NAMESPACE, None)
}
