//! What each kind of key accepts, and the one spelling it is normalised to.

use serde_json::Value;

use super::mistakes::{shown, type_name};
use super::schema::Kind;

impl Kind {
    /// Whether values of this kind must never be shown.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretHash)
    }

    /// What this kind accepts, as errors and docs/CONFIG.md say it.
    pub fn expectation(self) -> String {
        match self {
            Self::String | Self::Secret => "a string".to_owned(),
            Self::Integer { min, max } => format!("an integer from {min} to {max}"),
            Self::Port => "a port from 1 to 65535".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Strings => "a list of strings".to_owned(),
            Self::Choice(names) => format!("one of {}", names.join(", ")),
            Self::Template(_) => "an XML template (a string)".to_owned(),
            Self::SecretHash => "an object".to_owned(),
        }
    }

    /// `value` in its normal form, or what is wrong with it. The message never shows a secret.
    pub(super) fn normalise(self, value: &Value) -> Result<Value, String> {
        let accepted = match (self, value) {
            (Self::String | Self::Secret | Self::Template(_), Value::String(_))
            | (Self::Boolean, Value::Bool(_))
            | (Self::SecretHash, Value::Object(_)) => Some(value.clone()),
            (Self::Integer { min, max }, Value::Number(number)) => number
                .as_u64()
                .filter(|n| (min..=max).contains(n))
                .map(Value::from),
            (Self::Port, Value::Number(number)) => number.as_u64().and_then(port),
            (Self::Port, Value::String(text)) if text.is_empty() => Some(value.clone()),
            (Self::Port, Value::String(text)) if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().ok().and_then(port)
            }
            (Self::Choice(names), Value::String(text)) => names
                .iter()
                .find(|name| name.eq_ignore_ascii_case(text))
                .map(|name| Value::from(*name)),
            // What could once be switched on or off only.
            (Self::Choice(names), Value::Bool(on)) => {
                let meant = if *on { "always" } else { "never" };
                names.contains(&meant).then(|| Value::from(meant))
            }
            (Self::Strings, Value::Array(items)) => {
                if let Some(index) = items.iter().position(|item| !item.is_string()) {
                    let item = shown(&items[index]);
                    return Err(format!(
                        "expected {}, but item {} is {item}",
                        self.expectation(),
                        index + 1
                    ));
                }
                Some(value.clone())
            }
            _ => None,
        };
        accepted.ok_or_else(|| {
            let got = if self.is_secret() {
                type_name(value).to_owned()
            } else {
                shown(value)
            };
            format!("expected {}, got {got}", self.expectation())
        })
    }
}

fn port(number: u64) -> Option<Value> {
    (1..=65535)
        .contains(&number)
        .then(|| Value::from(number.to_string()))
}
