use super::*;
use bosh_cpi::rpc::ErrorType;
use proptest::prelude::*;
use std::process::Command;

/// A version 3 header with no extensions, changed at the places given.
fn header(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 65536];
    bytes[..4].copy_from_slice(MAGIC);
    let fields: [(usize, &[u8]); 4] = [
        (4, &3u32.to_be_bytes()),
        (20, &16u32.to_be_bytes()),
        (24, &(5u64 << 30).to_be_bytes()),
        (100, &104u32.to_be_bytes()),
    ];
    for (at, value) in fields.iter().chain(changes) {
        bytes[*at..at + value.len()].copy_from_slice(value);
    }
    bytes
}

#[test]
fn headers_that_are_taken() {
    for (name, changes, version) in [
        ("plain", vec![], 3),
        ("version 2", vec![(4, 2u32.to_be_bytes().to_vec())], 2),
        ("dirty", vec![(72, DIRTY.to_be_bytes().to_vec())], 3),
        (
            "zstd and subclusters",
            vec![(72, (COMPRESSION_TYPE | EXTENDED_L2).to_be_bytes().to_vec())],
            3,
        ),
        ("longer header", vec![(100, 112u32.to_be_bytes().to_vec())], 3),
        (
            "feature names",
            vec![(104, [0x6803_f857u32.to_be_bytes(), 96u32.to_be_bytes()].concat())],
            3,
        ),
    ] {
        let changes: Vec<_> = changes
            .iter()
            .map(|(at, value)| (*at, value.as_slice()))
            .collect();
        let parsed = parse_header(&header(&changes)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = Qcow2Header {
            version,
            virtual_size: 5 << 30,
            cluster_bits: 16,
            first_table: 0,
            first_entries: 0,
            extended: name.contains("subclusters"),
        };
        assert_eq!(parsed, expected, "{name}");
    }
}

#[test]
fn headers_that_are_refused() {
    let data_file = [EXTERNAL_DATA_FILE_NAME.to_be_bytes(), 8u32.to_be_bytes()].concat();
    let behind_another = [
        &0x6803_f857u32.to_be_bytes()[..],
        &5u32.to_be_bytes(),
        &[0; 8],
        &data_file,
    ]
    .concat();
    for (at, value, complaint) in [
        (0, b"QFI\0".to_vec(), "not a qcow2"),
        (4, 1u32.to_be_bytes().to_vec(), "version 1"),
        (4, 4u32.to_be_bytes().to_vec(), "version 4"),
        (8, 512u64.to_be_bytes().to_vec(), "backing file"),
        (20, 8u32.to_be_bytes().to_vec(), "cluster_bits is 8"),
        (20, 22u32.to_be_bytes().to_vec(), "cluster_bits is 22"),
        (20, u32::MAX.to_be_bytes().to_vec(), "cluster_bits"),
        (24, 0u64.to_be_bytes().to_vec(), "virtual size"),
        (24, (MAX_VIRTUAL_SIZE + 1).to_be_bytes().to_vec(), "virtual size"),
        (32, 1u32.to_be_bytes().to_vec(), "encrypted"),
        (32, 2u32.to_be_bytes().to_vec(), "encrypted"),
        (72, CORRUPT.to_be_bytes().to_vec(), "corrupt"),
        (72, EXTERNAL_DATA_FILE.to_be_bytes().to_vec(), "another file"),
        (
            72,
            (1u64 << 5).to_be_bytes().to_vec(),
            "unknown incompatible features 0x20",
        ),
        (100, 96u32.to_be_bytes().to_vec(), "header length"),
        (100, 105u32.to_be_bytes().to_vec(), "header length"),
        (104, data_file.clone(), "another file"),
        (104, behind_another, "another file"),
        (104, [0x77u8; 8].to_vec(), "header extension"),
    ] {
        let error = parse_header(&header(&[(at, &value)])).unwrap_err();
        assert_eq!(error.error_type, ErrorType::CloudError);
        assert!(error.message.contains(complaint), "at {at}: {}", error.message);
    }
}

#[test]
fn a_header_cut_short_is_refused() {
    let bytes = header(&[]);
    for length in 0..104 {
        assert!(parse_header(&bytes[..length]).is_err(), "{length}");
    }
    assert!(parse_header(&bytes[..104]).is_ok());
}

#[test]
fn qemu_img_writes_what_is_taken_and_what_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (options, backing, accepted) in [
        ("compat=1.1", false, true),
        ("compat=0.10", false, true),
        ("compat=1.1,lazy_refcounts=on,cluster_size=2M", false, true),
        ("cluster_size=512", false, true),
        ("extended_l2=on", false, true),
        ("data_file=@/data.raw", false, false),
        ("compat=1.1", true, false),
    ] {
        let file = directory.path().join("image.qcow2");
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-o"]);
        command.arg(options.replace('@', directory.path().to_str().unwrap()));
        if backing {
            let base = directory.path().join("base.raw");
            std::fs::write(&base, [0; 512]).unwrap();
            command.arg("-b").arg(base).args(["-F", "raw"]);
        }
        let status = command
            .arg(&file)
            .arg("100M")
            .status()
            .expect("qemu-img is needed by this test");
        assert!(status.success(), "{options}");
        let parsed = parse_header(&std::fs::read(&file).unwrap());
        assert_eq!(parsed.is_ok(), accepted, "{options} {backing}: {parsed:?}");
        if let Ok(header) = parsed {
            assert_eq!(header.virtual_size, 100 << 20);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse_header(&bytes);
        let _ = parse_header(&[MAGIC, &bytes].concat());
    }

    #[test]
    fn no_change_of_a_good_header_makes_it_panic(at in 4..300usize, value in prop::collection::vec(any::<u8>(), 1..16),
                                                 length in 0..400usize) {
        let bytes = header(&[(at, &value)]);
        let _ = parse_header(&bytes);
        let _ = parse_header(&bytes[..length]);
    }
}

/// The file as QEMU writes it, cut off anywhere that loses a cluster, has less than its tables say.
#[test]
fn a_file_that_was_cut_off_is_told_by_its_tables() {
    use crate::bytes::ImageFile;
    use crate::plain::Plain;
    use bosh_cpi::sparse::{Content, Piece};

    let directory = tempfile::TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let disk: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(i) >> 9) as u8)
        .collect();
    std::fs::write(path("disk.raw"), disk).unwrap();
    for options in [&["-c"][..], &["-o", "cluster_size=4k"], &["-o", "compat=0.10"]] {
        let status = Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .args(options)
            .args([path("disk.raw"), path("disk.qcow2")])
            .status()
            .expect("qemu-img is needed by this test");
        assert!(status.success());
        let file = std::fs::read(path("disk.qcow2")).unwrap();
        let read = |length: usize| -> std::io::Result<()> {
            let header = parse_header(&file).unwrap();
            let plain = Plain::whole(ImageFile::new(&file[..length], length as u64));
            let mut content = Checked::new(plain, &header, length as u64)?;
            while content.next()? != Piece::End {}
            Ok(())
        };
        read(file.len()).unwrap();
        for cut in (66_000..file.len() - 65_536).step_by(100_000) {
            let message = read(cut).expect_err("it is cut").to_string();
            assert!(message.contains("cut short"), "{options:?} {cut}: {message}");
        }
    }
}
