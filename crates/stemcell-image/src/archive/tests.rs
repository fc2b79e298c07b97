use super::*;
use bosh_cpi::rpc::ErrorType;
use bosh_cpi::sparse::Piece;
use flate2::Compression;
use flate2::write::GzEncoder;
use libvirt_xml::volume::VolumeFormat;
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::process::Command;
use tar::{Builder, EntryType, Header};
use tempfile::{NamedTempFile, TempDir};

mod sparse;

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        if name.starts_with('/') || name.contains("..") {
            // Refused by the builder, as they should be by everybody.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, *contents).unwrap();
        } else {
            builder.append_data(&mut header, name, *contents).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn qcow2(length: usize, virtual_size: u64) -> Vec<u8> {
    let mut bytes = noise(length);
    bytes[..112].fill(0);
    bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
    bytes[23] = 16;
    bytes[24..32].copy_from_slice(&virtual_size.to_be_bytes());
    bytes
}

fn read_all(image: Image<'_>) -> Result<Found> {
    let mut contents = Vec::new();
    loop {
        let piece = image.content.next();
        match piece.map_err(|e| Error::cloud(format!("upload: {e}")))? {
            Piece::Data(data) => contents.extend_from_slice(data),
            Piece::Hole(length) => contents.resize(contents.len() + length as usize, 0),
            Piece::End => return Ok((image.format, image.capacity, contents)),
        }
    }
}

type Found = (VolumeFormat, u64, Vec<u8>);

fn with_bytes<T>(bytes: &[u8], disk: Option<u64>, consume: impl FnOnce(Image<'_>) -> Result<T>) -> Result<T> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let properties = StemcellProperties {
        disk,
        ..Default::default()
    };
    with_image(file.path(), &properties, consume).map(|(consumed, _)| consumed)
}

fn read(bytes: &[u8]) -> Result<Found> {
    with_bytes(bytes, None, read_all)
}

fn complaint(bytes: &[u8]) -> String {
    let error = read(bytes).unwrap_err();
    assert_eq!(error.error_type, ErrorType::CloudError);
    assert!(error.message.starts_with("stemcell image /"), "{}", error.message);
    error.message
}

#[test]
fn finds_the_image_in_either_kind_of_tar() {
    let (disk, raw) = (qcow2(700_000, 5 << 30), noise(500_001));
    let long = format!("{}/readme", "d".repeat(150));
    for (files, format, virtual_size) in [
        (vec![("root.img", &disk)], VolumeFormat::Qcow2, 5 << 30),
        (vec![("./root.img", &raw)], VolumeFormat::Raw, 500_001),
        (vec![("././disk.raw", &raw)], VolumeFormat::Raw, 500_001),
        (
            vec![
                ("stemcell.MF", &raw),
                ("._root.img", &raw),
                ("../../sub/root", &disk),
            ],
            VolumeFormat::Qcow2,
            5 << 30,
        ),
        (
            vec![(&long, &raw), ("disk.raw", &raw)],
            VolumeFormat::Raw,
            500_001,
        ),
    ] {
        let files: Vec<_> = files
            .iter()
            .map(|(name, contents)| (*name, contents.as_slice()))
            .collect();
        let expected = if format == VolumeFormat::Raw { &raw } else { &disk };
        let tar = tar(&files);
        let (head, tail) = tar.split_at(tar.len() / 3);
        for bytes in [gzip(&tar), tar.clone(), [gzip(head), gzip(tail)].concat()] {
            let found = read(&bytes).unwrap();
            assert_eq!((found.0, found.1), (format, virtual_size));
            assert!(found.2 == *expected);
        }
    }
}

#[test]
fn passes_over_everything_that_is_no_file() {
    let mut builder = Builder::new(Vec::new());
    for (kind, name) in [
        (EntryType::Directory, "root.img"),
        (EntryType::Symlink, "root.img"),
        (EntryType::Link, "disk.raw"),
        (EntryType::Char, "disk.raw"),
        (EntryType::Fifo, "root.img"),
    ] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_link_name("/etc/shadow").unwrap();
        builder.append_data(&mut header, name, io::empty()).unwrap();
    }
    let without = builder.into_inner().unwrap();
    assert!(
        complaint(&without)
            .contains("holds no disk image (*.img, *.raw, *.qcow2, *.vmdk, *.vhd), only root.img")
    );
    let image = noise(1000);
    let both = [&without[..without.len() - 1024], &tar(&[("root.img", &image)])].concat();
    assert!(read(&both).unwrap().2 == image);
}

