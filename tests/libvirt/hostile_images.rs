//! Disk images that lie about their size, bombs, and what a guest can write into its own disk.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, run, virsh};

const MIB: u64 = 1024 * 1024;
/// 8 EiB, the most that fits a signed number, and the last sector that fits any.
const CLAIMS: [u64; 3] = [1 << 63, i64::MAX as u64 - 511, u64::MAX - 511];

/// On however slow a machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A stemcell's `image` file with one file in it.
fn stemcell_of(sandbox: &Sandbox, name: &str, file: &[u8]) -> PathBuf {
    let path = sandbox.directory().join("image");
    let mut tar = tar::Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(file.len() as u64);
    tar.append_data(&mut header, name, file).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    path
}

/// The call is refused at once, without much memory, and leaves nothing.
fn is_refused(sandbox: &Sandbox, image: &Path, properties: Value, says: &[&str]) {
    let files = || fs::read_dir(sandbox.directory()).unwrap().count();
    let before = (sandbox.volumes(), files());
    let started = Instant::now();
    let mut call = sandbox.start("create_stemcell", json!([image, &properties]));
    let status = format!("/proc/{}/status", call.id());
    let mut peak_kib = 0;
    while call.try_wait().unwrap().is_none() {
        if started.elapsed() > LIMIT {
            call.kill().unwrap();
            panic!("create_stemcell still works on {properties} after {LIMIT:?}");
        }
        let status = fs::read_to_string(&status).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak_kib = peak.unwrap_or(peak_kib);
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = call.wait_with_output().unwrap();
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        response["error"]["type"], "Bosh::Clouds::CloudError",
        "{response}"
    );
    assert_eq!(response["error"]["ok_to_retry"], false);
    let message = response["error"]["message"].as_str().unwrap();
    assert!(
        says.iter().any(|says| message.contains(says)),
        "{says:?}: {message}"
    );
    assert!(peak_kib < 50 * 1024, "{peak_kib} KiB of memory: {message}");
    assert_eq!(before, (sandbox.volumes(), files()), "{message}");
}

/// An empty disk of 1 MiB as QEMU writes it in this format.
fn of_qemu(sandbox: &Sandbox, format: &str, options: &str) -> Vec<u8> {
    let (raw, path) = (sandbox.directory().join("raw"), sandbox.directory().join("disk"));
    fs::write(&raw, vec![7; MIB as usize]).unwrap();
    let mut arguments = vec!["convert", "-f", "raw", "-O", format];
    if !options.is_empty() {
        arguments.extend(["-o", options]);
    }
    run(
        "qemu-img",
        &[&arguments[..], &[raw.to_str().unwrap(), path.to_str().unwrap()]].concat(),
    )
    .unwrap();
    fs::read(path).unwrap()
}

/// Claims so many bytes in the footers of a VHD.
fn claim_in_vhd(file: &mut [u8], claim: u64) {
    let last = file.len() - 512;
    for at in [0, last] {
        let footer = &mut file[at..at + 512];
        if footer.starts_with(b"conectix") {
            footer[48..56].copy_from_slice(&claim.to_be_bytes());
            footer[64..68].fill(0);
            let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
            footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
        }
    }
}

/// A tar of one file that is all hole, as GNU tar stores it.
fn all_hole(sandbox: &Sandbox, name: &str, length: u64) -> PathBuf {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..name.len()].copy_from_slice(name.as_bytes());
    gnu.sparse[0].set_offset(length);
    gnu.sparse[0].set_length(0);
    gnu.set_real_size(length);
    header.set_cksum();
    let path = sandbox.directory().join("image");
    fs::write(&path, [header.as_bytes(), &[0; 1024][..]].concat()).unwrap();
    path
}

#[test]
fn an_image_that_claims_exbibytes_is_refused_at_once() {
    let sandbox = Sandbox::new();
    let qcow2 = of_qemu(&sandbox, "qcow2", "");
    let vmdk = of_qemu(&sandbox, "vmdk", "subformat=streamOptimized");
    let dynamic = of_qemu(&sandbox, "vpc", "subformat=dynamic,force_size=on");
    let fixed = of_qemu(&sandbox, "vpc", "subformat=fixed,force_size=on");
    for claim in CLAIMS {
        let mut images = vec![("root.img", qcow2.clone()), ("disk.vmdk", vmdk.clone())];
        images[0].1[24..32].copy_from_slice(&claim.to_be_bytes());
        images[1].1[12..20].copy_from_slice(&(claim / 512).to_le_bytes());
        for vhd in [&dynamic, &fixed] {
            let mut vhd = vhd.clone();
            claim_in_vhd(&mut vhd, claim);
            images.push(("root.vhd", vhd));
        }
        for (name, image) in images {
            let image = stemcell_of(&sandbox, name, &image);
            is_refused(&sandbox, &image, json!({}), &["is not between", "is impossible"]);
        }
        let says = ["can't take", "cut short", "reading it", "no disk image"];
        is_refused(&sandbox, &all_hole(&sandbox, "disk.raw", claim), json!({}), &says);
    }
    // A hole beside the image is no image, and takes as long as one.
    is_refused(
        &sandbox,
        &all_hole(&sandbox, "notes.txt", 1 << 62),
        json!({}),
        &["no disk image"],
    );
}

