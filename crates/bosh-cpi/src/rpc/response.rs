//! The response: always the same three keys, whatever happened.

use serde::Serialize;
use serde_json::Value;

use super::{Error, Result};

/// What goes to stdout. The Director validates this shape and fails the task on any other.
#[derive(Debug, Serialize)]
pub struct Response {
    result: Value,
    error: Option<ResponseError>,
    log: String,
}

#[derive(Debug, Serialize)]
struct ResponseError {
    #[serde(rename = "type")]
    error_type: &'static str,
    message: String,
    ok_to_retry: bool,
}

impl Response {
    /// `log` is what an operator needs to understand a failure; the Director keeps it with the task.
    pub fn new(outcome: Result<Value>, log: String) -> Self {
        match outcome {
            Ok(result) => Self {
                result,
                error: None,
                log,
            },
            Err(Error {
                error_type,
                message,
                ok_to_retry,
                cause: _,
            }) => Self {
                result: Value::Null,
                error: Some(ResponseError {
                    error_type: error_type.name(),
                    message,
                    ok_to_retry,
                }),
                log,
            },
        }
    }

    /// One line of JSON, without its end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|e| {
            format!(
                r#"{{"result":null,"error":{{"type":"Bosh::Clouds::CpiError","message":"writing the response: {}","ok_to_retry":false}},"log":""}}"#,
                e.classify() as u8
            )
        })
    }
}
