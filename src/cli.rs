//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::config::LogLevel;

/// BOSH CPI for libvirt: reads one CPI request (JSON) from stdin, writes one response (JSON) to stdout.
///
/// Logs go to stderr. The exit code is 0 whenever a response was written, also for a failed call.
#[derive(Debug, Parser)]
#[command(
    name = "cpi",
    version,
    after_help = "Example:\n  echo '{\"method\":\"info\",\"arguments\":[]}' | cpi --config cpi.json"
)]
pub struct Cli {
    /// The CPI's configuration file (cpi.json)
    #[arg(long, value_name = "PATH")]
    pub config: PathBuf,

    /// Overrides the configuration's log_level: NONE, ERROR, WARN, INFO or DEBUG, in any case
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
}
