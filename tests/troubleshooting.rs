//! docs/TROUBLESHOOTING.md explains every error message in the source, and no other.

use std::fs;
use std::path::{Path, PathBuf};

const CONSTRUCTORS: [&str; 5] = [
    // What disk images are found to be, which becomes a CloudError.
    "damaged(",
    "Error::cloud(",
    "Error::cpi(",
    "Error::not_supported(",
    "Error::new(",
];

/// What libvirt, QEMU and the Director say themselves.
const OF_OTHERS: [&str; 6] = [
    "Failed to connect socket to '...'",
    "Could not access KVM kernel module: Permission denied",
    "Cannot access storage file ... Permission denied",
    "Could not open ... Permission denied",
    "cannot unlink file ...: Permission denied",
    "Timed out pinging to ... after 600 seconds",
];

/// A message of placeholders only says what others said.
const SHORTEST_TEXT: usize = 8;

#[test]
fn every_error_message_is_explained() {
    let phrases = phrases();
    let messages: Vec<(String, String)> = sources()
        .iter()
        .flat_map(|(file, source)| {
            messages_in(source)
                .into_iter()
                .map(|message| (file.clone(), message))
        })
        .filter(|(_, message)| text_of(message).len() >= SHORTEST_TEXT)
        .collect();
    assert!(
        messages.len() > 100,
        "only {} messages found: has the way of making errors changed?",
        messages.len()
    );
    let missing: Vec<String> = messages
        .iter()
        .filter(|(_, message)| !phrases.iter().any(|phrase| occurs(phrase, message)))
        .map(|(file, message)| format!("{file}: {message}"))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/TROUBLESHOOTING.md lacks:\n{}",
        missing.join("\n")
    );
}

#[test]
fn no_message_is_explained_that_there_is_not() {
    let sources = sources();
    let stale: Vec<String> = phrases()
        .into_iter()
        .filter(|phrase| !OF_OTHERS.contains(&phrase.as_str()))
        .filter(|phrase| !sources.iter().any(|(_, source)| occurs(phrase, source)))
        .collect();
    assert!(
        stale.is_empty(),
        "docs/TROUBLESHOOTING.md explains what no error says:\n{}",
        stale.join("\n")
    );
}

/// What is quoted in the first column of the tables of messages.
fn phrases() -> Vec<String> {
    let guide = fs::read_to_string(root().join("docs/TROUBLESHOOTING.md")).unwrap();
    let tables = guide
        .split("\n\n")
        .filter(|block| block.starts_with("| message |"));
    tables
        .flat_map(|table| table.lines().skip(2))
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// Whether the pieces of a phrase between `...` occur one after the other, on about one line.
fn occurs(phrase: &str, text: &str) -> bool {
    const NEAR: usize = 200;
    let mut pieces = phrase
        .split("...")
        .map(str::trim)
        .filter(|piece| !piece.is_empty());
    let Some(first) = pieces.next() else {
        return false;
    };
    let rest: Vec<&str> = pieces.collect();
    text.match_indices(first).any(|(start, _)| {
        let mut place = start + first.len();
        rest.iter().all(|piece| match text[place..].find(piece) {
            Some(distance) if distance <= NEAR => {
                place += distance + piece.len();
                true
            }
            _ => false,
        })
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Name and text of each source file, without its tests, and with its long literals on one line.
fn sources() -> Vec<(String, String)> {
    ["src", "crates"]
        .iter()
        .flat_map(|directory| rust_files(&root().join(directory)))
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            let mut parts = text.split("\\\n");
            let first = parts.next().unwrap_or_default().to_owned();
            let text = parts.fold(first, |text, part| text + part.trim_start());
            (file.strip_prefix(root()).unwrap().display().to_string(), text)
        })
        .collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files
}

/// The literals that errors are made of: `Error::cloud("..."`, `Error::new(ErrorType::X, format!("..."` and the like.
fn messages_in(source: &str) -> Vec<String> {
    CONSTRUCTORS
        .iter()
        .flat_map(|constructor| source.split(constructor).skip(1))
        .filter_map(|rest| {
            let mut rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix("ErrorType::") {
                rest = after.split_once(',')?.1.trim_start();
            }
            if let Some(after) = rest.strip_prefix("format!(") {
                rest = after.trim_start();
            }
            literal(rest.strip_prefix('"')?)
        })
        .collect()
}

/// What follows an opening quote, up to the closing one.
fn literal(rest: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = rest.chars();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\\' => text.push(rest.next()?),
            other => text.push(other),
        }
    }
}

/// A message without its placeholders.
fn text_of(message: &str) -> String {
    message.split(['{', '}']).step_by(2).collect()
}
