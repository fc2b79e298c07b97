//! Values meant ill that an operator, or a cpi-config, gives: where libvirt is, and the names of its pools and networks.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, run, try_virsh, virsh};
use crate::templates::{DHCP, DISK, DOMAIN, NIC, VOLUME};

/// Everything that libvirt takes in a name, and a template or a shell would do something with.
const NAME: &str = "{{.UUID}} {{7*7}} '\"<&>]]>,$(id)`id`%s;\u{1f600}";

/// The pool and the network of that name; gone with the test.
struct Named<'a>(&'a Sandbox, String);

impl<'a> Named<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        let name = format!("{} {NAME}", sandbox.name);
        let named = Self(sandbox, name);
        let directory = sandbox.directory().join("pool").join(NAME);
        fs::create_dir(&directory).unwrap();
        let escaped = |text: &str| {
            text.replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
        };
        let (name, path) = (escaped(&named.1), escaped(directory.to_str().unwrap()));
        named.make(
            "pool-create",
            &format!("<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"),
        );
        let bridge = format!("cpitx{}", sandbox.subnet());
        let network = format!(
            "<network><name>{name}</name><bridge name='{bridge}'/><ip address='10.132.{0}.1' netmask='255.255.255.0'>\
             <dhcp><range start='10.132.{0}.100' end='10.132.{0}.200'/></dhcp></ip></network>",
            sandbox.subnet()
        );
        named.make("net-create", &network);
        named
    }

    fn make(&self, command: &str, xml: &str) {
        let file = self.0.directory().join("made.xml");
        fs::write(&file, xml).unwrap();
        virsh(&[command, file.to_str().unwrap()]);
    }
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        for domain in self.0.domains() {
            let _ = try_virsh(&["destroy", &domain]);
            let _ = try_virsh(&["undefine", &domain]);
        }
        for command in ["pool-destroy", "net-destroy"] {
            let _ = try_virsh(&[command, &self.1]);
        }
    }
}

/// What xmllint finds under this path.
fn xpath(file: &Path, path: &str) -> String {
    let found = run("xmllint", &["--xpath", path, file.to_str().unwrap()]).unwrap();
    found.strip_suffix('\n').unwrap_or(&found).to_owned()
}

