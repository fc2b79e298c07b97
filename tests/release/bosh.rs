//! What bosh does, by `bosh.rb` beside this file, and the CPI with what comes out of it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The root of the repository, which is a BOSH release.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// bosh.rb's standard output, or its standard error when it failed.
pub fn bosh(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("ruby")
        .arg("--disable=gems")
        .arg(root().join("tests/release/bosh.rb"))
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("ruby: {e}; run `make setup`"));
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

/// Renders the job `libvirt_cpi` into `directory`, as it would be under /var/vcap/jobs/libvirt_cpi.
pub fn render_job(properties: &Value, directory: &Path) -> Result<(), String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(properties.to_string().as_bytes()).unwrap();
    let job = root().join("jobs/libvirt_cpi");
    bosh(&[
        "render",
        job.to_str().unwrap(),
        file.path().to_str().unwrap(),
        directory.to_str().unwrap(),
    ])
    .map(|_| ())
}

/// The response to a request, from a command that must exit with 0.
#[track_caller]
pub fn response(command: &mut Command, request: &Value) -> Value {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(request.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}
