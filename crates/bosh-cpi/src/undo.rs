//! All or nothing: what was done so far, and how to undo it if the rest fails.

use crate::interrupt;
use crate::rpc::Result;

type Step<'a> = (String, Box<dyn FnOnce() -> Result<()> + 'a>);

/// Undoes its steps in reverse order when it is dropped, unless `disarm` was called.
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<Step<'a>>,
}

impl<'a> Undo<'a> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers how to undo what has just been done; `what` is for the log.
    pub fn push(&mut self, what: impl Into<String>, step: impl FnOnce() -> Result<()> + 'a) {
        self.steps.push((what.into(), Box::new(step)));
    }

    /// Everything went well: nothing is undone.
    pub fn disarm(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.steps.is_empty() {
            return;
        }
        let _rolling_back = interrupt::rolling_back();
        // One failed step must not keep the others from being undone; the first error is the caller's to tell.
        for (what, step) in self.steps.drain(..).rev() {
            match step() {
                Ok(()) => log::info!("rolled back: {what}"),
                Err(error) => log::warn!("rolling back ({what}) failed, something may be left over: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Error;
    use std::cell::RefCell;

    #[test]
    fn undoes_backwards_and_past_failures_unless_disarmed() {
        let undone = RefCell::new(Vec::new());
        let step = |n| {
            undone.borrow_mut().push(n);
            if n == 2 { Err(Error::cloud("no")) } else { Ok(()) }
        };
        let mut undo = Undo::new();
        for n in [1, 2, 3] {
            undo.push(n.to_string(), move || step(n));
        }
        drop(undo);
        assert_eq!(*undone.borrow(), [3, 2, 1]);

        let mut undo = Undo::new();
        undo.push("x", || step(4));
        undo.disarm();
        assert_eq!(undone.borrow().len(), 3);
    }
}
