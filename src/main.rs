//! `cpi`: one BOSH CPI call per process, JSON on stdin, JSON on stdout.

use clap::Parser;

use libvirt_bosh_cpi::cli::Cli;

fn main() {
    libvirt_bosh_cpi::run(&Cli::parse());
}
