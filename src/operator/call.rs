//! `cpi call METHOD ARGS...`: a CPI call as BOSH would make it, without writing JSON by hand.

use serde_json::Value;

use super::{complain, print, to_json};
use crate::cli::Call;
use crate::methods::{self, Cpi};
use bosh_cpi::interrupt;
use bosh_cpi::logging;
use bosh_cpi::rpc::{Arguments, Error, Request, Response, Result};
use cpi_config::Config;

/// Whether the call succeeded; its error is on stderr then.
pub fn run(call: &Call, config: Config) -> Result<bool> {
    let arguments: Vec<Value> = call
        .arguments
        .iter()
        .map(|text| argument(text))
        .collect::<Result<_>>()?;
    let request = Request {
        method: call.method.clone(),
        arguments,
        api_version: call.api_version,
        context: serde_json::Map::new(),
    };
    request.check_api_version()?;
    // Ctrl-C rolls back.
    interrupt::answer_first();
    let cpi = Cpi::new(config, request.api_version);
    let outcome = methods::dispatch(&request.method, Arguments::new(request.arguments), &cpi);
    let succeeded = outcome.is_ok();
    if call.json {
        let log = if succeeded {
            String::new()
        } else {
            logging::unread_lines()
        };
        print(&format!("{}\n", Response::new(outcome, log).to_json()))?;
        return Ok(succeeded);
    }
    match outcome {
        Ok(result) => print(&to_json(&result))?,
        Err(error) => {
            let retry = if error.ok_to_retry { " (ok to retry)" } else { "" };
            complain(&format!("{}: {}{retry}", error.error_type.name(), error.message));
        }
    }
    Ok(succeeded)
}

/// JSON where it is JSON, else a string; `@FILE`: what is in the file.
fn argument(text: &str) -> Result<Value> {
    let Some(path) = text.strip_prefix('@') else {
        return Ok(json_or_string(text));
    };
    let content =
        std::fs::read_to_string(path).map_err(|e| Error::cpi(format!("reading argument {text}: {e}")))?;
    Ok(json_or_string(&content))
}

fn json_or_string(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_are_json_where_they_are() {
        for (text, expected) in [
            (
                "vm-1d3a4c1e-0000-4000-8000-000000000000",
                json!("vm-1d3a4c1e-0000-4000-8000-000000000000"),
            ),
            ("1024", json!(1024)),
            ("null", json!(null)),
            ("\"1024\"", json!("1024")),
            ("{\"a\": [1]}", json!({"a": [1]})),
            ("{broken", json!("{broken")),
            ("", json!("")),
        ] {
            assert_eq!(argument(text).unwrap(), expected);
        }
        assert!(
            argument("@/no/such/file")
                .unwrap_err()
                .message
                .contains("/no/such/file")
        );
    }
}
