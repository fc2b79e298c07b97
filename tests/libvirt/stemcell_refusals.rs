//! Stemcells that are refused: what is wrong is said, naming the file; neither a volume nor a file is left, here or where
//! a name in the tar says.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use serde_json::{Value, json};

use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, run};
use crate::workshop::Workshop;

/// A host where create_stemcell fails, and what is there before each call.
struct Refusals {
    sandbox: Sandbox,
    workshop: Workshop,
}

impl Refusals {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let workshop = Workshop::new(&sandbox);
        Self { sandbox, workshop }
    }

    fn path(&self, name: &str) -> String {
        self.workshop.path(name)
    }

    /// A stemcell of these files of the workshop's is refused with a message that says this.
    #[track_caller]
    fn refuse(&self, names: &[&str], properties: Value, says: &str) {
        let image = self.workshop.tar("-czf", "image", &[&["-P"], names].concat());
        self.refuse_image(&image, properties, says);
    }

    #[track_caller]
    fn refuse_image(&self, image: &str, properties: Value, says: &str) {
        let files = || fs::read_dir(self.sandbox.directory()).unwrap().count();
        let before = (self.sandbox.volumes(), files());
        let arguments = json!([image, properties]);
        let message = self
            .sandbox
            .call("create_stemcell", arguments)
            .error("CloudError", false);
        assert!(message.contains(says), "{says:?} is not in {message:?}");
        assert!(message.contains(image), "{message:?} does not name the file");
        assert_eq!((self.sandbox.volumes(), files()), before, "after: {message}");
    }
}

fn qemu_img(arguments: &[&str]) {
    run("qemu-img", arguments).unwrap();
}

#[test]
fn other_formats_and_tars_without_one_image() {
    let refusals = Refusals::new();
    let workshop = &refusals.workshop;
    for (format, options, name) in [
        ("qcow2", "", "good.qcow2"),
        ("vmdk", "subformat=streamOptimized", "good.vmdk"),
        ("vpc", "subformat=fixed,force_size=on", "good.vhd"),
        ("vpc", "subformat=dynamic,force_size=on", "dynamic.vhd"),
        ("vmdk", "", "sparse.vmdk"),
        ("vmdk", "subformat=twoGbMaxExtentFlat", "flat.vmdk"),
        ("vhdx", "", "disk.vhdx.img"),
        ("qed", "", "disk.qed.img"),
        ("qcow", "", "v1.qcow2"),
    ] {
        workshop.convert(format, options, name);
    }
    workshop.write("luks.img", b"LUKS\xba\xbe\0\x01 and so on");
    workshop.write("empty.img", b"");
    workshop.write("image.ovf", b"<Envelope/>");
    run("gzip", &["-k", &refusals.path("good.qcow2")]).unwrap();
    fs::rename(refusals.path("good.qcow2.gz"), refusals.path("twice.img")).unwrap();
    workshop.tar("-cf", "image.ova", &["image.ovf", "good.vmdk"]);
    for (names, says) in [
        (&["image.ovf"][..], "no disk image"),
        (&["good.vmdk", "good.qcow2"], "good.qcow2 being the second"),
        (&["image.ova", "good.qcow2"], "good.qcow2 being the second"),
        (&["empty.img"], "empty.img: the image is empty"),
        (&["sparse.vmdk"], "not streamOptimized"),
        (&["flat.vmdk"], "names other files"),
        (&["disk.vhdx.img"], "VHDX"),
        (&["disk.qed.img"], "QED"),
        (&["v1.qcow2"], "version 1 is not supported"),
        (&["luks.img"], "the image is encrypted"),
        (&["twice.img"], "compressed once more"),
    ] {
        refusals.refuse(names, json!({}), says);
    }
    for name in ["good.vmdk", "good.vhd", "dynamic.vhd", "good.qcow2", "disk.raw"] {
        refusals.refuse(&[name], json!({"disk": 30}), "disagrees with cloud property disk");
    }
    let pax = workshop.tar("-czSf", "pax", &["--format=posix", "disk.raw"]);
    refusals.refuse_image(&pax, json!({}), "pax sparse");
}

