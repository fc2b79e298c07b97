//! Many questions to libvirt: each is a way to the host and back, so several are asked at once.

use std::sync::mpsc::channel;
use std::thread;

use bosh_cpi::rpc::Result;

/// How many are asked at once. Libvirtd works on 5 requests of a connection at a time (`max_client_requests`).
const AT_ONCE: usize = 4;

/// As many questions are not worth a thread.
const SMALLEST_SHARE: usize = 16;

/// Asks about all items, in threads that take a share of them each, and returns what was found. Once one share has
/// failed, the others are not waited for: where a connection is given up with several calls on their way, libvirt's
/// client ends one of them and lets the others wait for answers that cannot come.
///
/// # Errors
/// The first of `ask`.
pub fn in_shares<T: Send + 'static, R: Send + 'static>(
    mut items: Vec<T>,
    ask: impl Fn(Vec<T>) -> Result<Vec<R>> + Clone + Send + 'static,
) -> Result<Vec<R>> {
    let share = items.len().div_ceil(AT_ONCE).max(SMALLEST_SHARE);
    if items.len() <= share {
        return ask(items);
    }
    let (sender, found) = channel();
    let mut shares = 0;
    while !items.is_empty() {
        let part = items.split_off(items.len().saturating_sub(share));
        let (sender, ask) = (sender.clone(), ask.clone());
        shares += 1;
        thread::spawn(move || {
            // Nobody listens any more where another share has failed.
            let _ = sender.send(ask(part));
        });
    }
    drop(sender);
    let outcomes = found.into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(outcomes.len(), shares, "a thread that asked libvirt panicked");
    Ok(outcomes.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bosh_cpi::rpc::Error;

    #[test]
    fn every_item_is_asked_about_once_and_one_failure_is_told() {
        for count in [0, 1, 16, 17, 64, 65, 1000] {
            let mut found = in_shares((0..count).collect(), Ok).unwrap();
            found.sort_unstable();
            assert_eq!(found, (0..count).collect::<Vec<_>>());
        }
        let failing = |items: Vec<i32>| {
            if items.contains(&70) {
                return Err(Error::cloud("no"));
            }
            Ok(items)
        };
        assert_eq!(in_shares((0..100).collect(), failing).unwrap_err().message, "no");
    }
}
