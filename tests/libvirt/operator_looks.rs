//! Operators' commands that look: list, show, console, screenshot.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::guest::shell;
use crate::sandbox::{Sandbox, run, virsh};

#[test]
fn an_operator_sees_what_there_is_and_no_secret_of_it() {
    let mut sandbox = Sandbox::with_config(json!({
        "agent": {"mbus": "nats://nats:hunter2@10.0.0.1:4222",
                  "blobstore": {"provider": "dav", "options": {"password": "hunter2"}}},
    }));
    let stemcell = sandbox.stemcell();
    let env = json!({"bosh": {"password": "hunter2", "group": "d-cf-router", "mbus": {"cert": {"private_key": "hunter2"}}}});
    let networks = sandbox.manual_network(10);
    let arguments = json!(["a-1", stemcell, {"memory": 192, "ephemeral_disk": 40}, networks, [], env]);
    let vm = sandbox.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    let metadata =
        json!({"deployment": "cf", "name": "router/5b0c3e70-1111-4222-8333-444455556666", "job": "router"});
    sandbox.call("set_vm_metadata", json!([vm, metadata])).result();
    let attached = sandbox.call("create_disk", json!([48, {}])).text();
    sandbox.call("attach_disk", json!([vm, attached])).result();
    let metadata = json!({"deployment": "cf", "instance_name": "router/5b0c"});
    sandbox
        .call("set_disk_metadata", json!([attached, metadata]))
        .result();
    let lonely = sandbox
        .call("create_disk", json!([64, {"format": "qcow2"}]))
        .text();
    let metadata = json!({"deployment": "cf", "job": "db", "index": 0, "evil": "\u{1b}[2J"});
    sandbox
        .call("set_disk_metadata", json!([lonely, metadata]))
        .result();
    let snapshot = sandbox.call("snapshot_disk", json!([lonely, metadata])).text();
    virsh(&["vol-create-as", &sandbox.name, "somebody-elses", "1M"]);

    renders(&sandbox, &stemcell, &env);
    lists(&sandbox, &stemcell, &vm, &attached, &lonely, &snapshot);
    shows(&sandbox, &stemcell, &vm, &attached, &lonely, &snapshot);
    console(&mut sandbox, &vm);
}

fn renders(sandbox: &Sandbox, stemcell: &str, env: &Value) {
    let before = sandbox.state();
    let networks = sandbox.manual_network(11);
    let render = |arguments: Value| {
        let request = json!({"method": "create_vm", "arguments": arguments, "api_version": 2, "context": {}});
        let mut process = sandbox
            .operator_command(&["render", "create_vm", "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        process
            .stdin
            .take()
            .unwrap()
            .write_all(request.to_string().as_bytes())
            .unwrap();
        process.wait_with_output().unwrap()
    };
    let output = render(json!(["a-2", stemcell, {"memory": 77, "ephemeral_disk": 40}, networks, [], env]));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains("hunter2"), "{said}");
    let rendered: Value = serde_json::from_str(&said).unwrap();
    let (vm, xml) = (
        rendered["vm"].as_str().unwrap(),
        rendered["xml"].as_str().unwrap(),
    );
    for expected in [
        "<memory unit='MiB'>77</memory>".to_owned(),
        format!(
            "<source file='{}/pool/{vm}-boot'/>",
            sandbox.directory().display()
        ),
        format!(
            "<source file='{}/pool/{stemcell}'/>",
            sandbox.directory().display()
        ),
        format!("/{vm}-ephemeral'/>"),
        "<driver discard='unmap' name='qemu' type='qcow2'/>".to_owned(),
        format!("<source network='{}'/>", sandbox.name),
    ] {
        assert!(xml.contains(&expected), "{expected}: {xml}");
    }
    assert_eq!(rendered["settings"]["agent_id"], "a-2");
    assert_eq!(
        rendered["settings"]["networks"]["default"]["ip"],
        sandbox.address(11)
    );
    assert_eq!(rendered["settings"]["env"]["bosh"]["password"], "(secret)");
    let absent = "sc-00000000-0000-4000-8000-000000000000";
    let output = render(json!(["a-2", absent, {}, networks, [], env]));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(absent));
    assert_eq!(sandbox.state(), before);
}

/// The entry of this cid among those listed, of all those in this sandbox's pool.
fn listed(all: &Value, cid: &str) -> Value {
    let found = all.as_array().unwrap().iter().find(|entry| entry["cid"] == cid);
    found.unwrap_or_else(|| panic!("{cid} is not in {all}")).clone()
}

