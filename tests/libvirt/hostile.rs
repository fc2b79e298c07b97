//! Values that are meant ill, in whatever a caller or an operator can set. Each arrives as it is, or is refused with
//! nothing made; none is taken for XML, JSON, a template, an option, a path or a line of a log.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::sandbox::{Answer, Sandbox, run, virsh};

/// Specials of everything that a value passes through on its way. What would run a command leaves a file of this name.
fn values(sandbox: &Sandbox) -> Vec<String> {
    let mark = mark(sandbox);
    let mut values: Vec<String> = [
        "../../etc/passwd",
        "disk/../x",
        "-rf",
        "--config=/etc/passwd",
        "'\"`\\",
        "</name><x/><name>",
        "]]><!-- &amp;&#x41;&lol; -->",
        "{{ 7*7 }}{{.UUID}}{% raw %}",
        "%s%n%d$x${x}",
        "a\nb\r\n2026-01-01T00:00:00.000Z ERROR [cpi-1] forged",
        "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{7f}",
        "nul\0nul",
        "\u{202e}gnp.exe\u{2028}forged",
        "\u{1f600}\u{1d54f}\u{fffe}e\u{301}",
        "",
        " ",
    ]
    .map(str::to_owned)
    .to_vec();
    values.push(format!(
        "$(touch {mark})`touch {mark}`;touch {mark}|touch {mark}\ntouch {mark}"
    ));
    values
}

fn mark(sandbox: &Sandbox) -> String {
    sandbox.directory().join("mark").to_str().unwrap().to_owned()
}

/// As long as nobody ever wants one.
fn long() -> String {
    "x".repeat(100_000)
}

/// Sends the call with a request id that would make lines of its own. What is logged is lines all the same.
fn call(sandbox: &Sandbox, method: &str, arguments: Value) -> Answer {
    let context = json!({"request_id": "cpi-1\n\u{1b}[2J\u{202e}forged"});
    let request = json!({"method": method, "arguments": arguments, "api_version": 3, "context": context});
    let answer = sandbox.send(&request.to_string());
    assert_is_log(&answer.stderr);
    assert_is_log(answer.response["log"].as_str().unwrap());
    answer
}

fn assert_is_log(log: &str) {
    for line in log.lines() {
        let begins = line.get(4..5) == Some("-") && line.get(23..24) == Some("Z");
        assert!(
            begins && line.contains(" [cpi-1\\n\\u{1b}[2J\\u{202e}forged] "),
            "no line of ours: {line:?}"
        );
        assert_is_harmless(line);
    }
}

/// Nothing that a terminal does anything about.
fn assert_is_harmless(text: &str) {
    let harm = text
        .chars()
        .find(|c| (c.is_control() && *c != '\n') || matches!(c, '\u{202e}' | '\u{2028}'));
    assert_eq!(harm, None, "{text:?}");
}

/// What xmllint finds under this path.
fn xpath(file: &Path, path: &str) -> String {
    let found = run("xmllint", &["--huge", "--xpath", path, file.to_str().unwrap()]).unwrap();
    found.strip_suffix('\n').unwrap_or(&found).to_owned()
}

/// The entries of our metadata in an XML file are these.
fn assert_has_entries(file: &Path, of: &str, entries: &Map<String, Value>) {
    let all = format!("//*[local-name()='{of}']/*[local-name()='entry']");
    assert_eq!(xpath(file, &format!("count({all})")), entries.len().to_string());
    for (number, (key, value)) in entries.iter().enumerate() {
        let entry = format!("({all})[{}]", number + 1);
        let parts = format!(
            "concat({entry}/@key-encoding, '|', {entry}/@encoding, '|', string-length({entry}/@key), '|', {entry}/@key, {entry})"
        );
        let found = xpath(file, &parts);
        let parts: Vec<&str> = found.splitn(4, '|').collect();
        let length = parts[3]
            .chars()
            .take(parts[2].parse().unwrap())
            .map(char::len_utf8)
            .sum();
        let read = |text: &str, encoding: &str| match encoding {
            "json" => serde_json::from_str(text).unwrap(),
            _ => Value::String(text.to_owned()),
        };
        let (found_key, found_value) = parts[3].split_at(length);
        assert_eq!(read(found_key, parts[0]), json!(key));
        assert_eq!(read(found_value, parts[1]), *value);
    }
}

fn each_by_itself(values: &[String]) -> Map<String, Value> {
    values.iter().map(|value| (value.clone(), json!(value))).collect()
}

