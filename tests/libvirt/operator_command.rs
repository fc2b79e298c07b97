//! Operators' commands in a sandbox.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::sandbox::{Sandbox, coverage};

impl Sandbox {
    /// Runs an operator's command: whether it was content, its output, and what it said on stderr.
    pub fn operator(&self, arguments: &[&str]) -> (bool, String, String) {
        let output = self.operator_command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "exit code {code:?}");
        (code == Some(0), text(output.stdout), text(output.stderr))
    }

    /// The process of an operator's command, for a terminal of 80 columns.
    pub fn operator_command(&self, arguments: &[&str]) -> Command {
        operator_command(&self.config_path(), self.directory(), arguments)
    }

    /// The output of an operator's command that must be content.
    #[track_caller]
    pub fn operator_says(&self, arguments: &[&str]) -> String {
        let (content, stdout, stderr) = self.operator(arguments);
        assert!(content, "{arguments:?}: {stdout}{stderr}");
        stdout
    }

    /// The JSON that an operator's command prints.
    #[track_caller]
    pub fn operator_json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.operator_says(&[arguments, &["--json"]].concat())).unwrap()
    }
}

/// The process of an operator's command with this configuration, for a terminal of 80 columns.
pub fn operator_command(config: &Path, tmpdir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cpi"));
    command
        .arg("--config")
        .arg(config)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TMPDIR", tmpdir)
        .env("COLUMNS", "80")
        .envs(coverage());
    command
}