fn lists(sandbox: &Sandbox, stemcell: &str, vm: &str, attached: &str, lonely: &str, snapshot: &str) {
    let all = sandbox.operator_json(&["list"]);
    let found = listed(&all["stemcells"], stemcell);
    assert_eq!((&found["vms"], &found["partial"]), (&json!([vm]), &json!(false)));
    let info = run(
        "qemu-img",
        &[
            "info",
            "-U",
            "--output=json",
            &format!("{}/pool/{stemcell}", sandbox.directory().display()),
        ],
    );
    let info: Value = serde_json::from_str(&info.unwrap()).unwrap();
    assert_eq!(found["virtual_bytes"], info["virtual-size"]);
    assert_eq!(found["real_bytes"], info["actual-size"]);
    let found = listed(&all["vms"], vm);
    assert_eq!(
        (
            &found["deployment"],
            &found["instance"],
            &found["state"],
            &found["stemcell"],
            &found["disks"]
        ),
        (
            &json!("cf"),
            &json!("router/5b0c3e70-1111-4222-8333-444455556666"),
            &json!("running"),
            &json!(stemcell),
            &json!([attached])
        )
    );
    let found = listed(&all["disks"], attached);
    assert_eq!(
        (&found["attached_to"], &found["instance"]),
        (&json!([vm]), &json!("router/5b0c"))
    );
    let found = listed(&all["disks"], lonely);
    assert_eq!(
        (&found["attached_to"], &found["instance"], &found["format"]),
        (&json!([]), &json!("db/0"), &json!("qcow2"))
    );
    assert_eq!(listed(&all["snapshots"], snapshot)["partial"], false);
    let networks = all["networks"].as_array().unwrap();
    let network = networks
        .iter()
        .find(|network| network["name"] == json!(sandbox.name))
        .unwrap();
    assert_eq!(
        (&network["vms"], &network["made_by_cpi"]),
        (&json!([vm]), &json!(false))
    );
    assert!(!all.to_string().contains("somebody-elses"));

    let tables = sandbox.operator_says(&["list"]);
    let tree = sandbox.operator_says(&["list", "--tree"]);
    for text in [&tables, &tree] {
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "more than 80 columns: {line}");
        }
        for cid in [stemcell, vm, attached, lonely, snapshot] {
            assert!(text.contains(cid), "{cid}: {text}");
        }
    }
    let below = tree.lines().skip_while(|line| !line.starts_with(stemcell));
    let below: Vec<&str> = below.skip(1).take(2).collect();
    assert!(
        below[0].starts_with(&format!("└─ {vm}  running  cf router/")),
        "{tree}"
    );
    assert!(below[1].starts_with(&format!("   └─ {attached}  ")), "{tree}");
    // Ages, of what is a minute old at most by now.
    let row = tables.lines().find(|line| line.starts_with(vm)).unwrap();
    let age = row.split_whitespace().last().unwrap();
    assert!(age.ends_with('s') || age == "1m", "{row}");
    let only = sandbox.operator_says(&["list", "vms"]);
    assert!(
        only.starts_with("CID ") && only.contains(vm) && !only.contains(lonely),
        "{only}"
    );
}

