//! What a call that takes long says meanwhile.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::sandbox::{Sandbox, run, stemcell_image};

/// Makes a pipe of this name, to be read as if it were the stemcell.
fn pipe(sandbox: &Sandbox) -> String {
    let path = sandbox.directory().join("image");
    let path = path.to_str().unwrap().to_owned();
    run("mkfifo", &[&path]).unwrap();
    path
}

/// Writes the stemcell into the pipe, with this pause in the middle.
fn feed(path: &str, pause: Duration) {
    let image = fs::read(stemcell_image("qcow2")).unwrap();
    let mut pipe = OpenOptions::new().write(true).open(Path::new(path)).unwrap();
    let (first, rest) = image.split_at(image.len() / 2);
    pipe.write_all(first).unwrap();
    sleep(pause);
    pipe.write_all(rest).unwrap();
}

#[test]
fn without_a_terminal_a_line_is_logged_every_few_seconds() {
    let sandbox = Sandbox::new();
    let path = pipe(&sandbox);
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| feed(&path, Duration::from_millis(5_500)));
        sandbox.call("create_stemcell", json!([path, {"disk": 1024}]))
    });
    let says = |line: &str| {
        line.contains(" INFO ") && line.contains("uploading the stemcell: ") && line.contains("/s")
    };
    assert!(answer.stderr.lines().any(says), "{}", answer.stderr);
    assert!(!answer.stderr.contains('\u{1b}'), "{}", answer.stderr);
    answer.result();
}

#[test]
fn on_a_terminal_a_bar_comes_and_goes() {
    let sandbox = Sandbox::new();
    let path = pipe(&sandbox);
    let command = format!(
        "{} --config {} --log-level info call create_stemcell {path} '{{\"disk\": 1024}}'",
        env!("CARGO_BIN_EXE_cpi"),
        sandbox.config_path().display()
    );
    // The program has a terminal, and we what it shows.
    let mut terminal = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| feed(&path, Duration::from_millis(600)));
        let mut shown = String::new();
        terminal
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut shown)
            .unwrap();
        assert!(shown.contains("\r\u{1b}[Kuploading the stemcell"), "{shown:?}");
        // No line stands behind it, and nothing of it stays.
        let after = shown.rsplit("uploading the stemcell ").next().unwrap();
        assert!(after.contains("\r\u{1b}[K"), "{shown:?}");
        assert!(shown.contains("\"sc-"), "{shown:?}");
    });
    assert!(terminal.wait().unwrap().success());
}
