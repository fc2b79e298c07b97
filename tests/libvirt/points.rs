//! Which of a call's messages something happens at: `CPI_TEST_FAULTS` says `all`, or `13-24`, or how many of each method;
//! `CPI_TEST_FAULTS_OF` names one method, where a test tries several.

use std::ops::RangeInclusive;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Points {
    /// All that happens, at each message of these numbers.
    All(RangeInclusive<usize>),
    /// As many, chosen by the seed.
    Some(usize),
}

/// What is wanted; `sample` of each method if nothing is said.
pub fn wanted(sample: usize) -> Points {
    let Ok(which) = std::env::var("CPI_TEST_FAULTS") else {
        return Points::Some(sample);
    };
    let number = |text: &str| {
        text.parse()
            .unwrap_or_else(|_| panic!("CPI_TEST_FAULTS is `all`, a range or a number, not {which}"))
    };
    match (which.as_str(), which.split_once('-')) {
        ("all", _) => Points::All(1..=usize::MAX),
        (_, Some((first, last))) => Points::All(number(first)..=number(last)),
        _ => Points::Some(number(&which)),
    }
}

/// Of these messages, all that are wanted: None where it is to be a sample.
pub fn all_of(messages: usize) -> Option<RangeInclusive<usize>> {
    match wanted(0) {
        Points::All(range) => Some(*range.start()..=messages.min(*range.end())),
        Points::Some(_) => None,
    }
}

/// `CPI_TEST_FAULTS_KIND` names one of the faults.
pub fn is_kind_wanted(fault: &str) -> bool {
    std::env::var("CPI_TEST_FAULTS_KIND").map_or(true, |only| only == fault)
}

pub fn is_wanted(method: &str) -> bool {
    std::env::var("CPI_TEST_FAULTS_OF").map_or(true, |only| only == method)
}

/// What samples are chosen by: `CPI_TEST_SEED`, which `make` takes from the commit and prints; 0 if nothing is said.
pub fn seed() -> usize {
    let Ok(seed) = std::env::var("CPI_TEST_SEED") else {
        return 0;
    };
    // Samples add to it.
    let seed: u32 = seed
        .parse()
        .unwrap_or_else(|_| panic!("CPI_TEST_SEED is a number below 2^32, not {seed}"));
    usize::try_from(seed).unwrap()
}
