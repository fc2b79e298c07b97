//! Room in the pool is compared with what a stemcell really takes, before libvirtd finds none: some versions crash then.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use serde_json::{Value, json};

use crate::loop_pool::LoopPool;
use crate::sandbox::{Sandbox, run, virsh};

const MIB: usize = 1 << 20;

/// The `image` of a stemcell of this many MiB: data of one kind, then a hole.
fn image(sandbox: &Sandbox, name: &str, data: &[u8], size: usize) -> String {
    let directory = sandbox.directory().join(name);
    fs::create_dir(&directory).unwrap();
    let mut disk = fs::File::create(directory.join("root.img")).unwrap();
    // Not the beginning of any image format.
    disk.write_all(data).unwrap();
    disk.seek(SeekFrom::Start((size * MIB) as u64 - 1)).unwrap();
    disk.write_all(&[0]).unwrap();
    let image = directory.join("image").to_str().unwrap().to_owned();
    let directory = directory.to_str().unwrap();
    run("tar", &["-czf", &image, "-C", directory, "root.img"]).unwrap();
    image
}

fn random(bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    let mut source = fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut source, &mut data).unwrap();
    data[0] = b'x';
    data
}

#[test]
fn a_stemcell_that_does_not_fit_is_refused_before_libvirtd_is_out_of_room() {
    let small = LoopPool::ext4(24);
    let mut sandbox = Sandbox::new();
    sandbox.configure(json!({"settings": {"stemcell_pool_name": small.name}}));
    let (files, free) = (small.files(), small.free());
    let refused = |data: &[u8], says: &str| -> String {
        let name = format!("image-{}-{}", data.len(), data[1]);
        let image = image(&sandbox, &name, data, 40);
        let answer = sandbox.call("create_stemcell", json!([image, {}]));
        let log = answer.stderr.clone();
        let message = answer.error("NoDiskSpace", false);
        assert!(
            message.contains(says) && message.contains(&small.name),
            "{message}"
        );
        assert_eq!(small.files(), files, "after: {message}");
        assert_eq!(small.free(), free, "after: {message}");
        log
    };
    // Its archive alone is larger than the pool: nothing is created.
    let log = refused(&random(32 * MIB), "at least, but ");
    assert!(!log.contains(".partial"), "{log}");
    // What compresses well shows on the way.
    refused(&vec![b'x'; 32 * MIB], "it takes more than the ");

    // What is a hole takes no room. A pool that libvirt last saw full is looked at again.
    let filler = small.file("filler");
    run(
        "dd",
        &["if=/dev/zero", &format!("of={filler}"), "bs=1M", "count=18"],
    )
    .unwrap();
    virsh(&["pool-refresh", &small.name]);
    fs::remove_file(filler).unwrap();
    let fits = image(&sandbox, "fits", &random(12 * MIB), 400);
    let stemcell = sandbox.call("create_stemcell", json!([fits, {}])).text();
    let info = virsh(&["vol-dumpxml", "--pool", &small.name, &stemcell]);
    assert!(
        info.contains("<capacity unit='bytes'>419430400</capacity>"),
        "{info}"
    );
    assert_eq!(
        sandbox.call("delete_stemcell", json!([stemcell])).result(),
        Value::Null
    );
    assert_eq!(small.files(), files);
}
