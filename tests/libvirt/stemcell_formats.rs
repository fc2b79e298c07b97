//! Every format that a stemcell may have its disk in, as QEMU's tools write it, and what the pool holds afterwards, as
//! they read it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, run};

const MIB: u64 = 1024 * 1024;
const KIB: u64 = 1024;
/// No multiple of anything that a format counts in, but sectors.
const DISK_BYTES: u64 = 40 * MIB + 5 * 512;

/// A directory to make stemcells in.
struct Workshop(PathBuf);

impl Workshop {
    /// With the disk that all formats are made of: a little data, most of it zeros.
    fn new(sandbox: &Sandbox) -> Self {
        let directory = sandbox.directory().join("workshop");
        fs::create_dir(&directory).unwrap();
        let workshop = Self(directory);
        let disk = File::create(workshop.path("disk.raw")).unwrap();
        disk.set_len(DISK_BYTES).unwrap();
        let noise = noise(300 * KIB as usize);
        for at in [0, MIB - 100, 5 * MIB + 7, 20 * MIB, DISK_BYTES - 300 * KIB] {
            disk.write_all_at(&noise, at).unwrap();
        }
        workshop
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// The disk in another format.
    fn convert(&self, format: &str, options: &str, name: &str) {
        let mut arguments = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            arguments.extend(["-o", options]);
        }
        let (from, to) = (self.path("disk.raw"), self.path(name));
        arguments.extend([from.as_str(), to.as_str()]);
        run("qemu-img", &arguments).unwrap();
    }

    /// A tar of these files.
    fn tar(&self, options: &str, to: &str, names: &[&str]) -> String {
        let to = self.path(to);
        let directory = self.path("");
        let mut arguments = vec![options, &to, "-C", &directory];
        arguments.extend(names);
        run("tar", &arguments).unwrap();
        to
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }
}

/// Bytes that no compressor makes smaller, none of them zero.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 | 1
        })
        .collect()
}

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
        ("vmdk", sparse, "image-disk1.vmdk"),
        ("vpc", "subformat=fixed,force_size=on", "root.vhd"),
        ("vpc", "subformat=dynamic,force_size=on", "dynamic/root.vhd"),
    ] {
        if let Some(parent) = Path::new(&workshop.path(name)).parent() {
            fs::create_dir_all(parent).unwrap();
        }
        workshop.convert(format, options, name);
    }
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
        let stemcell = sandbox
            .call("create_stemcell", json!([image, {"disk": 41}]))
            .text();
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

/// What is wrong is said, naming the file; neither a volume nor a file is left, here or where a name in the tar says.
#[test]
fn what_is_no_good_image_leaves_nothing() {
    let sandbox = Sandbox::new();
    let workshop = Workshop::new(&sandbox);
    workshop.convert("vmdk", "subformat=streamOptimized", "good.vmdk");
    workshop.convert("vmdk", "", "sparse.vmdk");
    workshop.convert("vmdk", "subformat=twoGbMaxExtentFlat", "flat.vmdk");
    workshop.convert("vpc", "subformat=fixed,force_size=on", "good.vhd");
    workshop.convert("vpc", "subformat=dynamic,force_size=on", "dynamic.vhd");
    workshop.convert("vhdx", "", "disk.vhdx.img");
    workshop.convert("qcow2", "", "good.qcow2");
    let qemu_img = |arguments: &[&str]| run("qemu-img", arguments).unwrap();
    let path = |name: &str| workshop.path(name);
    let (good, data) = (path("good.qcow2"), format!("data_file={}", path("data")));
    qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        &good,
        &path("backed.qcow2"),
    ]);
    qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "-o",
        &data,
        &path("external.qcow2"),
        "40M",
    ]);
    let secret = ["--object", "secret,id=s,data=secret"];
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let encrypted = path("encrypted.qcow2");
    qemu_img(
        &[
            &["create"],
            &secret[..],
            &["-f", "qcow2", "-o", luks, &encrypted, "40M"],
        ]
        .concat(),
    );
    for (from, to, keep) in [
        ("good.vmdk", "cut.vmdk", 500_000),
        ("dynamic.vhd", "cut.vhd", 5_000_000),
        ("good.qcow2", "cut.qcow2", 1_000_000),
    ] {
        let bytes = fs::read(path(from)).unwrap();
        workshop.write(to, &bytes[..keep]);
    }
    let mut bytes = fs::read(path("good.vmdk")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 200].fill(0x55);
    workshop.write("corrupt.vmdk", &bytes);
    workshop.write("empty.img", b"");
    workshop.write("image.ovf", b"<Envelope/>");

    let before = (
        sandbox.state(),
        fs::read_dir(sandbox.directory()).unwrap().count(),
    );
    let fails = |names: &[&str], properties: Value, says: &str| {
        let image = workshop.tar("-czf", "image", &[&["-P"], names].concat());
        let message = sandbox
            .call("create_stemcell", json!([image, properties]))
            .error("CloudError", false);
        assert!(message.contains(says), "{says:?} is not in {message:?}");
        assert!(message.contains(&image), "{message:?} does not name the file");
        let after = (
            sandbox.state(),
            fs::read_dir(sandbox.directory()).unwrap().count(),
        );
        assert_eq!(after, before, "after: {message}");
    };
    for (names, says) in [
        (&["image.ovf"][..], "no disk image"),
        (&["good.vmdk", "good.qcow2"], "good.qcow2 being the second"),
        (&["empty.img"], "empty.img: the image is empty"),
        (&["backed.qcow2"], "backing file"),
        (&["external.qcow2"], "keeps its data in another file"),
        (&["encrypted.qcow2"], "encrypted"),
        (&["sparse.vmdk"], "not streamOptimized"),
        (&["flat.vmdk"], "names other files"),
        (&["disk.vhdx.img"], "VHDX"),
        (&["cut.vmdk"], "cut.vmdk: cut short"),
        (&["cut.vhd"], "cut.vhd: cut short"),
        (&["cut.qcow2"], "cut.qcow2: cut short"),
        (&["corrupt.vmdk"], "damaged"),
    ] {
        fails(names, json!({}), says);
    }
    for name in ["good.vmdk", "good.vhd", "dynamic.vhd", "good.qcow2"] {
        fails(&[name], json!({"disk": 30}), "disagrees with cloud property disk");
    }
    let escape = sandbox.directory().join("escaped.img");
    let names = ["--transform", "s,.*,../../escaped.img,", "empty.img"];
    fails(&names, json!({}), "escaped.img");
    let names = ["--transform", &format!("s,.*,{},", escape.display()), "empty.img"];
    fails(&names, json!({}), "escaped.img: the image is empty");
    assert!(!escape.exists());
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
    // In a sparse tar, which leaves the test little to compress.
    let image = workshop.tar("-czSf", "image", &["--format=gnu", "disk.raw"]);
    let mut call = sandbox.start("create_stemcell", json!([image, {"disk": 10240}]));
    let status = format!("/proc/{}/status", call.id());
    let mut peak_kib = 0;
    while call.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok());
        peak_kib = peak.unwrap_or(peak_kib);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let output = call.wait_with_output().unwrap();
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    let stored = stored(&sandbox, response["result"].as_str().expect("a cid"));
    assert!((1..40 * KIB).contains(&peak_kib), "{peak_kib} KiB of memory");
    let found = fs::metadata(&stored).unwrap();
    assert_eq!(found.len(), size);
    assert!(found.blocks() * 512 < 4 * MIB, "{} blocks", found.blocks());
    let (disk, stored) = (workshop.path("disk.raw"), stored.to_str().unwrap());
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &disk, stored]).unwrap();
}
