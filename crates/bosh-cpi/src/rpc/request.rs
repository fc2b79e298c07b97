//! The request: method, arguments, API version and context.

use std::io::Read;

use serde_json::{Map, Value};

use super::{Error, Result};

/// The highest CPI API version this CPI speaks.
pub const HIGHEST_API_VERSION: u64 = 3;

/// The largest request taken. Real ones stay below 1 MiB, certificates included.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// One call as the Director or `bosh create-env` wrote it.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub arguments: Vec<Value>,
    /// 1 when the caller names none.
    pub api_version: u64,
    /// Request id, Director's uuid, and the properties of a cpi-config.
    pub context: Map<String, Value>,
}

impl Request {
    /// Reads everything the caller writes, also what is too much, so that the caller never meets a closed pipe.
    ///
    /// # Errors
    /// `CpiError` saying what is wrong with the request.
    pub fn read(mut input: impl Read) -> Result<Self> {
        let mut bytes = Vec::new();
        let unreadable = |e: std::io::Error| Error::cpi(format!("reading the request from stdin: {e}"));
        input
            .by_ref()
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > MAX_BYTES {
            std::io::copy(&mut input, &mut std::io::sink()).map_err(unreadable)?;
            return Err(Error::cpi(format!(
                "the request is larger than {MAX_BYTES} bytes"
            )));
        }
        Self::parse(&bytes)
    }

    /// Takes the request apart; the version is checked later, so that the answer can carry the request id.
    ///
    /// # Errors
    /// `CpiError` naming the part that is missing or of the wrong type.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::cpi(
                "the request is empty; expected a JSON object on stdin",
            ));
        }
        let request: Value = serde_json::from_slice(bytes)
            .map_err(|e| Error::cpi(format!("the request is not one JSON document: {e}")))?;
        let Value::Object(mut fields) = request else {
            return Err(wrong_type("request", "an object", &request));
        };
        let method = match fields.remove("method") {
            Some(Value::String(method)) => method,
            Some(other) => return Err(wrong_type("request: method", "a string", &other)),
            None => return Err(Error::cpi("request: method is missing")),
        };
        let arguments = match fields.remove("arguments") {
            Some(Value::Array(arguments)) => arguments,
            Some(Value::Null) | None => Vec::new(),
            Some(other) => return Err(wrong_type("request: arguments", "an array", &other)),
        };
        let api_version = match fields.remove("api_version") {
            Some(Value::Null) | None => 1,
            Some(value) => value
                .as_u64()
                .filter(|version| *version >= 1)
                .ok_or_else(|| wrong_type("request: api_version", "a whole number from 1", &value))?,
        };
        let context = match fields.remove("context") {
            Some(Value::Object(context)) => context,
            Some(Value::Null) | None => Map::new(),
            Some(other) => return Err(wrong_type("request: context", "an object", &other)),
        };
        Ok(Self {
            method,
            arguments,
            api_version,
            context,
        })
    }

    /// The caller's name for this call, for the logs; empty when there is none.
    pub fn id(&self) -> &str {
        self.context
            .get("request_id")
            .and_then(Value::as_str)
            .unwrap_or("")
    }

    /// # Errors
    /// `NotSupported` naming the version asked for and the highest one supported.
    pub fn check_api_version(&self) -> Result<()> {
        if self.api_version > HIGHEST_API_VERSION {
            return Err(Error::not_supported(format!(
                "CPI API version {} is not supported; the highest supported is {HIGHEST_API_VERSION}",
                self.api_version
            )));
        }
        Ok(())
    }
}

/// `CpiError`: `<what>: expected <expected>, got <type>`. Values stay out: any may be a secret.
pub(super) fn wrong_type(what: &str, expected: &str, got: &Value) -> Error {
    let got = match got {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.is_empty() => "an empty string".to_owned(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    Error::cpi(format!("{what}: expected {expected}, got {got}"))
}
