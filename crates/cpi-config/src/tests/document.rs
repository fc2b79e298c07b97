//! docs/CONFIG.md says what the table says.

use super::super::schema::{KEYS, Key, Kind};
use super::valid;

const DOCUMENT: &str = include_str!("../../../../docs/CONFIG.md");

fn row(key: &Key) -> String {
    format!(
        "| `{}` | {} | `{}` | {} |",
        key.path,
        key.kind.expectation(),
        key.default,
        key.description
    )
}

#[test]
fn the_document_has_exactly_the_keys_of_the_table() {
    let documented: Vec<&str> = DOCUMENT
        .lines()
        .skip_while(|line| *line != "## Keys")
        .take_while(|line| *line != "## Templates")
        .filter(|line| line.starts_with("| `"))
        .collect();
    let table: Vec<String> = KEYS.iter().map(row).collect();
    assert_eq!(
        documented,
        table,
        "docs/CONFIG.md should have these rows:\n{}",
        table.join("\n")
    );
}

#[test]
fn the_document_has_every_placeholder() {
    for key in KEYS {
        if let Kind::Template(placeholders) = key.kind {
            let names: Vec<String> = placeholders
                .iter()
                .map(|name| format!("`{{{{.{name}}}}}`"))
                .collect();
            let row = format!("| `{}` | {} |", key.path, names.join(" "));
            assert!(
                DOCUMENT.contains(&row),
                "docs/CONFIG.md should have this row: {row}"
            );
        }
    }
}

#[test]
fn the_examples_of_the_document_are_valid() {
    let examples: Vec<&str> = DOCUMENT
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 3);
    for example in examples {
        valid(serde_json::from_str(example).unwrap());
    }
}
