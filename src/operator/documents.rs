//! `cpi man` and `cpi completions`: made from the definition of the command line, so they tell what is.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::print_while_read;
use crate::cli::Cli;
use bosh_cpi::rpc::{Error, Result};

pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cpi", &mut script);
    print_while_read(&script).map(drop)
}

/// One page, the commands with it.
pub fn man() -> Result<()> {
    let page = page().map_err(|e| Error::cpi(format!("writing the manual page: {e}")))?;
    print_while_read(&page).map(drop)
}

fn page() -> std::io::Result<Vec<u8>> {
    let mut cli = Cli::command();
    cli.build();
    let mut page = Vec::new();
    let whole = Man::new(cli.clone()).section("8").manual("libvirt-bosh-cpi");
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    for command in cli.get_subcommands() {
        section(command, &mut page)?;
    }
    whole.render_extra_section(&mut page)?;
    page.extend(files());
    Ok(page)
}

/// What clap_mangen would make a page of its own of, under the command's name.
fn section(command: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    // What holds for all commands has been said above.
    let own = command
        .clone()
        .mut_args(|argument| match argument.get_id().as_str() {
            "config" | "log_level" | "help" => argument.hide(true),
            _ => argument,
        });
    let man = Man::new(own);
    let mut part = Vec::new();
    man.render_synopsis_section(&mut part)?;
    man.render_description_section(&mut part)?;
    man.render_options_section(&mut part)?;
    page.extend(format!(".SH {}\n", command.get_name().to_uppercase().replace('-', "\\-")).bytes());
    let mut lines = String::from_utf8_lossy(&part).into_owned();
    for heading in ["SYNOPSIS", "DESCRIPTION", "OPTIONS", "ARGUMENTS"] {
        lines = lines.replace(&format!(".SH {heading}\n"), ".PP\n");
    }
    page.extend(lines.bytes());
    Ok(())
}

fn files() -> Vec<u8> {
    let job = crate::cli::JOB_CONFIG.replace('-', "\\-");
    format!(".SH FILES\n.TP\n{job}\nThe configuration that commands use when none is named.\n").into_bytes()
}
