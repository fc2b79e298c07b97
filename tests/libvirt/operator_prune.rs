//! `cpi prune`: what killed calls left goes, everything else stays.

use std::collections::BTreeSet;
use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::networks_host::OwnNetwork;
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, run, stemcell_image, try_virsh, virsh, wait_for};

const UUID: &str = "00000000-0000-4000-8000-00000000abcd";

/// A call that is killed as soon as a volume of this name is there.
fn killed_when(sandbox: &Sandbox, mut call: Child, is_there: impl Fn(&str) -> bool) {
    let started = Instant::now();
    let pool = sandbox.directory().join("pool");
    loop {
        let names = fs::read_dir(&pool)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        if names.into_iter().any(|name| is_there(name.to_str().unwrap())) {
            break;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "there was nothing to see"
        );
        assert!(call.try_wait().unwrap().is_none(), "the call was quicker");
        std::thread::sleep(Duration::from_millis(1));
    }
    call.kill().unwrap();
    call.wait().unwrap();
}

/// Libvirt ends what killed calls asked it for. It refuses to refresh a pool in which it copies; what else it does shows
/// in files and domains that change.
fn wait_until_settled(sandbox: &Sandbox) {
    let mut last = (sandbox.state(), Instant::now());
    wait_for("libvirt to be done", Duration::from_secs(120), || {
        let refreshed = try_virsh(&["pool-refresh", &sandbox.name]).is_ok();
        let now = sandbox.state();
        if !refreshed || now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_secs(1)
    });
}

/// Makes everything that is in the pool now two hours older.
fn age(sandbox: &Sandbox) {
    for entry in fs::read_dir(sandbox.directory().join("pool")).unwrap() {
        let path = entry.unwrap().path();
        run("touch", &["-d", "2 hours ago", path.to_str().unwrap()]).unwrap();
    }
}

/// The leftovers in this sandbox's pool and directory: names of what goes, and of what stays.
fn pruned(sandbox: &Sandbox, arguments: &[&str]) -> (BTreeSet<String>, BTreeSet<String>) {
    let places = [
        "--in",
        &sandbox.name,
        "--in",
        sandbox.directory().to_str().unwrap(),
    ];
    // While another test's pool is inactive, what may have an overlay there stays.
    let spared_for_others = || {
        let report = sandbox.operator_says(&[&["prune", "--json"], &places[..]].concat());
        report.contains("is inactive (virsh pool-start")
    };
    wait_for(
        "other tests' pools to be active",
        Duration::from_secs(300),
        || !spared_for_others(),
    );
    let listed = sandbox.operator_json(&[&["prune"], &places[..], arguments].concat());
    let (mut going, mut staying) = (BTreeSet::new(), BTreeSet::new());
    for leftover in listed.as_array().unwrap() {
        let name = leftover["name"].as_str().unwrap().to_owned();
        if leftover["spared"].is_null() {
            &mut going
        } else {
            &mut staying
        }
        .insert(name);
    }
    (going, staying)
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn make(sandbox: &Sandbox, name: &str) {
    virsh(&["vol-create-as", &sandbox.name, name, "1M"]);
}

#[test]
fn what_is_not_proven_to_be_left_over_stays() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let vm = sandbox.vm(&stemcell, 10);
    let disk = sandbox.call("create_disk", json!([8, {"cache": "none"}])).text();
    let snapshot = sandbox.call("snapshot_disk", json!([disk, {}])).text();
    let names = [
        "somebody-elses".to_owned(),
        format!("vm-{UUID}-data"),
        "vm-web-boot".to_owned(),
        "x.partial".to_owned(),
        format!("sc-{UUID}"),
        // The seed's and update_disk's persistent disks have no records.
        format!("pdisk-{UUID}"),
        "disk00000000000000zz".to_owned(),
        "disk00000000000000zz.partial".to_owned(),
        "snap00000000000000zz".to_owned(),
    ];
    names.iter().for_each(|name| make(&sandbox, name));
    age(&sandbox);
    let before = sandbox.state();
    let (going, _) = pruned(&sandbox, &["--yes"]);
    assert_eq!(going, set(&[]));
    assert_eq!(sandbox.state(), before);
    assert_eq!(sandbox.call("has_vm", json!([vm])).result(), true);

    // In use, whatever their names say: a volume of a VM that is no more, and a half stemcell.
    let boot = format!("vm-{UUID}-boot");
    let half = "sc-00000000-0000-4000-8000-00000000beef";
    make(&sandbox, &boot);
    make(&sandbox, half);
    make(&sandbox, &format!("{half}.partial"));
    let overlay = format!("vm-{UUID}-ephemeral");
    let backing = format!("{}/pool/{half}", sandbox.directory().display());
    virsh(&[
        "vol-create-as",
        &sandbox.name,
        &overlay,
        "1M",
        "--format",
        "qcow2",
        "--backing-vol",
        &backing,
        "--backing-vol-format",
        "raw",
    ]);
    let source = format!("{}/pool/{boot}", sandbox.directory().display());
    virsh(&["attach-disk", &vm, &source, "vdx", "--config"]);
    age(&sandbox);
    let (going, staying) = pruned(&sandbox, &["--yes"]);
    assert_eq!(going, set(&[]));
    assert_eq!(staying, set(&[&boot, &overlay, half, &format!("{half}.partial")]));
    virsh(&["detach-disk", &vm, "vdx", "--config"]);

    // Not in use any more, all of it goes, and the rest still stays.
    let (going, _) = pruned(&sandbox, &["--yes"]);
    assert_eq!(going, set(&[&boot, &overlay]));
    let (going, _) = pruned(&sandbox, &["--yes"]);
    assert_eq!(going, set(&[half, &format!("{half}.partial")]));
    assert_eq!(sandbox.state(), before);
    for cid in [disk, snapshot] {
        assert_eq!(sandbox.call("has_disk", json!([cid])).result(), true);
    }
}

