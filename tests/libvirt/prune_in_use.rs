//! What somebody uses stays: VMs that run, are defined or saved, and overlays, whoever made them. What cannot be looked
//! into keeps all that it may use. The other party is virsh and qemu-img, on a host of the test's own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use crate::prune_bench::{Bench, GOES, raw_disk};
use crate::rpc_proxy::At;
use crate::sandbox::run;

/// `virStorageVolDelete` in libvirt's remote protocol. The first is the probe's, by which prune reads the host's clock.
const DELETE_VOLUME: u32 = 94;

const BOOT: &str = "vm-00000000-0000-4000-8000-00000000dead-boot";
/// Of another VM, which nobody uses; it goes first.
const OTHER: &str = "vm-00000000-0000-4000-8000-00000000aaaa-boot";
const MARK: &str = "disk000000000000gone.deleting";

/// A host with two orphaned volumes, and the mark of a deletion, on which nobody puts an overlay.
fn bench() -> (Bench, String) {
    let bench = Bench::new();
    for name in [BOOT, OTHER, MARK] {
        bench.make("default", name, "2 hours ago");
    }
    let path = bench.host.pool().join(BOOT).display().to_string();
    (bench, path)
}

fn fates(boot: &str, other: &str) -> BTreeMap<String, String> {
    [(BOOT, boot), (OTHER, other), (MARK, GOES)]
        .map(|(name, fate)| (name.to_owned(), fate.to_owned()))
        .into()
}

#[test]
fn a_volume_of_a_running_a_defined_and_a_saved_vm_stays() {
    let (bench, path) = bench();
    let used = (true, fates("theirs uses it", GOES));
    bench.define("theirs", std::slice::from_ref(&path));
    assert_eq!(bench.prune(&[]), used);

    // Only the running VM has it, then only what it resumes with.
    bench.host.virsh(&["start", "theirs"]);
    bench.define("theirs", &[]);
    assert!(
        !bench
            .host
            .virsh(&["dumpxml", "theirs", "--inactive"])
            .contains(BOOT)
    );
    assert_eq!(bench.prune(&[]), used);
    bench.host.virsh(&["managedsave", "theirs"]);
    bench.define("theirs", &[]);
    assert!(!bench.host.virsh(&["dumpxml", "theirs"]).contains(BOOT));
    assert_eq!(bench.prune(&["--yes"]), used);
    assert!(bench.volumes("default").contains(&BOOT.to_owned()));

    bench.make("default", OTHER, "2 hours ago");
    bench.make("default", MARK, "2 hours ago");
    let saved = bench.host.directory().join("lib/qemu/save/theirs.save");
    fs::write(&saved, "damaged").unwrap();
    let (content, fates) = bench.prune(&["--yes"]);
    for name in [BOOT, OTHER] {
        let why = &fates[name];
        assert!(
            content && why.starts_with("the saved state of VM theirs cannot be read: "),
            "{why}"
        );
    }
    assert_eq!(fates[MARK], GOES);
    let listed = bench.says(&["list"]);
    assert!(listed.0, "{listed:?}");

    bench.host.virsh(&["managedsave-remove", "theirs"]);
    let (_, fates) = bench.prune(&["--yes"]);
    assert_eq!((fates[BOOT].as_str(), fates[OTHER].as_str()), (GOES, GOES));
    assert_eq!(bench.volumes("default"), [""; 0]);
}

#[test]
fn a_volume_with_an_overlay_of_any_name_in_any_pool_stays() {
    let (bench, path) = bench();
    bench.passing_pool("backups");
    let overlay = bench.host.directory().join("backups/of-tuesday.img");
    let overlay = overlay.to_str().unwrap();
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &path, overlay],
    )
    .unwrap();
    bench.host.virsh(&["pool-refresh", "backups"]);
    assert_eq!(
        bench.prune(&["--yes"]),
        (true, fates("of-tuesday.img is based on it", GOES))
    );
    assert_eq!(bench.volumes("default"), [BOOT]);

    // A file that is gone is no overlay; one that cannot be read may be.
    fs::remove_file(overlay).unwrap();
    assert_eq!(bench.prune(&[]).1[BOOT], GOES);
    symlink("of-tuesday.img", overlay).unwrap();
    let why = "volume of-tuesday.img in pool backups cannot be read, and may be based on it \
               (virsh vol-info of-tuesday.img --pool backups)";
    assert_eq!(bench.prune(&["--yes"]).1[BOOT], why);
    assert_eq!(bench.volumes("default"), [BOOT]);
}

