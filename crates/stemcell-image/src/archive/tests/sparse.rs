//! Files with holes in a tar.

use super::*;

/// A file of this name, all hole but for its last block, as GNU tar stores it.
fn with_hole(name: &str, hole: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(512);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..name.len()].copy_from_slice(name.as_bytes());
    gnu.sparse[0].set_offset(hole);
    gnu.sparse[0].set_length(512);
    gnu.set_real_size(hole + 512);
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, &[7; 512][..]).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn a_hole_beside_the_image_counts_as_the_zeros_it_stands_for() {
    // 4 EiB take for ever, and 2 KiB of the tar.
    for hole in [5 << 20, 1 << 62] {
        let complaint = complaint(&with_hole("notes.txt", hole));
        assert!(complaint.contains("holds no disk image"), "{complaint}");
    }
    assert!(complaint(&with_hole("disk.raw", 1 << 62)).contains("can't take"));
    assert_eq!(
        read(&with_hole("disk.raw", 5 << 20)).unwrap().2.len(),
        (5 << 20) + 512
    );
}

#[test]
fn gnu_tar_and_its_sparse_files() {
    let directory = TempDir::new().unwrap();
    let mut image = vec![0; 8 << 20];
    for at in (0..image.len()).step_by(128 << 10) {
        image[at..at + 4096].fill(7);
    }
    let source = directory.path().join("disk.raw");
    let file = File::create(&source).unwrap();
    file.set_len(image.len() as u64).unwrap();
    for at in (0..image.len()).step_by(128 << 10) {
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], at as u64).unwrap();
    }
    for (options, supported) in [
        (&["-z"][..], true),
        (&["-z", "--format=gnu"], true),
        (&["-z", "--format=posix"], true),
        (&["-z", "--format=oldgnu", "-S"], true),
        (&["-z", "--format=posix", "-S"], false),
        (&["-z", "--format=posix", "-S", "--sparse-version=0.1"], false),
    ] {
        let archive = directory.path().join("image");
        let status = Command::new("tar")
            .args(options)
            .arg("-cf")
            .args([
                &archive,
                Path::new("-C"),
                directory.path(),
                Path::new("./disk.raw"),
            ])
            .status()
            .expect("tar is needed by this test");
        assert!(status.success());
        let found = read(&fs::read(&archive).unwrap());
        match found {
            Ok(found) => assert!(supported && found.2 == image, "{options:?}"),
            Err(error) => assert!(
                !supported && error.message.contains("pax sparse"),
                "{options:?}: {error}"
            ),
        }
    }
}