/// 16 GiB of zeros, in 16 MB.
#[test]
fn a_bomb_stops_at_the_size_that_disk_allows() {
    let sandbox = Sandbox::new();
    let zipped = |bytes: &[u8]| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    };
    let zeros = zipped(&vec![0; 16 * MIB as usize]);
    let path = sandbox.directory().join("image");
    let bomb = |start: &[u8]| {
        let mut file = File::create(&path).unwrap();
        file.write_all(&zipped(start)).unwrap();
        for _ in 0..1024 {
            file.write_all(&zeros).unwrap();
        }
    };
    let header = |name: &str, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let disk = json!({"disk": 1});
    bomb(&header("root.img", 16 << 30));
    is_refused(
        &sandbox,
        &path,
        disk.clone(),
        &["disagrees with cloud property disk"],
    );
    bomb(&header("notes.txt", 16 << 30));
    is_refused(&sandbox, &path, disk.clone(), &["no disk image"]);
    // A whole image of a MiB, and all that behind it.
    bomb(&[header("root.img", MIB), vec![7; MIB as usize]].concat());
    is_refused(
        &sandbox,
        &path,
        disk.clone(),
        &["more than 4 MiB beside the image"],
    );
    // Of a qcow2, the file is stored: that is bounded as well.
    let mut qcow2 = of_qemu(&sandbox, "qcow2", "")[..65536].to_vec();
    qcow2.splice(0..0, header("root.img", 16 << 30));
    bomb(&qcow2);
    is_refused(&sandbox, &path, disk, &["can't take"]);
}

/// The guest owns every byte of its disk, so also those by which libvirt tells a format when it reads the pool.
#[test]
fn what_a_guest_writes_into_its_raw_disk_is_never_taken_for_an_image() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm_without_system(10);
    let secret = sandbox.directory().join("secret");
    fs::write(&secret, "of the host\n".repeat(100)).unwrap();
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    let file = File::options()
        .read(true)
        .write(true)
        .open(sandbox.directory().join("pool").join(&disk))
        .unwrap();
    let header = sandbox.directory().join("header");
    let (header_path, secret_path) = (header.to_str().unwrap(), secret.to_str().unwrap());
    run(
        "qemu-img",
        &[
            "create",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            secret_path,
            header_path,
            "8M",
        ],
    )
    .unwrap();
    let with_backing_file = fs::read(&header).unwrap();
    let mut of_8_eib = with_backing_file.clone();
    of_8_eib[24..32].copy_from_slice(&(1u64 << 63).to_be_bytes());
    for image in [with_backing_file, of_8_eib] {
        file.write_all_at(&image, 0).unwrap();
        virsh(&["pool-refresh", &sandbox.name]);
        let before = sandbox.volumes();
        for (method, arguments) in [
            ("attach_disk", json!([vm, disk])),
            ("snapshot_disk", json!([disk, {}])),
            ("resize_disk", json!([disk, 16])),
            ("update_disk", json!([disk, 16, {}])),
            ("update_disk", json!([disk, 8, {"format": "qcow2"}])),
        ] {
            let message = sandbox.call(method, arguments).error("CloudError", false);
            assert!(
                message.contains("no record says qcow2, but it has a qcow2 header"),
                "{method}: {message}"
            );
        }
        assert_eq!(sandbox.volumes(), before);
        let mut found = vec![0; image.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == image, "the disk is as its guest left it");
    }
    assert!(!virsh(&["dumpxml", &vm]).contains(&disk));

    // LUKS on the whole disk is what a guest may well want: it is raw for the host.
    file.write_all_at(&[b"LUKS\xba\xbe\0\x01", &[0; 504][..]].concat(), 0)
        .unwrap();
    virsh(&["pool-refresh", &sandbox.name]);
    sandbox.call("attach_disk", json!([vm, disk])).result();
    let xml = virsh(&["dumpxml", &vm, "--inactive"]);
    let attached = xml.split("<disk ").find(|part| part.contains(&disk)).unwrap();
    assert!(attached.contains("type='raw'"), "{attached}");
    sandbox.call("delete_vm", json!([vm])).result();
    sandbox.call("delete_disk", json!([disk])).result();
    let mut kept = String::new();
    File::open(&secret).unwrap().read_to_string(&mut kept).unwrap();
    assert_eq!(kept, "of the host\n".repeat(100));
}
