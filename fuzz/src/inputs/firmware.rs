//! What starts a disk, out of its partition table. The first byte of an input says whether a raw disk or a qcow2 follows.

use bosh_cpi::rpc::ErrorType;
use cpi_config::Firmware;
use libvirt_xml::volume::VolumeFormat;
use stemcell_image::firmware_of_file;

use super::made;

const IS_QCOW2: u8 = 1;
/// Bytes: more than that is never asked for at once, whatever a table says.
const MOST: u64 = 5 * 1024 * 1024;

pub fn run(bytes: &[u8]) -> bool {
    let Some((what, file)) = bytes.split_first() else {
        return false;
    };
    let format = if what & IS_QCOW2 != 0 {
        VolumeFormat::Qcow2
    } else {
        VolumeFormat::Raw
    };
    let mut reads = 0;
    let outcome = firmware_of_file(format, &mut |offset, length| {
        reads += 1;
        assert!(reads < 10_000, "it never ends");
        assert!((1..=MOST).contains(&length), "{length} bytes");
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
        let to = from.saturating_add(length as usize).min(file.len());
        Ok(file[from..to].to_vec())
    });
    match outcome {
        Ok(firmware) => firmware == Firmware::Efi,
        Err(error) => {
            assert_eq!(error.error_type, ErrorType::CloudError);
            false
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let gpt = made::gpt_for_efi();
    [3, 2]
        .iter()
        .map(|version| [&[IS_QCOW2][..], &made::qcow2_of(*version, &made::mbr_for_efi())].concat())
        .chain([&gpt, &made::mbr_for_efi()].map(|disk| [&[0][..], disk].concat()))
        .collect()
}
