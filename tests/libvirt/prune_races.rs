//! What `cpi prune` has found may be in use by the time that it is deleted: it is looked at again.

use std::fs;

use serde_json::Value;

use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, run, virsh};

/// `virStorageVolDelete` in libvirt's remote protocol. The first volume that prune deletes is its own, by which it has the
/// host's clock read: it has looked at the host by then.
const DELETE_VOLUME: u32 = 94;

const CREATING: &str = "https://github.com/libvirt-bosh-cpi/creating/1.0";
const DEAD: &str = "vm-00000000-0000-4000-8000-00000000dead";
const WRITTEN: &str = "vm-00000000-0000-4000-8000-00000000face";
const HALF: &str = "vm-00000000-0000-4000-8000-0000000bea7e";
const STEMCELL: &str = "sc-00000000-0000-4000-8000-00000000cafe";
const SNAPSHOT: &str = "snap000000000000race";
const LOST: &str = "vm-00000000-0000-4000-8000-00000000fade";
const LIVING: &str = "vm-00000000-0000-4000-8000-00000000feed";
const LIGHT: &str = "sc-00000000-0000-4000-8000-00000000babe";
const DISK: &str = "disk000000000000race";

/// A domain with this disk; its NIC's MAC address ends in 78.
fn define(directory: &std::path::Path, name: &str, disk: &str, metadata: &str) {
    let file = directory.join("domain.xml");
    let disk = directory.join("pool").join(disk).display().to_string();
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory><os><type>hvm</type></os>\
         <metadata>{metadata}</metadata><devices><disk type='file'><source file='{disk}'/>\
         <target dev='vda' bus='virtio'/></disk>\
         <interface type='user'><mac address='52:54:00:00:00:78'/></interface></devices></domain>"
    );
    fs::write(&file, xml).unwrap();
    virsh(&["define", file.to_str().unwrap()]);
}

#[test]
fn what_is_in_use_by_the_time_it_is_to_go_stays() {
    let mut sandbox = Sandbox::new();
    sandbox.serve_dhcp();
    let proxy = RpcProxy::of(&mut sandbox);
    let (pool, directory) = (sandbox.name.clone(), sandbox.directory().to_owned());
    let names = [
        format!("{DEAD}-boot"),
        format!("{WRITTEN}-boot"),
        format!("{HALF}-config"),
        STEMCELL.to_owned(),
        format!("{STEMCELL}.partial"),
        SNAPSHOT.to_owned(),
        format!("{SNAPSHOT}.partial"),
        format!("{DISK}.record"),
    ];
    for name in &names {
        virsh(&["vol-create-as", &pool, name, "1M"]);
        let path = directory.join("pool").join(name);
        run("touch", &["-d", "2 hours ago", path.to_str().unwrap()]).unwrap();
    }
    let mark = format!("<creating:vm xmlns:creating='{CREATING}'/>");
    define(&directory, HALF, &format!("{HALF}-config"), &mark);
    let host = format!(
        "<host mac='52:54:00:00:00:77' name='{DEAD}' ip='{}'/>",
        sandbox.address(77)
    );
    virsh(&["net-update", &pool, "add", "ip-dhcp-host", &host, "--live"]);
    let before = sandbox.volumes();

    let now = directory.clone();
    proxy.plan_event(At::Procedure(DELETE_VOLUME, 1), Fault::Before, move || {
        define(&now, DEAD, &format!("{DEAD}-boot"), "");
        let written = now.join("pool").join(format!("{WRITTEN}-boot"));
        run("touch", &[written.to_str().unwrap()]).unwrap();
        virsh(&["metadata", HALF, CREATING, "--remove", "--config"]);
        define(&now, &pool, STEMCELL, "");
        virsh(&["vol-delete", "--pool", &pool, &format!("{SNAPSHOT}.partial")]);
        virsh(&["vol-create-as", &pool, DISK, "1M"]);
    });
    let place = sandbox.name.clone();
    let (content, report, log) = sandbox.operator(&["prune", "--yes", "--json", "--in", &place]);
    let (_, happened) = proxy.seen();
    proxy.plan(None);
    assert!(happened && !content, "{report}{log}");
    let report: Value = serde_json::from_str(&report).unwrap();
    let reason = |kind: &str, name: &str| {
        let leftovers = report.as_array().unwrap();
        let found = leftovers
            .iter()
            .find(|leftover| leftover["kind"] == kind && leftover["name"] == name)
            .unwrap_or_else(|| panic!("no {kind} {name}: {report}"));
        found["spared"].as_str().unwrap_or("it went").to_owned()
    };
    for (kind, name, expected) in [
        ("VM's volume", names[0].as_str(), "exists by now"),
        ("DHCP entry", DEAD, "exists by now"),
        ("VM's volume", names[1].as_str(), "it is being written to"),
        ("half VM", HALF, "is complete by now"),
        ("half stemcell", STEMCELL, "uses it"),
        ("mark of it", names[4].as_str(), "is still there"),
        ("half snapshot", SNAPSHOT, "is complete by now"),
    ] {
        let reason = reason(kind, name);
        assert!(reason.contains(expected), "{kind} {name}: {reason}");
    }
    // Other tests' pools may be inactive: then it stays for that.
    let reason = reason("record", &names[7]);
    assert!(
        reason.contains("is there by now") || reason.contains("its disk may be there"),
        "{reason}"
    );
    let mut left = sandbox.volumes();
    let mut expected = before;
    expected.retain(|name| *name != names[6]);
    expected.push(DISK.to_owned());
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
    assert!(virsh(&["net-dumpxml", &sandbox.name]).contains(DEAD));
    for domain in [DEAD, HALF, &sandbox.name] {
        virsh(&["undefine", domain]);
    }
}

