//! One line of JSON about each call, for those who make metrics of the log: docs/OPERATING.md.

use std::cell::RefCell;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{Error, Result};
use crate::cid::Cid;

/// Of one call. The order of the fields is that of the line.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    /// None where the request was none.
    method: Option<&'a str>,
    /// `ok` or `error`.
    outcome: &'static str,
    duration_ms: u64,
    /// As the Director knows it, with `Bosh::Clouds::` in front.
    error_type: Option<&'static str>,
    ok_to_retry: Option<bool>,
    request_id: &'a str,
    /// Those of the arguments, then those of the result.
    cids: Vec<String>,
}

thread_local! {
    static CIDS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes a cid that this call is about.
pub(super) fn note(cid: &Cid) {
    CIDS.with_borrow_mut(|cids| cids.push(cid.to_string()));
}

/// The line about this call. It says nothing of the arguments but their cids, and nothing of an error but its type.
pub fn line(method: Option<&str>, request_id: &str, duration: Duration, outcome: &Result<Value>) -> String {
    let mut cids = CIDS.take();
    let error = outcome.as_ref().err();
    if let (Some(method), Ok(result)) = (method, outcome) {
        cids.extend(cids_in(method, result));
    }
    let summary = Summary {
        method,
        outcome: if error.is_none() { "ok" } else { "error" },
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        error_type: error.map(|error: &Error| error.error_type.name()),
        ok_to_retry: error.map(|error| error.ok_to_retry),
        request_id,
        cids,
    };
    serde_json::to_string(&summary).unwrap_or_default()
}

/// The cids that a result consists of, or begins with.
fn cids_in(method: &str, result: &Value) -> Vec<String> {
    let found = match (method, result) {
        (
            "create_disk" | "create_stemcell" | "create_vm" | "snapshot_disk" | "update_disk",
            Value::String(_),
        ) => std::slice::from_ref(result),
        ("create_vm" | "create_network", Value::Array(parts)) => parts.get(..1).unwrap_or_default(),
        ("get_disks", Value::Array(disks)) => disks,
        _ => &[],
    };
    found
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{Arguments, ErrorType};
    use serde_json::json;

    const VM: &str = "vm-00000000-0000-4000-8000-000000000000";
    const DISK: &str = "disk0123456789abcdef";

    fn summary(method: &str, outcome: &Result<Value>) -> Value {
        let line = line(Some(method), "cpi-1", Duration::from_millis(1234), outcome);
        assert_eq!(line.lines().count(), 1);
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_call_is_one_line_with_the_cids_of_arguments_and_result() {
        let mut arguments = Arguments::new(vec![
            json!("s3cret"),
            json!(VM),
            json!([DISK]),
            json!({"password": "s3cret"}),
        ]);
        arguments.string("agent_id").unwrap();
        arguments.cid("vm_cid").unwrap();
        arguments.optional_cids("disk_cids").unwrap();
        arguments.optional_object("env").unwrap();
        let result = Ok(json!([VM, {"net": {"ip": "10.0.0.5"}}]));
        assert_eq!(
            summary("create_vm", &result).to_string(),
            format!(
                r#"{{"method":"create_vm","outcome":"ok","duration_ms":1234,"error_type":null,"ok_to_retry":null,"request_id":"cpi-1","cids":["{VM}","{DISK}","{VM}"]}}"#
            )
        );
        // Of one call only.
        let error = Error::new(ErrorType::NoDiskSpace, "s3cret").retryable();
        assert_eq!(
            summary("create_disk", &Err(error)),
            json!({"method": "create_disk", "outcome": "error", "duration_ms": 1234,
                "error_type": "Bosh::Clouds::NoDiskSpace", "ok_to_retry": true, "request_id": "cpi-1", "cids": []})
        );
    }

    #[test]
    fn results_that_are_no_cids_are_none() {
        for (method, result, cids) in [
            ("create_stemcell", json!("sc-1"), json!(["sc-1"])),
            ("create_vm", json!(VM), json!([VM])),
            ("create_network", json!(["net-1", {}, {}]), json!(["net-1"])),
            ("get_disks", json!([DISK]), json!([DISK])),
            ("update_disk", json!(null), json!([])),
            ("attach_disk", json!("/dev/disk/by-id/x"), json!([])),
            ("create_vm", json!([]), json!([])),
            ("has_vm", json!(true), json!([])),
        ] {
            assert_eq!(summary(method, &Ok(result))["cids"], cids, "{method}");
        }
        let unread = line(None, "-", Duration::ZERO, &Err(Error::cpi("x")));
        assert!(
            unread.starts_with(r#"{"method":null,"outcome":"error""#),
            "{unread}"
        );
    }
}
