//! Manifests with the ops and variable files that operators use.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bosh::{bosh, root};

/// One of the ops or variable files that operators use.
pub fn manifest(name: &str) -> PathBuf {
    root().join("manifests").join(name)
}

pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/release/fixtures").join(name)
}

/// The manifest with ops and variables, all of which must be found.
pub fn interpolate(manifest: &Path, ops: &[PathBuf], variables: &[PathBuf]) -> Result<Value, String> {
    let mut arguments = vec!["interpolate", manifest.to_str().unwrap()];
    for file in ops {
        arguments.extend(["-o", file.to_str().unwrap()]);
    }
    for file in variables {
        arguments.extend(["-l", file.to_str().unwrap()]);
    }
    bosh(&arguments).map(|json| serde_json::from_str(&json).unwrap())
}
