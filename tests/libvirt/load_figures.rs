//! How long the calls of each method took.

use std::fmt::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Milliseconds of every call, by method, in the order in which the methods were first called.
#[derive(Default)]
pub struct Figures(Mutex<Vec<(String, Vec<u128>)>>);

impl Figures {
    /// Makes the call and notes what it took.
    pub fn time<T>(&self, method: &str, call: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let outcome = call();
        self.note(method, started.elapsed());
        outcome
    }

    fn note(&self, method: &str, took: Duration) {
        let mut methods = self.0.lock().unwrap();
        match methods.iter_mut().find(|(name, _)| name == method) {
            Some((_, all)) => all.push(took.as_millis()),
            None => methods.push((method.to_owned(), vec![took.as_millis()])),
        }
    }

    pub fn methods(&self) -> Vec<String> {
        let methods = self.0.lock().unwrap();
        methods.iter().map(|(name, _)| name.clone()).collect()
    }

    /// As many of 100 calls of the method took this long at most; 50 is the median.
    pub fn percentile(&self, method: &str, percent: usize) -> u128 {
        let methods = self.0.lock().unwrap();
        let mut all = methods
            .iter()
            .find(|(name, _)| name == method)
            .unwrap_or_else(|| panic!("no call of {method}"))
            .1
            .clone();
        all.sort_unstable();
        all[(all.len() * percent).div_ceil(100) - 1]
    }

    /// One row per method.
    pub fn table(&self) -> String {
        let mut table = "| method | calls | p50, ms | p95 | max |\n|---|---|---|---|---|\n".to_owned();
        for method in self.methods() {
            let calls = self
                .0
                .lock()
                .unwrap()
                .iter()
                .find(|(name, _)| *name == method)
                .map(|(_, all)| all.len());
            let [p50, p95, max] = [50, 95, 100].map(|percent| self.percentile(&method, percent));
            writeln!(
                table,
                "| `{method}` | {} | {p50} | {p95} | {max} |",
                calls.unwrap_or(0)
            )
            .unwrap();
        }
        table
    }
}

#[test]
fn percentiles_are_of_calls_that_were_made() {
    let figures = Figures::default();
    for milliseconds in (1..=20).rev() {
        figures.note("m", Duration::from_millis(milliseconds));
    }
    assert_eq!(
        [50, 95, 100].map(|percent| figures.percentile("m", percent)),
        [10, 19, 20]
    );
    assert!(figures.table().ends_with("| `m` | 20 | 10 | 19 | 20 |\n"));
}
