//! VMs from create_vm to delete_vm.

use std::time::Duration;

use serde_json::{Value, json};

use crate::guest::shell;
use crate::sandbox::{Sandbox, run, stemcell_image, try_virsh, virsh, wait_for};

#[test]
fn a_guest_finds_its_settings_its_address_and_its_disks() {
    let sandbox = Sandbox::with_config(json!({
        "agent": {"mbus": "nats://nats:secret@10.0.0.1:4222", "ntp": ["ntp.example"],
                  "blobstore": {"provider": "dav", "options": {"endpoint": "http://10.0.0.1:25250"}}},
        "vm_ssh_key": {"public_key": "ssh-rsa AAAAB3 bosh"},
    }));
    let stemcell = sandbox.stemcell();
    let networks = sandbox.manual_network(10);
    let env = json!({"bosh": {"password": "<&'\">", "group": "d-cf-router"}, "ünïcode": "☃"});
    let arguments = json!(["agent-7", stemcell, {"cpu": 2, "memory": 192, "ephemeral_disk": 40}, networks, ["disk-x"], env]);
    let result = sandbox.call("create_vm", arguments).result();
    let vm = result[0].as_str().unwrap();
    assert_eq!(result[1], networks, "the networks come back as they were sent");

    sandbox.wait_until_ready(vm, 1);
    let console = sandbox.console(vm);
    assert!(console.contains("GUEST: settings from config-2"), "{console}");
    assert!(
        console.contains("GUEST: ssh-key ssh-rsa AAAAB3 bosh"),
        "{console}"
    );

    let settings = sandbox.settings_seen_by(vm);
    let mac = settings["networks"]["default"]["mac"].as_str().unwrap();
    assert_eq!(settings["agent_id"], "agent-7");
    assert_eq!(settings["vm"], json!({"name": vm, "id": vm}));
    assert_eq!(settings["mbus"], "nats://nats:secret@10.0.0.1:4222");
    assert_eq!(settings["ntp"], json!(["ntp.example"]));
    assert_eq!(
        settings["blobstore"],
        json!({"provider": "dav", "options": {"endpoint": "http://10.0.0.1:25250"}})
    );
    assert_eq!(settings["env"], env);
    assert_eq!(settings["disks"]["ephemeral"], "/dev/disk/by-id/virtio-ephemeral");
    assert_eq!(settings["networks"]["default"]["ip"], sandbox.address(10));

    // The address is on the NIC with the MAC of the settings, and the host reaches it.
    let on_nic = format!("GUEST: network default {mac} eth0 {}/24", sandbox.address(10));
    assert!(console.contains(&on_nic), "{console}");
    assert!(shell(&sandbox.address(10), "nics").contains(mac));
    let ephemeral = format!("-> /dev/vdb {}", 40 * 1024 * 1024);
    assert!(console.contains(&ephemeral), "{console}");
    assert_eq!(shell(&sandbox.address(10), "nproc").trim(), "2");

    // The domain is what was asked for, in the eyes of virsh.
    let info = virsh(&["dominfo", vm]);
    for line in [
        "CPU(s):         2",
        "Max memory:     196608 KiB",
        "Autostart:      enable",
        "Persistent:     yes",
    ] {
        assert!(info.contains(line), "{info}");
    }
    assert_eq!(virsh(&["domuuid", vm]).trim(), vm.strip_prefix("vm-").unwrap());

    assert_eq!(sandbox.call("has_vm", json!([vm])).result(), true);
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([]));
    assert_eq!(sandbox.call("delete_vm", json!([vm])).result(), Value::Null);
    assert_eq!(sandbox.call("has_vm", json!([vm])).result(), false);
    assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));
    sandbox.call("delete_vm", json!([vm])).error("VMNotFound", false);
}

#[test]
fn the_config_drive_has_its_label_where_blkid_looks_and_private_contents() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let vm = sandbox.vm(&stemcell, 10);
    let drive = sandbox.directory().join("pool").join(format!("{vm}-config"));
    assert!(std::fs::metadata(&drive).unwrap().len() <= 2 * 1024 * 1024);
    let drive = drive.to_str().unwrap();
    let tags = run("blkid", &["-p", "-o", "export", drive]).unwrap();
    assert!(tags.lines().any(|line| line == "LABEL=config-2"), "{tags}");
    let user_data = run("mtype", &["-i", drive, "::ec2/latest/user-data"]).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&user_data).unwrap()["agent_id"],
        "agent-10"
    );
    // The settings hold passwords.
    let mode = run("stat", &["-c", "%a", drive]).unwrap();
    assert_eq!(mode.trim(), "600", "others can read the settings");
}

