use super::*;
use crate::external_tools::{any_json, blkid, on_disk, run, run_text};
use bosh_cpi::rpc::ErrorType;
use proptest::prelude::*;
use std::io::Read;

const METADATA: &str = "ec2/latest/meta-data.json";
const USERDATA: &str = "ec2/latest/user-data";

fn drive(settings: &Value) -> Vec<u8> {
    config_drive(
        None,
        "config-2",
        METADATA,
        USERDATA,
        Some("ssh-rsa AAAA me"),
        settings,
    )
    .unwrap()
}

#[test]
fn a_label_that_fat_cannot_hold_or_an_explicit_format_makes_it_iso_9660() {
    use ConfigDriveFormat::{Iso9660, Vfat};
    for (format, label, file_system) in [
        (None, "config-2", "vfat"),
        (None, "azure_cfg_dsk", "iso9660"),
        (None, "a.b", "iso9660"),
        (Some(Vfat), "config-2", "vfat"),
        (Some(Iso9660), "config-2", "iso9660"),
    ] {
        let image =
            on_disk(&config_drive(format, label, METADATA, USERDATA, None, &json!({"a": 1})).unwrap());
        assert_eq!(blkid(&image, "TYPE").as_deref(), Some(file_system), "{label}");
        assert_eq!(blkid(&image, "LABEL").as_deref(), Some(label));
        if file_system == "iso9660" {
            let path = format!("/{USERDATA}");
            assert_eq!(
                run("isoinfo", &["-R", "-i", "@", "-x", &path], &image),
                b"{\"a\":1}"
            );
        }
    }
    let long = config_drive(Some(Vfat), "azure_cfg_dsk", METADATA, USERDATA, None, &json!({}));
    assert!(long.unwrap_err().message.contains("config_drive_format"));
}

fn read_with_fatfs(image: &[u8], path: &str) -> Vec<u8> {
    let drive = FileSystem::new(Cursor::new(image.to_vec()), FsOptions::new()).unwrap();
    let mut contents = Vec::new();
    drive
        .root_dir()
        .open_file(path)
        .unwrap()
        .read_to_end(&mut contents)
        .unwrap();
    contents
}

#[test]
fn blkid_sees_a_label_on_a_whole_device_file_system() {
    for label in ["config-2", "CONFIG-2", "a", "elevenchars"] {
        let image = on_disk(&fat_image(label, &[DriveFile::new("env", "{}")]).unwrap());
        assert_eq!(blkid(&image, "LABEL").as_deref(), Some(label));
        assert_eq!(blkid(&image, "TYPE").as_deref(), Some("vfat"));
        assert_eq!(blkid(&image, "PTTYPE"), None);
    }
}

#[test]
fn mtools_lists_and_reads_the_files() {
    let image = on_disk(&drive(&json!({"agent_id": "a"})));
    let listing = run_text("mdir", &["-i", "@", "-/", "-b"], &image);
    let listed: Vec<_> = listing.lines().collect();
    assert!(listed.contains(&"::/ec2/latest/meta-data.json"), "{listing}");
    assert!(listed.contains(&"::/ec2/latest/user-data"), "{listing}");
    let metadata = run("mtype", &["-i", "@", &format!("::/{METADATA}")], &image);
    assert_eq!(
        metadata,
        br#"{"public-keys":{"0":{"openssh-key":"ssh-rsa AAAA me"}}}"#
    );
    let userdata = run("mtype", &["-i", "@", &format!("::/{USERDATA}")], &image);
    assert_eq!(userdata, br#"{"agent_id":"a"}"#);
}

#[test]
fn fsck_finds_nothing_to_mend() {
    let image = on_disk(&drive(&json!({"blob": "x".repeat(700_000)})));
    run("fsck.fat", &["-n", "@"], &image);
}

#[test]
fn no_key_is_an_empty_hash() {
    let image = config_drive(None, "config-2", METADATA, USERDATA, None, &json!({})).unwrap();
    assert_eq!(read_with_fatfs(&image, METADATA), b"{}");
}

#[test]
fn same_input_same_bytes_and_other_input_another_volume_id() {
    let serial = |image: &[u8]| image[39..43].to_vec();
    let (one, again, other) = (
        drive(&json!({"a": 1})),
        drive(&json!({"a": 1})),
        drive(&json!({"a": 2})),
    );
    assert!(one == again);
    assert_ne!(serial(&one), serial(&other));
}

#[test]
fn the_drive_grows_once_and_then_refuses() {
    for (bytes, expected) in [
        (1000, Some(MIB)),
        (1_000_000, Some(MIB)),
        (MIB, Some(2 * MIB)),
        (2_000_000, Some(2 * MIB)),
        (2 * MIB, None),
        (5 * MIB, None),
    ] {
        let files = [DriveFile::new(USERDATA, vec![b'x'; bytes])];
        match (fat_image("config-2", &files), expected) {
            (Ok(image), Some(size)) => {
                assert_eq!(image.len(), size);
                assert!(read_with_fatfs(&image, USERDATA) == files[0].contents);
                assert_eq!(blkid(&on_disk(&image), "LABEL").as_deref(), Some("config-2"));
            }
            (Err(error), None) => {
                let expected = format!("agent settings of {bytes} bytes do not fit the 2 MiB config drive");
                assert_eq!((error.error_type, error.message), (ErrorType::CpiError, expected));
            }
            (outcome, _) => panic!("{bytes} bytes: {:?}", outcome.map(|image| image.len())),
        }
    }
}

#[test]
fn labels_that_fat_can_not_hold_are_refused() {
    for label in ["azure_cfg_dsk", "", " ", "a ", "a/b", "a.b", "caf\u{e9}", "tab\t"] {
        let error = fat_image(label, &[]).unwrap_err();
        assert_eq!(error.error_type, ErrorType::CpiError, "{label:?}");
        assert!(error.message.contains(&format!("{label:?}")), "{}", error.message);
    }
}

#[test]
fn one_path_for_both_files_is_refused() {
    let error = config_drive(None, "config-2", USERDATA, USERDATA, None, &json!({})).unwrap_err();
    assert_eq!(error.error_type, ErrorType::CpiError);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_settings_are_read_back(settings in any_json()) {
        let image = drive(&settings);
        let read: Value = serde_json::from_slice(&read_with_fatfs(&image, USERDATA)).unwrap();
        prop_assert_eq!(&read, &settings);
        let image = on_disk(&image);
        let read: Value = serde_json::from_slice(&run("mtype", &["-i", "@", &format!("::/{USERDATA}")], &image)).unwrap();
        prop_assert_eq!(&read, &settings);
    }

    #[test]
    fn contents_of_any_length_are_read_back(length in 0..2_300_000usize, seed in any::<u8>()) {
        let contents: Vec<u8> = (0..length).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
        match fat_image("config-2", &[DriveFile::new("env", contents.clone())]) {
            Ok(image) => prop_assert!(read_with_fatfs(&image, "env") == contents),
            Err(_) => prop_assert!(length > 2_000_000),
        }
    }
}
