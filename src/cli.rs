//! The command line.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use cpi_config::LogLevel;

/// Where the BOSH job `libvirt_cpi` puts its configuration.
pub const JOB_CONFIG: &str = "/var/vcap/jobs/libvirt_cpi/config/cpi.json";

/// Above the options that every command has.
const EVERYWHERE: &str = "Options of all commands";

/// BOSH CPI for libvirt.
///
/// Without a command, cpi answers one CPI request: it reads JSON from stdin and writes the response to stdout. Logs go
/// to stderr. The exit code is 0 whenever a response was written, also for a failed call.
///
/// With a command, cpi serves an operator, with the same configuration file. The exit code is 1 if something is wrong.
#[derive(Debug, Parser)]
#[command(
    name = "cpi",
    disable_version_flag = true,
    max_term_width = 80,
    disable_help_subcommand = true,
    after_help = "Examples:\n  echo '{\"method\":\"info\",\"arguments\":[]}' | cpi --config cpi.json\n  cpi check\n  cpi list --tree"
)]
pub struct Cli {
    /// The CPI's configuration file (cpi.json). Default of the commands: that of the BOSH job,
    /// /var/vcap/jobs/libvirt_cpi/config/cpi.json
    #[arg(long, value_name = "PATH", global = true, help_heading = EVERYWHERE)]
    pub config: Option<PathBuf>,

    /// Overrides the configuration's log_level: NONE, ERROR, WARN, INFO or DEBUG, case-insensitive. Default of the
    /// commands: WARN
    #[arg(long, value_name = "LEVEL", global = true, help_heading = EVERYWHERE)]
    pub log_level: Option<LogLevel>,

    /// Print the version
    #[arg(long, short = 'V')]
    pub version: bool,