#[test]
fn says_what_is_wrong_with_a_file() {
    let image = noise(100_000);
    let good = gzip(&tar(&[("root.img", &image)]));
    let mut bad_crc = good.clone();
    let crc = bad_crc.len() - 8;
    bad_crc[crc] ^= 1;
    for (bytes, expected) in [
        (vec![], "the file is empty"),
        (b"hello".to_vec(), "neither a tar nor a gzipped tar"),
        (noise(10_000), "neither a tar nor a gzipped tar"),
        (gzip(&noise(10_000)), "neither a tar nor a gzipped tar"),
        (gzip(b""), "no tar"),
        (GZIP_MAGIC.to_vec(), "cut short"),
        (good[..good.len() / 2].to_vec(), "cut short"),
        (good[..good.len() - 3].to_vec(), "cut short"),
        (bad_crc, "checksum"),
        ([&good[..], b"rubbish behind the end"].concat(), "reading it"),
        (tar(&[]), "the tar is empty"),
        (tar(&[("x.ovf", b"<x/>"), ("disk", b"raw")]), "only x.ovf, disk"),
        (tar(&[("x.ova", &tar(&[("x.ovf", b"<x/>")]))]), "only x.ovf"),
        (
            tar(&[("x.ova", &tar(&[("y.ova", &tar(&[("root.img", &image)]))]))]),
            "only y.ova",
        ),
        (
            tar(&[("x.ova", &tar(&[("root.img", &image)])), ("disk.raw", &image)]),
            "more than one disk image, disk.raw",
        ),
        (
            tar(&[("x.ova", &tar(&[("root.img", &image)])[..512])]),
            "x.ova: root.img: cut short",
        ),
        (tar(&[("root.img", b"KDMV....")]), "root.img: cut short"),
        (
            tar(&[("root.img", b"# Disk DescriptorFile\n")]),
            "names other files",
        ),
        (tar(&[("root.img", b"\x1f\x8b\x08")]), "compressed once more"),
        (tar(&[("disk.QCOW2", &image)]), "does not begin as a qcow2 file"),
        (tar(&[("disk.vmdk", &image)]), "does not begin as a vmdk file"),
        (tar(&[("root.vhd", &image)]), "VHD has no footer"),
        (tar(&[("root.vhd", &image[..1024])]), "VHD has no footer"),
        (tar(&[("root.img", b"")]), "root.img: the image is empty"),
        (
            tar(&[("root.img", &image), ("disk.raw", &image)]),
            "more than one disk image, disk.raw",
        ),
        (
            tar(&[("root.img", &image), ("./root.img", &image)]),
            "more than one disk image",
        ),
    ] {
        let message = complaint(&bytes);
        assert!(message.contains(expected), "{message} has no {expected:?}");
    }
    let missing = with_image(Path::new("/nonexistent/image"), &Default::default(), read_all).unwrap_err();
    assert!(
        missing
            .message
            .starts_with("stemcell image /nonexistent/image: opening it: "),
        "{missing}"
    );
}

#[test]
fn the_consumers_own_error_comes_through_as_it_is() {
    let bytes = gzip(&tar(&[("root.img", &noise(10_000))]));
    let full = Error::new(ErrorType::NoDiskSpace, "the pool is full").retryable();
    let outcome: Result<()> = with_bytes(&bytes, None, |_| Err(full.clone()));
    assert_eq!(outcome.unwrap_err(), full);
}

