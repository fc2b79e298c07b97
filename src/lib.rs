//! A BOSH CPI for libvirt. See `docs/ARCHITECTURE.md` for the way of a call through these modules.

pub mod cli;
#[doc(hidden)]
pub mod disk;
mod methods;
#[doc(hidden)]
pub mod network;
mod operator;
mod sidecar;
pub mod stemcell;
mod throttle;
mod vm;

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use serde_json::Value;

use bosh_cpi::rpc::{Arguments, Error, Request, Response, Result, summary};
use bosh_cpi::{interrupt, logging};
use cpi_config::Config;
pub use libvirt_host::become_client_if_asked;

use cli::Cli;
use methods::Cpi;

/// Does what the command line says: serves the request on stdin, or an operator's command. Returns the exit status.
pub fn run(cli: &Cli) -> i32 {
    logging::init();
    match &cli.command {
        _ if cli.version => {
            let mut stdout = std::io::stdout().lock();
            // Nobody is left to tell when stdout is closed.
            let _ = stdout.write_all(operator::version(cli.verbose).as_bytes());
            0
        }
        Some(command) => operator::run(cli, command),
        None => {
            serve(cli);
            0
        }
    }
}

/// Answers the request on stdin. Returns once the response is on stdout, whatever happened.
fn serve(cli: &Cli) {
    let response = respond(std::io::stdin().lock(), |request| {
        interrupt::answer_first();
        let config = Config::load(&cli.config_path(), &request.context)?;
        logging::set_level(cli.log_level.unwrap_or(config.log_level).into());
        Ok(config)
    });
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{response}").and_then(|()| stdout.flush());
    if let Err(e) = written {
        log::error!("writing the response to stdout: {e}");
    }
}

/// The response to the request in `input`, one line of JSON; `configure` finds the configuration for it. Public for
/// tests of bad input, which must not get at a real libvirt.
#[doc(hidden)]
pub fn respond(input: impl Read, configure: impl FnOnce(&Request) -> Result<Config>) -> String {
    let started = Instant::now();
    let mut method = None;
    let outcome = even_when_it_panics(|| answer(input, configure, &mut method));
    if let Err(error) = &outcome {
        log::error!("{}: {}", error.error_type.name(), error.message);
    }
    let summary = summary::line(
        method.as_deref(),
        logging::request_id(),
        started.elapsed(),
        &outcome,
    );
    log::info!("call {summary}");
    let log = match &outcome {
        Ok(_) => String::new(),
        Err(_) => logging::unread_lines(),
    };
    Response::new(outcome, log).to_json()
}

/// Notes the method as soon as it is known.
fn answer(
    input: impl Read,
    configure: impl FnOnce(&Request) -> Result<Config>,
    method: &mut Option<String>,
) -> Result<Value> {
    let request = Request::read(input)?;
    logging::set_request_id(request.id());
    *method = Some(request.method.clone());
    let config = configure(&request)?;
    request.check_api_version()?;
    let cpi = Cpi::new(config, request.api_version);
    methods::dispatch(&request.method, Arguments::new(request.arguments), &cpi)
}

/// The caller waits for JSON, whatever happens here.
fn even_when_it_panics<T>(answer: impl FnOnce() -> Result<T>) -> Result<T> {
    note_where_panics_happen();
    let outcome = catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| Err(panic_error()));
    drop(std::panic::take_hook());
    outcome
}

static PANIC_LOCATION: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the place of a panic for the response. Its message stays out of everything: it may quote a secret.
fn note_where_panics_happen() {
    std::panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string);
        if let Ok(mut place) = PANIC_LOCATION.lock() {
            *place = location;
        }
    }));
}

fn panic_error() -> Error {
    let place = PANIC_LOCATION.lock().ok().and_then(|mut place| place.take());
    Error::cpi(format!(
        "internal error: panic at {}; this is a bug in the CPI",
        place.as_deref().unwrap_or("an unknown place")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_cpi_error_that_tells_no_secret() {
        let secret = "hunter2";
        let error = even_when_it_panics(|| -> Result<Value> { panic!("{secret}") }).unwrap_err();
        assert_eq!(error.error_type, bosh_cpi::rpc::ErrorType::CpiError);
        assert!(
            error.message.contains("panic at src/lib.rs:"),
            "{}",
            error.message
        );
        let json = Response::new(Err(error), String::new()).to_json();
        assert!(!json.contains(secret));
        assert!(serde_json::from_str::<Value>(&json).is_ok());
    }
}