#[test]
fn what_a_vm_and_its_disks_are_told_arrives_as_it_is() {
    let mut sandbox = Sandbox::new();
    let values = values(&sandbox);
    let each = Value::Object(each_by_itself(&values));
    let all = values.concat();
    sandbox.configure(json!({
        "agent": {"mbus": all, "ntp": values, "blobstore": {"provider": all, "options": each}},
        "vm_ssh_key": {"public_key": all},
    }));
    let image = sandbox.image_without_system();
    let properties =
        json!({"name": all, "version": all, "os_type": all, "architecture": long(), "extra": each});
    let stemcell = call(
        &sandbox,
        "create_stemcell",
        json!([image, properties, {"tags": each}]),
    )
    .text();
    let pool = sandbox.directory().join("pool");
    let record = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(pool.join(format!("{name}.record"))).unwrap()).unwrap()
    };
    let recorded = record(&stemcell);
    assert_eq!((&recorded["properties"], &recorded["tags"]), (&properties, &each));

    // One NIC for all networks, whatever their names.
    let mut networks = sandbox.manual_network(10).as_object().unwrap().clone();
    networks["default"]["nic_group"] = json!("g");
    networks["default"]["dns"] = json!(values);
    for value in &values {
        networks.insert(
            value.clone(),
            json!({"type": "dynamic", "nic_group": "g", "more": value}),
        );
    }
    let env = json!({"bosh": {"password": all}, "each": each, "long": long()});
    let arguments = json!([all, stemcell, {"memory": 64}, networks, [], env]);
    let vm = call(&sandbox, "create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    let drive = pool.join(format!("{vm}-config"));
    let on_drive = |file: &str| -> Value {
        let text = run(
            "mtype",
            &["-i", drive.to_str().unwrap(), &format!("::ec2/latest/{file}")],
        )
        .unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let told = on_drive("user-data");
    assert_eq!(
        (&told["agent_id"], &told["env"], &told["mbus"]),
        (&json!(all), &env, &json!(all))
    );
    assert_eq!(
        (&told["ntp"], &told["blobstore"]["options"]),
        (&json!(values), &each)
    );
    for (name, network) in &networks {
        assert_eq!(
            (&told["networks"][name]["more"], &told["networks"][name]["dns"]),
            (&network["more"], &network["dns"])
        );
    }
    assert_eq!(
        on_drive("meta-data.json")["public-keys"]["0"]["openssh-key"],
        json!(all)
    );

    let disk = call(&sandbox, "create_disk", json!([8, {}])).text();
    call(&sandbox, "attach_disk", json!([vm, disk])).result();
    let mut of_vm = each_by_itself(&values);
    of_vm.insert("name".to_owned(), json!(all));
    of_vm.insert("long".to_owned(), json!(long()));
    call(&sandbox, "set_vm_metadata", json!([vm, of_vm])).result();
    call(&sandbox, "set_disk_metadata", json!([disk, each])).result();
    let snapshot = call(&sandbox, "snapshot_disk", json!([disk, each])).text();
    assert_eq!(record(&snapshot)["metadata"], each);
    assert_eq!(record(&disk)["metadata"], each);
    let xml = sandbox.directory().join("domain.xml");
    fs::write(&xml, virsh(&["dumpxml", &vm])).unwrap();
    assert_has_entries(&xml, "vm", &of_vm);
    assert_has_entries(&xml, "disk", each.as_object().unwrap());
    assert_eq!(xpath(&xml, "count(//*[local-name()='x'])"), "0");
    assert_eq!(xpath(&xml, "string(/domain/name)"), vm);

    for command in [
        &["show", &*vm][..],
        &["show", &disk],
        &["show", &stemcell],
        &["list"],
        &["list", "--tree"],
    ] {
        assert_is_harmless(&sandbox.operator_says(command));
    }
    for (method, cid) in [
        ("delete_snapshot", &snapshot),
        ("delete_vm", &vm),
        ("delete_disk", &disk),
    ] {
        call(&sandbox, method, json!([cid])).result();
    }
    assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));
    assert!(!Path::new(&mark(&sandbox)).exists());
}

