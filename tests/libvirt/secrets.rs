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
    failures: u32,
}

impl Witness<'_> {
    fn call(&mut self, method: &str, arguments: Value) -> Value {
        let answer = self.sandbox.call_as(3, method, arguments);
        // Result, error and log.
        let response = answer.response.to_string();
        assert!(!response.contains(MARK), "{method} answers: {response}");
        for line in answer.stderr.lines() {
            assert!(!line.contains(MARK), "{method} says: {line}");
            assert!(
                line.contains(&format!(" [cpi-{method}] ")),
                "without its request: {line}"
            );
        }
        self.heard.push_str(&answer.stderr);
        // It is in stderr already.
        assert_eq!(answer.response["log"], "");
        let log = &answer.stderr;
        let (done, summary) = log.trim_end().rsplit_once('\n').expect(log);
        assert!(
            summary.contains(&format!(" call {{\"method\":\"{method}\",")),
            "{log}"
        );
        if let Some(message) = answer.response["error"]["message"].as_str() {
            self.failures += 1;
            // All that was done, and what went wrong in the end.
            let end = done.lines().last().unwrap();
            assert!(end.contains(" ERROR ") && end.ends_with(message), "{log}");
        }
        answer.response["result"].clone()
    }
}

/// Nor in what operators see, whatever they ask for.
fn operators_see_none(sandbox: &Sandbox, vm: &str, disk: &str, create: &Value) {
    let file = |name: &str, content: &Value| {
        let path = sandbox.directory().join(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let request = json!({"method": "create_vm", "arguments": create, "api_version": 2});
    let request = file("request.json", &request);
    let env = format!("@{}", file("env.json", &create[5]));
    let networks = create[3].to_string();
    let picture = sandbox.directory().join("screen.png");
    for command in [
        &["show", vm][..],
        &["show", vm, "--json"],
        &["show", disk],
        &["list"],
        &["list", "--json"],
        &["list", "--tree"],
        &["check"],
        &["prune"],
        &["screenshot", vm, picture.to_str().unwrap()],
        &["render", "create_vm"],
        &["render", "create_vm", "--json"],
        &["call", "create_vm", "a", "sc-none", "{}", &networks, "[]", &env],
        &["call", "--json", "create_vm", "a", &env],
        &["call", "has_vm", &env],
    ] {
        let mut process = sandbox.operator_command(&[&["--log-level", "debug"], command].concat());
        let output = process
            .stdin(std::fs::File::open(&request).unwrap())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .concat();
        assert!(!said.is_empty() && !said.contains(MARK), "{command:?}: {said}");
    }
}

#[test]
fn no_secret_of_a_whole_life_is_in_any_output() {
    let template = format!(
        "<domain type='qemu'><memory unit='MiB'>{{{{.Memory}}}}</memory><vcpu>{{{{.CPU}}}}</vcpu><os><type>hvm</type></os>\
         <features><acpi/></features><devices><serial type='pty'/><graphics type='vnc' passwd='{}'/><video><model type='vga'/></video></devices></domain>",
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
        failures: 0,
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
    operators_see_none(
        &sandbox,
        vm.as_str().unwrap(),
        disk.as_str().unwrap(),
        &create(json!({})),
    );
    witness.call("delete_vm", json!([vm]));
    witness.call("delete_snapshot", json!([snapshot]));
    witness.call("delete_disk", json!([disk]));
    witness.call("delete_stemcell", json!([stemcell]));
    assert_eq!(witness.failures, 5);
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
