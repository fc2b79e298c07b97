//! Tools that have no part in writing the images, to say what is in them. A missing tool fails the test.

use proptest::prelude::*;
use serde_json::{Map, Value};
use std::io::Write;
use std::process::Command;
use tempfile::NamedTempFile;

pub fn on_disk(image: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(image).unwrap();
    file
}

/// Standard output of a tool that must succeed; `@` in `arguments` stands for the image's path.
pub fn run(tool: &str, arguments: &[&str], image: &NamedTempFile) -> Vec<u8> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("env")
        .arg(tool)
        .args(
            arguments
                .iter()
                .map(|a| a.replace('@', image.path().to_str().unwrap())),
        )
        .env("PATH", path)
        .env("MTOOLS_SKIP_CHECK", "0")
        .output()
        .unwrap_or_else(|e| panic!("{tool} is needed by this test: {e}"));
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

pub fn run_text(tool: &str, arguments: &[&str], image: &NamedTempFile) -> String {
    String::from_utf8(run(tool, arguments, image)).unwrap()
}

/// `KEY=value` of `blkid -p -o export`.
pub fn blkid(image: &NamedTempFile, key: &str) -> Option<String> {
    let tags = run_text("blkid", &["-p", "-o", "export", "@"], image);
    let prefix = format!("{key}=");
    tags.lines()
        .find_map(|line| line.strip_prefix(&prefix))
        .map(str::to_string)
}

pub fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((".*", inner), 0..8)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}
