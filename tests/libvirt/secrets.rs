//! Whatever a call is told in confidence is in none of its output, at the most talkative level.

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, stemcell_image};

/// In every secret that this test gives away.
const MARK: &str = "h0nter2";

/// Secret number n: its own text, so that a failure says which one it was.
fn secret(n: u32) -> String {
    format!("{MARK}-{n}-{MARK}")
}

fn pem(n: u32) -> String {
    format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        secret(n)
    )
}

struct Witness<'a> {
    sandbox: &'a Sandbox,
    heard: String,
}

impl Witness<'_> {
    fn call(&mut self, method: &str, arguments: Value) -> Value {
        let answer = self.sandbox.call_as(3, method, arguments);
        let error = answer.response["error"].to_string();
        assert!(!error.contains(MARK), "{method} says in its error: {error}");
        let log = answer.response["log"].to_string();
        assert!(!log.contains(MARK), "{method} says in its response: {log}");
        for line in answer.stderr.lines() {
            assert!(!line.contains(MARK), "{method} says: {line}");
            assert!(
                line.contains(&format!(" [cpi-{method}] ")),
                "without its request: {line}"
            );
        }
        self.heard.push_str(&answer.stderr);
        answer.response["result"].clone()
    }
}

#[test]
fn no_secret_of_a_whole_life_is_in_any_output() {
    let template = format!(
        "<domain type='qemu'><memory unit='MiB'>{{{{.Memory}}}}</memory><vcpu>{{{{.CPU}}}}</vcpu><os><type>hvm</type></os>\
         <features><acpi/></features><devices><serial type='pty'/><graphics type='vnc' passwd='{}'/></devices></domain>",
        // As long as VNC takes them.
        MARK
    );
    let sandbox = Sandbox::with_config(json!({
        "agent": {"mbus": format!("nats://nats:{}@10.0.0.1:4222", secret(1)),
                  "blobstore": {"provider": "dav", "options": {"user": secret(2), "nested": {"password": [secret(3)]}}}},
        "libvirt": {"password": secret(4), "client": {"certificate": pem(5), "private_key": pem(6)},
                    "ssh": {"private_key": pem(7)}},
        "settings": {"vm_domain": template},
    }));
    let mut witness = Witness {
        sandbox: &sandbox,
        heard: String::new(),
    };
    let stemcell = witness.call(
        "create_stemcell",
        json!([stemcell_image("qcow2"), {"disk": 1024}]),
    );
    let env = json!({"bosh": {"password": secret(10), "mbus": {"cert": {"private_key": pem(11), "certificate": pem(12)},
        "urls": [format!("nats://{}@h", secret(13))]}, "blobstores": [{"options": {"secret_key": secret(14)}}]},
        "other": [secret(15), secret(16)]});
    let networks = sandbox.manual_network(10);
    let create = |properties: Value| json!(["a", stemcell, properties, networks, [], env]);
    let vm = witness.call("create_vm", create(json!({"memory": 64, "ephemeral_disk": 8})))[0].clone();
    let metadata = json!({"deployment": "cf", "name": "router/0"});
    witness.call("set_vm_metadata", json!([vm, metadata]));
    witness.call("reboot_vm", json!([vm]));
    let disk = witness.call("create_disk", json!([8, {"cache": "none"}, vm]));
    witness.call("attach_disk", json!([vm, disk]));
    witness.call("set_disk_metadata", json!([disk, metadata]));
    witness.call("get_disks", json!([vm]));
    let snapshot = witness.call("snapshot_disk", json!([disk, metadata]));
    assert!(snapshot.is_string());
    // Failures say more than successes.
    witness.call("create_vm", create(json!({"memory": 1u64 << 40})));
    witness.call("create_vm", create(json!({"memroy": secret(20)})));
    witness.call(
        "create_vm",
        json!(["a", stemcell, {}, {"n": {"type": "manual", "password": secret(21)}}, [], env]),
    );
    witness.call("create_vm", json!([{"agent": secret(22)}, secret(23)]));
    witness.call(
        "create_vm",
        json!(["a", stemcell, {}, networks, [], {"big": secret(24).repeat(200_000)}]),
    );
    // Nor in what operators see.
    let shown = vm.as_str().unwrap();
    for command in [
        &["show", shown][..],
        &["show", shown, "--json"],
        &["list"],
        &["check"],
        &["--log-level", "debug", "list", "--json"],
    ] {
        let (_, stdout, stderr) = sandbox.operator(command);
        assert!(!stdout.is_empty());
        assert!(
            !stdout.contains(MARK) && !stderr.contains(MARK),
            "{command:?}: {stdout}{stderr}"
        );
    }
    witness.call("delete_vm", json!([vm]));
    witness.call("delete_snapshot", json!([snapshot]));
    witness.call("delete_disk", json!([disk]));
    witness.call("delete_stemcell", json!([stemcell]));
    // It did talk: XML with the secrets out of it, and how long each step took.
    for said in ["<domain type='qemu'>", "passwd='(secret)'", "<disk ", "<volume>"] {
        assert!(witness.heard.contains(said), "{said}: {}", witness.heard);
    }
    for step in [
        "connecting to libvirt",
        "uploading stemcell",
        "creating boot disk",
        "defining VM",
        "starting VM",
        "attaching a disk to VM",
        "copying disk",
        "deleting volume",
    ] {
        let ended = |line: &str| line.contains(" INFO ") && line.contains(step) && line.ends_with(" ms)");
        assert!(witness.heard.lines().any(ended), "{step}: {}", witness.heard);
    }
}
