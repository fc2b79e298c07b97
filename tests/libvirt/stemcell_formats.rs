//! Every format that a stemcell may have its disk in, as QEMU's tools write it, and what the pool holds afterwards, as
//! they read it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, run};
use crate::workshop::{DISK_BYTES, KIB, MIB, Workshop, noise};

/// The stemcell's volume holds the workshop's disk, all of it and nothing else, in this format and without its zeros.
fn assert_holds_disk(sandbox: &Sandbox, workshop: &Workshop, stemcell: &str, format: &str, what: &str) {
    let stored = stored(sandbox, stemcell);
    let (disk, path) = (workshop.path("disk.raw"), stored.to_str().unwrap());
    let compared = run("qemu-img", &["compare", "-f", "raw", "-F", format, &disk, path]);
    assert!(compared.is_ok(), "{what} differs: {compared:?}");
    let info = run("qemu-img", &["info", "--output=json", path]).unwrap();
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["virtual-size"], DISK_BYTES, "{what}");
    assert_eq!(info["format"], format, "{what}");
    let taken = fs::metadata(&stored).unwrap().blocks() * 512;
    assert!(taken < 3 * MIB, "{what} takes {taken} bytes");
    let volume = crate::sandbox::virsh(&["vol-dumpxml", "--pool", &sandbox.name, stemcell]);
    assert!(
        volume.contains(&format!("<capacity unit='bytes'>{DISK_BYTES}</capacity>")),
        "{what}: {volume}"
    );
}

fn stored(sandbox: &Sandbox, stemcell: &str) -> PathBuf {
    sandbox.directory().join("pool").join(stemcell)
}

