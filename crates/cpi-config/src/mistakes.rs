//! Collects what is wrong with a configuration, so that the operator reads all of it at once.

use serde_json::Value;

use super::position;

use bosh_cpi::rpc::{Error, Result};

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    File,
    Context,
    /// The file with the context laid over it.
    Merged,
}

#[derive(Debug, Default)]
pub(super) struct Mistakes {
    messages: Vec<String>,
    paths: Vec<String>,
}

/// One mistake, for a person who mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key and what is wrong with it.
    pub message: String,
    /// Line and column in the file, from 1; none for what is missing there.
    pub position: Option<(usize, usize)>,
}

impl Mistakes {
    /// All mistakes, with their places in the text that they were found in.
    pub(super) fn located_in(self, text: &str) -> Vec<Mistake> {
        let both = self.messages.into_iter().zip(self.paths);
        both.map(|(message, path)| Mistake {
            message,
            position: position::find(text, &path),
        })
        .collect()
    }

    /// Notes that the value at `path` is wrong. `message` shows no secret.
    pub(super) fn add(&mut self, layer: Layer, path: &str, message: &str) {
        let origin = match layer {
            Layer::File | Layer::Merged => "",
            Layer::Context => "context: ",
        };
        self.messages.push(if path.is_empty() {
            format!("{origin}{message}")
        } else {
            format!("{origin}{path}: {message}")
        });
        self.paths.push(path.to_owned());
    }

    /// Whether nothing was found wrong with any of these keys, in them, or with a section they are in.
    ///
    /// A faulty key falls back to its default, so a check across keys would report consequences of that.
    pub(super) fn none_at(&self, keys: &[&str]) -> bool {
        let within = |path: &str, other: &str| {
            path.strip_prefix(other)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        !self.paths.iter().any(|faulty| {
            faulty.is_empty() || keys.iter().any(|key| within(key, faulty) || within(faulty, key))
        })
    }

    /// `CpiError` with all mistakes found in `source`, if there are any.
    pub(super) fn into_result(self, source: &str) -> Result<()> {
        match self.messages.as_slice() {
            [] => Ok(()),
            [only] => Err(Error::cpi(format!(
                "configuration {source} has 1 mistake: {only}"
            ))),
            many => {
                let numbered: Vec<String> = many
                    .iter()
                    .enumerate()
                    .map(|(i, message)| format!("({}) {message}", i + 1))
                    .collect();
                Err(Error::cpi(format!(
                    "configuration {source} has {} mistakes: {}",
                    many.len(),
                    numbered.join("; ")
                )))
            }
        }
    }
}

/// `text` on one line, cut to 60 characters.
pub(super) fn shorten(text: &str) -> String {
    let mut escaped = text.escape_debug();
    let mut short: String = escaped.by_ref().take(60).collect();
    if escaped.next().is_some() {
        short.push('…');
    }
    short
}

/// A value as an error may show it: scalars shortened, of lists and objects only that they are one.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", shorten(text)),
        Value::Number(number) => shorten(&number.to_string()),
        Value::Bool(flag) => flag.to_string(),
        other => type_name(other).to_owned(),
    }
}

/// What `value` is, for errors that must not show it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
