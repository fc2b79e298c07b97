//! What `cpi prune` makes of pools: other hosts may see them, they stop, go and turn read-only while it looks and deletes, and
//! ages go by the clock of who keeps their files. On a host of the test's own, where nobody else has pools.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::prune_bench::{Bench, GOES, HALF, KEYS};
use crate::rpc_proxy::At;
use crate::sandbox::run;

/// Of libvirt's remote protocol: `virStoragePoolGetInfo`, `virStorageVolDelete`, `virStorageVolGetXMLDesc`,
/// `virConnectListAllStoragePools`.
const POOL_INFO: u32 = 87;
const DELETE_VOLUME: u32 = 94;
const READ_VOLUME: u32 = 99;
const LIST_POOLS: u32 = 281;

/// Goes first of all.
const FIRST: &str = "vm-00000000-0000-4000-8000-000000000001-boot";
const DEAD: &str = "vm-00000000-0000-4000-8000-00000000dead";
const LOST: &str = "vm-00000000-0000-4000-8000-00000000fade";
const STEMCELL: &str = "sc-00000000-0000-4000-8000-00000000cafe";
const LIGHT: &str = "sc-00000000-0000-4000-8000-00000000babe";
const DISK: &str = "disk000000000000lost";

fn fates(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, fate): &(&str, &str)| ((*name).to_owned(), (*fate).to_owned());
    expected.iter().map(owned).collect()
}

/// Libvirt takes a network file system for mounted when something is mounted there under its name.
#[test]
fn what_other_hosts_may_use_goes_only_when_the_operator_says_that_they_do_not() {
    let bench = Bench::new();
    let shared = bench.mount("localhost:/some/export", "shared");
    bench.host.virsh(&[
        "pool-create-as",
        "shared",
        "netfs",
        "--source-host",
        "localhost",
        "--source-path",
        "/some/export",
        "--target",
        &shared,
    ]);
    let boot = format!("{DEAD}-boot");
    let record = format!("{DISK}.record");
    let mark = format!("{STEMCELL}.partial");
    let record_of_it = format!("{STEMCELL}.record");
    // Of this one libvirt has removed all but its record and its mark.
    let gone = [format!("{LIGHT}.record"), format!("{LIGHT}.partial")];
    for name in [&boot, &record, STEMCELL, &record_of_it, &mark, &gone[0], &gone[1]] {
        bench.make("shared", name, "2 hours ago");
    }
    let reason = "may be another host's: pool of type netfs; see --unshared";
    // What its mark says was never completed is nobody's.
    let expected = fates(&[
        (&boot, reason),
        (&record, reason),
        (STEMCELL, GOES),
        (&record_of_it, GOES),
        (&mark, GOES),
        (&gone[0], GOES),
        (&gone[1], GOES),
    ]);
    assert_eq!(bench.prune(&["--yes"]), (true, expected));
    assert_eq!(bench.volumes("shared"), [record.as_str(), &boot]);

    // In a pool that has not been started there may be the disk, or an overlay.
    let elsewhere = bench.host.directory().join("elsewhere");
    bench.host.virsh(&[
        "pool-define-as",
        "elsewhere",
        "dir",
        "--target",
        elsewhere.to_str().unwrap(),
    ]);
    let inactive = "pool elsewhere is inactive (virsh pool-start elsewhere)";
    let (overlay, disk) = (
        format!("an overlay on it may be there: {inactive}"),
        format!("its disk may be there: {inactive}"),
    );
    let expected = fates(&[(&boot, &overlay), (&record, &disk)]);
    assert_eq!(bench.prune(&["--yes", "--unshared"]), (true, expected));
    bench.host.virsh(&["pool-undefine", "elsewhere"]);
    let expected = fates(&[(&boot, GOES), (&record, GOES)]);
    assert_eq!(bench.prune(&["--yes", "--unshared"]), (true, expected));
    assert_eq!(bench.volumes("shared"), [""; 0]);
}