#[test]
fn the_versions_of_the_api_differ_as_the_contract_says() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let arguments = |host| json!(["a", stemcell, {"memory": 64}, sandbox.manual_network(host), [], {}]);
    let disk = sandbox.call("create_disk", json!([8, {}, null])).text();

    let vm = sandbox.call_as(1, "create_vm", arguments(10)).text();
    assert_eq!(
        sandbox.call_as(1, "attach_disk", json!([vm, disk])).result(),
        Value::Null
    );
    sandbox.call_as(1, "delete_vm", json!([vm])).result();
    assert_eq!(
        sandbox.call("has_disk", json!([disk])).result(),
        true,
        "delete_vm took a persistent disk along"
    );

    let vm = sandbox.call_as(3, "create_vm", arguments(11)).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    let hint = sandbox.call_as(3, "attach_disk", json!([vm, disk])).text();
    assert_eq!(hint, format!("/dev/disk/by-id/virtio-{disk}"));

    let with_tags = json!([stemcell_image("raw"), {}, {"tags": {"deployment": "x"}}]);
    let tagged = sandbox.call_as(3, "create_stemcell", with_tags).text();
    sandbox.call("delete_stemcell", json!([tagged])).result();
}

#[test]
fn a_raw_stemcell_boots() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox
        .call("create_stemcell", json!([stemcell_image("raw"), {}]))
        .text();
    let vm = sandbox.vm(&stemcell, 10);
    sandbox.wait_until_ready(&vm, 1);
    let xml = virsh(&["vol-dumpxml", &format!("{vm}-boot"), "--pool", &sandbox.name]);
    assert!(
        xml.contains("<format type='qcow2'/>") && xml.contains(&stemcell),
        "{xml}"
    );
}

#[test]
fn a_stemcell_is_kept_while_a_boot_disk_is_based_on_it() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let vm = sandbox.vm(&stemcell, 10);
    let message = sandbox
        .call("delete_stemcell", json!([stemcell]))
        .error("CloudError", false);
    assert!(message.contains(&vm), "{message}");
    sandbox.call("delete_vm", json!([vm])).result();
    sandbox.call("delete_stemcell", json!([stemcell])).result();
    assert_eq!(sandbox.volumes(), [""; 0]);
    // The Director knows no error for one that is gone.
    sandbox.call("delete_stemcell", json!([stemcell])).result();
    sandbox
        .call("delete_stemcell", json!(["no-such-stemcell"]))
        .result();
}

#[test]
fn reboot_vm_restarts_a_running_vm_and_starts_a_stopped_one() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    sandbox.wait_until_ready(&vm, 1);
    sandbox.call("reboot_vm", json!([vm])).result();
    sandbox.wait_until_ready(&vm, 2);
    virsh(&["destroy", &vm]);
    sandbox.call("reboot_vm", json!([vm])).result();
    sandbox.wait_until_ready(&vm, 3);
    virsh(&["suspend", &vm]);
    sandbox.call("reboot_vm", json!([vm])).result();
    sandbox.wait_until_ready(&vm, 4);
    assert_eq!(virsh(&["domstate", &vm]).trim(), "running");
    let unknown = "vm-00000000-0000-4000-8000-000000000000";
    sandbox
        .call("reboot_vm", json!([unknown]))
        .error("VMNotFound", false);
}

#[test]
fn metadata_is_shown_by_virsh_whatever_is_in_it() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let long = "x".repeat(10_000);
    let first = json!({"name": "router/0 <a&b>\n'\"", "deployment": "cf", "index": 0, "null": null, "tags": ["a", {"b": 1}],
        "director": "ünï ☃ \u{1F600}", "": "empty key", "control": "a\u{1}b", "long": long, "job": "  spaces  "});
    sandbox.call("set_vm_metadata", json!([vm, first])).result();
    let namespace = "https://github.com/libvirt-bosh-cpi/vm/1.0";
    for extra in [&["--config"][..], &[]] {
        let shown = virsh(&[&["metadata", vm.as_str(), namespace], extra].concat());
        for expected in [
            "router/0 &lt;a&amp;b&gt;",
            ">cf<",
            ">0<",
            "☃ \u{1F600}",
            "{\"b\":1}",
            "  spaces  ",
            &long,
        ] {
            assert!(shown.contains(expected), "{expected} is not in {shown}");
        }
    }
    assert_eq!(virsh(&["desc", "--title", &vm]).trim(), "router/0 <a&b> '\"");

    // Called again with fewer keys: the others are gone.
    sandbox
        .call("set_vm_metadata", json!([vm, {"deployment": "cf2"}]))
        .result();
    let shown = virsh(&["metadata", &vm, namespace]);
    assert!(shown.contains("cf2") && !shown.contains("router"), "{shown}");
    assert!(!virsh(&["dumpxml", &vm]).contains("<title>"));

    // A VM that does not run has metadata too.
    virsh(&["destroy", &vm]);
    sandbox
        .call("set_vm_metadata", json!([vm, {"name": "off"}]))
        .result();
    assert!(virsh(&["dumpxml", &vm]).contains("<title>off</title>"));
}

#[test]
fn delete_vm_finds_what_is_left_of_a_vm_without_a_domain() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let arguments =
        json!(["a", stemcell, {"memory": 64, "ephemeral_disk": 8}, sandbox.manual_network(10), [], {}]);
    let vm = sandbox.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    virsh(&["destroy", &vm]);
    virsh(&["undefine", &vm]);
    assert_eq!(sandbox.call("has_vm", json!([vm])).result(), false);
    assert_eq!(sandbox.volumes().len(), 5);
    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));
}

