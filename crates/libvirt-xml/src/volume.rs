//! `<volume>`: what libvirt creates a storage volume from.

use serde::{Deserialize, Serialize};

use super::element::Element;
use super::template;
use bosh_cpi::rpc::Result;

/// How a volume's bytes are laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeFormat {
    #[default]
    Raw,
    Qcow2,
}

impl VolumeFormat {
    /// The name libvirt and QEMU use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Raw, Self::Qcow2]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

/// Version of the qcow2 format: 1.1 has zero clusters, so that discards in overlays free space, and dirty bitmaps, which
/// incremental backups need. libvirt's own default is 0.10.
const QCOW2_COMPAT: &str = "1.1";

/// How much of a volume is allocated when it is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preallocation {
    #[default]
    Off,
    /// A qcow2's tables, not its data.
    Metadata,
    Full,
}

/// What an overlay's unwritten parts are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Path on the host.
    pub path: String,
    pub format: VolumeFormat,
}

/// A volume to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec<'a> {
    pub name: &'a str,
    /// Virtual size, bytes.
    pub capacity: u64,
    pub format: VolumeFormat,
    pub backing: Option<Backing>,
}

/// Allocates all of a volume ahead, whatever a template says.
pub fn allocate_fully(volume: &mut Element) {
    let capacity = volume.child_or_new("capacity").text();
    let allocation = volume.child_or_new("allocation");
    allocation.attributes.clear();
    allocation.set_text(capacity);
}

/// The volume for a pool of raw blocks, whatever a template says: all of it allocated, since libvirt makes a snapshot
/// without an origin of a logical volume that has less, which breaks when that is used up; and without a format,
/// which such pools don't have.
pub fn for_raw_blocks(volume: &Element) -> Element {
    let mut volume = volume.clone();
    allocate_fully(&mut volume);
    let target = volume.child_or_new("target");
    target.remove_children("format");
    target.remove_children("compat");
    volume
}

/// The `<volume>` of our own making: nothing allocated ahead.
pub fn plain(spec: &VolumeSpec<'_>) -> Element {
    let mut volume = Element::new("volume").with_child(Element::new("allocation").with_text("0"));
    enforce(&mut volume, spec);
    volume
}

/// The `<volume>` from the operator's `settings.storage_volume`, or our own when that is empty.
///
/// # Errors
/// `CpiError` for a template that cannot be rendered.
pub fn from_template(spec: &VolumeSpec<'_>, template: &str) -> Result<Element> {
    if template.is_empty() {
        return Ok(plain(spec));
    }
    let size = spec.capacity.to_string();
    let values = [("Name", spec.name), ("Unit", "B"), ("Size", size.as_str())];
    let mut volume = template::render("settings.storage_volume", template, &values)?;
    enforce(&mut volume, spec);
    Ok(volume)
}

fn enforce(volume: &mut Element, spec: &VolumeSpec<'_>) {
    volume.child_or_new("name").set_text(spec.name);
    let capacity = volume.child_or_new("capacity");
    capacity.attributes.clear();
    capacity.set_text(spec.capacity.to_string());
    let target = volume.child_or_new("target");
    target
        .child_or_new("format")
        .set_attribute("type", spec.format.name());
    // Some of libvirt's drivers refuse it for raw volumes.
    target.remove_children("compat");
    if spec.format == VolumeFormat::Qcow2 {
        target.push(Element::new("compat").with_text(QCOW2_COMPAT));
    }
    volume.remove_children("backingStore");
    if let Some(backing) = &spec.backing {
        volume.push(
            Element::new("backingStore")
                .with_child(Element::new("path").with_text(&backing.path))
                .with_child(Element::new("format").with_attribute("type", backing.format.name())),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = r#"<volume>
    <name>{{.Name}}</name>
    <allocation unit="G">0</allocation>
    <capacity unit="{{.Unit}}">{{.Size}}</capacity>
  </volume>"#;

    #[test]
    fn the_seeds_template_gives_the_volume_asked_for() {
        let spec = VolumeSpec {
            name: "d<1>",
            capacity: 1 << 20,
            format: VolumeFormat::Qcow2,
            backing: None,
        };
        assert_eq!(
            from_template(&spec, SEED).unwrap().to_string(),
            "<volume><name>d&lt;1&gt;</name><allocation unit='G'>0</allocation><capacity>1048576</capacity>\
             <target><format type='qcow2'/><compat>1.1</compat></target></volume>"
        );
    }

    #[test]
    fn a_template_cannot_ask_for_old_qcow2_or_for_a_version_of_raw() {
        let template =
            "<volume><target><format type='raw'/><compat>0.10</compat><permissions/></target></volume>";
        for (format, expected) in [
            (
                VolumeFormat::Qcow2,
                "<target><format type='qcow2'/><permissions/><compat>1.1</compat></target>",
            ),
            (
                VolumeFormat::Raw,
                "<target><format type='raw'/><permissions/></target>",
            ),
        ] {
            let spec = VolumeSpec {
                name: "v",
                capacity: 5,
                format,
                backing: None,
            };
            let xml = from_template(&spec, template).unwrap().to_string();
            assert!(xml.contains(expected), "{xml}");
        }
    }

    #[test]
    fn an_overlay_names_its_backing_file_and_format() {
        let backing = Some(Backing {
            path: "/p/sc".to_owned(),
            format: VolumeFormat::Raw,
        });
        let spec = VolumeSpec {
            name: "v",
            capacity: 5,
            format: VolumeFormat::Qcow2,
            backing,
        };
        let xml = plain(&spec).to_string();
        assert!(
            xml.ends_with("<backingStore><path>/p/sc</path><format type='raw'/></backingStore></volume>"),
            "{xml}"
        );
    }
}
