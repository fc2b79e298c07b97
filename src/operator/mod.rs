//! What an operator asks for at the keyboard: one file per command.

mod call;
mod check;
mod console;
mod documents;
mod host;
mod list;
mod mask;
mod outline;
mod probe;
mod prune;
mod render;
mod screenshot;
mod show;
mod table;
mod tree;
mod version;
mod views;

use std::io::{ErrorKind, Write};

use serde_json::{Map, Value};

use crate::cli::{Cli, Command, JOB_CONFIG, Rendered};
use crate::even_when_it_panics;
use bosh_cpi::logging;
use bosh_cpi::progress::terminal_width;
use bosh_cpi::rpc::{Error, Result};
use cpi_config::{Config, LogLevel};

pub use version::text as version;

/// Runs a command. The exit code is 1 when it failed, or found something wrong.
pub fn run(cli: &Cli, command: &Command) -> i32 {
    logging::set_level(cli.log_level.unwrap_or(LogLevel::Warn).into());
    match even_when_it_panics(|| dispatch(cli, command)) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            complain(&format!("cpi: {}", error.message));
            1
        }
    }
}

/// Whether all is well.
fn dispatch(cli: &Cli, command: &Command) -> Result<bool> {
    let config = || Config::load(&cli.config_path(), &Map::new());
    let needs_config = !matches!(command, Command::Completions { .. } | Command::Man);
    if needs_config && cli.lacks_config() {
        return Err(Error::cpi(format!(
            "no configuration is named, and the BOSH job's, {JOB_CONFIG}, is not there; name one with --config PATH"
        )));
    }
    match command {
        Command::Check { json } => return check::run(&cli.config_path(), *json),
        Command::List(arguments) => list::run(arguments, &config()?),
        Command::Show { cid, json } => show::run(cid, *json, &config()?),
        Command::Prune(arguments) => {
            return prune::run(arguments, &config()?);
        }
        Command::Console { vm, follow, lines } => console::run(vm, *follow, *lines, &config()?),
        Command::Screenshot { vm, file } => screenshot::run(vm, file, &config()?),
        Command::Render {
            method: Rendered::CreateVm,
            json,
        } => render::run(&cli.config_path(), *json),
        Command::Call(arguments) => return call::run(arguments, config()?),
        Command::Completions { shell } => documents::completions(*shell),
        Command::Man => documents::man(),
    }?;
    Ok(true)
}

/// Says on stderr what is wrong: on one line, which a terminal's width may break between words.
fn complain(message: &str) {
    let message = logging::on_one_line(message);
    let stderr = std::io::stderr();
    let lines = match terminal_width(&stderr) {
        Some(width) => table::wrapped(&message, width, 0),
        None => message,
    };
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(stderr.lock(), "{lines}");
}

/// Writes to stdout. Whoever reads it may have seen enough, which is no failure.
fn print(text: &str) -> Result<()> {
    print_while_read(text.as_bytes()).map(drop)
}

/// Writes to stdout. Returns whether it is still being read.
fn print_while_read(bytes: &[u8]) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Error::cpi(format!("writing to stdout: {e}"))),
    }
}

/// JSON for scripts, and for people's eyes.
fn to_json(value: &Value) -> String {
    format!("{value:#}\n")
}
