//! Cloud properties as the operator's cloud-config gives them: taken one by one, the rest refused by name.

use serde_json::{Map, Value};

use crate::rpc::{Error, Result};

/// The hash of one `cloud_properties`, and the names its reader knows.
pub struct CloudProperties {
    /// Where it stands in the request, for messages.
    what: String,
    values: Map<String, Value>,
    known: Vec<&'static str>,
}

impl CloudProperties {
    /// `what` is for messages, such as `argument 3 (cloud_properties)`.
    pub fn new(what: impl Into<String>, values: Map<String, Value>) -> Self {
        Self {
            what: what.into(),
            values,
            known: Vec::new(),
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.values.shift_remove(name).filter(|value| !value.is_null())
    }

    /// That this property is not what it must be.
    pub fn wrong(&self, name: &str, expected: &str) -> Error {
        Error::cloud(format!("{}: {name} must be {expected}", self.what))
    }

    /// Whatever it is, for properties of more than one type.
    pub fn value(&mut self, name: &'static str) -> Option<Value> {
        self.take(name)
    }

    /// A whole number, at least `minimum`.
    pub fn integer(&mut self, name: &'static str, minimum: u64) -> Result<Option<u64>> {
        self.take(name)
            .map(|value| {
                value
                    .as_u64()
                    .filter(|number| *number >= minimum && i64::try_from(*number).is_ok())
                    .ok_or_else(|| self.wrong(name, &format!("a whole number from {minimum}")))
            })
            .transpose()
    }

    /// A string that is not empty.
    pub fn string(&mut self, name: &'static str) -> Result<Option<String>> {
        self.take(name)
            .map(|value| match value {
                Value::String(text) if !text.is_empty() => Ok(text),
                _ => Err(self.wrong(name, "a string")),
            })
            .transpose()
    }

    /// One of these words.
    pub fn choice(&mut self, name: &'static str, choices: &[&str]) -> Result<Option<String>> {
        self.take(name)
            .map(|value| match value {
                Value::String(text) if choices.contains(&text.as_str()) => Ok(text),
                _ => Err(self.wrong(name, &format!("one of {}", choices.join(", ")))),
            })
            .transpose()
    }

    /// A whole number within these bounds.
    pub fn integer_between(&mut self, name: &'static str, minimum: u64, maximum: u64) -> Result<Option<u64>> {
        self.take(name)
            .map(|value| {
                value
                    .as_u64()
                    .filter(|number| (minimum..=maximum).contains(number))
                    .ok_or_else(|| self.wrong(name, &format!("a whole number from {minimum} to {maximum}")))
            })
            .transpose()
    }

    pub fn boolean(&mut self, name: &'static str) -> Result<Option<bool>> {
        self.take(name)
            .map(|value| value.as_bool().ok_or_else(|| self.wrong(name, "true or false")))
            .transpose()
    }

    /// A hash with properties of its own, to be taken and ended as this one.
    pub fn hash(&mut self, name: &'static str) -> Result<Option<CloudProperties>> {
        self.take(name)
            .map(|value| match value {
                Value::Object(values) => Ok(Self::new(format!("{}: {name}", self.what), values)),
                _ => Err(self.wrong(name, "an object")),
            })
            .transpose()
    }

    /// Passes over properties that are meant for somebody else.
    pub fn ignore(&mut self, names: &[&str]) {
        self.values.retain(|name, _| !names.contains(&name.as_str()));
    }

    /// To be called after the last property.
    ///
    /// # Errors
    /// `CloudError` naming a property nobody took, and the nearest known one.
    pub fn end(self) -> Result<()> {
        let Some(unknown) = self.values.keys().next() else {
            return Ok(());
        };
        let nearest = self
            .known
            .iter()
            .map(|known| (strsim::jaro_winkler(known, unknown), known))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness > 0.7);
        let advice = match nearest {
            Some((_, known)) => format!("did you mean {known}?"),
            None => format!("known are {}", self.known.join(", ")),
        };
        Err(Error::cloud(format!(
            "{}: unknown property {unknown}; {advice}",
            self.what
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<(Option<u64>, Option<String>)> {
        let Value::Object(values) = value else {
            unreachable!()
        };
        let mut properties = CloudProperties::new("argument 3 (cloud_properties)", values);
        let taken = (
            properties.integer("memory", 1)?,
            properties.string("storage_pool")?,
        );
        properties.end().map(|()| taken)
    }

    #[test]
    fn mistakes_name_the_property() {
        assert_eq!(
            read(json!({"memory": 5, "storage_pool": null})).unwrap(),
            (Some(5), None)
        );
        for (value, expected) in [
            (json!({"memory": 0}), "memory must be a whole number from 1"),
            (json!({"memory": -1}), "memory must be a whole number from 1"),
            (json!({"memory": 1.5}), "memory must be a whole number from 1"),
            (json!({"storage_pool": ""}), "storage_pool must be a string"),
            (
                json!({"memroy": 5}),
                "unknown property memroy; did you mean memory?",
            ),
            (
                json!({"zzz": 5}),
                "unknown property zzz; known are memory, storage_pool",
            ),
        ] {
            let message = read(value).unwrap_err().message;
            assert_eq!(message, format!("argument 3 (cloud_properties): {expected}"));
        }
    }
}