/// create_stemcell by a process that may not write a MiB into any file: all goes to libvirtd.
fn create_without_a_copy(sandbox: &Sandbox, image: &str, properties: Value) -> String {
    let mut call = Command::new("prlimit")
        .args(["--fsize=1048576", env!("CARGO_BIN_EXE_cpi"), "--config"])
        .arg(sandbox.config_path())
        // A build with coverage has large files to write.
        .env("LLVM_PROFILE_FILE", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let request = json!({"method": "create_stemcell", "arguments": [image, properties], "api_version": 2});
    let mut stdin = call.stdin.take().unwrap();
    stdin.write_all(request.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = call.wait_with_output().unwrap();
    assert!(output.status.success(), "{image}: {}", output.status);
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    response["result"]
        .as_str()
        .unwrap_or_else(|| panic!("{image}: {response}"))
        .to_owned()
}

#[test]
fn every_format_is_stored_as_the_disk_it_holds() {
    let sandbox = Sandbox::new();
    let workshop = Workshop::new(&sandbox);
    let sparse = "subformat=streamOptimized";
    for (format, options, name) in [
        ("qcow2", "", "v3/root.img"),
        ("qcow2", "compat=0.10", "v2/root.img"),
        (
            "qcow2",
            "cluster_size=2M,preallocation=metadata",
            "large/root.img",
        ),
        ("qcow2", "extended_l2=on,cluster_size=128k", "extended/root.img"),
        ("vmdk", sparse, "image-disk1.vmdk"),
        ("vpc", "subformat=fixed,force_size=on", "root.vhd"),
        ("vpc", "subformat=dynamic,force_size=on", "dynamic/root.vhd"),
    ] {
        if let Some(parent) = Path::new(&workshop.path(name)).parent() {
            fs::create_dir_all(parent).unwrap();
        }
        workshop.convert(format, options, name);
    }
    fs::create_dir(workshop.path("packed")).unwrap();
    let (disk, packed) = (workshop.path("disk.raw"), workshop.path("packed/root.img"));
    let zstd = [
        "-c",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-o",
        "compression_type=zstd",
        &disk,
        &packed,
    ];
    run("qemu-img", &[&["convert"], &zstd[..]].concat()).unwrap();
    workshop.write("image.ovf", b"<Envelope/>");
    workshop.write("image.mf", b"SHA256(image.ovf)= 0");
    let ova = workshop.tar("-cf", "image.ova", &["image.ovf", "image-disk1.vmdk", "image.mf"]);
    let packed = |options: &str, to: &str, names: &[&str]| workshop.tar(options, to, names);
    for (image, format, what) in [
        (packed("-czf", "1", &["v3/root.img"]), "qcow2", "qcow2"),
        (
            packed("-cf", "2", &["v2/root.img"]),
            "qcow2",
            "qcow2 of version 2 in a plain tar",
        ),
        (
            packed("-czf", "3", &["large/root.img"]),
            "qcow2",
            "qcow2 with large clusters and holes",
        ),
        (
            packed("-czf", "10", &["extended/root.img"]),
            "qcow2",
            "qcow2 with subclusters",
        ),
        (
            packed("-czf", "11", &["packed/root.img"]),
            "qcow2",
            "qcow2, compressed",
        ),
        (packed("-czf", "4", &["disk.raw"]), "raw", "raw"),
        (
            packed("-czSf", "5", &["--format=gnu", "disk.raw"]),
            "raw",
            "raw in a sparse tar",
        ),
        (ova, "raw", "OVA"),
        (packed("-czf", "6", &["image.ova"]), "raw", "OVA in a gzipped tar"),
        (
            packed("-czf", "7", &["image.ovf", "image-disk1.vmdk"]),
            "raw",
            "OVF",
        ),
        (packed("-czf", "8", &["root.vhd"]), "raw", "fixed VHD"),
        (packed("-czf", "9", &["dynamic/root.vhd"]), "raw", "dynamic VHD"),
    ] {
        // What a stemcell says of its format does not count.
        let properties = json!({"disk": 41, "disk_format": "vhd", "container_format": "tar"});
        let stemcell = create_without_a_copy(&sandbox, &image, properties);
        assert_holds_disk(&sandbox, &workshop, &stemcell, format, what);
        sandbox.call("delete_stemcell", json!([stemcell])).result();
    }
    assert_eq!(sandbox.volumes(), [""; 0]);
}

/// A VHD that a virtual machine wrote to has its blocks in the order of first use. QEMU's own writer makes one here.
#[test]
fn blocks_out_of_order_are_sorted_in_a_file_that_goes() {
    let sandbox = Sandbox::new();
    let workshop = Workshop::new(&sandbox);
    let (vhd, disk) = (workshop.path("root.vhd"), workshop.path("disk.raw"));
    let size = DISK_BYTES.to_string();
    let options = "subformat=dynamic,force_size=on";
    run("qemu-img", &["create", "-f", "vpc", "-o", options, &vhd, &size]).unwrap();
    File::create(&disk).unwrap().set_len(DISK_BYTES).unwrap();
    for at in [30 * MIB, 2 * MIB, 16 * MIB] {
        let write = format!("write -P {} {at} 300k", at / MIB);
        for (format, path) in [("vpc", &vhd), ("raw", &disk)] {
            run("qemu-io", &["-f", format, "-c", &write, path]).unwrap();
        }
    }
    let image = workshop.tar("-czf", "image", &["root.vhd"]);
    let before = fs::read_dir(sandbox.directory()).unwrap().count();
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
    assert_holds_disk(
        &sandbox,
        &workshop,
        &stemcell,
        "raw",
        "VHD with blocks out of order",
    );
    assert_eq!(fs::read_dir(sandbox.directory()).unwrap().count(), before);
}

/// 10 GiB of disk with 3 MiB of data need no more memory, and no more of the pool, than 3 MiB of disk.
#[test]
fn a_large_disk_needs_little_memory_and_only_its_data_of_the_pool() {
    let sandbox = Sandbox::new();
    let workshop = Workshop::new(&sandbox);
    let size = 10 * 1024 * MIB;
    let disk = File::options()
        .write(true)
        .open(workshop.path("disk.raw"))
        .unwrap();
    disk.set_len(0).unwrap();
    disk.set_len(size).unwrap();
    for at in [0, 5000 * MIB, size - MIB] {
        disk.write_all_at(&noise(MIB as usize), at).unwrap();
    }
    workshop.convert("qcow2", "", "root.img");
    workshop.convert("vmdk", "subformat=streamOptimized", "disk.vmdk");
    workshop.convert("vpc", "subformat=dynamic,force_size=on", "root.vhd");
    for (name, format) in [
        ("disk.raw", "raw"),
        ("root.img", "qcow2"),
        ("disk.vmdk", "raw"),
        ("root.vhd", "raw"),
    ] {
        // In a sparse tar, which leaves the test little to compress.
        let image = workshop.tar("-czSf", "image", &["--format=gnu", name]);
        let (stemcell, peak_kib) = create_watching_memory(&sandbox, &image);
        let stored = stored(&sandbox, &stemcell);
        assert!(
            (1..40 * KIB).contains(&peak_kib),
            "{name}: {peak_kib} KiB of memory"
        );
        let found = fs::metadata(&stored).unwrap();
        assert!(
            found.blocks() * 512 < 5 * MIB,
            "{name}: {} blocks",
            found.blocks()
        );
        let (disk, stored) = (workshop.path("disk.raw"), stored.to_str().unwrap());
        let compared = run("qemu-img", &["compare", "-f", "raw", "-F", format, &disk, stored]);
        assert!(compared.is_ok(), "{name}: {compared:?}");
        sandbox.call("delete_stemcell", json!([stemcell])).result();
    }
}

/// The stemcell's cid, and the most memory that creating it took, KiB.
fn create_watching_memory(sandbox: &Sandbox, image: &str) -> (String, u64) {
    let mut call = sandbox.start("create_stemcell", json!([image, {"disk": 10240}]));
    let status = format!("/proc/{}/status", call.id());
    let mut peak_kib = 0;
    while call.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok());
        peak_kib = peak.unwrap_or(peak_kib);
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = call.wait_with_output().unwrap();
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    (response["result"].as_str().expect("a cid").to_owned(), peak_kib)
}