#[test]
fn images_that_are_cut_or_damaged() {
    let refusals = Refusals::new();
    let workshop = &refusals.workshop;
    workshop.convert("vmdk", "subformat=streamOptimized", "good.vmdk");
    workshop.convert("vpc", "subformat=fixed,force_size=on", "good.vhd");
    workshop.convert("vpc", "subformat=dynamic,force_size=on", "dynamic.vhd");
    workshop.convert("qcow2", "", "good.qcow2");
    for (from, to, keep) in [
        ("good.vmdk", "cut.vmdk", 500_000),
        ("dynamic.vhd", "cut.vhd", 5_000_000),
        ("good.vhd", "cut-fixed.vhd", 4_096_000),
        ("good.qcow2", "cut.qcow2", 1_000_000),
    ] {
        workshop.changed(from, to, |bytes| bytes.truncate(keep));
    }
    workshop.changed("good.vmdk", "corrupt.vmdk", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle..middle + 200].fill(0x55);
    });
    workshop.changed("good.vmdk", "beheaded.vmdk", |bytes| bytes[..512].fill(0));
    workshop.changed("good.vhd", "corrupt.vhd", |bytes| {
        *bytes.last_mut().unwrap() ^= 1;
    });
    workshop.changed("dynamic.vhd", "corrupt-dynamic.vhd", |bytes| bytes[600] ^= 1);
    workshop.changed("good.qcow2", "marked.qcow2", |bytes| bytes[79] |= 2);
    for (name, says) in [
        ("cut.vmdk", "cut.vmdk: cut short"),
        ("cut.vhd", "cut.vhd: cut short"),
        ("cut-fixed.vhd", "cut-fixed.vhd: cut short"),
        ("cut.qcow2", "cut.qcow2: cut short"),
        ("corrupt.vmdk", "damaged"),
        ("beheaded.vmdk", "beheaded.vmdk: damaged"),
        ("corrupt.vhd", "its checksum is wrong"),
        ("corrupt-dynamic.vhd", "its checksum is wrong"),
        ("marked.qcow2", "marked corrupt"),
    ] {
        refusals.refuse(&[name], json!({}), says);
    }
    // What is around them, too.
    let whole = workshop.tar("-cf", "whole", &["disk.raw"]);
    for (cut, says) in [
        (700, "disk.raw: cut short"),
        (20_000_000, "disk.raw: cut short"),
        // All of the disk, and no more.
        (512 + 41_945_600, "the tar has no end"),
    ] {
        workshop.changed("whole", "cut", |bytes| bytes.truncate(cut));
        refusals.refuse_image(&refusals.path("cut"), json!({}), says);
    }
    refusals.refuse_image(&whole.replace("whole", "absent"), json!({}), "opening it");
}

