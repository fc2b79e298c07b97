//! The first network of a host, on a libvirt that has never started a dnsmasq and so lacks the directory where it writes
//! a file for each VM.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::hosts_daemon::Host;
use crate::prune_bench::{Bench, GOES};
use crate::rpc_proxy::{At, Fault};
use crate::sandbox::{run, start_cpi};
use crate::tiny_guest;

/// `virNetworkCreateXML` in libvirt's remote protocol.
const NETWORK_CREATE_XML: u32 = 40;
const ORPHAN: &str = "cpi-dnsmasq-";

fn dnsmasq_directory(host: &Host) -> PathBuf {
    host.directory().join("lib/dnsmasq")
}

fn upload_stemcell(host: &Host) -> Value {
    let image = tiny_guest::image(host.directory());
    host.call(&host.libvirt(), "create_stemcell", json!([image, {}]))
        .result()
}

/// A network as an operator may make one: with an address of the host, without a dnsmasq. And the `networks` argument for
/// a NIC on it.
fn network_of_an_operator(host: &Host) -> Value {
    let xml = "<network><name>own</name><bridge name='own0'/><dns enable='no'/><ip address='10.134.9.1' prefix='24'/></network>";
    let file = host.directory().join("own.xml");
    fs::write(&file, xml).unwrap();
    host.virsh(&["net-define", file.to_str().unwrap()]);
    json!({"default": {"type": "manual", "ip": "10.134.9.10", "netmask": "255.255.255.0",
        "cloud_properties": {"name": "own"}}})
}

/// A VM with these networks is created and, on a host that has lost the directory again, started by reboot_vm.
fn vm_starts(host: &Host, stemcell: &Value, networks: Value) {
    let call = |method, arguments| host.call(&host.libvirt(), method, arguments).result();
    let vm = call("create_vm", tiny_guest::vm_arguments(stemcell, networks))[0].clone();
    let name = vm.as_str().unwrap();
    assert_eq!(host.virsh(&["domstate", name]).trim(), "running");
    host.virsh(&["destroy", name]);
    // Nothing but a network with an address needs it.
    let _ = fs::remove_dir_all(dnsmasq_directory(host));
    call("reboot_vm", json!([vm]));
    assert_eq!(host.virsh(&["domstate", name]).trim(), "running");
    assert!(!host.virsh(&["net-list", "--all", "--name"]).contains(ORPHAN));
    call("delete_vm", json!([vm]));
}

#[test]
fn a_vm_starts_on_the_first_network_of_a_remote_host() {
    let host = Host::new();
    let stemcell = upload_stemcell(&host);
    let networks = network_of_an_operator(&host);
    assert!(!dnsmasq_directory(&host).exists());
    vm_starts(&host, &stemcell, networks);
    assert!(dnsmasq_directory(&host).exists());
}

#[test]
fn a_vm_starts_on_the_first_created_network_of_a_remote_host() {
    let host = Host::new();
    let stemcell = upload_stemcell(&host);
    let call = |method, arguments| host.call(&host.libvirt(), method, arguments).result();
    for properties in [
        json!({"mode": "isolated"}),
        json!({"mode": "isolated", "host_address": false}),
        json!({"mode": "isolated", "dhcp": true}),
        json!({"mode": "nat", "dhcp": true}),
    ] {
        let definition = json!({"range": "10.134.7.0/24", "cloud_properties": properties});
        let network = call("create_network", json!([definition]));
        let _ = fs::remove_dir_all(dnsmasq_directory(&host));
        let nic = json!({"type": "manual", "ip": "10.134.7.10", "netmask": "255.255.255.0", "cloud_properties": network[2]});
        vm_starts(&host, &stemcell, json!({ "default": nic }));
        call("delete_network", json!([network[0]]));
    }
}

#[test]
fn without_the_directory_the_error_says_how_to_create_it() {
    let host = Host::new();
    let stemcell = upload_stemcell(&host);
    let networks = network_of_an_operator(&host);
    // No directory can be created below a file.
    fs::write(dnsmasq_directory(&host), "").unwrap();
    let arguments = tiny_guest::vm_arguments(&stemcell, networks);
    let message = host
        .call(&host.libvirt(), "create_vm", arguments)
        .error("VMCreationFailed", false);
    assert!(
        message.contains("`mkdir -p /var/lib/libvirt/dnsmasq`"),
        "{message}"
    );
    let names = host.virsh(&["net-list", "--all", "--name"]);
    assert!(!names.contains(ORPHAN), "{names}");
}