    /// With --version: also the versions and features of libvirt's client library and of the SSH client
    #[arg(long, requires = "version")]
    pub verbose: bool,

    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands for operators.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the configuration and the host
    ///
    /// Prints one line per check: OK, or the defect with its remedy. Creates a volume of 1 MiB in each pool, boots a VM
    /// of a few instructions from one, and deletes all of them.
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the CPI's resources on the host
    List(List),
    /// Show all details of one stemcell, VM, disk, snapshot or network
    ///
    /// Secrets in an agent's settings are masked.
    Show {
        /// As `cpi list` prints it
        cid: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List orphaned resources; delete them with --yes
    ///
    /// Calls that are killed can orphan resources: volumes and DHCP entries of VMs without a domain, incomplete VMs,
    /// stemcells and snapshots, records of deleted disks, and directories of private keys. Persistent disks, and
    /// resources with other names than the CPI's, are never deleted.
    Prune(Prune),
    /// Print a VM's serial console
    ///
    /// Reads the log in settings.console_log_dir, on this machine or another. A VM without a log can only be followed.
    Console {
        /// The VM's cid
        vm: String,
        /// Print new output until Ctrl-C
        #[arg(long, short)]
        follow: bool,
        /// Print only the last lines
        #[arg(long, short = 'n', value_name = "NUMBER")]
        lines: Option<usize>,
    },
    /// Write a VM's screen to a PNG file
    Screenshot {
        /// The VM's cid
        vm: String,
        /// The file to write
        file: PathBuf,
    },
    /// Dry run: print what create_vm would create for the request on stdin
    ///
    /// Prints the domain's XML and the agent's settings, with secrets masked. Reads from libvirt and creates nothing.
    #[command(after_help = "Example:\n  cpi render create_vm <request.json")]
    Render {
        /// The method of the request
        method: Rendered,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Call a CPI method without writing JSON
    ///
    /// Prints the result as JSON. An argument that is JSON is passed as JSON, any other as a string. @FILE is the content
    /// of a file: pass secrets like this, because other users can see the command line.
    #[command(after_help = CALLS)]
    Call(Call),
    /// Print the completions for a shell
    Completions {
        /// For `bash`: cpi completions bash >/etc/bash_completion.d/cpi
        shell: Shell,
    },
    /// Print the manual page: cpi man | man -l -
    Man,
}

#[derive(Debug, Args)]
pub struct List {
    /// What to list; everything when absent
    pub what: Option<Listed>,
    /// Show each stemcell with the VMs whose boot disks are overlays on it, and each VM with its disks
    #[arg(long, conflicts_with_all = ["what", "json"])]
    pub tree: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Prune {
    /// Delete the listed resources
    #[arg(long)]
    pub yes: bool,
    /// Keep anything modified within this period (minimum 10m)
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub older_than: Duration,
    /// Only in this pool, network or directory; repeatable
    #[arg(long = "in", value_name = "PLACE")]
    pub places: Vec<String>,
    /// No other libvirt host uses the pools on network storage (netfs, rbd, ...). Without this option, volumes in them
    /// are kept: their VMs may be on another host
    #[arg(long)]
    pub unshared: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Listed {
    Stemcells,
    Vms,
    Disks,
    Snapshots,
    Networks,
}

/// The methods with a dry run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rendered {
    #[value(name = "create_vm")]
    CreateVm,
}

const CALLS: &str = "\
Methods, sizes in MiB:
  info
  create_stemcell IMAGE_FILE CLOUD_PROPERTIES [ENV]
  delete_stemcell STEMCELL
  create_vm AGENT_ID STEMCELL CLOUD_PROPERTIES NETWORKS [DISKS] [ENV]
  delete_vm VM
  has_vm VM
  reboot_vm VM
  set_vm_metadata VM METADATA
  calculate_vm_cloud_properties REQUIREMENTS
  create_disk SIZE [CLOUD_PROPERTIES] [VM]
  delete_disk DISK
  has_disk DISK
  attach_disk VM DISK
  detach_disk VM DISK
  get_disks VM
  set_disk_metadata DISK METADATA
  resize_disk DISK SIZE
  update_disk DISK SIZE [CLOUD_PROPERTIES]
  snapshot_disk DISK [METADATA]
  delete_snapshot SNAPSHOT
  create_network DEFINITION
  delete_network NETWORK

Examples:
  cpi call has_vm vm-1d3a4c1e-...
  cpi call create_disk 1024 '{\"storage_pool\": \"ssd\"}' null
  cpi call create_vm agent-1 sc-... '{}' @networks.json '[]' @env.json";

#[derive(Debug, Args)]
pub struct Call {
    /// The method's name, as `has_vm`
    pub method: String,
    /// Its arguments
    #[arg(allow_negative_numbers = true)]
    pub arguments: Vec<String>,
    /// Print the response as BOSH gets it, also when the call failed
    #[arg(long)]
    pub json: bool,
    /// CPI API version of the call
    #[arg(long, value_name = "NUMBER", default_value_t = bosh_cpi::rpc::HIGHEST_API_VERSION)]
    pub api_version: u64,
}

/// Reads the command line; wrong ones end the process here, with exit code 2.
pub fn parse() -> Cli {
    let cli = Cli::parse();
    if cli.version {
        return cli;
    }
    if cli.command.is_none() && cli.config.is_none() {
        Cli::command()
            .error(
                ErrorKind::MissingRequiredArgument,
                "--config <PATH> is needed to serve a request; `cpi --help` lists the commands",
            )
            .exit();
    }
    let reads_request = matches!(cli.command, None | Some(Command::Render { .. }));
    if reads_request && std::io::stdin().is_terminal() {
        eprintln!("Type a CPI request (JSON), then Ctrl-D; `cpi --help` lists what else there is.");
    }
    cli
}

impl Cli {
    /// The configuration file to use.
    pub fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| JOB_CONFIG.into())
    }

    /// Whether a command has none to use.
    pub fn lacks_config(&self) -> bool {
        self.config.is_none() && !Path::new(JOB_CONFIG).exists()
    }
}

/// `90s`, `10m`, `2h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number with s, m, h or d, such as 90m".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for text in ["", "5", "h", "-1h", "1.5h", "1w", "99999999999999999d", "1ö"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
