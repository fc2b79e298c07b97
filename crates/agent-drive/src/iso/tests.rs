use super::*;
use crate::external_tools::{any_json, blkid, on_disk, run, run_text};
use bosh_cpi::rpc::ErrorType;
use proptest::prelude::*;
use serde_json::Value;

fn read(image: &tempfile::NamedTempFile, path: &str) -> Vec<u8> {
    run("isoinfo", &["-R", "-i", "@", "-x", &format!("/{path}")], image)
}

fn paths(image: &tempfile::NamedTempFile) -> Vec<String> {
    run_text("isoinfo", &["-R", "-f", "-i", "@"], image)
        .lines()
        .map(str::to_string)
        .collect()
}

#[test]
fn blkid_sees_the_label() {
    for label in ["config-2", "CDROM", "azure_cfg_dsk", "cidata", &"x".repeat(32)] {
        let image = on_disk(&iso_image(label, &[DriveFile::new("env", "{}")]).unwrap());
        assert_eq!(blkid(&image, "LABEL").as_deref(), Some(label));
        assert_eq!(blkid(&image, "TYPE").as_deref(), Some("iso9660"));
        assert_eq!(blkid(&image, "BLOCK_SIZE").as_deref(), Some("2048"));
    }
}

#[test]
fn names_are_spelled_exactly() {
    let files = [
        DriveFile::new("env", "the settings"),
        DriveFile::new("ec2/latest/user-data", "user"),
        DriveFile::new("ec2/latest/meta-data.json", "meta"),
        DriveFile::new("ec2/latest/meta-data.jsonl", "its ISO name is taken"),
        DriveFile::new("ec2/2009-04-04/meta-data.json", "old"),
        DriveFile::new("configs/UserData", "azure"),
        DriveFile::new("empty", ""),
    ];
    let image = on_disk(&iso_image("config-2", &files).unwrap());
    let listed = paths(&image);
    for file in &files {
        assert!(
            listed.contains(&format!("/{}", file.path)),
            "{} in {listed:?}",
            file.path
        );
        assert_eq!(read(&image, &file.path), file.contents, "{}", file.path);
    }
    assert_eq!(listed.len(), files.len() + 4, "{listed:?}");
}

#[test]
fn plain_iso_9660_names_it_env_too() {
    let image = on_disk(&iso_image("CDROM", &[DriveFile::new("env", "x")]).unwrap());
    assert_eq!(run_text("isoinfo", &["-f", "-i", "@"], &image), "/ENV.;1\n");
}

#[test]
fn only_root_can_read_the_settings() {
    let image = on_disk(&iso_image("CDROM", &[DriveFile::new("a/env", "x")]).unwrap());
    let listing = run_text("isoinfo", &["-R", "-l", "-i", "@"], &image);
    assert!(
        listing
            .lines()
            .any(|l| l.starts_with("-r--------") && l.ends_with("env ")),
        "{listing}"
    );
    assert!(
        listing
            .lines()
            .any(|l| l.starts_with("dr-x------") && l.ends_with("a ")),
        "{listing}"
    );
}

#[test]
fn a_directory_of_several_sectors() {
    let files: Vec<_> = (0..200)
        .map(|n| {
            DriveFile::new(
                format!("many/a-rather-long-name-that-shares-its-start-{n}.json"),
                format!("{n}"),
            )
        })
        .collect();
    let image = on_disk(&iso_image("CDROM", &files).unwrap());
    assert_eq!(paths(&image).len(), files.len() + 1);
    for file in files.iter().step_by(37) {
        assert_eq!(read(&image, &file.path), file.contents);
    }
}

#[test]
fn the_longest_name_and_the_deepest_path() {
    let path = [&"n".repeat(100); 7].map(String::as_str).join("/");
    let image = on_disk(&iso_image("CDROM", &[DriveFile::new(&path, "deep")]).unwrap());
    assert_eq!(read(&image, &path), b"deep");
}

#[test]
fn labels_and_sizes_that_do_not_fit_are_refused() {
    for label in [&"x".repeat(33), "", " ", "trailing ", "caf\u{e9}", "new\nline"] {
        let error = iso_image(label, &[]).unwrap_err();
        assert_eq!(error.error_type, ErrorType::CpiError, "{label:?}");
    }
    assert!(iso_image("x", &[DriveFile::new("env", vec![0; MAX_BYTES + 1])]).is_err());
}

#[test]
fn same_input_same_bytes() {
    let files = [DriveFile::new("a/b", "1"), DriveFile::new("env", "2")];
    assert!(iso_image("x", &files).unwrap() == iso_image("x", &files).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_settings_are_read_back(settings in any_json()) {
        let image = on_disk(&crate::cdrom("config-2", "env", &settings).unwrap());
        let found: Value = serde_json::from_slice(&read(&image, "env")).unwrap();
        prop_assert_eq!(found, settings);
    }

    #[test]
    fn any_tree_is_listed_in_full(names in prop::collection::btree_set("[a-c]{1,2}/[a-z._-]{0,12}[a-z]/[A-Za-z0-9-]{1,20}(\\.[a-z]{1,5})?", 1..40)) {
        let files: Vec<_> = names.iter().map(|name| DriveFile::new(name, name.as_bytes())).collect();
        prop_assume!(refuse_duplicates(&files).is_ok());
        let image = on_disk(&iso_image("config-2", &files).unwrap());
        let listed = paths(&image);
        for file in &files {
            prop_assert!(listed.contains(&format!("/{}", file.path)), "{} in {:?}", file.path, listed);
        }
        prop_assert_eq!(&read(&image, &files[0].path), &files[0].contents);
    }
}
