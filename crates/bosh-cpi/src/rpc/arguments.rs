//! A method's arguments, taken one after the other; every mistake names the argument it is about.

use serde_json::{Map, Value};

use super::request::wrong_type;
use super::{Error, Result, summary};
use crate::cid::Cid;

/// Largest size a disk may have, MiB: 8 EiB less a bit, so that bytes fit into an `i64`.
const MAX_SIZE_MIB: u64 = (i64::MAX as u64) / (1024 * 1024);

/// The arguments not yet taken.
#[derive(Debug)]
pub struct Arguments {
    values: std::vec::IntoIter<Value>,
    taken: usize,
}

impl Arguments {
    pub fn new(values: Vec<Value>) -> Self {
        Self {
            values: values.into_iter(),
            taken: 0,
        }
    }

    /// The next argument; missing is an error.
    fn next(&mut self, name: &str) -> Result<(String, Value)> {
        self.taken += 1;
        let what = format!("argument {} ({name})", self.taken);
        match self.values.next() {
            Some(value) => Ok((what, value)),
            None => Err(Error::cpi(format!("{what}: missing"))),
        }
    }

    /// The next argument when there is one and it is not null.
    fn next_or_null(&mut self, name: &str) -> Option<(String, Value)> {
        self.next(name).ok().filter(|(_, value)| !value.is_null())
    }

    /// A cid that can be a libvirt name.
    pub fn cid(&mut self, name: &str) -> Result<Cid> {
        let (what, value) = self.next(name)?;
        cid_of(&what, &value)
    }

    pub fn optional_cid(&mut self, name: &str) -> Result<Option<Cid>> {
        self.next_or_null(name)
            .map(|(what, value)| cid_of(&what, &value))
            .transpose()
    }

    /// An array of cids; null means none.
    pub fn optional_cids(&mut self, name: &str) -> Result<Vec<Cid>> {
        match self.next_or_null(name) {
            None => Ok(Vec::new()),
            Some((what, Value::Array(values))) => values.iter().map(|value| cid_of(&what, value)).collect(),
            Some((what, other)) => Err(wrong_type(&what, "an array of strings", &other)),
        }
    }

    /// A string that is not empty.
    pub fn string(&mut self, name: &str) -> Result<String> {
        match self.next(name)? {
            (_, Value::String(text)) if !text.is_empty() => Ok(text),
            (what, other) => Err(wrong_type(&what, "a string", &other)),
        }
    }

    /// A size in MiB, at least 1.
    pub fn size_mib(&mut self, name: &str) -> Result<u64> {
        let (what, value) = self.next(name)?;
        value
            .as_u64()
            .filter(|size| (1..=MAX_SIZE_MIB).contains(size))
            .ok_or_else(|| wrong_type(&what, &format!("a size in MiB from 1 to {MAX_SIZE_MIB}"), &value))
    }

    pub fn object(&mut self, name: &str) -> Result<Map<String, Value>> {
        match self.next(name)? {
            (_, Value::Object(object)) => Ok(object),
            (what, other) => Err(wrong_type(&what, "an object", &other)),
        }
    }

    /// An object; a missing one or null is an empty one.
    pub fn optional_object(&mut self, name: &str) -> Result<Map<String, Value>> {
        match self.next_or_null(name) {
            None => Ok(Map::new()),
            Some((_, Value::Object(object))) => Ok(object),
            Some((what, other)) => Err(wrong_type(&what, "an object", &other)),
        }
    }

    /// To be called after the last argument: one more is a mistake of the caller's.
    pub fn end(mut self) -> Result<()> {
        match self.values.next() {
            None => Ok(()),
            Some(_) => Err(Error::cpi(format!(
                "argument {}: not expected; this method takes {} at most",
                self.taken + 1,
                self.taken
            ))),
        }
    }
}

fn cid_of(what: &str, value: &Value) -> Result<Cid> {
    let Value::String(text) = value else {
        return Err(wrong_type(what, "a string", value));
    };
    let cid = Cid::new(text).map_err(|reason| Error::cpi(format!("{what}: {reason}")))?;
    summary::note(&cid);
    Ok(cid)
}