#[test]
fn what_is_gone_by_the_time_it_is_to_go_is_no_error() {
    let bench = Bench::new();
    bench.passing_pool("a-passing");
    let network = bench.host.directory().join("network.xml");
    for (name, mac) in [("emptied", "01"), ("removed", "02")] {
        let xml = format!(
            "<network><name>{name}</name><ip address='10.79.{mac}.1' netmask='255.255.255.0'><dhcp>\
             <host mac='52:54:00:00:00:{mac}' name='{LOST}' ip='10.79.{mac}.9'/></dhcp></ip></network>"
        );
        fs::write(&network, xml).unwrap();
        bench.host.virsh(&["net-define", network.to_str().unwrap()]);
    }
    let (passing, deleted) = (format!("{DEAD}-boot"), format!("{LOST}-boot"));
    let settings = format!("{HALF}-config");
    bench.make("a-passing", &passing, "2 hours ago");
    for name in [FIRST, &deleted, &settings] {
        bench.make("default", name, "2 hours ago");
    }
    bench.define_half_vm(&settings);
    let keys = bench.leave_keys();
    let entry = "<host mac='52:54:00:00:00:01'/>";
    let others = [
        &["pool-destroy", "a-passing"][..],
        &["vol-delete", "--pool", "default", &deleted],
        &["undefine", HALF],
        &[
            "net-update",
            "emptied",
            "delete",
            "ip-dhcp-host",
            entry,
            "--config",
        ],
        &["net-undefine", "removed"],
    ]
    .map(|arguments| bench.virsh_later(arguments));

    // After both pools' probes the first leftover goes.
    let (content, left) = bench.prune_while(At::Procedure(DELETE_VOLUME, 3), &["--yes"], move || {
        others.into_iter().for_each(|happen| happen());
        fs::remove_dir(keys).unwrap();
    });
    let expected = fates(&[
        (FIRST, GOES),
        (&passing, GOES),
        (&deleted, GOES),
        (HALF, GOES),
        (LOST, GOES),
        (KEYS, GOES),
    ]);
    assert_eq!((content, left), (true, expected));
    assert_eq!(bench.volumes("default"), [""; 0], "the half VM had a volume");
    assert!(
        bench.host.directory().join("a-passing").join(&passing).exists(),
        "it went with a pool that was gone"
    );
    assert_eq!(bench.prune(&["--yes"]), (true, fates(&[])));
}