/// Every way in which an image can name a file of the host, whose content its VMs would read.
#[test]
fn images_that_lean_on_other_files() {
    let refusals = Refusals::new();
    let workshop = &refusals.workshop;
    let path = |name: &str| refusals.path(name);
    let (secret, data) = (path("secret"), format!("data_file={}", path("data")));
    workshop.write("secret", &[b'x'; 1 << 20]);
    let owner = || {
        let metadata = fs::metadata(&secret).unwrap();
        (metadata.uid(), metadata.gid())
    };
    let before = owner();
    let backed = path("backed.qcow2");
    qemu_img(&["create", "-f", "qcow2", "-F", "raw", "-b", &secret, &backed]);
    qemu_img(&[
        "create",
        "-f",
        "qcow2",
        "-o",
        &data,
        &path("external.qcow2"),
        "1M",
    ]);
    let aes = "encrypt.format=aes,encrypt.key-secret=s";
    let key = ["--object", "secret,id=s,data=secret", "-f", "qcow2", "-o", aes];
    qemu_img(&[&["create"], &key[..], &[&path("aes.qcow2"), "1M"]].concat());
    // QEMU wants to measure how fast the machine is before it makes one, and often cannot.
    workshop.changed("aes.qcow2", "luks.qcow2", |bytes| bytes[35] = 2);
    workshop.convert("vmdk", "subformat=streamOptimized", "good.vmdk");
    workshop.changed("good.vmdk", "child.vmdk", |bytes| {
        let at = bytes.windows(10).position(|text| text == b"parentCID=").unwrap();
        bytes[at + 10..at + 18].copy_from_slice(b"12345678");
    });
    workshop.convert("vpc", "subformat=dynamic,force_size=on", "good.vhd");
    workshop.changed("good.vhd", "child.vhd", |bytes| {
        let last = bytes.len() - 512;
        for at in [0, last] {
            // The type, and the sum of all bytes.
            bytes[at + 63] = 4;
            bytes[at + 67] -= 1;
        }
    });
    for (name, says) in [
        ("backed.qcow2", "backing file"),
        ("external.qcow2", "keeps its data in another file"),
        ("aes.qcow2", "encrypted"),
        ("luks.qcow2", "encrypted"),
        ("child.vmdk", "needs another one, its parent"),
        ("child.vhd", "differencing"),
    ] {
        refusals.refuse(&[name], json!({}), says);
    }
    // Once it is stored as a raw disk, libvirt and QEMU would find the image in it.
    workshop.changed("backed.qcow2", "disk.raw", |bytes| bytes.resize(1 << 20, 0));
    workshop.convert("vmdk", "subformat=streamOptimized", "hidden.vmdk");
    workshop.convert("vpc", "subformat=dynamic,force_size=on", "hidden.vhd");
    workshop.convert("vpc", "subformat=fixed,force_size=on", "fixed.vhd");
    for (name, says) in [
        ("hidden.vmdk", "itself a disk image"),
        ("hidden.vhd", "itself a disk image"),
        ("fixed.vhd", "backing file"),
        ("disk.raw", "backing file"),
    ] {
        refusals.refuse(&[name], json!({}), says);
    }
    assert_eq!(owner(), before, "libvirt has given the file to QEMU");
}

/// An image is taken whatever its name, and a name is never a place.
#[test]
fn names_that_lead_elsewhere() {
    let refusals = Refusals::new();
    let (sandbox, workshop) = (&refusals.sandbox, &refusals.workshop);
    workshop.convert("qcow2", "", "good.qcow2");
    workshop.write("empty.img", b"");
    let elsewhere = sandbox.directory().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, refusals.path("link")).unwrap();
    let absolute = elsewhere.join("escaped.img");
    for name in [
        "../../escaped.img",
        absolute.to_str().unwrap(),
        "link/escaped.img",
    ] {
        let transform = format!("s,^[a-z]*.\\(img\\|qcow2\\)$,{name},");
        let named = |file| ["--transform", &transform, "link", file];
        refusals.refuse(&named("empty.img"), json!({}), "escaped.img: the image is empty");
        let image = workshop.tar("-czf", "image", &[&["-P"], &named("good.qcow2")[..]].concat());
        let listed = run("tar", &["-tPzf", &image]).unwrap();
        assert_eq!(listed, format!("link\n{name}\n"));
        let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
        assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));
        sandbox.call("delete_stemcell", json!([stemcell])).result();
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        assert!(!sandbox.directory().join("escaped.img").exists());
    }
}

/// `virStorageVolGetXMLDesc` in libvirt's remote protocol: create_stemcell looks at what it has uploaded.
const READ_VOLUME: u32 = 99;

#[test]
fn an_upload_that_libvirt_finds_another_disk_in_is_no_stemcell() {
    let mut sandbox = Sandbox::new();
    let image = sandbox.image_without_system();
    let proxy = RpcProxy::of(&mut sandbox);
    let pool = sandbox.directory().join("pool");
    proxy.plan_event(At::Procedure(READ_VOLUME, 1), Fault::Before, move || {
        let files = fs::read_dir(pool).unwrap();
        let mut paths = files.map(|entry| entry.unwrap().path());
        let is_stemcell = |path: &std::path::PathBuf| path.extension().is_none();
        let path = paths.find(is_stemcell).unwrap();
        run("truncate", &["-s", "+1M", path.to_str().unwrap()]).unwrap();
    });
    let answer = sandbox.call("create_stemcell", json!([image, {}]));
    assert!(proxy.seen().1, "{}", answer.stderr);
    proxy.plan(None);
    let message = answer.error("CloudError", false);
    assert!(
        message.contains("has a disk of 2097152 bytes instead of 1048576"),
        "{message}"
    );
    assert_eq!(sandbox.volumes(), [""; 0]);
}