#[test]
fn other_peoples_domains_and_volumes_are_none_of_our_business() {
    let sandbox = Sandbox::new();
    let domain = format!("{}-webserver", sandbox.name);
    let file = sandbox.directory().join("webserver.xml");
    let xml = format!(
        "<domain type='qemu'><name>{domain}</name><memory unit='MiB'>16</memory><os><type>hvm</type></os><devices>\
         <disk type='volume'><source pool='{}' volume='webserver'/><target dev='vda'/></disk></devices></domain>",
        sandbox.name
    );
    std::fs::write(&file, xml).unwrap();
    virsh(&["vol-create-as", &sandbox.name, "webserver", "1M"]);
    virsh(&["define", file.to_str().unwrap()]);

    assert_eq!(sandbox.call("has_vm", json!([domain])).result(), false);
    for method in ["delete_vm", "reboot_vm", "get_disks"] {
        sandbox.call(method, json!([domain])).error("VMNotFound", false);
    }
    assert_eq!(sandbox.call("has_disk", json!(["webserver"])).result(), false);
    sandbox
        .call("delete_disk", json!(["webserver"]))
        .error("DiskNotFound", false);
    sandbox.call("delete_stemcell", json!(["webserver"])).result();
    assert_eq!(sandbox.volumes(), ["webserver"]);
    assert!(try_virsh(&["dominfo", &domain]).is_ok());
}

#[test]
fn calculate_vm_cloud_properties_answers_in_names_that_create_vm_takes() {
    let sandbox = Sandbox::new();
    let asked = json!([{"ram": 64, "cpu": 1, "ephemeral_disk_size": 8}]);
    let properties = sandbox.call("calculate_vm_cloud_properties", asked).result();
    assert_eq!(properties, json!({"cpu": 1, "memory": 64, "ephemeral_disk": 8}));
    let arguments = json!([
        "a",
        sandbox.stemcell(),
        properties,
        sandbox.manual_network(10),
        [],
        {}
    ]);
    let vm = sandbox.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(virsh(&["dominfo", &vm]).contains("65536 KiB"));

    for (too_much, says) in [
        (
            json!([{"ram": 1_000_000_000, "cpu": 1, "ephemeral_disk_size": 1}]),
            "MiB of memory asked for, but a VM at",
        ),
        (
            json!([{"ram": 1, "cpu": 100_000, "ephemeral_disk_size": 1}]),
            "100000 CPUs asked for",
        ),
        (
            json!([{"ram": 1, "cpu": 1, "ephemeral_disk_size": 1u64 << 40}]),
            "MiB of ephemeral disk asked for",
        ),
        (json!([{"ram": 1, "cpu": 1}]), "ephemeral_disk_size is missing"),
    ] {
        let message = sandbox
            .call("calculate_vm_cloud_properties", too_much)
            .error("CloudError", false);
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn secrets_stay_out_of_everything_but_the_settings() {
    let secrets = ["mbus-s3cret", "blob-s3cret", "env-s3cret", "key-s3cret"];
    let sandbox = Sandbox::with_config(json!({
        "agent": {"mbus": format!("nats://u:{}@h", secrets[0]), "blobstore": {"options": {"password": secrets[1]}}},
        "libvirt": {"client": {}},
    }));
    let stemcell = sandbox.stemcell();
    let env = json!({"bosh": {"password": secrets[2], "mbus": {"cert": {"private_key": secrets[3]}}}});
    let good =
        json!(["a", stemcell, {"memory": 64, "ephemeral_disk": 8}, sandbox.manual_network(10), [], env]);
    let created = sandbox.call("create_vm", good);
    let vm = created.response["result"][0].as_str().unwrap().to_owned();
    let bad = json!(["a", stemcell, {"memory": 64}, {"n": {"type": "odd", "x": env}}, [], env]);
    let answers = [
        created,
        sandbox.call("create_vm", bad),
        sandbox.call("create_vm", json!([env, env, env, env, env, env])),
        sandbox.call(
            "create_vm",
            json!(["a", "b", {"password": secrets[2]}, {}, [], env]),
        ),
        sandbox.call("set_vm_metadata", json!([vm, env, env])),
        sandbox.call("delete_vm", json!([vm])),
    ];
    for answer in answers {
        let everything = format!("{}{}", answer.response, answer.stderr);
        for secret in secrets {
            assert!(!everything.contains(secret), "{secret} is in {everything}");
        }
    }
}

#[test]
fn a_vm_without_networks_and_one_with_a_vip_boot() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let vip = json!({"float": {"type": "vip", "ip": "173.1.2.3", "cloud_properties": {}}});
    for networks in [json!({}), vip] {
        let arguments = json!(["a", stemcell, {"memory": 192}, networks, [], {}]);
        let result = sandbox.call("create_vm", arguments).result();
        assert_eq!(result[1], networks);
        let vm = result[0].as_str().unwrap();
        assert!(!virsh(&["dumpxml", vm]).contains("<interface"));
        wait_for("the settings", Duration::from_secs(120), || {
            sandbox.console(vm).contains("GUEST: settings {")
        });
        sandbox.call("delete_vm", json!([vm])).result();
    }
}