#[test]
fn a_pool_that_goes_while_prune_looks_keeps_what_it_has() {
    let bench = Bench::new();
    let here = format!("{LOST}-boot");
    bench.make("default", &here, "2 hours ago");
    bench.passing_pool("passing");
    let boot = format!("{DEAD}-boot");
    let record = format!("{STEMCELL}.record");
    bench.make("passing", &boot, "2 hours ago");
    bench.make("passing", &record, "2 hours ago");
    let directory = bench.host.directory().join("passing");
    // A light stemcell is nothing but its record.
    let light = format!("{LIGHT}.record");
    bench.make("passing", &light, "2 hours ago");
    for (name, text) in [
        (&record, r#"{"properties": {"infrastructure": "openstack"}}"#),
        (&light, r#"{"volume": {"pool": "default", "volume": "debian"}}"#),
    ] {
        let file = directory.join(name);
        fs::write(&file, text).unwrap();
        run("touch", &["-d", "2 hours ago", file.to_str().unwrap()]).unwrap();
    }
    assert_eq!(
        bench.prune(&[]),
        (true, fates(&[(&here, GOES), (&boot, GOES), (&record, GOES)]))
    );

    let unknown = "may be another host's: pool of type unknown; see --unshared";
    // Before it is looked up, before it is read, and before its records are.
    for (at, arguments, boot_stays) in [
        (At::Procedure(POOL_INFO, 2), &[][..], unknown),
        (At::Procedure(LIST_POOLS, 3), &[], GOES),
        (At::Procedure(DELETE_VOLUME, 1), &["--yes"], unknown),
    ] {
        let goes = bench.virsh_later(&["pool-destroy", "passing"]);
        let pruned = bench.prune_while(at, arguments, goes);
        let expected = fates(&[(&here, GOES), (&boot, boot_stays)]);
        assert_eq!(pruned, (true, expected), "{at:?}");
        bench.passing_pool("passing");
    }
    assert_eq!(bench.volumes("passing"), [light.as_str(), &record, &boot]);
    assert_eq!(bench.volumes("default"), [""; 0]);
}

#[test]
fn ages_go_by_the_clock_of_who_keeps_the_files() {
    let bench = Bench::new();
    let path = bench.mount("tmpfs", "unsure");
    bench
        .host
        .virsh(&["pool-create-as", "unsure", "dir", "--target", &path]);
    let (dead, lost) = (format!("{DEAD}-boot"), format!("{LOST}-boot"));
    bench.make("unsure", &dead, "2 hours ago");
    bench.make("default", &lost, "90 minutes ago");
    bench.host.inside(&["mount", "-o", "remount,ro", &path]).unwrap();

    // After the two volumes, the probe is read: as one that a clock an hour behind has dated.
    let pool = bench.host.pool();
    let (content, stay) = bench.prune_while(At::Procedure(READ_VOLUME, 3), &["--yes"], move || {
        let files = fs::read_dir(pool).unwrap();
        let mut paths = files.map(|entry| entry.unwrap().path());
        let is_probe = |path: &PathBuf| path.to_str().unwrap().contains("cpi-probe-");
        let probe = paths.find(is_probe).unwrap();
        run("touch", &["-d", "1 hour ago", probe.to_str().unwrap()]).unwrap();
    });
    assert!(content);
    assert_eq!(stay[&lost], "younger than 1h");
    assert!(
        stay[&dead].contains("the host's clock is not known")
            && stay[&dead].contains("Read-only file system"),
        "{stay:?}"
    );
    let (_, stay) = bench.prune(&["--yes", "--in", "default"]);
    assert_eq!(stay, fates(&[(&lost, GOES)]));
}

#[test]
fn a_half_vm_that_has_a_disk_or_no_age_stays() {
    let bench = Bench::new();
    bench.define_half_vm("none");
    let expected = fates(&[(HALF, "its last modification is unknown")]);
    assert_eq!(bench.prune(&["--yes"]), (true, expected));
    bench.define_half_vm(DISK);
    bench.make("default", &format!("{HALF}-config"), "2 hours ago");
    // The record of a disk that a VM has stays, wherever the disk is; what says that it is being deleted does not.
    let mark = format!("{DISK}.deleting");
    bench.make("default", &format!("{DISK}.record"), "2 hours ago");
    bench.make("default", &mark, "2 hours ago");
    let attached = format!("{DISK} is attached to it");
    let expected = fates(&[(HALF, &attached), (&mark, GOES)]);
    assert_eq!(bench.prune(&["--yes"]), (true, expected));

    // A directory of keys that has become something else is not removed.
    let keys = bench.leave_keys();
    let path = keys.clone();
    bench.make("default", FIRST, "2 hours ago");
    let (content, left) = bench.prune_while(At::Procedure(DELETE_VOLUME, 2), &["--yes"], move || {
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "").unwrap();
    });
    assert!(!content && left[HALF] == attached, "{left:?}");
    assert!(
        left[KEYS].starts_with(&format!("removing {}", keys.display())),
        "{left:?}"
    );

    // Nothing is looked for where there is nothing, nor deleted where nobody has looked.
    fs::remove_file(&keys).unwrap();
    fs::remove_dir(bench.host.directory().join("tmp")).unwrap();
    assert_eq!(bench.prune(&["--yes"]), (true, fates(&[(HALF, &attached)])));
}