/// The call fails, or answers that there is no such thing, and nothing is made, changed or run.
fn comes_to_nothing(sandbox: &Sandbox, method: &str, arguments: Value) {
    let answer = call(sandbox, method, arguments);
    let error = &answer.response["error"];
    let message = error["message"].as_str().unwrap_or_default();
    assert!(!message.contains("panic"), "{method}: {message}");
    assert!(
        error.is_object() || [json!(false), Value::Null].contains(&answer.response["result"]),
        "{method}: {}",
        answer.response
    );
}

#[test]
fn names_of_what_there_is_not_come_to_nothing() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox
        .call("create_stemcell", json!([sandbox.image_without_system(), {}]))
        .text();
    let vm = sandbox.vm(&stemcell, 10);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    let beside = sandbox.directory().join("passwd");
    fs::write(&beside, "untouched").unwrap();
    let before = (
        sandbox.state(),
        fs::read_dir(sandbox.directory()).unwrap().count(),
    );

    // All that a cid may hold; what it may not is in the tests of the contract.
    let odd = format!(
        "-rf '\"`]]>&amp;{{{{.Name}}}}%s$(touch {})\u{202e}\u{1f600}",
        "mark"
    );
    for cid in [odd.as_str(), "passwd"] {
        for method in [
            "has_vm",
            "delete_vm",
            "reboot_vm",
            "get_disks",
            "has_disk",
            "delete_disk",
            "delete_snapshot",
            "snapshot_disk",
            "delete_stemcell",
            "delete_network",
        ] {
            comes_to_nothing(&sandbox, method, json!([cid]));
        }
        for (method, arguments) in [
            ("attach_disk", json!([vm, cid])),
            ("attach_disk", json!([cid, disk])),
            ("detach_disk", json!([vm, cid])),
            ("resize_disk", json!([cid, 16])),
            ("update_disk", json!([cid, 16, {}])),
            ("set_vm_metadata", json!([cid, {}])),
            ("set_disk_metadata", json!([cid, {}])),
            (
                "create_vm",
                json!(["a", cid, {}, sandbox.manual_network(11), [], {}]),
            ),
        ] {
            comes_to_nothing(&sandbox, method, arguments);
        }
    }
    let own = sandbox.image_without_system();
    let mut names = values(&sandbox);
    names.retain(|name| !name.is_empty());
    names.push(long());
    for (number, name) in names.iter().enumerate() {
        // Each in one place by turns: all of them look up a name.
        let (method, arguments) = match number % 4 {
            0 => ("create_disk", json!([8, {"storage_pool": name}])),
            1 => ("update_disk", json!([disk, 8, {"storage_pool": name}])),
            2 => ("create_stemcell", json!([own, {"volume": name}])),
            _ => ("create_stemcell", json!([own, {"volume": "v", "pool": name}])),
        };
        comes_to_nothing(&sandbox, method, arguments);
        comes_to_nothing(&sandbox, "create_stemcell", json!([name, {}]));
    }
    // Each of these goes as far as libvirt, one with everything that XML can hold, and two that it can't.
    let worst = format!(
        "</x><y a='b\"&amp;{{{{.Name}}}}]]>../../$(touch {0})`touch {0}`",
        mark(&sandbox)
    );
    for name in [worst.as_str(), "a\u{1b}\u{fffe}", "nul\0nul"] {
        for property in [
            "storage_pool",
            "machine",
            "cpu_mode",
            "vm_domain",
            "devices",
            "firmware",
        ] {
            let properties = json!({"memory": 64, property: name});
            comes_to_nothing(
                &sandbox,
                "create_vm",
                json!(["a", stemcell, properties, {}, [], {}]),
            );
        }
        for network in [
            json!({"name": name}),
            json!({"bridge": name}),
            json!({"direct": {"device": name}}),
            json!({"filter": name}),
            json!({"model": name}),
        ] {
            let networks = json!({"n": {"type": "dynamic", "cloud_properties": network}});
            comes_to_nothing(
                &sandbox,
                "create_vm",
                json!(["a", stemcell, {"memory": 64}, networks, [], {}]),
            );
        }
        for network in [
            json!({"range": name}),
            json!({"range": "10.250.0.0/24", "gateway": name}),
            json!({"range": "10.250.0.0/24", "cloud_properties": {"mode": "bridge", "bridge": name}}),
        ] {
            comes_to_nothing(&sandbox, "create_network", json!([network]));
        }
    }
    assert_eq!(
        before,
        (
            sandbox.state(),
            fs::read_dir(sandbox.directory()).unwrap().count()
        )
    );
    assert_eq!(fs::read_to_string(&beside).unwrap(), "untouched");
}
