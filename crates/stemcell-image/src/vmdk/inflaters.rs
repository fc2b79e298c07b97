//! Decompressing grains in threads of their own, a few ahead, while others are read and uploaded: each grain is
//! compressed by itself.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use flate2::{Decompress, FlushDecompress, Status};

/// More threads than this would wait for the upload.
const MOST_THREADS: usize = 4;
/// Bounds the grains that are ahead, bytes when decompressed.
const AHEAD_BYTES: usize = 2 * 1024 * 1024;

struct Job {
    compressed: Vec<u8>,
    /// As long as a grain.
    grain: Vec<u8>,
    done: SyncSender<Done>,
}

struct Done {
    compressed: Vec<u8>,
    grain: Vec<u8>,
    /// Bytes of the grain, when all went well.
    length: Option<u64>,
}

/// Grains on their way, which come out in the order they went in. Dropping it stops the threads.
pub(super) struct Inflaters {
    /// `None` when the threads are to end.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    on_their_way: VecDeque<Receiver<Done>>,
    grain_bytes: usize,
    most: usize,
    /// Buffers to use again.
    spare: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Inflaters {
    pub(super) fn new(grain_bytes: usize) -> io::Result<Self> {
        let (jobs, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let count = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(MOST_THREADS);
        let threads = (0..count)
            .map(|_| {
                let receiver = Arc::clone(&receiver);
                thread::Builder::new()
                    .name("inflate".into())
                    .spawn(move || work(&receiver))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            jobs: Some(jobs),
            threads,
            on_their_way: VecDeque::new(),
            grain_bytes,
            most: (AHEAD_BYTES / grain_bytes).max(2),
            spare: Vec::new(),
        })
    }

    /// Whether one more should be put in before the next one is taken out.
    pub(super) fn has_room(&self) -> bool {
        self.on_their_way.len() < self.most
    }

    /// Puts a compressed grain in; `fill` reads it into a buffer of `length` bytes.
    pub(super) fn put(
        &mut self,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut compressed, mut grain) = self.spare.pop().unwrap_or_default();
        compressed.resize(length, 0);
        grain.resize(self.grain_bytes, 0);
        fill(&mut compressed)?;
        let (done, receiver) = sync_channel(1);
        if let Some(jobs) = &self.jobs {
            // Where no thread is left, taking it out tells.
            let _ = jobs.send(Job {
                compressed,
                grain,
                done,
            });
        }
        self.on_their_way.push_back(receiver);
        Ok(())
    }

    /// Takes the oldest grain out, into `grain`; its length in bytes, none when it is damaged.
    pub(super) fn take(&mut self, grain: &mut Vec<u8>) -> Option<u64> {
        let done = self.on_their_way.pop_front()?.recv().ok()?;
        let before = std::mem::replace(grain, done.grain);
        self.spare.push((done.compressed, before));
        done.length
    }
}

impl Drop for Inflaters {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic in there was told by the grain that never came.
            let _ = thread.join();
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    let mut inflate = Decompress::new(true);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job {
            compressed,
            mut grain,
            done,
        }) = job
        else {
            return;
        };
        inflate.reset(true);
        let outcome = inflate.decompress(&compressed, &mut grain, FlushDecompress::Finish);
        let length = matches!(outcome, Ok(Status::StreamEnd)).then(|| inflate.total_out());
        // Nobody may be waiting any more.
        let _ = done.send(Done {
            compressed,
            grain,
            length,
        });
    }
}