#[test]
fn an_image_left_half_read_is_an_error() {
    let bytes = gzip(&tar(&[("root.img", &noise(300_000))]));
    for pieces in 0..3 {
        let outcome = with_bytes(&bytes, None, |image| {
            for _ in 0..pieces {
                assert!(matches!(image.content.next(), Ok(Piece::Data(_))));
            }
            Ok(())
        });
        let message = outcome.unwrap_err().message;
        assert!(
            message.ends_with("root.img: it was not taken to its end"),
            "{message}"
        );
    }
}

#[test]
fn what_the_consumer_made_is_dropped_when_the_archive_turns_out_bad() {
    struct Guard<'a>(&'a Cell<bool>);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let bytes = gzip(&tar(&[("root.img", &noise(300_000)), ("disk.raw", b"another")]));
    let undone = Cell::new(false);
    let outcome = with_bytes(&bytes, None, |image| {
        read_all(image)?;
        Ok(Guard(&undone))
    });
    assert!(outcome.is_err());
    assert!(undone.get());
}

#[test]
fn sizes_are_checked_before_anything_is_read() {
    for (image, disk, expected) in [
        (noise(3 << 20), 1, "disagrees with cloud property disk"),
        (qcow2(1000, 3 << 20), 1, "disagrees with cloud property disk"),
        (qcow2(66 << 20, 1 << 20), 1, "can't take"),
    ] {
        let bytes = tar(&[("root.img", &image)]);
        let outcome: Result<()> = with_bytes(&bytes, Some(disk), |_| panic!("consumed"));
        let message = outcome.unwrap_err().message;
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_bomb_beside_the_image_stops_at_its_bound() {
    let zeros = vec![0; 5 << 20];
    let image = noise(1000);
    assert!(
        complaint(&gzip(&tar(&[("big", &zeros)])))
            .contains("holds no disk image (*.img, *.raw, *.qcow2, *.vmdk, *.vhd), only big")
    );
    for bytes in [
        tar(&[("root.img", &image), ("big", &zeros)]),
        [tar(&[("root.img", &image)]), zeros].concat(),
    ] {
        assert!(complaint(&gzip(&bytes)).contains("more than 4 MiB beside the image"));
    }
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(5 << 20);
    header.set_cksum();
    builder.append(&header, io::repeat(b'x').take(5 << 20)).unwrap();
    assert!(complaint(&gzip(&builder.into_inner().unwrap())).contains("more than 4 MiB beside the image"));
}

#[test]
fn every_cut_is_an_error() {
    let image = noise(200_000);
    let tar = tar(&[("a", b"b"), ("root.img", &image)]);
    let gzipped = gzip(&tar);
    for cut in (0..gzipped.len()).step_by(1000) {
        assert!(read(&gzipped[..cut]).is_err(), "gzip cut at {cut}");
    }
    // Of the two zero blocks at a tar's end the second is padding.
    for cut in (0..tar.len() - 512)
        .step_by(1000)
        .chain([tar.len() - 1024, tar.len() - 513])
    {
        assert!(read(&tar[..cut]).is_err(), "tar cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read(&bytes);
        let _ = read(&gzip(&bytes));
        let _ = read(&[GZIP_MAGIC, &bytes].concat());
    }

    #[test]
    fn a_flipped_byte_is_noticed_or_does_not_matter(at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let image = noise(20_000);
        let mut bytes = gzip(&tar(&[("stemcell.MF", b"name: x"), ("root.img", &image)]));
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(found) = read(&bytes) {
            prop_assert!(found.2 == image, "byte {} changed the image unnoticed", at);
        }
    }

    #[test]
    fn a_damaged_tar_header_never_panics(at in 0..1536usize, value in any::<u8>()) {
        let mut bytes = tar(&[("a", b"b"), ("root.img", &noise(5000))]);
        bytes[at] = value;
        let _ = read(&bytes);
    }
}