/// Of no other test, which could define it just then.
const GONE_VM: &str = "vm-00000000-0000-4000-8000-00000000deaf";

/// Whatever may be somebody's stays, with the reason.
#[test]
fn what_cannot_be_judged_stays() {
    let sandbox = Sandbox::new();
    sandbox.serve_dhcp();
    let (pool, directory) = (&sandbox.name, sandbox.directory());
    // A VM's volume whose file is gone, a damaged record of a stemcell, keys of another user, a file.
    let unread = format!("{LOST}-config");
    let whole = format!("{LOST}-boot");
    let others = format!("{GONE_VM}-boot");
    let record = format!("{LIGHT}.record");
    for name in [&unread, &whole, &others, &record] {
        virsh(&["vol-create-as", pool, name, "1M"]);
        let path = directory.join("pool").join(name);
        if *name == record {
            fs::write(&path, "damaged").unwrap();
        }
        run("touch", &["-d", "2 hours ago", path.to_str().unwrap()]).unwrap();
    }
    fs::remove_file(directory.join("pool").join(&unread)).unwrap();
    let keys = directory.join("libvirt-bosh-cpi-pki-other");
    fs::create_dir(&keys).unwrap();
    let path = keys.to_str().unwrap();
    run("touch", &["-d", "2 hours ago", path]).unwrap();
    run("chown", &["65534", path]).unwrap();
    fs::write(directory.join("libvirt-bosh-cpi-pki-file"), "").unwrap();
    // A MAC address that a VM has.
    define(directory, pool, "none", "");
    let host = format!(
        "<host mac='52:54:00:00:00:78' name='{LIVING}' ip='{}'/>",
        sandbox.address(78)
    );
    virsh(&["net-update", pool, "add", "ip-dhcp-host", &host, "--live"]);

    let places = ["--in", pool, "--in", directory.to_str().unwrap()];
    let report = sandbox.operator_json(&[&["prune", "--yes"], &places[..]].concat());
    let unread_record = format!("reading record {record} in pool {pool}: ");
    let mut reasons: Vec<(&str, &str)> = report
        .as_array()
        .unwrap()
        .iter()
        .map(|leftover| {
            let text = |key: &str| leftover[key].as_str().unwrap_or("it went");
            let spared = text("spared");
            let is_unread = spared.starts_with(&unread_record);
            (
                text("name"),
                if is_unread { unread_record.as_str() } else { spared },
            )
        })
        .collect();
    reasons.sort_unstable();
    // A call of another test may have had the pool read anew: then nobody knows of the volume without a file.
    let of_whole = reasons.iter().find(|(name, _)| *name == whole).unwrap().1;
    let fates = ["a volume of this VM cannot be read", "it went"];
    assert!(fates.contains(&of_whole), "{of_whole}");
    reasons.retain(|(name, _)| *name != whole);
    assert_eq!(
        reasons,
        [
            ("libvirt-bosh-cpi-pki-other", "it is user 65534's"),
            (record.as_str(), unread_record.as_str()),
            (others.as_str(), "it went"),
            (LIVING, "a VM has this MAC address"),
        ]
    );
    let (content, _, log) = sandbox.operator(&["prune", "--older-than", "5m"]);
    assert!(!content && log.contains("--older-than is at least"), "{log}");
    let (content, _, log) = sandbox.operator(&["prune", "--in", "misspelt"]);
    assert!(
        !content && log.contains("--in misspelt: there is no pool or network"),
        "{log}"
    );
    virsh(&["undefine", pool]);
}
