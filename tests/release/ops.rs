//! The small bosh of these tests does with ops files and variables what the real one does.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::deployment::interpolate;

fn files(texts: &[&str]) -> (TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let paths = texts
        .iter()
        .enumerate()
        .map(|(i, text)| {
            let path = directory.path().join(format!("{i}.yml"));
            std::fs::write(&path, text).unwrap();
            path
        })
        .collect();
    (directory, paths)
}

fn apply(manifest: &str, operation: &str, variables: &str) -> Result<Value, String> {
    let (_directory, paths) = files(&[manifest, &format!("[{operation}]"), variables]);
    interpolate(&paths[0], &paths[1..2], &paths[2..])
}

#[test]
fn operations() {
    let manifest = "{key: 1, list: [1, 2], items: [{name: a}, {name: b, x: 1}]}";
    let with = |extra: Value| {
        let mut value = json!({"key": 1, "list": [1, 2], "items": [{"name": "a"}, {"name": "b", "x": 1}]});
        for (key, extra) in extra.as_object().unwrap() {
            value[key] = extra.clone();
        }
        value
    };
    for (operation, expected) in [
        ("{type: replace, path: /key, value: 2}", with(json!({"key": 2}))),
        ("{type: replace, path: /new?, value: 2}", with(json!({"new": 2}))),
        (
            "{type: replace, path: /a?/b/c, value: 2}",
            with(json!({"a": {"b": {"c": 2}}})),
        ),
        ("{type: replace, path: /a?/-, value: 2}", with(json!({"a": [2]}))),
        (
            "{type: replace, path: /list/-, value: 3}",
            with(json!({"list": [1, 2, 3]})),
        ),
        (
            "{type: replace, path: /list/0, value: 3}",
            with(json!({"list": [3, 2]})),
        ),
        ("{type: remove, path: /list/0}", with(json!({"list": [2]}))),
        (
            "{type: replace, path: /items/name=b/x, value: 2}",
            with(json!({"items": [{"name": "a"}, {"name": "b", "x": 2}]})),
        ),
        (
            "{type: replace, path: /items/name=c?/x, value: 2}",
            with(json!({"items": [{"name": "a"}, {"name": "b", "x": 1}, {"name": "c", "x": 2}]})),
        ),
        (
            "{type: replace, path: /items/name=c?, value: {name: d}}",
            with(json!({"items": [{"name": "a"}, {"name": "b", "x": 1}, {"name": "d"}]})),
        ),
        (
            "{type: remove, path: /items/name=b}",
            with(json!({"items": [{"name": "a"}]})),
        ),
        ("{type: remove, path: /gone?}", with(json!({}))),
        (
            "{type: replace, path: /key, value: ((v.w))}",
            with(json!({"key": [3]})),
        ),
        (
            "{type: replace, path: /key, value: a((n))b}",
            with(json!({"key": "a7b"})),
        ),
    ] {
        let result = apply(manifest, operation, "{v: {w: [3]}, n: 7}");
        assert_eq!(result, Ok(expected), "{operation}");
    }
    for (operation, says) in [
        ("{type: replace, path: /gone, value: 2}", "there is no gone"),
        ("{type: replace, path: /gone/b?, value: 2}", "there is no gone"),
        (
            "{type: replace, path: /items/name=c/x, value: 2}",
            "there is no c",
        ),
        ("{type: replace, path: /key/x?, value: 2}", "expected a Hash"),
        ("{type: replace, path: /list/name=a, value: 2}", "there is no a"),
        ("{type: remove, path: /gone}", "there is no gone"),
        ("{type: move, path: /key}", "no such type"),
        (
            "{type: replace, path: /key, value: ((gone))}",
            "Expected to find variables: gone",
        ),
        (
            "{type: replace, path: /key, value: a((v.x))}",
            "Expected to find variables: v.x",
        ),
    ] {
        let error = apply(manifest, operation, "{v: {w: [3]}, n: 7}").unwrap_err();
        assert!(error.contains(says), "{operation}: {error}");
    }
}
