//! A reader that works ahead in a thread of its own, so that decompressing and uploading overlap.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use bosh_cpi::interrupt;

const BUFFERS: usize = 8;
const BUFFER_BYTES: usize = 256 * 1024;

/// Reads `source` in a thread, at most 2 MiB ahead. What goes wrong there, a panic included, is the error of
/// the next `read`, and of every one after it. Dropping it stops the thread and waits for it.
pub struct Pipeline {
    /// `None` once the thread has nothing more to say.
    link: Option<Link>,
    thread: Option<JoinHandle<()>>,
    buffer: Vec<u8>,
    position: usize,
    failure: Option<(io::ErrorKind, String)>,
}

struct Link {
    /// Buffers with data; an empty one is the end.
    full: Receiver<io::Result<Vec<u8>>>,
    /// Buffers to use again.
    spare: Sender<Vec<u8>>,
}

impl Pipeline {
    pub fn new(source: impl Read + Send + 'static) -> io::Result<Self> {
        let (full_sender, full) = sync_channel(BUFFERS);
        let (spare, spare_receiver) = channel();
        for _ in 0..BUFFERS {
            // Cannot fail: the receiver is in this function.
            let _ = spare.send(Vec::with_capacity(BUFFER_BYTES));
        }
        let thread = thread::Builder::new()
            .name("read-ahead".into())
            .spawn(move || read_ahead(source, &spare_receiver, &full_sender))?;
        Ok(Self {
            link: Some(Link { full, spare }),
            thread: Some(thread),
            buffer: Vec::new(),
            position: 0,
            failure: None,
        })
    }

    /// Waits for the next buffer; leaves an empty one at the end of the source.
    fn refill(&mut self) -> io::Result<()> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        // The thread may have left already, with everything it had to say still in the channel.
        let _ = link.spare.send(std::mem::take(&mut self.buffer));
        self.position = 0;
        let outcome = match interrupt::receive(&link.full, None) {
            Ok(outcome) => outcome,
            Err(error) => {
                // The thread may hang in a read for ever; it ends with the process.
                self.link = None;
                self.thread = None;
                self.failure = Some((io::ErrorKind::Other, error.message));
                return Ok(());
            }
        };
        let failure = match outcome {
            Ok(Ok(buffer)) if !buffer.is_empty() => {
                self.buffer = buffer;
                return Ok(());
            }
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some((error.kind(), error.to_string())),
            Err(_) => Some((io::ErrorKind::Other, "the reading thread ended early".to_string())),
        };
        let panicked = self.stop();
        self.failure = panicked
            .map(|message| (io::ErrorKind::Other, message))
            .or(failure);
        Ok(())
    }

    /// Ends the thread; what it panicked with, if it did.
    fn stop(&mut self) -> Option<String> {
        self.link = None;
        let panic = self.thread.take()?.join().err()?;
        let text = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Some(format!(
            "the reading thread panicked: {}",
            text.unwrap_or_default()
        ))
    }
}

fn read_ahead(mut source: impl Read, spare: &Receiver<Vec<u8>>, full: &SyncSender<io::Result<Vec<u8>>>) {
    while let Ok(mut buffer) = spare.recv() {
        buffer.resize(BUFFER_BYTES, 0);
        let filled = fill(&mut source, &mut buffer);
        let last = !matches!(filled, Ok(length) if length > 0);
        let message = filled.map(|length| {
            buffer.truncate(length);
            buffer
        });
        if full.send(message).is_err() || last {
            return;
        }
    }
}

/// Fills the buffer as far as the source goes. An error ends everything, so bytes just before it don't matter.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match source.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

impl Read for Pipeline {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.position == self.buffer.len() {
            self.refill()?;
        }
        if let Some((kind, message)) = &self.failure {
            return Err(io::Error::new(*kind, message.clone()));
        }
        let length = into.len().min(self.buffer.len() - self.position);
        into[..length].copy_from_slice(&self.buffer[self.position..][..length]);
        self.position += length;
        Ok(length)
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// Hands out `data` in pieces of `step`, then does `after`.
    struct Source<F> {
        data: Vec<u8>,
        position: usize,
        step: usize,
        after: F,
    }

    impl<F: FnMut() -> io::Result<usize>> Read for Source<F> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let left = &self.data[self.position..];
            if left.is_empty() {
                return (self.after)();
            }
            let length = left.len().min(self.step).min(into.len());
            into[..length].copy_from_slice(&left[..length]);
            self.position += length;
            Ok(length)
        }
    }

    fn pipeline(
        length: usize,
        step: usize,
        after: impl FnMut() -> io::Result<usize> + Send + 'static,
    ) -> Pipeline {
        let data = (0..length).map(|i| (i % 251) as u8).collect();
        Pipeline::new(Source {
            data,
            position: 0,
            step,
            after,
        })
        .unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn hands_on_every_byte(length in 0..3 * BUFFER_BYTES * BUFFERS / 2, step in 1000..400_000usize, take in 500..500_000usize) {
            let mut reader = pipeline(length, step, || Ok(0));
            let mut seen = Vec::new();
            let mut buffer = vec![0; take];
            loop {
                match reader.read(&mut buffer).unwrap() {
                    0 => break,
                    read => seen.extend_from_slice(&buffer[..read]),
                }
            }
            prop_assert_eq!(seen.len(), length);
            prop_assert!(seen.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8));
            prop_assert_eq!(reader.read(&mut buffer).unwrap(), 0);
        }
    }

    #[test]
    fn an_error_stays_an_error() {
        let mut reader = pipeline(10, 10, || {
            Err(io::Error::new(io::ErrorKind::InvalidData, "bad block"))
        });
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (io::ErrorKind::InvalidData, "bad block".into())
        );
        assert_eq!(reader.read(&mut [0]).unwrap_err().to_string(), "bad block");
    }

    #[test]
    fn a_panic_is_an_error() {
        let mut reader = pipeline(10, 10, || panic!("out of cheese"));
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "the reading thread panicked: out of cheese");
    }

    #[test]
    fn stops_soon_when_dropped_and_never_runs_far_ahead() {
        let reads = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&reads);
        let endless = pipeline(0, 1, move || {
            counter.fetch_add(1, SeqCst);
            Ok(BUFFER_BYTES)
        });
        let mut endless = endless;
        endless.read_exact(&mut [0; 100]).unwrap();
        thread::sleep(std::time::Duration::from_millis(50));
        assert!(reads.load(SeqCst) <= BUFFERS + 1);
        drop(endless);
        let after_drop = reads.load(SeqCst);
        thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(reads.load(SeqCst), after_drop);
    }
}
