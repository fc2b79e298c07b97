//! All or nothing: what was done so far, and how to undo it if the rest fails.

use super::Connection;
use bosh_cpi::interrupt;
use bosh_cpi::rpc::Result;

type Step<'a> = (String, Box<dyn FnOnce(&Connection) -> Result<()> + 'a>);

/// Undoes its steps in reverse order when it is dropped, unless `disarm` was called.
pub struct Undo<'a> {
    libvirt: &'a Connection,
    steps: Vec<Step<'a>>,
}

impl<'a> Undo<'a> {
    pub fn new(libvirt: &'a Connection) -> Self {
        Self {
            libvirt,
            steps: Vec::new(),
        }
    }

    /// Notes how to undo what is about to be done: where the connection is lost, nobody knows whether it was. `what` is for
    /// the log and the error. The step gets a connection that lives.
    pub fn push(&mut self, what: impl Into<String>, step: impl FnOnce(&Connection) -> Result<()> + 'a) {
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
            match self.libvirt.for_undo().and_then(step) {
                Ok(()) => log::info!("rolled back: {what}"),
                Err(error) => {
                    log::warn!("rolling back ({what}) failed: {error}");
                    self.libvirt.note_orphan(what);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bosh_cpi::rpc::Error;
    use std::cell::RefCell;

    #[test]
    fn undoes_backwards_and_past_failures_unless_disarmed() {
        let libvirt = Connection::of_test_driver();
        let undone = RefCell::new(Vec::new());
        let step = |n| {
            undone.borrow_mut().push(n);
            if n == 2 { Err(Error::cloud("no")) } else { Ok(()) }
        };
        let mut undo = Undo::new(&libvirt);
        for n in [1, 2, 3] {
            undo.push(n.to_string(), move |_| step(n));
        }
        drop(undo);
        assert_eq!(*undone.borrow(), [3, 2, 1]);
        assert_eq!(libvirt.orphans(), ["2"]);

        let mut undo = Undo::new(&libvirt);
        undo.push("x", |_| step(4));
        undo.disarm();
        assert_eq!(undone.borrow().len(), 3);
    }
}
