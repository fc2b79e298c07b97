//! Bad input by the thousand, in everything that takes bytes from outside: the functions of `make fuzz`, which does the
//! same by the million, and by looking at what the code does with them. Here proptest spoils the same seeds, in
//! ways that `PROPTEST_RNG_SEED` chooses, and makes what fails as small as it can.

#[path = "../fuzz/src/inputs/mod.rs"]
mod inputs;

use std::time::{Duration, Instant};

use inputs::{TARGETS, Target};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

/// For each target; more of them take the same time each.
const CASES: u32 = 1000;

/// Longer is a hang, on however slow a machine.
const LIMIT: Duration = Duration::from_secs(20);

/// What numbers in headers are when they are meant ill.
const NUMBERS: [u64; 9] = [
    0,
    1,
    511,
    0x7fff_ffff,
    0x8000_0000,
    u32::MAX as u64,
    1 << 50,
    i64::MAX as u64,
    u64::MAX,
];

/// What texts are made of when they are.
const WORDS: [&str; 14] = [
    "{{",
    "}}",
    "{{.Name}}",
    "]]>",
    "<![CDATA[",
    "&#0;",
    "&lt;",
    "'\"><x/>",
    "\\u0000",
    "\u{202e}",
    "[[[[",
    "{\"a\":",
    "null",
    "-1e999",
];

#[derive(Debug, Clone)]
enum Spoil {
    Flip(Index, u8),
    Set(Index, u8),
    Number {
        at: Index,
        which: Index,
        bytes: usize,
        little: bool,
    },
    Word(Index, Index),
    Cut(Index),
    Remove(Index, usize),
    Repeat(Index, usize),
    Splice {
        at: Index,
        other: Index,
        from: Index,
    },
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let place = any::<Index>;
    prop_oneof![
        (place(), 0..8u8).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        (place(), any::<u8>()).prop_map(|(at, byte)| Spoil::Set(at, byte)),
        (
            place(),
            place(),
            prop_oneof![Just(2), Just(4), Just(8)],
            any::<bool>()
        )
            .prop_map(|(at, which, bytes, little)| Spoil::Number {
                at,
                which,
                bytes,
                little
            }),
        (place(), place()).prop_map(|(at, word)| Spoil::Word(at, word)),
        place().prop_map(Spoil::Cut),
        (place(), 1..600usize).prop_map(|(at, length)| Spoil::Remove(at, length)),
        (place(), 1..600usize).prop_map(|(at, length)| Spoil::Repeat(at, length)),
        (place(), place(), place()).prop_map(|(at, other, from)| Spoil::Splice { at, other, from }),
    ]
}

impl Spoil {
    fn apply(&self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let length = input.len();
        let place = |at: &Index| at.index(length + 1);
        match self {
            _ if length == 0 => {}
            Self::Flip(at, bit) => input[at.index(length)] ^= 1 << bit,
            Self::Set(at, byte) => input[at.index(length)] = *byte,
            Self::Number {
                at,
                which,
                bytes,
                little,
            } => {
                let number = NUMBERS[which.index(NUMBERS.len())];
                let number = if *little {
                    number.to_le_bytes()
                } else {
                    number.rotate_left(64 - 8 * *bytes as u32).to_be_bytes()
                };
                let at = at.index(length);
                let bytes = (*bytes).min(length - at);
                input[at..at + bytes].copy_from_slice(&number[..bytes]);
            }
            Self::Word(at, word) => {
                let at = place(at);
                input.splice(at..at, WORDS[word.index(WORDS.len())].bytes());
            }
            Self::Cut(at) => input.truncate(place(at)),
            Self::Remove(at, count) => {
                let at = at.index(length);
                input.drain(at..length.min(at + count));
            }
            Self::Repeat(at, count) => {
                let at = at.index(length);
                let part = input[at..length.min(at + count)].to_vec();
                input.splice(at..at, part);
            }
            Self::Splice { at, other, from } => {
                let other = &seeds[other.index(seeds.len())];
                input.truncate(place(at));
                input.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
}

/// Every seed is a good input, and none that was spoilt is handled wrongly or takes long.
fn holds(name: &str) {
    let target: &Target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target");
    let seeds = (target.seeds)();
    for (number, seed) in seeds.iter().enumerate() {
        assert!((target.run)(seed), "seed {number} is no good input");
    }
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let spoilt = (any::<Index>(), prop::collection::vec(spoil(), 1..6));
    let outcome = TestRunner::new(config).run(&spoilt, |(seed, spoils)| {
        let mut input = seeds[seed.index(seeds.len())].clone();
        for spoil in &spoils {
            spoil.apply(&mut input, &seeds);
        }
        let started = Instant::now();
        (target.run)(&input);
        prop_assert!(started.elapsed() < LIMIT, "it took {:?}", started.elapsed());
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
}

#[test]
fn requests() {
    holds("request");
}

#[test]
fn configurations_and_contexts_over_them() {
    holds("config");
    holds("overlay");
}

#[test]
fn templates_and_the_values_in_them() {
    holds("template");
}

#[test]
fn archives_of_stemcells() {
    holds("stemcell");
}

#[test]
fn disk_images() {
    holds("qcow2");
    holds("vmdk");
    holds("vhd");
    holds("firmware");
}

#[test]
fn xml_of_libvirts() {
    holds("xml");
}
