//! What a process on this machine holds: descriptors, threads, memory; and what files there are. And whether it grows.

use std::fs;
use std::path::{Path, PathBuf};

/// What one process holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    pub descriptors: usize,
    pub threads: usize,
    /// KiB of heap and stacks: what it has in common with others depends on how many others there are.
    pub memory: u64,
}

impl Footprint {
    #[track_caller]
    pub fn of(pid: u32) -> Self {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/{pid}/{name}"))
                .unwrap_or_else(|e| panic!("/proc/{pid}/{name}: {e}"))
        };
        Self {
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            threads: fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(),
            memory: field(&read("smaps_rollup"), "Anonymous:"),
        }
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// How much the values grow from one to the next, on the straight line that fits them best.
pub fn growth(values: &[u64]) -> f64 {
    let number = |value: u64| f64::from(u32::try_from(value).unwrap());
    let count = number(values.len() as u64);
    let mean_value = values.iter().map(|value| number(*value)).sum::<f64>() / count;
    let mean_position = (count - 1.0) / 2.0;
    let (mut products, mut squares) = (0.0, 0.0);
    for (position, value) in values.iter().enumerate() {
        let from_middle = number(position as u64) - mean_position;
        products += from_middle * (number(*value) - mean_value);
        squares += from_middle * from_middle;
    }
    if squares > 0.0 { products / squares } else { 0.0 }
}

/// All files and directories below this one, in order. Others' may come and go meanwhile.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            files.extend(files_below(&path));
        }
        files.push(path);
    }
    files.sort();
    files
}

#[test]
fn growth_is_told_from_going_up_and_down() {
    let near = |values: &[u64], expected: f64| (growth(values) - expected).abs() < 1e-9;
    assert!(near(&[7], 0.0));
    assert!(near(&[5, 5, 5, 5], 0.0));
    assert!(near(&[10, 13, 16, 19], 3.0));
    assert!(near(&[1, 9, 9, 1], 0.0));
}
