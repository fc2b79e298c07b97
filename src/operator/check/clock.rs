//! The host's clock against ours, read from the time at which a volume was made.

use std::time::Duration;

use super::Finding;
use crate::operator::probe::Probe;
use bosh_cpi::measures::span;

/// Certificates and tokens stand a few seconds, and file systems count in ticks.
const MOST: Duration = Duration::from_secs(5);

pub fn clocks(probes: &[Probe]) -> Finding {
    let what = "clock";
    for probe in probes {
        let (ahead, difference) = match probe.clock_difference() {
            Ok(Some(difference)) => difference,
            Ok(None) => continue,
            Err(error) => return Finding::failed(what, "", &error),
        };
        if difference <= MOST {
            return Finding::ok(what, "the host's is that of this machine, to a few seconds");
        }
        let side = if ahead { "ahead of" } else { "behind" };
        return Finding::wrong(
            what,
            format!(
                "the host's is {} {side} this machine's: certificates seem invalid, and agents with their NATS too",
                span(difference)
            ),
        )
        .cured_by("on both: timedatectl set-ntp true; timedatectl timesync-status");
    }
    Finding::warning(
        what,
        "no pool that tells the time can be written to, so the host's is not known",
    )
}