#[test]
fn a_pool_that_may_hold_an_overlay_and_is_inactive_keeps_what_has_content() {
    let (bench, path) = bench();
    // Logical volumes are no overlays.
    bench.host.virsh(&[
        "pool-define-as",
        "blocks",
        "logical",
        "--source-name",
        "none",
        "--target",
        "/dev/none",
    ]);
    assert_eq!(bench.prune(&[]), (true, fates(GOES, GOES)));
    let directory = bench.host.directory().join("backups");
    fs::create_dir(&directory).unwrap();
    bench.host.virsh(&[
        "pool-define-as",
        "backups",
        "dir",
        "--target",
        directory.to_str().unwrap(),
    ]);
    let inactive = "an overlay on it may be there: pool backups is inactive (virsh pool-start backups)";
    assert_eq!(bench.prune(&[]), (true, fates(inactive, inactive)));

    // It stops, and an overlay is made, after prune has looked.
    bench.host.virsh(&["pool-start", "backups"]);
    let stops = bench.virsh_later(&["pool-destroy", "backups"]);
    let (content, left) = bench.prune_while(At::Procedure(DELETE_VOLUME, 1), &["--yes"], stops);
    let late = format!("by now: {inactive}");
    assert_eq!((content, left), (false, fates(&late, &late)));
    assert_eq!(bench.volumes("default"), [OTHER, BOOT]);
    bench.host.virsh(&["pool-start", "backups"]);
    bench.make("default", MARK, "2 hours ago");
    let make = bench.virsh_later(&[
        "vol-create-as",
        "backups",
        "late",
        "1M",
        "--format",
        "qcow2",
        "--backing-vol",
        &path,
        "--backing-vol-format",
        "raw",
    ]);
    let (content, left) = bench.prune_while(At::Procedure(DELETE_VOLUME, 2), &["--yes"], make);
    assert_eq!(
        (content, left),
        (false, fates("by now: late is based on it", GOES))
    );
    assert_eq!(bench.volumes("default"), [BOOT]);
}

/// libvirt tells the backing files of images in pools and of running VMs only.
#[test]
fn an_image_in_no_pool_that_a_vm_will_be_started_from_keeps_what_it_may_be_based_on() {
    let (bench, path) = bench();
    let image = bench.host.directory().join("image");
    let image = image.to_str().unwrap();
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &path, image],
    )
    .unwrap();
    let qcow2 = |chain: &str| {
        format!("<disk type='file'><driver name='qemu' type='qcow2'/><source file='{image}'/>{chain}</disk>")
    };
    let why = format!("VM theirs starts from {image}, which is in no active pool and may be based on it");
    bench.define_with("theirs", &[qcow2("")]);
    assert_eq!(bench.prune(&[]), (true, fates(&why, &why)));

    // The chain is known of a running VM, and where the definition names it.
    bench.host.virsh(&["start", "theirs"]);
    assert_eq!(bench.prune(&[]), (true, fates("theirs uses it", GOES)));
    bench.host.virsh(&["destroy", "theirs"]);
    let chain = format!(
        "<backingStore type='file'><format type='raw'/><source file='{path}'/><backingStore/></backingStore>"
    );
    for (disk, fate) in [
        (qcow2(&chain), "theirs uses it"),
        (qcow2("<backingStore/>"), GOES),
        (raw_disk(image), GOES),
    ] {
        bench.define_with("theirs", &[disk]);
        assert_eq!(bench.prune(&[]), (true, fates(fate, GOES)));
    }
    assert_eq!(bench.prune(&["--yes"]), (true, fates(GOES, GOES)));
}
