//! XML as libvirt answers with.

use cpi_config::DiskBus;
use libvirt_bosh_cpi::disk::{Attachments, disk_cids_in, volumes_of};
use libvirt_bosh_cpi::network::Subnet;
use libvirt_xml::element::Element;
use libvirt_xml::{masked, metadata};

pub fn run(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let element = match Element::parse(text) {
        Ok(element) => element,
        Err(error) => {
            assert!(error.position <= text.len() as u64 && !error.reason.is_empty());
            return false;
        }
    };
    let again = Element::parse(&element.to_string()).expect("what is written can be read");
    assert_eq!(again.to_string(), element.to_string());
    let _ = masked(&element).to_string();
    read_domain(&element);
    for ip in element.children_named("ip") {
        if let Some(subnet) = Subnet::of_ip_element(ip) {
            subnet.contains([10, 0, 0, 1].into());
        }
    }
    true
}

fn read_domain(domain: &Element) {
    let disks = disk_cids_in(domain);
    volumes_of(domain);
    let attachments = Attachments {
        live: Some(domain.clone()),
        persistent: Some(domain.clone()),
        saved: Some(domain.clone()),
    };
    for volume in disks.iter().take(10) {
        let bus = attachments.bus_for(volume).unwrap_or(DiskBus::Virtio);
        attachments.position_of(volume, bus);
        assert!(attachments.live_disk(volume).is_some());
    }
    let entries = metadata::of_domain(domain, metadata::VM_NAMESPACE);
    let written = metadata::to_element("vm", &entries);
    assert_eq!(metadata::from_element(&written), entries);
}

pub fn seeds() -> Vec<Vec<u8>> {
    let domain = "<?xml version='1.0'?>\n<domain type='qemu' id='1'><name>vm</name><metadata>\
        <bosh:vm xmlns:bosh=\"https://github.com/libvirt-bosh-cpi/vm/1.0\"><bosh:entry key='a'>b &amp; c</bosh:entry>\
        <bosh:entry key='n' encoding='json'>[1,null]</bosh:entry></bosh:vm></metadata><devices>\
        <disk type='volume' device='disk'><source pool='p' volume='disk0123456789abcdef'/>\
        <backingStore type='file'><source file='/p/sc-1'/></backingStore><target dev='vdb' bus='virtio'/>\
        <serial>boot</serial></disk><disk type='network' device='disk'>\
        <source protocol='rbd' name='p/disk0123456789abcdeg'/><target dev='sda' bus='scsi'/></disk>\
        <graphics type='vnc' passwd='x'/></devices></domain>";
    let network = "<network><name>n</name><ip address='10.0.0.1' netmask='255.255.255.0'><dhcp>\
        <range start='10.0.0.2' end='10.0.0.254'/><host mac='52:54:00:00:00:01' name='v' ip='10.0.0.5'/></dhcp></ip>\
        <ip family='ipv6' address='fd00::1' prefix='64'/></network>";
    let pool = "<pool type='dir'><name>p</name><capacity unit='bytes'>100</capacity><target><path>/p</path></target></pool>";
    let volume = "<volume type='file'><name>v</name><key>/p/v</key><capacity unit='bytes'>1048576</capacity><target>\
        <path>/p/v</path><format type='qcow2'/><timestamps><mtime>1700000000.5</mtime></timestamps></target></volume>";
    let mut seeds: Vec<Vec<u8>> = [domain, network, pool, volume]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
    seeds.push(
        "<a>"
            .repeat(60)
            .into_bytes()
            .into_iter()
            .chain("</a>".repeat(60).into_bytes())
            .collect(),
    );
    seeds
}
