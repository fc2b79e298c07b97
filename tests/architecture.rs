//! docs/ARCHITECTURE.md draws what the code is: crates and rooms that use only what is below them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of the table's rows under this heading, from the top.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let document = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let (_, section) = document.split_once(&format!("\n## {heading}\n")).expect(heading);
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

/// The names in backquotes.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn crates_use_what_the_document_says() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    let real: BTreeMap<String, BTreeSet<String>> = packages
        .iter()
        .map(|package| {
            let uses = package["dependencies"].as_array().unwrap();
            let uses = uses.iter().map(|used| used["name"].as_str().unwrap());
            let uses = uses.filter(|used| ours.contains(used)).map(str::to_owned);
            (package["name"].as_str().unwrap().to_owned(), uses.collect())
        })
        .collect();
    let drawn: Vec<(String, BTreeSet<String>)> = rows("Crates")
        .iter()
        .map(|row| (names(&row[0]).pop_first().unwrap(), names(&row[1])))
        .collect();
    for (place, (name, uses)) in drawn.iter().enumerate() {
        let below: BTreeSet<String> = drawn[place + 1..].iter().map(|(name, _)| name.clone()).collect();
        assert!(
            uses.is_subset(&below),
            "{name} uses {uses:?}, and below it are {below:?}"
        );
    }
    assert_eq!(drawn.into_iter().collect::<BTreeMap<_, _>>(), real);
    // A crate that is missing there writes no log.
    let logged: BTreeSet<String> = bosh_cpi::logging::CRATES
        .iter()
        .map(|name| name.replace('_', "-"))
        .collect();
    assert_eq!(logged, ours.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn rooms_use_only_rooms_below_them() {
    let rooms: Vec<String> = rows("Rooms of `src/`")
        .iter()
        .map(|row| names(&row[0]).pop_first().unwrap())
        .collect();
    let mut seen = BTreeSet::new();
    for file in files(&root().join("src")) {
        let within = file.strip_prefix(root().join("src")).unwrap();
        let first = within.iter().next().unwrap().to_str().unwrap();
        let room = first.strip_suffix(".rs").unwrap_or(first);
        if ["lib", "main"].contains(&room) {
            continue;
        }
        let place = rooms.iter().position(|name| name == room);
        let place = place.unwrap_or_else(|| panic!("{room} is not in docs/ARCHITECTURE.md"));
        seen.insert(room.to_owned());
        let text = fs::read_to_string(&file).unwrap();
        // Tests may look anywhere.
        let text = text.split("#[cfg(test)]").next().unwrap();
        for used in text.split("crate::").skip(1) {
            let used: String = used
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if let Some(other) = rooms.iter().position(|name| *name == used) {
                assert!(
                    other >= place,
                    "{} uses {used}, which is above {room}",
                    within.display()
                );
            }
        }
    }
    assert_eq!(seen, rooms.into_iter().collect());
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_some_and(|name| name != "tests.rs")
        {
            found.push(path);
        }
    }
    found
}
