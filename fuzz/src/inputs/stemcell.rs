//! A stemcell's `image` file, from the archive to the disk in it. The first byte of an input says what is done with it,
//! the file follows. Of an OVF nothing is believed but what it says about firmware.

use std::io::Cursor;

use bosh_cpi::rpc::ErrorType;
use flate2::Compression;
use stemcell_image::with_image_in;

use super::image::{self, DISK_IS_KNOWN, REPAIRED, take};
use super::made;

const GZIPPED: u8 = 4;

pub fn run(bytes: &[u8]) -> bool {
    let Some((what, file)) = bytes.split_first() else {
        return false;
    };
    let mut file = file.to_vec();
    if what & REPAIRED != 0 {
        made::repair_tar(&mut file);
    }
    if what & GZIPPED != 0 {
        file = made::gzip(&file, Compression::none());
    }
    let properties = image::properties(*what);
    let outcome = with_image_in(Cursor::new(file), &properties, |mut image| {
        take(&mut image, &properties)
    });
    match outcome {
        Ok(Ok(_)) => true,
        Ok(Err(error)) | Err(error) => {
            assert_eq!(error.error_type, ErrorType::CloudError);
            assert!(!error.message.is_empty());
            false
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let (qcow2, vmdk) = (made::qcow2(3), made::vmdk(true));
    let ova = made::tar(&[
        (
            "image.ovf",
            b"<Envelope><vmw:Config vmw:key='firmware' vmw:value='efi'/></Envelope>",
        ),
        ("image-disk1.vmdk", &vmdk),
        ("image.mf", b"SHA256= 0"),
    ]);
    let dynamic = made::dynamic_vhd(&[1, 3]);
    let long = format!("{}/root.img", "d".repeat(150));
    let archives = [
        made::tar(&[("root.img", &qcow2)]),
        made::tar(&[(&long, &qcow2)]),
        made::tar(&[("disk.raw", &[7; 700])]),
        made::tar(&[("root.vhd", &made::fixed_vhd())]),
        made::tar(&[("root.vhd", &dynamic)]),
        made::tar(&[("image.ova", &ova)]),
        made::sparse_tar("disk.raw", 65536),
        ova,
    ];
    let zipped = archives
        .iter()
        .map(|archive| [&[DISK_IS_KNOWN][..], &made::gzip(archive, Compression::best())].concat());
    let plain = archives.iter().map(|archive| [&[REPAIRED][..], archive].concat());
    let repaired = archives
        .iter()
        .map(|archive| [&[DISK_IS_KNOWN | REPAIRED | GZIPPED][..], archive].concat());
    zipped.chain(plain).chain(repaired).collect()
}