#[test]
fn what_killed_calls_left_goes_when_it_is_old_enough() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let disk = sandbox.call("create_disk", json!([3000, {}])).text();
    let complete = sandbox.volumes();

    let arguments = json!([stemcell_image("raw"), {"disk": 1024}]);
    let is_new_stemcell = |name: &str| name.starts_with("sc-") && !name.contains('.') && name != stemcell;
    killed_when(
        &sandbox,
        sandbox.start("create_stemcell", arguments),
        is_new_stemcell,
    );
    // Something for the copy to do.
    let file = sandbox.directory().join("pool").join(&disk);
    run(
        "dd",
        &[
            "if=/dev/urandom",
            &format!("of={}", file.display()),
            "bs=1M",
            "count=300",
            "conv=notrunc",
        ],
    )
    .unwrap();
    let is_snapshot = |name: &str| name.starts_with("snap") && !name.contains('.');
    killed_when(
        &sandbox,
        sandbox.start("snapshot_disk", json!([disk, {}])),
        is_snapshot,
    );
    let arguments = json!(["a", stemcell, {"memory": 64}, sandbox.manual_network(10), [], {}]);
    killed_when(&sandbox, sandbox.start("create_vm", arguments), |name| {
        name.ends_with("-boot")
    });
    wait_until_settled(&sandbox);
    // A call may have come as far as its domain before it was killed, running or not.
    for vm in sandbox.domains() {
        let _ = try_virsh(&["destroy", &vm]);
        virsh(&["undefine", &vm]);
    }
    make(&sandbox, "disk00000000000000yy.record");
    // Of a copy that was killed early, libvirt itself may have removed all but the mark. A cid is on a host once, so this
    // one is no other test's.
    make(&sandbox, "snap00000000000000yy.partial");
    make(&sandbox, "snap00000000000000yy");
    let keys = sandbox.directory().join("libvirt-bosh-cpi-pki-killed");
    fs::create_dir(&keys).unwrap();
    fs::write(keys.join("clientkey.pem"), "secret").unwrap();
    let left: BTreeSet<String> = sandbox
        .volumes()
        .into_iter()
        .filter(|name| !complete.contains(name))
        .collect();
    for part in ["sc-", "snap", "vm-"] {
        assert!(left.iter().any(|name| name.starts_with(part)), "{part}: {left:?}");
    }

    // Young as they are, they may be of calls that run.
    let mut expected = left.clone();
    expected.insert("libvirt-bosh-cpi-pki-killed".to_owned());
    assert_eq!(pruned(&sandbox, &["--yes"]), (set(&[]), expected.clone()));
    age(&sandbox);
    run("touch", &["-d", "2 hours ago", keys.to_str().unwrap()]).unwrap();
    // Asked for nothing, it deletes nothing.
    assert_eq!(pruned(&sandbox, &[]), (expected.clone(), set(&[])));
    assert!(keys.exists());
    let table = sandbox.operator_says(&["prune", "--in", &sandbox.name]);
    assert!(
        table.contains("half stemcell")
            && table.contains("half snapshot")
            && table.contains("cpi prune --yes"),
        "{table}"
    );
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert_eq!(pruned(&sandbox, &["--yes"]), (expected, set(&[])));
    assert_eq!(sandbox.volumes(), complete);
    assert!(!keys.exists());
}

