//! What a call that takes long says meanwhile.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::sandbox::{Sandbox, run, wait_for};

/// A disk that takes a while to upload, MiB.
const SIZE: u64 = 256;

/// A stemcell of bytes that cannot be left out.
fn image(sandbox: &Sandbox) -> String {
    let directory = sandbox.directory();
    let mut root = File::create(directory.join("root.img")).unwrap();
    io::copy(&mut File::open("/dev/urandom").unwrap().take(1 << 20), &mut root).unwrap();
    let block = fs::read(directory.join("root.img")).unwrap();
    for _ in 1..SIZE {
        root.write_all(&block).unwrap();
    }
    let (image, directory) = (directory.join("image"), directory.to_str().unwrap());
    let image = image.to_str().unwrap();
    run("tar", &["-cf", image, "-C", directory, "root.img"]).unwrap();
    image.to_owned()
}

/// `12M of 256M, 40M/s, 6s left`.
#[track_caller]
fn tells_how_far_it_is(text: &str) {
    let (done, rest) = text.split_once(&format!("M of {SIZE}M, ")).expect(text);
    let (rate, left) = rest.split_once("/s, ").expect(text);
    let done: f64 = done.parse().expect(text);
    assert!(done > 0.0 && done < SIZE as f64, "{text}");
    assert!(rate.ends_with(['K', 'M', 'G']), "{text}");
    let left = left.strip_suffix(" left").expect(text);
    let left = left.strip_suffix(['s', 'm']).expect(text);
    assert!(left.parse::<u32>().is_ok(), "{text}");
}

#[test]
fn without_a_terminal_a_line_is_logged_every_few_seconds() {
    let sandbox = Sandbox::new();
    let call = sandbox.start("create_stemcell", json!([image(&sandbox), {"disk": SIZE}]));
    wait_for("a part of the upload", Duration::from_secs(60), || {
        let files = fs::read_dir(sandbox.directory().join("pool")).unwrap();
        files.flatten().any(|file| {
            file.metadata()
                .is_ok_and(|metadata| metadata.blocks() * 512 > 1 << 20)
        })
    });
    // It seems to take long.
    let pid = call.id().to_string();
    run("kill", &["-STOP", &pid]).unwrap();
    sleep(Duration::from_millis(5_200));
    run("kill", &["-CONT", &pid]).unwrap();
    let output = call.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let line = log
        .lines()
        .find_map(|line| line.split_once(" INFO  [-] uploading stemcell: "));
    tells_how_far_it_is(line.expect(&log).1);
    assert!(!log.contains('\u{1b}'), "{log}");
    assert!(
        String::from_utf8(output.stdout).unwrap().contains("\"sc-"),
        "{log}"
    );
}

#[test]
fn on_a_terminal_a_bar_comes_and_goes() {
    let sandbox = Sandbox::new();
    let command = format!(
        "{} --config {} --log-level info call create_stemcell {} '{{\"disk\": {SIZE}}}'",
        env!("CARGO_BIN_EXE_cpi"),
        sandbox.config_path().display(),
        image(&sandbox)
    );
    // The program has a terminal, and we what it shows.
    let mut terminal = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = String::new();
    terminal
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut shown)
        .unwrap();
    let mut lines = shown.split("\r\u{1b}[K");
    let bar = lines.find_map(|line| line.strip_prefix("uploading stemcell ["));
    let (bar, numbers) = bar.expect(&shown).split_once("] ").expect(&shown);
    assert_eq!(bar.len(), 20, "{shown:?}");
    assert!(bar.trim_end().chars().all(|c| c == '#'), "{shown:?}");
    tells_how_far_it_is(numbers);
    // No line stands behind it, and nothing of it stays.
    let after = shown.rsplit("uploading stemcell [").next().unwrap();
    let after = after.split_once("\r\u{1b}[K").expect(&shown).1;
    assert!(after.contains("\"sc-") && !after.contains('#'), "{shown:?}");
    assert!(terminal.wait().unwrap().success());
}