fn shows(sandbox: &Sandbox, stemcell: &str, vm: &str, attached: &str, lonely: &str, snapshot: &str) {
    let shown = sandbox.operator_json(&["show", vm]);
    let volumes: Vec<&str> = shown["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["volume"].as_str().unwrap())
        .collect();
    assert_eq!(
        volumes,
        ["boot", "config", "ephemeral"].map(|part| format!("{vm}-{part}"))
    );
    assert_eq!(shown["nics"][0]["addresses"], json!([sandbox.address(10)]));
    assert_eq!(shown["settings"]["agent_id"], "a-1");
    assert_eq!(shown["settings"]["mbus"], "(secret)");
    assert_eq!(shown["settings"]["env"]["bosh"]["group"], "d-cf-router");
    assert!(shown["xml"].as_str().unwrap().starts_with("<domain "), "{shown}");
    let text = sandbox.operator_says(&["show", vm]);
    assert!(text.contains("  mbus: (secret)\n"), "{text}");
    let xml = text.lines().skip_while(|line| *line != "xml:");
    for line in xml {
        // Values are not broken.
        assert!(
            line.chars().count() <= 80 || line.matches("='").count() == 1,
            "{line}"
        );
    }
    for text in [shown.to_string(), text] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let shown = sandbox.operator_json(&["show", attached]);
    assert_eq!(
        (&shown["kind"], &shown["attached_to"]),
        (&json!("persistent disk"), &json!([vm]))
    );
    let text = sandbox.operator_says(&["show", lonely]);
    assert!(text.contains("  evil: \\u{1b}[2J\n"), "{text}");
    assert_eq!(sandbox.operator_json(&["show", snapshot])["kind"], "snapshot");
    // The seed's cids have no prefix.
    for cid in [stemcell, stemcell.strip_prefix("sc-").unwrap()] {
        let shown = sandbox.operator_json(&["show", cid]);
        assert_eq!(
            (&shown["kind"], &shown["vms"]),
            (&json!("stemcell"), &json!([vm]))
        );
    }
    assert_eq!(
        sandbox.operator_json(&["show", &sandbox.name])["vms"],
        json!([vm])
    );
    for absent in ["vm-00000000-0000-4000-8000-000000000000", "somebody-elses"] {
        let (content, stdout, stderr) = sandbox.operator(&["show", absent]);
        assert!(
            !content && stdout.is_empty() && stderr.contains(absent),
            "{stderr}"
        );
    }
}

fn console(sandbox: &mut Sandbox, vm: &str) {
    sandbox.wait_until_ready(vm, 1);
    // Twice at once: nobody is in the other's way.
    let mut following = sandbox
        .operator_command(&["console", vm, "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = sandbox.operator_says(&["console", vm]);
    assert_eq!(said, sandbox.console(vm));
    assert_eq!(
        sandbox.operator_says(&["console", vm, "-n", "1"]),
        "GUEST: ready\n"
    );
    shell(&sandbox.address(10), "echo spoken-later >/dev/console");
    let lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("GUEST: ready")));
    assert!(lines.any(|line| line.contains("spoken-later")));

    let file = sandbox.directory().join("screen.png");
    let file = file.to_str().unwrap();
    let (content, stdout, stderr) = sandbox.operator(&["screenshot", vm, file]);
    if virsh(&["dumpxml", vm]).contains("<video>") {
        assert!(content, "{stderr}");
        assert!(stdout.contains(" pixels"), "{stdout}");
    } else {
        assert!(!content && stderr.contains("no video device"), "{stderr}");
    }
    sandbox.call("delete_vm", json!([vm])).result();
    // What was followed is over.
    assert!(following.wait().unwrap().success());
    let pools = virsh(&["pool-list", "--all", "--name"]);
    assert!(!pools.contains("cpi-console-"), "{pools}");
}

/// Takes a PNG of 8-bit RGB apart.
const PNG: &str = r"
import struct, sys, zlib
data, at, pixels, names = open(sys.argv[1], 'rb').read(), 8, b'', []
assert data[:8] == b'\x89PNG\r\n\x1a\n'
while at < len(data):
    length, name = struct.unpack('>I4s', data[at:at + 8])
    body = data[at + 8:at + 8 + length]
    assert struct.unpack('>I', data[at + 8 + length:at + 12 + length])[0] == zlib.crc32(name + body)
    if name == b'IHDR': header = struct.unpack('>IIBBBBB', body)
    if name == b'IDAT': pixels += body
    names.append(name)
    at += 12 + length
assert names[0] == b'IHDR' and names[-1] == b'IEND' and header[2:4] == (8, 2), (names, header)
assert len(zlib.decompress(pixels)) == header[1] * (1 + 3 * header[0])
";

#[test]
fn a_screen_is_photographed_and_a_console_without_a_log_can_be_followed() {
    let template = "<domain type='qemu'><memory unit='MiB'>{{.Memory}}</memory><vcpu>{{.CPU}}</vcpu>\
        <os><type>hvm</type></os><features><acpi/></features>\
        <devices><serial type='pty'/><console type='pty'/><video><model type='vga'/></video></devices></domain>";
    let sandbox = Sandbox::with_config(json!({"settings": {"vm_domain": template}}));
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let file = sandbox.directory().join("screen.png");
    let said = sandbox.operator_says(&["screenshot", &vm, file.to_str().unwrap()]);
    let image = std::fs::read(&file).unwrap();
    // To Python's zlib, too: each chunk has the right checksum, and the pixels are all there.
    run("python3", &["-c", PNG, file.to_str().unwrap()]).unwrap();
    // IHDR: width and height follow the chunk's name.
    assert!(image.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG");
    let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
    assert!(
        said.ends_with(&format!(": {} x {} pixels\n", number(16), number(20))),
        "{said}"
    );
    assert!(number(16) >= 320 && number(20) >= 200);

    let (content, _, stderr) = sandbox.operator(&["console", &vm]);
    assert!(!content && stderr.contains("--follow"), "{stderr}");
    let mut following = sandbox
        .operator_command(&["console", &vm, "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert!(
        lines
            .map_while(Result::ok)
            .any(|line| line.contains("GUEST: ready"))
    );
    following.kill().unwrap();
    following.wait().unwrap();
}
