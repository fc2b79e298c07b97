//! What the fuzz targets have around the inputs: a bound on memory, and where a corpus starts.

pub mod inputs;

use std::alloc::System;
use std::path::Path;

use cap::Cap;

/// Bytes that all of a target's inputs may have allocated at once. The largest thing that is kept of an image are the
/// tables of a VMDK, 16 MiB, and the next larger a read-ahead of 2 MiB. More is an abort, and so a finding.
const MOST_MEMORY: usize = 64 * 1024 * 1024;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MOST_MEMORY);

/// Runs the target of this name.
pub fn run(name: &str, input: &[u8]) {
    if let Some(target) = inputs::TARGETS.iter().find(|target| target.name == name) {
        (target.run)(input);
    }
}

/// Writes the target's seeds into the directories that the command line names, of which the first is its corpus.
pub fn plant(name: &str) {
    let target = inputs::TARGETS.iter().find(|target| target.name == name);
    let seeds = target.map_or_else(Vec::new, |target| (target.seeds)());
    // libFuzzer runs itself anew with all directories for some of its work; seeds that are there already do no harm.
    if let Some(corpus) = std::env::args()
        .skip(1)
        .find(|argument| Path::new(argument).is_dir())
    {
        for (number, seed) in seeds.iter().enumerate() {
            let file = Path::new(&corpus).join(format!("seed-{number}"));
            std::fs::write(&file, seed).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        }
    }
}