#[test]
fn names_are_filled_into_templates_as_they_are() {
    let mut sandbox = Sandbox::new();
    let image = sandbox.image_without_system();
    let consoles = sandbox.directory().join("console").join(NAME);
    fs::create_dir(&consoles).unwrap();
    // Libvirt takes what a template makes of a name in an attribute, in text and in a path.
    let domain = DOMAIN
        .replace("'kvm'", "'qemu'")
        .replace("<target port='0'/>", "<target port='0'/><alias name='ua-1'/>");
    let given = sandbox.name.clone();
    let (pool, xml) = {
        sandbox.configure(json!({"settings": {
            "storage_pool_name": format!("{given} {NAME}"), "network_name": format!("{given} {NAME}"),
            "vm_domain": domain, "disk_device": DISK, "storage_volume": VOLUME, "manual_network_interface": NIC,
            "network_dhcp_ip": DHCP, "console_log_dir": consoles,
        }}));
        let named = Named::new(&sandbox);
        let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
        let address = format!("10.132.{}.110", sandbox.subnet());
        let networks = json!({NAME: {"type": "manual", "ip": address, "netmask": "255.255.255.0", "cloud_properties": {}}});
        let vm_of = |sandbox: &Sandbox| {
            let arguments = json!(["a", stemcell, {"memory": 64, "ephemeral_disk": 8}, networks, [], {}]);
            sandbox.call("create_vm", arguments).result()[0]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let xml = sandbox.directory().join("domain.xml");
        let vm = vm_of(&sandbox);
        fs::write(&xml, virsh(&["dumpxml", &vm, "--inactive"])).unwrap();
        assert_eq!(xpath(&xml, "string(//interface/source/@network)"), named.1);
        let boot = sandbox
            .directory()
            .join("pool")
            .join(NAME)
            .join(format!("{vm}-boot"));
        assert_eq!(
            xpath(&xml, "string(//disk[1]/source/@file)"),
            boot.to_str().unwrap()
        );
        assert_eq!(xpath(&xml, "count(//disk)"), "3");
        let entries = virsh(&["net-dumpxml", &named.1]);
        assert!(
            entries.contains(&format!("name='{vm}' ip='{address}'")),
            "{entries}"
        );
        let disk = sandbox.call("create_disk", json!([8, {}])).text();
        sandbox.call("attach_disk", json!([vm, disk])).result();
        sandbox.call("delete_vm", json!([vm])).result();
        sandbox.call("delete_disk", json!([disk])).result();

        // The same with our own XML, where the directory of the logs is in an attribute.
        for (file, content) in [
            ("vm_domain", ""),
            ("disk_device", ""),
            ("manual_network_interface", ""),
        ] {
            let mut config: Value =
                serde_json::from_slice(&fs::read(sandbox.config_path()).unwrap()).unwrap();
            config["settings"][file] = json!(content);
            fs::write(sandbox.config_path(), config.to_string()).unwrap();
        }
        let vm = vm_of(&sandbox);
        fs::write(&xml, virsh(&["dumpxml", &vm])).unwrap();
        let log = consoles.join(format!("{vm}.log"));
        assert_eq!(xpath(&xml, "string(//serial/log/@file)"), log.to_str().unwrap());
        assert!(log.exists());
        sandbox.call("delete_vm", json!([vm])).result();
        sandbox.call("delete_stemcell", json!([stemcell])).result();
        let left = fs::read_dir(sandbox.directory().join("pool").join(NAME))
            .unwrap()
            .count();
        assert_eq!(left, 0);
        (named.1.clone(), xml)
    };
    assert!(!virsh(&["pool-list", "--all"]).contains(&pool) && xml.exists());
}

/// No host and no user becomes an option of ssh, a parameter of the URI or a line of known_hosts.
#[test]
fn a_context_names_a_host_and_nothing_else() {
    let sandbox = Sandbox::new();
    let mark = sandbox.directory().join("mark");
    let run_it = format!("touch {}", mark.display());
    let fails = |libvirt: Value, error_type: &str, says: &str| {
        let context = json!({"request_id": "r", "libvirt": libvirt});
        let request = json!({"method": "has_vm", "arguments": ["vm-00000000-0000-4000-8000-000000000000"], "context": context});
        let answer = sandbox.send(&request.to_string());
        assert!(
            answer.stderr.lines().all(|line| line.contains(" [r] ")),
            "{}",
            answer.stderr
        );
        let message = answer.error(error_type, error_type == "CloudError");
        assert!(message.contains(says), "{says:?} is not in {message:?}");
        assert!(!mark.exists(), "after {message}");
    };
    for host in [
        format!("-oProxyCommand={run_it}"),
        "h/system?no_verify=1&x=".to_owned(),
        "h#x".to_owned(),
        "u@h".to_owned(),
        "h\n* ssh-ed25519 AAAA".to_owned(),
        "$(id)".to_owned(),
        "h\0".to_owned(),
        " ".to_owned(),
    ] {
        for kind in ["tcp", "tls", "ssh"] {
            fails(
                json!({"type": kind, "host": host}),
                "CpiError",
                "is no host name or address",
            );
        }
    }
    // Nobody listens there.
    for user in [
        format!("-oProxyCommand={run_it}"),
        "a b@c/?command=x".to_owned(),
        "\n".to_owned(),
    ] {
        fails(
            json!({"type": "ssh", "host": "127.0.0.1", "port": 1, "username": user}),
            "CloudError",
            "qemu+ssh://",
        );
    }
    for uri in [
        "qemu+ssh://-oProxyCommand=MARK/system",
        "qemu+ssh://-oProxyCommand=MARK@127.0.0.1:1/system",
    ] {
        let uri = uri.replace("MARK", &run_it.replace(' ', "%20").replace('/', "%2F"));
        fails(json!({"uri": uri}), "CloudError", "qemu+ssh://");
    }
    for socket in [
        "/nonexistent?command=x",
        "/nonexistent\n",
        "../../nonexistent",
        "/nonexistent&mode=direct",
    ] {
        fails(json!({"socket": socket}), "CloudError", "qemu+unix:///system");
    }
}