#[test]
fn dhcp_entries_of_the_dead_go_and_a_running_create_vm_is_left_alone() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let network = OwnNetwork::new(&sandbox, "p", |n| {
        format!(
            "<ip address='{}' netmask='255.255.255.0'><dhcp><range start='{}' end='{}'/>\
             <host mac='00:16:3e:01:02:03' name='printer' ip='{}'/></dhcp></ip>",
            n.v4(1),
            n.v4(200),
            n.v4(220),
            n.v4(90)
        )
    });
    let before = network.dhcp_hosts();
    let host = format!(
        "<host mac='52:54:00:00:00:01' name='vm-{UUID}' ip='{}'/>",
        network.v4(11)
    );
    virsh(&[
        "net-update",
        &network.name,
        "add",
        "ip-dhcp-host",
        &host,
        "--live",
        "--config",
    ]);
    let networks = json!({"n": {"type": "manual", "ip": network.v4(210), "netmask": "255.255.255.0", "dns": [],
        "default": [], "cloud_properties": {"name": network.name}}});
    // Cleaning and creating meet in all ways that there is time for.
    std::thread::scope(|scope| {
        let creating = scope.spawn(|| {
            let vms = (0..4).map(|_| {
                let answer = sandbox.call(
                    "create_vm",
                    json!(["a", stemcell, {"memory": 64}, networks, [], {}]),
                );
                let vm = answer.result()[0].as_str().unwrap().to_owned();
                assert_eq!(sandbox.call("has_vm", json!([vm])).result(), Value::Bool(true));
                assert_ne!(network.dhcp_hosts(), before, "its entry is gone");
                sandbox.call("delete_vm", json!([vm])).result();
            });
            vms.count()
        });
        while !creating.is_finished() {
            sandbox.operator_says(&[
                "prune",
                "--yes",
                "--older-than",
                "10m",
                "--in",
                &sandbox.name,
                "--in",
                &network.name,
            ]);
        }
        assert_eq!(creating.join().unwrap(), 4);
    });
    assert_eq!(network.dhcp_hosts(), before);
}

#[test]
fn a_vm_that_a_killed_call_has_defined_goes_with_all_of_it() {
    let mut sandbox = Sandbox::new();
    sandbox.serve_dhcp();
    let stemcell = sandbox
        .call("create_stemcell", json!([sandbox.image_without_system(), {}]))
        .text();
    let proxy = RpcProxy::new(&sandbox.directory().join("libvirt-sock"));
    sandbox.configure(json!({"libvirt": {"type": "socket", "socket": proxy.socket}}));
    let before = sandbox.state();
    let arguments = json!(["a", stemcell, {"memory": 64}, sandbox.manual_network(10), [], {}]);
    let create = |fault: Option<(usize, Fault)>| {
        proxy.plan(fault.map(|(number, fault)| (At::Number(number), fault)));
        let call = sandbox.start("create_vm", arguments.clone());
        proxy.set_pid(call.id());
        let output = call.wait_with_output().unwrap();
        let calls = proxy.seen().0;
        proxy.plan(None);
        (output.status.success(), calls)
    };

    // Complete: nobody's business, however old.
    let (succeeded, calls) = create(None);
    assert!(succeeded);
    age(&sandbox);
    assert_eq!(pruned(&sandbox, &["--yes"]), (set(&[]), set(&[])));
    let complete = sandbox.domains();
    sandbox.call("delete_vm", json!([complete[0]])).result();
    assert_eq!(sandbox.state(), before);

    // Killed at each of the last calls, from its definition on to the mark's end, the very last but one.
    let mut killed_with_a_vm = 0;
    for number in (1..=calls).rev() {
        create(Some((number, Fault::KilledBefore)));
        wait_until_settled(&sandbox);
        let Some(vm) = sandbox.domains().pop() else {
            break;
        };
        let marked = virsh(&["dumpxml", &vm]).contains("creating/1.0");
        killed_with_a_vm += usize::from(marked);
        let (going, staying) = pruned(&sandbox, &["--yes"]);
        let young = if marked { set(&[&vm]) } else { set(&[]) };
        assert_eq!((going, staying), (set(&[]), young), "call {number} of {calls}");

        age(&sandbox);
        let disk = format!("disk00000000000000{:02}", number % 100);
        make(&sandbox, &disk);
        let path = sandbox.directory().join("pool").join(&disk);
        virsh(&["attach-disk", &vm, path.to_str().unwrap(), "vdx", "--config"]);
        assert_eq!(
            pruned(&sandbox, &["--yes"]).0,
            set(&[]),
            "it has a persistent disk"
        );
        virsh(&["detach-disk", &vm, "vdx", "--config"]);
        virsh(&["vol-delete", "--pool", &sandbox.name, &disk]);

        let going = pruned(&sandbox, &["--yes"]).0;
        if !marked {
            assert_eq!(going, set(&[]));
            sandbox.call("delete_vm", json!([vm])).result();
        }
        assert_eq!(sandbox.state(), before, "call {number} of {calls}");
    }
    assert!(killed_with_a_vm >= 3, "{killed_with_a_vm} of {calls}");
}