#[test]
fn a_call_that_is_killed_leaves_a_network_for_prune() {
    let bench = Bench::new();
    let host = &bench.host;
    let vm = tiny_guest::vm_arguments(&upload_stemcell(host), network_of_an_operator(host));
    let config = host.directory().join("proxied.json");
    let text = json!({"libvirt": {"type": "socket", "socket": bench.proxy.socket}, "settings": {"domain_type": "qemu"}});
    fs::write(&config, text.to_string()).unwrap();
    let at = At::Procedure(NETWORK_CREATE_XML, 1);
    bench.proxy.plan(Some((at, Fault::KilledAfter)));
    let request = json!({"method": "create_vm", "arguments": vm, "api_version": 2}).to_string();
    let tmpdir = host.directory().join("tmp");
    let mut call = start_cpi(&config, &tmpdir, &request, Stdio::null());
    bench.proxy.set_pid(call.id());
    assert!(!call.wait().unwrap().success());
    bench.proxy.plan(None);

    let names = || host.virsh(&["net-list", "--all", "--name"]);
    let orphan = names()
        .split_whitespace()
        .find(|name| name.starts_with(ORPHAN))
        .expect("a network")
        .to_owned();
    let (_, fates) = bench.prune(&["--in", &orphan]);
    assert_eq!(fates, [(orphan.clone(), GOES.to_owned())].into());
    assert!(names().contains(&orphan));
    let (content, _) = bench.prune(&["--yes", "--in", &orphan]);
    assert!(content && !names().contains(&orphan), "{}", names());
    assert!(names().contains("own"));
}

/// Calls the CPI as an operator does, on the libvirt of the machine that it runs on: that of `scripts/empty-host`.
const LOCAL: &str = r#"
set -eu
cpi=$1 directory=$2 properties=$3
cd "$directory"
call() { "$cpi" call --config cpi.json "$@"; }
virsh -q pool-create-as default dir --target "$directory/pool" >/dev/null
test -z "$(virsh -q net-list --all --name)"
network=$(call create_network "{\"range\": \"10.134.8.0/24\", \"cloud_properties\": $properties}")
id=$(jq -r '.[0]' <<<"$network")
stemcell=$(call create_stemcell "$directory/image" '{}' | jq -r .)
nic=$(jq '{default: {type: "manual", ip: "10.134.8.10", netmask: "255.255.255.0", cloud_properties: .[2]}}' <<<"$network")
vm=$(call create_vm agent "$stemcell" '{"memory": 64, "machine": "pc"}' "$nic" '[]' '{}' | jq -r '.[0]')
virsh domstate "$vm"
call delete_vm "$vm"
call delete_network "$id"
call delete_stemcell "$stemcell"
echo "left: $(virsh -q list --all --name)$(virsh -q net-list --all --name)$(ls pool)"
"#;

#[test]
fn a_vm_starts_on_the_first_created_network_of_this_host() {
    for properties in [
        "{\"mode\": \"isolated\"}",
        "{\"mode\": \"isolated\", \"dhcp\": true}",
    ] {
        let directory = tempfile::Builder::new()
            .prefix("cpitest-first-")
            .tempdir()
            .unwrap();
        let path = directory.path();
        run("chmod", &["755", path.to_str().unwrap()]).unwrap();
        fs::create_dir(path.join("pool")).unwrap();
        fs::write(
            path.join("cpi.json"),
            json!({"settings": {"domain_type": "qemu"}}).to_string(),
        )
        .unwrap();
        let image = tiny_guest::image(path);
        fs::rename(image, path.join("image")).unwrap();
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/empty-host"))
            .args(["bash", "-c", LOCAL, "first", env!("CARGO_BIN_EXE_cpi")])
            .arg(path)
            .arg(properties)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{log}");
        assert!(
            said.contains("running\n") && said.ends_with("left: \n"),
            "{said}{log}"
        );
    }
}
