//! The seed's templates, as people have them in their own variable files, work unchanged.

use serde_json::json;

use crate::guest::shell;
use crate::sandbox::{Sandbox, virsh};

pub const DISK: &str = "<disk type='file' device='{{.Device}}'>
    <driver name='qemu' type='raw' cache='none'/>
    <source file='{{.TargetPath}}'/>
    <target dev='{{.TargetDevice}}' bus='{{.TargetBus}}'/>
  </disk>";
pub const VOLUME: &str = "<volume>
    <name>{{.Name}}</name>
    <allocation unit=\"G\">0</allocation>
    <capacity unit=\"{{.Unit}}\">{{.Size}}</capacity>
  </volume>";
pub const NIC: &str = "<interface type='network'>
    <source network='{{.NetworkName}}'/>
    <target dev='vnet0'/>
    <mac address='{{.MacAddress}}'/>
    <model type='virtio'/>
    <alias name='net0'/>
  </interface>";
pub const DHCP: &str = "<host name='{{.VmName}}' mac='{{.MacAddress}}' ip='{{.IpAddress}}'/>";
pub const DOMAIN: &str = "<domain type='kvm'>
    <name>{{.Name}}</name>
    <uuid>{{.UUID}}</uuid>
    <memory unit='MiB'>{{.Memory}}</memory>
    <vcpu>{{.CPU}}</vcpu>
    <os>
      <type>hvm</type>
      <boot dev='hd'/>
    </os>
    <features>
      <acpi/>
      <apic/>
      <vmport state='off'/>
    </features>
    <on_poweroff>destroy</on_poweroff>
    <on_reboot>restart</on_reboot>
    <on_crash>restart</on_crash>
    <devices>
      <serial type='pty'>
        <target port='0'/>
      </serial>
      <console type='pty'>
        <target type='serial' port='0'/>
      </console>
    </devices>
  </domain>";

#[test]
fn a_vm_of_the_seeds_templates_boots_and_takes_a_disk() {
    for domain in [DOMAIN.to_owned(), DOMAIN.replace("'kvm'", "'qemu'")] {
        let sandbox = Sandbox::with_config(json!({"settings": {
            "vm_domain": domain, "disk_device": DISK, "storage_volume": VOLUME,
            "manual_network_interface": NIC, "network_dhcp_ip": DHCP,
        }}));
        let stemcell = sandbox.stemcell();
        let arguments =
            json!(["a", stemcell, {"memory": 192, "ephemeral_disk": 16}, sandbox.manual_network(10), [], {}]);
        let vm = sandbox.call("create_vm", arguments).result()[0]
            .as_str()
            .unwrap()
            .to_owned();
        let xml = virsh(&["dumpxml", &vm, "--inactive"]);
        assert!(
            xml.contains("<driver name='qemu' type='qcow2' cache='none'/>"),
            "{xml}"
        );

        // The seed's serial console is not logged, so the guest is met over the network.
        let address = sandbox.address(10);
        let port = format!("{address}:7000").parse().unwrap();
        crate::sandbox::wait_for("the guest on the network", crate::guest::BOOT_LIMIT, || {
            std::net::TcpStream::connect_timeout(&port, std::time::Duration::from_secs(1)).is_ok()
        });
        let disk = sandbox.call("create_disk", json!([16, {}])).text();
        let hint = sandbox.call("attach_disk", json!([vm, disk])).text();
        let size = format!(
            "for i in 1 2 3 4 5 6 7 8 9; do [ -e {hint} ] && break; sleep 1; done; blockdev --getsize64 {hint}"
        );
        assert_eq!(shell(&address, &size).trim(), (16 * 1024 * 1024).to_string());
        sandbox.call("detach_disk", json!([vm, disk])).result();
        sandbox.call("delete_vm", json!([vm])).result();
        sandbox.call("delete_disk", json!([disk])).result();
        assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));
    }
}

/// What is rendered is what create_vm would define.
#[test]
fn the_host_decides_how_vms_run_unless_a_template_does() {
    let mut sandbox = Sandbox::with_config(json!({"settings": {"domain_type": "auto"}}));
    let image = sandbox.image_without_system();
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
    let arguments = json!(["a", stemcell, {}, sandbox.manual_network(10), [], {}]);
    let request = json!({"method": "create_vm", "arguments": arguments, "api_version": 2});
    let request_file = sandbox.directory().join("request.json");
    std::fs::write(&request_file, request.to_string()).unwrap();
    let rendered = |sandbox: &Sandbox| {
        let mut command = sandbox.operator_command(&["render", "create_vm"]);
        let output = command
            .stdin(std::fs::File::open(&request_file).unwrap())
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let offers_kvm = virsh(&["capabilities"]).contains("<domain type='kvm'");
    let expected = if offers_kvm { "kvm" } else { "qemu" };
    let xml = rendered(&sandbox);
    assert!(xml.contains(&format!("<domain type='{expected}'")), "{xml}");
    sandbox.configure(json!({"settings": {"vm_domain": "<domain type='xen'/>"}}));
    let xml = rendered(&sandbox);
    assert!(xml.contains("<domain type='xen'"), "{xml}");
}
